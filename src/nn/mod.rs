//! Differentiable layers of vision transformers.
//!
//! candle-nn's own LayerNorm and softmax have no backward pass and cut gradients silently, so every operation that
//! training may cross lives here. On the CPU in f32 each layer is one fused operation with its own backward pass, as on
//! NVIDIA GPUs; elsewhere it is a composition of candle's differentiable operations. Tests compare both with PyTorch.
//!
//! A backward pass returns no gradient for a frozen operand, so frozen weights cost nothing.

pub mod attention;
pub mod attention_pool;
pub mod dropout;
pub mod gelu;
pub mod layer_norm;
pub mod layer_scale;
pub mod linear;
pub mod lora;
pub mod loss;
pub mod normalize;
pub mod patch_embed;
pub mod residual;
pub mod swiglu;
pub mod workers;

pub use attention::{Attention, AttentionKernel, causal_attention, softmax_attention};
pub use attention_pool::AttentionPool;
pub use dropout::{Mode, Noise, drop_path, drop_path_factors, dropout};
pub use gelu::Activation;
pub use layer_norm::LayerNorm;
pub use layer_scale::LayerScale;
pub use linear::Linear;
pub use lora::{AdaptedLinear, Adapter, Factors};
pub use loss::{Criterion, Targets};
pub use normalize::{SHORTEST, l2_normalize};
pub use patch_embed::PatchEmbed;
pub use residual::residual;
pub use swiglu::swiglu;

impl From<candle_core::Error> for crate::error::Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error.into())
    }
}
