//! The sum of two tensors of one shape and type, such as a layer's output and what an adapter adds to it.

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Operation, run};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{Result, Shape, Tensor, bail};

/// x + y. Each gets the gradient of the sum as it is, where candle's addition would copy it twice.
///
/// # Errors
/// When shapes or types disagree.
pub fn sum(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    run(&Sum, [x, y])
}

#[derive(Clone, Copy)]
pub(super) struct Sum;

impl Operation<2> for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn shape(&self, [x, y]: [&Shape; 2]) -> Result<Shape> {
        if x != y {
            bail!("the sum of tensors of shapes {x:?} and {y:?}");
        }
        Ok(x.clone())
    }

    fn forward(&self, [x, y]: [&[f32]; 2], sum: &mut [f32]) -> Result<()> {
        sum.iter_mut().zip(x).zip(y).for_each(|((sum, x), y)| *sum = x + y);
        Ok(())
    }

    fn backward(&self, _: [&[f32]; 2], _: &[f32], dy: &[f32], wanted: [bool; 2]) -> Result<[Option<Vec<f32>>; 2]> {
        Ok(wanted.map(|wanted| wanted.then(|| dy.to_vec())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [x, y]: [cuda::Operand<'_>; 2]) -> Result<CudaStorage> {
        x.plus(y)
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, operands: [&Tensor; 2], _y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        Ok(operands.map(|operand| operand.track_op().then(|| dy.clone())))
    }

    fn composed(&self, [x, y]: [&Tensor; 2]) -> Result<Tensor> {
        x + y
    }

    fn small(&self) -> (Self, [Vec<usize>; 2]) {
        (Self, [vec![30, 50], vec![30, 50]])
    }
}
