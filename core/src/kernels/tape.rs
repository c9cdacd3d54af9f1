//! A tape of the operations of a forward pass, by which gradients go back.
//!
//! candle's own backward pass begins each gradient with zeros and adds to them, which on a GPU takes as long as a layer
//! norm. Here the first gradient of a tensor is its gradient, and only further ones are added. While a thread records,
//! each operation that runs by its kernel leaves a node, and what it gives is a variable to candle. So of candle's
//! operations in between short graphs remain, which end at such variables; candle goes back through each.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::HashSet;

thread_local! {
    /// What this thread records, if it does.
    static RECORDING: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// From operands, a result, its gradient and what the first operand has of a gradient already to the gradients of the
/// operands; that of the first is the sum of both.
pub(super) type Backward = Box<dyn Fn(&[Tensor], &Tensor, &Tensor, Option<&Tensor>) -> Result<Vec<Option<Tensor>>>>;

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
pub(crate) fn unrecorded<R>(work: impl FnOnce() -> R) -> R {
    let before = RECORDING.take();
    let result = work();
    RECORDING.set(before);
    result
}

/// Whether this thread records what is made of these operands: something asks for their gradient.
pub(super) fn records(operands: &[Tensor]) -> bool {
    RECORDING.with_borrow(Option::is_some) && operands.iter().any(Tensor::track_op)
}

/// Records that an operation made `result`, a variable without a graph, of `operands`.
pub(super) fn push(operands: Vec<Tensor>, result: Tensor, backward: Backward) {
    RECORDING.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            tape.push(operands, result, backward);
        }
    });
}

impl Tape {
    fn push(&mut self, operands: Vec<Tensor>, result: Tensor, backward: Backward) {
        for operand in &operands {
            if operand.track_op() && !operand.is_variable() && self.graphs.insert(operand.id()) {
                self.nodes.push(Node::Graph(operand.clone()));
            }
        }
        self.nodes.push(Node::Operation { operands, result, backward });
    }

    /// Operations on it.
    #[cfg(test)]
    pub(crate) fn operations(&self) -> usize {
        self.nodes.iter().filter(|node| matches!(node, Node::Operation { .. })).count()
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
                    // The first operand's earlier gradient is handed to the operation, which returns the sum: a kernel may add
                    // it on its way.
                    let before = operands.first().and_then(|x| store.remove(x));
                    for (operand, gradient) in operands.iter().zip(backward(&operands, &result, &dy, before.as_ref())?)
                    {
                        if let Some(sum) = sum(gradient, store.get(operand))? {
                            store.insert(operand, sum.detach());
                        }
                    }
                }
                Node::Graph(x) => {
                    if let Some(dx) = store.remove(&x) {
                        let dx = dx.to_dtype(x.dtype())?;
                        store.extend((x * dx)?.backward()?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The sum of those gradients that there are, in the type of the earlier one.
pub(crate) fn sum(gradient: Option<Tensor>, before: Option<&Tensor>) -> Result<Option<Tensor>> {
    match (gradient, before) {
        (Some(gradient), Some(before)) => Ok(Some((before + gradient.to_dtype(before.dtype())?)?)),
        (gradient, before) => Ok(gradient.or_else(|| before.cloned())),
    }
}
