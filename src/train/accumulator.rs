//! Gradients of the parts of a step, added up during the backward passes.
//!
//! What the backward pass of a segment has found goes to the sum at once, so that no part holds gradients of the whole
//! network. Of each parameter the parts are added in their order, whoever finishes first: sums repeat bit for bit.

use crate::backbone::Params;
use crate::kernels::widened;
use crate::optim::gradients::{Gradients, added};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The sums of the trainable parameters, to which several threads add.
pub struct GradientAccumulator<'a> {
    params: &'a Params,
    /// The parameters that the backward pass sees in their place, perhaps in half precision.
    seen: &'a Params,
    sums: BTreeMap<&'a str, Mutex<Sum>>,
}

/// The sum of one parameter.
#[derive(Default)]
struct Sum {
    total: Option<Tensor>,
    /// The sum of its squares, where an addition has left it.
    squares: Option<f64>,
    /// Parts in it.
    parts: usize,
    /// Parts that have to wait for one before them.
    early: BTreeMap<usize, Tensor>,
}

impl Sum {
    fn add(&mut self, part: usize, gradient: Tensor) -> Result<()> {
        self.early.insert(part, gradient);
        while let Some(next) = self.early.remove(&self.parts) {
            let (total, squares) = match self.total.take() {
                Some(total) => added(total, &next)?,
                None => (next, None),
            };
            (self.total, self.squares) = (Some(total), squares);
            self.parts += 1;
        }
        Ok(())
    }
}

impl<'a> GradientAccumulator<'a> {
    /// Sums of nothing yet.
    pub fn new(params: &'a Params) -> Self {
        Self::seen_as(params, params)
    }

    /// The same where the backward pass sees the parameters of these names in their place, as
    /// [`Params::with_products_in`] makes them.
    pub fn seen_as(params: &'a Params, seen: &'a Params) -> Self {
        Self { params, seen, sums: params.trained().map(|(name, _)| (name, Mutex::default())).collect() }
    }

    /// The parameters whose gradients are accumulated.
    pub fn params(&self) -> &'a Params {
        self.params
    }

    /// Adds what the backward pass of a segment of `part` (from 0) has found.
    ///
    /// # Errors
    /// When the device fails.
    pub fn add(&self, part: usize, store: &mut GradStore) -> Result<()> {
        for (name, var) in self.seen.trained() {
            if let (Some(sum), Some(gradient)) = (self.sums.get(name), store.remove(var.as_tensor())) {
                let gradient = widened(&gradient.detach())?;
                sum.lock().unwrap_or_else(PoisonError::into_inner).add(part, gradient)?;
            }
        }
        Ok(())
    }

    /// The sums over all `parts`.
    ///
    /// # Errors
    /// When a trainable parameter received no gradient from one of them: some operation cut the graph.
    pub fn finish(self, parts: usize) -> Result<Gradients> {
        self.sums(parts).map(Gradients::of_sums)
    }

    /// The same, each with its name and the sum of its squares where that is known.
    ///
    /// # Errors
    /// As [`GradientAccumulator::finish`].
    pub(super) fn sums(self, parts: usize) -> Result<Vec<(String, Tensor, Option<f64>)>> {
        let mut sums = Vec::with_capacity(self.sums.len());
        for (name, sum) in self.sums {
            match sum.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Sum { total: Some(total), squares, parts: found, .. } if found == parts => {
                    sums.push((name.to_owned(), total, squares));
                }
                _ => candle_core::bail!("the trainable parameter {name:?} received no gradient"),
            }
        }
        Ok(sums)
    }
}

/// Differentiates a scalar loss. The gradients are detached, so that the graph is freed.
///
/// # Errors
/// When a trainable parameter receives no gradient: some operation cut the graph.
pub fn gradients_of(loss: &Tensor, params: &Params) -> Result<Gradients> {
    let accumulator = GradientAccumulator::new(params);
    accumulator.add(0, &mut loss.backward()?)?;
    accumulator.finish(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    const VALUES: [f32; 3] = [1e8, 1.0, -1e8];

    fn params() -> Params {
        let start = Tensor::new(&[0f32; 2], &Device::Cpu).unwrap();
        Params::from_iter([("w", start)]).train_where(|_| true).unwrap()
    }

    /// What a backward pass leaves: the gradient of w is `value`.
    fn found(params: &Params, value: f32) -> GradStore {
        let mut store = GradStore::default();
        for (_, var) in params.trained() {
            store.insert(var, Tensor::new(&[value; 2], &Device::Cpu).unwrap());
        }
        store
    }

    #[test]
    fn parts_are_added_in_their_order_whoever_comes_first() {
        let params = params();
        let sum = |order: [usize; 3]| {
            let accumulator = GradientAccumulator::new(&params);
            order.iter().for_each(|&part| accumulator.add(part, &mut found(&params, VALUES[part])).unwrap());
            accumulator.finish(3).unwrap().get("w").unwrap().to_vec1::<f32>().unwrap()
        };
        let in_order = sum([0, 1, 2]);
        assert_eq!(in_order, [0.0, 0.0]); // 1 is lost beside 1e8
        assert_ne!((VALUES[0] + VALUES[2]) + VALUES[1], in_order[0]);
        for order in [[2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            assert_eq!(sum(order), in_order, "{order:?}");
        }
    }

    #[test]
    fn a_part_without_a_gradient_is_an_error() {
        let params = params();
        let accumulator = GradientAccumulator::new(&params);
        accumulator.add(0, &mut found(&params, 1.0)).unwrap();
        accumulator.add(1, &mut GradStore::default()).unwrap();
        assert!(accumulator.finish(2).unwrap_err().to_string().contains("\"w\" received no gradient"));
    }
}
