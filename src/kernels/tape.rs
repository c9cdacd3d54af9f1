//! A tape of the operations of a forward pass, by which gradients go back.
//!
//! candle's own backward pass begins each gradient with zeros and adds to them, which on a GPU takes as long as a layer
//! norm. Here the first gradient of a tensor is its gradient, and only further ones are added. While a thread records,
//! each [`Operation`] that runs by its kernel leaves a node, and what it gives is a variable to candle. So of candle's
//! operations in between short graphs remain, which end at such variables; candle goes back through each.

use super::Operation;
use super::operation::CandleOp;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::HashSet;

thread_local! {
    /// What this thread records, if it does.
    static RECORDING: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// From operands, a result and its gradient to the gradients of the operands.
type Backward = Box<dyn Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>>>;

enum Node {
    /// An operation: what it was made of, and what came out.
    Operation { operands: Vec<Tensor>, result: Tensor, backward: Backward },
    /// An operand that candle's operations have made of variables.
    Graph(Tensor),
}

/// The operations of a forward pass in their order.
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Node>,
    graphs: HashSet<TensorId>,
}

/// Runs `forward` and records its operations.
///
/// # Errors
/// Those of `forward`.
pub fn record<R>(forward: impl FnOnce() -> Result<R>) -> Result<(R, Tape)> {
    let before = RECORDING.replace(Some(Tape::default()));
    let result = forward();
    let tape = RECORDING.replace(before).unwrap_or_default();
    Ok((result?, tape))
}

/// Runs something that this thread does not record, as one that goes back through a graph of its own.
pub(super) fn unrecorded<R>(work: impl FnOnce() -> R) -> R {
    let before = RECORDING.take();
    let result = work();
    RECORDING.set(before);
    result
}

/// Runs an operation on contiguous operands and records it; none where nothing is recorded, or nothing asks for a gradient.
pub(super) fn run<F: Operation<N>, const N: usize>(op: &F, operands: &[Tensor]) -> Result<Option<Tensor>> {
    if RECORDING.with_borrow(Option::is_none) || !operands.iter().any(Tensor::track_op) {
        return Ok(None);
    }
    let op = CandleOp::<F, N>(op.clone());
    let result = op.result(operands)?;
    RECORDING.with_borrow_mut(|tape| tape.as_mut().map(|tape| tape.push(op, operands, &result)));
    Ok(Some(result))
}

impl Tape {
    fn push<F: Operation<N>, const N: usize>(&mut self, op: CandleOp<F, N>, operands: &[Tensor], result: &Tensor) {
        for operand in operands {
            if operand.track_op() && !operand.is_variable() && self.graphs.insert(operand.id()) {
                self.nodes.push(Node::Graph(operand.clone()));
            }
        }
        let backward: Backward = Box::new(move |operands, result, dy| {
            let operands: Vec<&Tensor> = operands.iter().collect();
            op.gradients(&operands, result, dy).map(Vec::from)
        });
        self.nodes.push(Node::Operation { operands: operands.to_vec(), result: result.clone(), backward });
    }

    /// From the gradients of results in `store` to those of the variables that the operations began with.
    ///
    /// # Errors
    /// When the device fails.
    pub fn backward(mut self, store: &mut GradStore) -> Result<()> {
        // What a node has kept is freed as soon as it is done.
        while let Some(node) = self.nodes.pop() {
            match node {
                Node::Operation { operands, result, backward } => {
                    let Some(dy) = store.remove(&result) else { continue };
                    for (operand, gradient) in operands.iter().zip(backward(&operands, &result, &dy)?) {
                        if let Some(gradient) = gradient {
                            add(store, operand, &gradient)?;
                        }
                    }
                }
                Node::Graph(x) => {
                    if let Some(dx) = store.remove(&x) {
                        store.extend((x * dx)?.backward()?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn add(store: &mut GradStore, x: &Tensor, gradient: &Tensor) -> Result<()> {
    let sum = match store.get(x) {
        Some(before) => (before + gradient)?,
        None => gradient.clone(),
    };
    store.insert(x, sum.detach());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Activation, LayerNorm, Linear, residual};
    use candle_core::{Device, Var};

    fn wave(shape: &[usize], seed: f64) -> Tensor {
        let values = (0..shape.iter().product()).map(|i: usize| ((i as f64 + seed) * 12.9898).sin() as f32);
        Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
    }

    /// Layers with a graph between two of them, a tensor that is read twice, and one through whose rows a part goes on.
    fn loss(vars: &[Var]) -> Result<Tensor> {
        let [x, w, b, gamma] = vars else { candle_core::bail!("four variables") };
        let normed = LayerNorm::new(gamma.as_tensor().clone(), b.as_tensor().clone(), 1e-6).forward(x)?;
        let linear = Linear::new(w.as_tensor().clone(), Some(b.as_tensor().clone()));
        let hidden = (linear.forward(&normed)? * 1.5)?;
        let y = residual(x, &Activation::Gelu.forward(&hidden)?, Some(gamma), None)?;
        let y = linear.forward(&y.narrow(1, 1, 2)?)?;
        (y.sqr()? + y.mean_all()?.broadcast_as(y.shape())?)?.sum_all()
    }

    #[test]
    fn gradients_are_those_of_candle() {
        let shapes: [&[usize]; 4] = [&[2, 3, 8], &[8, 8], &[8], &[8]];
        let vars: Vec<Var> = (0..4).map(|i| Var::from_tensor(&wave(shapes[i], 0.3 + i as f64)).unwrap()).collect();
        let expected = loss(&vars).unwrap().backward().unwrap();
        let (value, tape) = record(|| loss(&vars)).unwrap();
        assert_eq!(tape.nodes.iter().filter(|node| matches!(node, Node::Operation { .. })).count(), 5);
        let mut store = value.backward().unwrap();
        tape.backward(&mut store).unwrap();
        for var in &vars {
            let [got, expected] = [&store, &expected].map(|store| store.get(var).unwrap().flatten_all().unwrap());
            let off = (got - &expected).unwrap().abs().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
            let largest = expected.abs().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
            assert!(off <= 1e-5 * largest, "{off} of {largest}");
        }
    }

    #[test]
    fn nothing_is_recorded_without_need() {
        let frozen = wave(&[3, 4], 0.1);
        let (y, tape) = record(|| Activation::Gelu.forward(&frozen)).unwrap();
        assert!(tape.nodes.is_empty() && !y.track_op());
        let var = Var::from_tensor(&frozen).unwrap();
        let (y, tape) = record(|| Ok(unrecorded(|| Activation::Gelu.forward(&var)))).unwrap();
        assert!(tape.nodes.is_empty() && y.unwrap().backward().unwrap().get(&var).is_some());
        // Outside, candle's graph is made as ever.
        assert!(Activation::Gelu.forward(&var).unwrap().backward().unwrap().get(&var).is_some());
        assert!(record(|| -> Result<()> { candle_core::bail!("a pass that fails") }).is_err());
        assert!(RECORDING.with_borrow(Option::is_none));
    }
}
