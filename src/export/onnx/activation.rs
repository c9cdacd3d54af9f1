//! Activations of an MLP as nodes.

use super::builder::{Builder, ValueName};
use crate::nn::Activation;

impl Builder {
    /// An activation, spelt out in operators of set 17.
    pub(super) fn activation(&mut self, activation: Activation, x: &str) -> ValueName {
        match activation {
            // x (1 + erf(x / √2)) / 2
            Activation::Gelu => {
                let scaled = self.with_number("Div", x, std::f32::consts::SQRT_2);
                let erf = self.node("Erf", &[&scaled], &[]);
                self.half_of_one_plus(x, &erf)
            }
            // x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
            Activation::GeluTanh => {
                let square = self.node("Mul", &[x, x], &[]);
                let cube = self.node("Mul", &[&square, x], &[]);
                let cube = self.with_number("Mul", &cube, 0.044_715);
                let inner = self.node("Add", &[x, &cube], &[]);
                let inner = self.with_number("Mul", &inner, std::f32::consts::FRAC_2_PI.sqrt());
                let tanh = self.node("Tanh", &[&inner], &[]);
                self.half_of_one_plus(x, &tanh)
            }
            // x σ(1.702 x)
            Activation::QuickGelu => {
                let scaled = self.with_number("Mul", x, 1.702);
                let sigmoid = self.node("Sigmoid", &[&scaled], &[]);
                self.node("Mul", &[x, &sigmoid], &[])
            }
        }
    }

    /// x (1 + y) / 2
    fn half_of_one_plus(&mut self, x: &str, y: &str) -> ValueName {
        let (one, half) = (self.scalar(1.0), self.scalar(0.5));
        let sum = self.node("Add", &[y, &one], &[]);
        let product = self.node("Mul", &[x, &sum], &[]);
        self.node("Mul", &[&product, &half], &[])
    }

    /// gate σ(gate) · value of the two halves of the last axis.
    pub(super) fn swiglu(&mut self, packed: &str) -> ValueName {
        let parts = self.split_last(packed, 2);
        let sigmoid = self.node("Sigmoid", &[&parts[0]], &[]);
        let gate = self.node("Mul", &[&parts[0], &sigmoid], &[]);
        self.node("Mul", &[&gate, &parts[1]], &[])
    }
}
