//! Every layer's kernel and composition agree, and leave room for rounding in the types that a GPU's kernel is tried in.

use super::attention_kernel::AttentionKernel;
use super::layer_norm::Normalize;
use super::linear::Affine;
use super::loss::WeightedLogLikelihood;
use super::residual::Residual;
use super::softmax::Softmax;
use super::{Activation, swiglu::SwiGlu};
use crate::kernels::trials::pass;
use candle_core::DType;

#[test]
fn the_trial_of_each_kernel_is_fair() {
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu] {
        pass(activation, |dtype| [dtype]);
    }
    pass(SwiGlu::new(2).unwrap(), |dtype| [dtype]);
    pass(Softmax { scale: 0.5, width: 1 }, |dtype| [dtype]);
    pass::<_, 2>(Residual { factors: None }, |dtype| [DType::F32, dtype]);
    pass::<_, 3>(Residual { factors: None }, |dtype| [DType::F32, dtype, DType::F32]);
    pass::<_, 2>(Normalize { eps: 1e-6 }, |dtype| [dtype; 2]);
    pass::<_, 3>(Normalize { eps: 1e-6 }, |dtype| [dtype; 3]);
    pass::<_, 2>(Affine { inputs: 1, outputs: 1 }, |dtype| [dtype; 2]);
    pass::<_, 3>(Affine { inputs: 1, outputs: 1 }, |dtype| [dtype; 3]);
    for gamma in [0.0, 2.0] {
        pass(WeightedLogLikelihood { gamma, ..WeightedLogLikelihood::default() }, |dtype| [dtype]);
    }
    for causal in [false, true] {
        let sizes = AttentionKernel { batch: 1, tokens: 1, queries: 1, heads: 1, head_dim: 1, causal };
        pass(sizes, |dtype| [dtype]);
    }
}
