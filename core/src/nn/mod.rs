//! Differentiable layers of vision transformers.
//!
//! candle-nn's own LayerNorm and softmax have no backward and cut gradients silently, so every operation that training may
//! cross lives here, described once: as an [`crate::kernels::Operation`] whose arithmetic on slices serves a graph of
//! tensors and the plain pass over blocks alike. On the CPU in f32 and on NVIDIA GPUs it is fused; elsewhere it is a
//! composition of candle's differentiable operations. Tests compare both with PyTorch.
//!
//! Backward gives no gradient to a frozen operand, so frozen weights cost nothing.

pub mod attention;
pub mod attention_kernel;
pub mod attention_pool;
pub mod dropout;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod lora;
pub mod loss;
pub mod normalize;
pub mod patch_embed;
pub mod pool;
pub mod qk_norm;
mod relative;
pub mod residual;
pub mod rotary;
mod softmax;
mod sum;
pub mod swiglu;
#[cfg(test)]
mod tape_tests;
#[cfg(test)]
mod trial_tests;
pub mod workers;

pub use attention::{Attention, softmax_attention};
pub use attention_kernel::AttentionKernel;
pub use attention_pool::AttentionPool;
pub use dropout::{MaskKeys, Mode, drop_path_factors, dropout};
pub use gelu::Activation;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use lora::{AdaptedLinear, Adapter, Factors};
pub use loss::{Criterion, Targets};
pub use normalize::{SHORTEST, l2_normalize};
pub use patch_embed::PatchEmbed;
pub use qk_norm::{QkNorm, Unnormed};
pub use relative::{CoordinateMlp, RelativeBias};
pub use residual::{add_branch, branch_backward, residual};
pub use rotary::{Pairs, Rotary};
pub use swiglu::{SwiGlu, swiglu};

/// What the tensor library says went wrong, without the path that a message names anyway and the backtrace that it adds when
/// `RUST_BACKTRACE` is set.
pub fn reason(error: &candle_core::Error) -> String {
    use candle_core::Error;
    match error {
        Error::WithBacktrace { inner, .. } | Error::WithPath { inner, .. } => reason(inner),
        Error::Context { inner, context } => format!("{context}: {}", reason(inner)),
        other => other.to_string(),
    }
}

impl From<candle_core::Error> for crate::error::Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error.into())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Error;
    use std::backtrace::Backtrace;

    #[test]
    fn a_reason_has_no_backtrace() {
        let inner = Box::new(Error::Msg("too large".into()));
        let traced = Error::WithBacktrace { inner, backtrace: Box::new(Backtrace::force_capture()) };
        assert!(traced.to_string().lines().count() > 1);
        let traced = Error::WithPath { inner: Box::new(traced), path: "model.bin".into() };
        let context = Error::Context { inner: Box::new(traced), context: Box::new("w") };
        assert_eq!(super::reason(&context), "w: too large");
    }
}
