//! The moving average of a parameter.

use crate::kernels::{contiguous, contiguous_mut, fused, simd};
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};

/// m = decay m + (1 - decay) x, in place.
///
/// # Errors
/// When the shapes differ, or the device fails.
pub fn update_average(average: &Tensor, x: &Tensor, decay: f64) -> Result<()> {
    if fused(average) {
        return average.inplace_op2(&x.contiguous()?, &Move { decay: decay as f32 });
    }
    average.slice_set(&((average * decay)? + (x * (1.0 - decay))?)?.contiguous()?, 0, 0)
}

struct Move {
    decay: f32,
}

impl InplaceOp2 for Move {
    fn name(&self) -> &'static str {
        "moving_average"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let (average, x) = (contiguous_mut(s1, l1)?, contiguous(s2, l2)?);
        let (decay, rest) = (self.decay, 1.0 - self.decay);
        simd(|| average.iter_mut().zip(x).for_each(|(m, x)| *m = decay * *m + rest * x));
        Ok(())
    }
}
