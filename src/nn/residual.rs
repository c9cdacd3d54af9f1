//! The end of a residual branch: `LayerScale`, drop path and the addition, one kernel on a GPU.

use super::dropout::scale_samples;
use super::layer_scale::LayerScale;
#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Fusible, run};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

/// x (B, …, d) + factors (B) · scale · branch (B, …, d), in the type of x: the residual stream keeps it when products run
/// in a shorter one.
///
/// # Errors
/// When shapes disagree.
pub fn residual(x: &Tensor, branch: &Tensor, scale: Option<&LayerScale>, factors: Option<Vec<f32>>) -> Result<Tensor> {
    let op = Residual { factors };
    match scale.map(LayerScale::gamma) {
        _ if x.dtype() != DType::F32 => add(x, branch, scale, op.factors),
        Some(gamma) => run(&op, [x, branch, gamma]),
        None => run(&op, [x, branch]),
    }
}

/// By operations that each have a kernel of their own on the CPU.
fn add(x: &Tensor, branch: &Tensor, scale: Option<&LayerScale>, factors: Option<Vec<f32>>) -> Result<Tensor> {
    let branch = branch.to_dtype(x.dtype())?;
    let branch = match scale {
        Some(scale) => scale.forward(&branch)?,
        None => branch,
    };
    match factors {
        Some(factors) => x + scale_samples(&branch, factors)?,
        None => x + branch,
    }
}

#[derive(Clone)]
struct Residual {
    /// Of each sample, by drop path; none for 1.
    factors: Option<Vec<f32>>,
}

impl Fusible<2> for Residual {
    const ON_CPU: bool = false;

    fn kind(&self) -> &'static str {
        "residual"
    }

    fn kernel(&self, [x, branch]: [&Tensor; 2]) -> Result<Tensor> {
        x.contiguous()?.apply_op2(&branch.contiguous()?, self.clone())
    }

    fn composed(&self, [x, branch]: [&Tensor; 2]) -> Result<Tensor> {
        add(x, branch, None, self.factors.clone())
    }

    fn small(&self) -> (Self, [Vec<usize>; 2]) {
        (Self { factors: None }, [vec![3, 30, 40], vec![3, 30, 40]])
    }
}

impl Fusible<3> for Residual {
    const ON_CPU: bool = false;

    fn kind(&self) -> &'static str {
        "scaled residual"
    }

    fn kernel(&self, [x, branch, gamma]: [&Tensor; 3]) -> Result<Tensor> {
        x.contiguous()?.apply_op3(&branch.contiguous()?, gamma, self.clone())
    }

    fn composed(&self, [x, branch, gamma]: [&Tensor; 3]) -> Result<Tensor> {
        add(x, branch, Some(&LayerScale::new(gamma.clone())), self.factors.clone())
    }

    fn small(&self) -> (Self, [Vec<usize>; 3]) {
        (Self { factors: Some(vec![1.25, 0.0, 2.0]) }, [vec![3, 30, 40], vec![3, 30, 40], vec![40]])
    }
}

/// The CPU composes: [`Fusible::ON_CPU`] is false.
fn no_kernel() -> Result<(CpuStorage, Shape)> {
    bail!("a residual branch has a kernel on GPUs only")
}

impl CustomOp2 for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_kernel()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        let (x, branch) = (cuda::Operand::new(s1, l1), cuda::Operand::new(s2, l2));
        Ok((cuda::residual::forward(x, branch, None, self.factors.as_deref())?, l1.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn bwd(&self, x: &Tensor, branch: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dbranch = || cuda::residual::branch_gradient(branch, None, self.factors.as_deref(), dy);
        Ok((x.track_op().then(|| dy.clone()), branch.track_op().then(dbranch).transpose()?))
    }
}

impl CustomOp3 for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_kernel()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (x, branch, gamma) = (cuda::Operand::new(s1, l1), cuda::Operand::new(s2, l2), cuda::Operand::new(s3, l3));
        Ok((cuda::residual::forward(x, branch, Some(gamma), self.factors.as_deref())?, l1.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn bwd(
        &self,
        x: &Tensor,
        branch: &Tensor,
        gamma: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let factors = self.factors.as_deref();
        let dbranch = || cuda::residual::branch_gradient(branch, Some(gamma), factors, dy);
        let dgamma = cuda::residual::gamma_gradient(branch, gamma, factors, dy)?;
        Ok((x.track_op().then(|| dy.clone()), branch.track_op().then(dbranch).transpose()?, dgamma))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::trials;

    #[test]
    fn the_trial_of_its_kernel_is_fair() {
        trials::pass::<_, 2>(Residual { factors: None }, |dtype| [DType::F32, dtype]);
        trials::pass::<_, 3>(Residual { factors: None }, |dtype| [DType::F32, dtype, DType::F32]);
    }
}
