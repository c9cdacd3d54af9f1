//! Every layer's kernel and composition agree, and leave room for rounding in the types that a GPU's kernel is tried in.

use super::attention_kernel::AttentionKernel;
use super::layer_norm::Normalize;
use super::linear::Affine;
use super::loss::WeightedLogLikelihood;
use super::residual::Residual;
use super::softmax::Softmax;
use super::sum::Sum;
use super::{Activation, LayerNorm, Linear, swiglu::SwiGlu};
use crate::kernels::trials::pass;
use candle_core::{DType, Device, Tensor, Var};

#[test]
fn the_trial_of_each_kernel_is_fair() {
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu] {
        pass(activation, |dtype| [dtype]);
        pass(activation, |dtype| [dtype; 2]);
    }
    pass(SwiGlu::new(2).unwrap(), |dtype| [dtype]);
    pass(Softmax { scale: 0.5, width: 1 }, |dtype| [dtype]);
    pass::<_, 2>(Residual { factors: None }, |dtype| [DType::F32, dtype]);
    pass::<_, 3>(Residual { factors: None }, |dtype| [DType::F32, dtype, DType::F32]);
    pass::<_, 2>(Normalize { eps: 1e-6, output: DType::F32 }, |_| [DType::F32; 2]);
    for output in [DType::F32, DType::F16, DType::BF16] {
        pass::<_, 3>(Normalize { eps: 1e-6, output }, |_| [DType::F32; 3]);
    }
    pass(Sum, |dtype| [dtype; 2]);
    pass::<_, 2>(Affine { inputs: 1, outputs: 1 }, |dtype| [dtype; 2]);
    pass::<_, 3>(Affine { inputs: 1, outputs: 1 }, |dtype| [dtype; 3]);
    for gamma in [0.0, 2.0] {
        pass(WeightedLogLikelihood { gamma, ..WeightedLogLikelihood::default() }, |dtype| [dtype]);
    }
    for (causal, head_dim) in [(false, 8), (false, 80), (true, 8)] {
        let sizes = AttentionKernel { batch: 1, tokens: 1, queries: 1, heads: 1, head_dim, causal };
        pass(sizes, |dtype| [dtype]);
    }
}

/// A running sum of ones in bf16 ends at 256.
#[test]
fn a_bias_gradient_is_summed_in_single_precision() {
    for dtype in [DType::F16, DType::BF16] {
        let tensor = |shape: (usize, usize)| Tensor::ones(shape, dtype, &Device::Cpu).unwrap();
        let bias = Var::from_tensor(&tensor((1, 8)).flatten_all().unwrap()).unwrap();
        let linear = Linear::new(tensor((8, 4)), Some(bias.as_tensor().clone())).forward(&tensor((2000, 4)));
        let normed = LayerNorm::new(tensor((1, 8)).flatten_all().unwrap(), bias.as_tensor().clone(), 1e-6);
        for y in [linear.unwrap(), normed.forward(&tensor((2000, 8))).unwrap()] {
            assert_eq!(y.dtype(), dtype);
            // From y itself: a loss that sums y would bring a gradient of its own to round.
            let gradients = y.backward().unwrap();
            let sum = gradients.get(&bias).unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(sum, [2000.0; 8], "{dtype:?}");
        }
    }
}
