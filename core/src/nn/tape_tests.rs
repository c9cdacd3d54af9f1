//! Layers that are recorded have the gradients of those that are not.

use super::{Activation, LayerNorm, Linear, residual};
use crate::kernels::tape::{record, unrecorded};
use candle_core::{Device, Result, Tensor, Var};

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
    assert_eq!(tape.operations(), 5);
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
    assert!(tape.operations() == 0 && !y.track_op());
    let var = Var::from_tensor(&frozen).unwrap();
    let (y, tape) = record(|| Ok(unrecorded(|| Activation::Gelu.forward(&var)))).unwrap();
    assert!(tape.operations() == 0 && y.unwrap().backward().unwrap().get(&var).is_some());
    // Outside, candle's graph is made as ever.
    assert!(Activation::Gelu.forward(&var).unwrap().backward().unwrap().get(&var).is_some());
    assert!(record(|| -> Result<()> { candle_core::bail!("a pass that fails") }).is_err());
    // And the thread records no more.
    assert!(Activation::Gelu.forward(&var).unwrap().backward().unwrap().get(&var).is_some());
}
