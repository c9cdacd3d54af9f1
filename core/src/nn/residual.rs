//! The end of a residual branch: `LayerScale` (Touvron et al. 2021), drop path and the addition, one operation.

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Operation, run, simd};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{DType, Result, Shape, Tensor, bail};

/// x (B, …, d) + factors (B) · gamma (d) · branch (B, …, d), in the type of x: the residual stream keeps it when products
/// run in a shorter one. Gamma is `LayerScale`'s, the factors are drop path's.
///
/// # Errors
/// When shapes disagree.
pub fn residual(x: &Tensor, branch: &Tensor, gamma: Option<&Tensor>, factors: Option<Vec<f32>>) -> Result<Tensor> {
    let op = Residual { factors };
    match gamma {
        _ if x.dtype() != DType::F32 => op.composed(x, branch, gamma),
        Some(gamma) => run(&op, [x, branch, gamma]),
        None => run(&op, [x, branch]),
    }
}

/// sum += factors · gamma · branch, on slices.
pub fn add_branch(sum: &mut [f32], branch: &[f32], gamma: Option<&[f32]>, factors: Option<&[f32]>) {
    let sample = sample(sum.len(), factors);
    for (index, (sum, branch)) in sum.chunks_exact_mut(sample).zip(branch.chunks_exact(sample)).enumerate() {
        let factor = factors.map_or(1.0, |factors| factors[index]);
        let width = gamma.map_or(sample, <[f32]>::len);
        simd!({
            for (sum, branch) in sum.chunks_exact_mut(width).zip(branch.chunks_exact(width)) {
                match gamma {
                    Some(gamma) => {
                        let values = sum.iter_mut().zip(branch).zip(gamma);
                        values.for_each(|((sum, value), gamma)| *sum += factor * (gamma * value));
                    }
                    None => sum.iter_mut().zip(branch).for_each(|(sum, value)| *sum += factor * value),
                }
            }
        });
    }
}

/// The gradient dy of the sum becomes that of the branch; returns that of gamma from the `branch`, where it is wanted.
pub fn branch_backward(
    dy: &mut [f32],
    branch: Option<&[f32]>,
    gamma: Option<&[f32]>,
    factors: Option<&[f32]>,
) -> Option<Vec<f32>> {
    if let Some(factors) = factors {
        let sample = sample(dy.len(), Some(factors));
        for (values, factor) in dy.chunks_exact_mut(sample).zip(factors) {
            values.iter_mut().for_each(|value| *value *= factor);
        }
    }
    let gamma = gamma?;
    let dgamma = branch.map(|branch| column_dots(dy, branch, gamma.len()));
    simd!({
        for row in dy.chunks_exact_mut(gamma.len()) {
            row.iter_mut().zip(gamma).for_each(|(value, gamma)| *value *= gamma);
        }
    });
    dgamma
}

/// Values that share a factor, at least 1.
fn sample(values: usize, factors: Option<&[f32]>) -> usize {
    (values / factors.map_or(1, <[f32]>::len).max(1)).max(1)
}

/// Σ a b over the rows, for each of `width` columns.
fn column_dots(a: &[f32], b: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0; width];
    simd!({
        for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
            sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
        }
    });
    sums
}

#[derive(Clone)]
pub(super) struct Residual {
    /// The factor of each sample, by drop path; none for 1.
    pub factors: Option<Vec<f32>>,
}

impl Residual {
    fn shape(&self, x: &Shape, branch: &Shape) -> Result<Shape> {
        let samples = self.factors.as_ref().map_or(1, Vec::len);
        if x != branch || samples == 0 || !x.elem_count().is_multiple_of(samples) {
            bail!("a branch of shape {branch:?} with {samples} factors is added to {x:?}");
        }
        Ok(x.clone())
    }

    fn forward(&self, x: &[f32], branch: &[f32], gamma: Option<&[f32]>, y: &mut [f32]) {
        y.copy_from_slice(x);
        add_branch(y, branch, gamma, self.factors.as_deref());
    }

    fn composed(&self, x: &Tensor, branch: &Tensor, gamma: Option<&Tensor>) -> Result<Tensor> {
        let branch = branch.to_dtype(x.dtype())?;
        let branch = match gamma {
            Some(gamma) => branch.broadcast_mul(gamma)?,
            None => branch,
        };
        let Some(factors) = &self.factors else { return x + branch };
        let mut shape = vec![1; x.rank()];
        shape[0] = factors.len();
        let factors = Tensor::from_slice(factors, shape, x.device())?.to_dtype(x.dtype())?;
        x + branch.broadcast_mul(&factors)?
    }
}

impl Operation<2> for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn shape(&self, [x, branch]: [&Shape; 2]) -> Result<Shape> {
        Self::shape(self, x, branch)
    }

    fn forward(&self, [x, branch]: [&[f32]; 2], y: &mut [f32]) -> Result<()> {
        Self::forward(self, x, branch, None, y);
        Ok(())
    }

    fn backward(
        &self,
        [_, branch]: [&[f32]; 2],
        _y: &[f32],
        dy: &[f32],
        [for_x, for_branch]: [bool; 2],
    ) -> Result<[Option<Vec<f32>>; 2]> {
        let of_branch = || {
            let mut dbranch = dy.to_vec();
            branch_backward(&mut dbranch, Some(branch), None, self.factors.as_deref());
            dbranch
        };
        Ok([for_x.then(|| dy.to_vec()), for_branch.then(of_branch)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [x, branch]: [cuda::Operand<'_>; 2]) -> Result<CudaStorage> {
        cuda::residual::forward(x, branch, None, self.factors.as_deref())
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, [x, branch]: [&Tensor; 2], _y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let dbranch = || cuda::residual::branch_gradient(branch, None, self.factors.as_deref(), dy);
        Ok([x.track_op().then(|| dy.clone()), branch.track_op().then(dbranch).transpose()?])
    }

    fn composed(&self, [x, branch]: [&Tensor; 2]) -> Result<Tensor> {
        Self::composed(self, x, branch, None)
    }

    fn small(&self) -> (Self, [Vec<usize>; 2]) {
        (Self { factors: None }, [vec![3, 30, 40], vec![3, 30, 40]])
    }
}

impl Operation<3> for Residual {
    fn name(&self) -> &'static str {
        "scaled residual"
    }

    fn shape(&self, [x, branch, gamma]: [&Shape; 3]) -> Result<Shape> {
        if x.dims().last() != Some(&gamma.elem_count()) {
            bail!("layer scale over {} features got an input of shape {x:?}", gamma.elem_count());
        }
        Self::shape(self, x, branch)
    }

    fn forward(&self, [x, branch, gamma]: [&[f32]; 3], y: &mut [f32]) -> Result<()> {
        Self::forward(self, x, branch, Some(gamma), y);
        Ok(())
    }

    fn backward(
        &self,
        [_, branch, gamma]: [&[f32]; 3],
        _y: &[f32],
        dy: &[f32],
        [for_x, ..]: [bool; 3],
    ) -> Result<[Option<Vec<f32>>; 3]> {
        let mut dbranch = dy.to_vec();
        let dgamma = branch_backward(&mut dbranch, Some(branch), Some(gamma), self.factors.as_deref());
        Ok([for_x.then(|| dy.to_vec()), Some(dbranch), dgamma])
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [x, branch, gamma]: [cuda::Operand<'_>; 3]) -> Result<CudaStorage> {
        cuda::residual::forward(x, branch, Some(gamma), self.factors.as_deref())
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, [x, branch, gamma]: [&Tensor; 3], _y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let factors = self.factors.as_deref();
        let dbranch = || cuda::residual::branch_gradient(branch, Some(gamma), factors, dy);
        let dgamma = cuda::residual::gamma_gradient(branch, gamma, factors, dy)?;
        Ok([x.track_op().then(|| dy.clone()), branch.track_op().then(dbranch).transpose()?, dgamma])
    }

    fn composed(&self, [x, branch, gamma]: [&Tensor; 3]) -> Result<Tensor> {
        Self::composed(self, x, branch, Some(gamma))
    }

    fn small(&self) -> (Self, [Vec<usize>; 3]) {
        (Self { factors: Some(vec![1.25, 0.0, 2.0]) }, [vec![3, 30, 40], vec![3, 30, 40], vec![40]])
    }
}
