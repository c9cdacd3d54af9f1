//! Optimiser, clipping and schedule against PyTorch, as written by `fixtures/make_op_fixtures.py`.

use crate::common::training::workers;
use crate::common::{Expected, assert_close};
use candle_core::{DType, Device, Tensor};
use vitadapt::backbone::Params;
use vitadapt::config::{Schedule, StrategySettings};
use vitadapt::optim::gradients::Gradients;
use vitadapt::strategy::Plan;
use vitadapt::train::accumulator::gradients_of;
use vitadapt::train::adamw::{AdamW, Rates};
use vitadapt::train::schedule::LrSchedule;

/// Gradients with given values: those of the loss Σ parameter · value.
fn gradients(params: &Params, values: &[(&str, Tensor)]) -> Gradients {
    let terms: Vec<Tensor> = values
        .iter()
        .map(|(name, value)| (params.tensor(*name).unwrap() * value).unwrap().sum_all().unwrap())
        .collect();
    let loss = terms.into_iter().reduce(|sum, term| (sum + term).unwrap()).unwrap();
    gradients_of(&loss, params).unwrap()
}

#[test]
fn adamw_takes_pytorchs_steps() {
    // In f32 by the CPU kernel, in f64 by the composition that also serves the GPU.
    take_steps(DType::F32, 2e-6);
    take_steps(DType::F64, 2e-6);
}

fn take_steps(dtype: DType, bound: f64) {
    let expected = Expected::load("ops.safetensors");
    let read = |name: String| expected.get(&name).to_dtype(dtype).unwrap();
    // A matrix that decays and a vector that does not, under names with those treatments.
    let names = [("blocks.0.attn.proj.weight", "matrix"), ("blocks.0.attn.proj.bias", "vector")];
    let params = names.map(|(name, theirs)| (name, read(format!("adamw.{theirs}.0"))));
    let params = Params::from_iter(params).train_where(|_| true).unwrap();
    let shapes = [(names[0].0.parse().unwrap(), vec![3, 5]), (names[1].0.parse().unwrap(), vec![5])].into();
    let plan = Plan::new(&StrategySettings::Full, 1.0, 1, &shapes).unwrap();
    let mut optimizer = AdamW::new(plan, &params).unwrap();
    let lrs = expected.get("adamw.lr").to_vec1::<f64>().unwrap();
    let weight_decay = expected.scalar("adamw.weight_decay");
    for (step, lr) in (1..).zip(lrs) {
        let values = names.map(|(name, theirs)| (name, read(format!("adamw.{theirs}.grad.{step}"))));
        let rates = Rates { lr, head_lr: 0.0, weight_decay };
        // Going through saved state in the middle must change nothing.
        if step == 3 {
            let state = optimizer.tensors().unwrap();
            optimizer.restore(state, 2).unwrap();
        }
        optimizer.step(&params, &gradients(&params, &values), rates, &workers(2)).unwrap();
        for (name, theirs) in names {
            let what = format!("{theirs} after step {step}");
            assert_close(&what, &params.tensor(name).unwrap(), &read(format!("adamw.{theirs}.{step}")), bound);
        }
    }
}

/// Its moments and its bias correction start when it does, as those of a parameter group that PyTorch gets later.
#[test]
fn a_parameter_that_joins_late_takes_its_own_first_step() {
    let expected = Expected::load("ops.safetensors");
    let (early, late) = ("blocks.0.attn.proj.weight", "blocks.0.attn.proj.bias");
    let params =
        [(early, "matrix"), (late, "vector")].map(|(name, theirs)| (name, expected.get(&format!("adamw.{theirs}.0"))));
    let params = Params::from_iter(params).train_where(|_| true).unwrap();
    let shapes = [(early.parse().unwrap(), vec![3, 5]), (late.parse().unwrap(), vec![5])].into();
    let plan = Plan::new(&StrategySettings::Full, 1.0, 1, &shapes).unwrap();
    let mut optimizer = AdamW::new(plan, &params).unwrap();
    let lrs = expected.get("adamw.lr").to_vec1::<f64>().unwrap();
    let matrix = expected.get("adamw.matrix.grad.1");
    for lr in [1e-2, 1e-3] {
        let first = params.restricted(|name| name == early);
        let rates = Rates { lr, head_lr: 0.0, weight_decay: 0.1 };
        optimizer.step(&first, &gradients(&first, &[(early, matrix.clone())]), rates, &workers(2)).unwrap();
        assert_close("not yet", &params.tensor(late).unwrap(), &expected.get("adamw.vector.0"), 0.0);
    }
    let state = optimizer.tensors().unwrap();
    optimizer.restore(state, lrs.len()).unwrap();
    for (step, lr) in (1..).zip(lrs) {
        let values = [(early, matrix.clone()), (late, expected.get(&format!("adamw.vector.grad.{step}")))];
        let rates = Rates { lr, head_lr: 0.0, weight_decay: 0.1 };
        optimizer.step(&params, &gradients(&params, &values), rates, &workers(2)).unwrap();
        let vector = expected.get(&format!("adamw.vector.{step}"));
        assert_close("late", &params.tensor(late).unwrap(), &vector, 2e-6);
    }
}

#[test]
fn gradients_are_clipped_as_pytorch_clips() {
    let expected = Expected::load("ops.safetensors");
    let values = ["a", "b"].map(|name| (name, expected.get(&format!("clip.grad.{name}"))));
    let zeros = values.iter().map(|(name, value)| (*name, value.zeros_like().unwrap()));
    let params = zeros.collect::<Params>().train_where(|_| true).unwrap();
    for case in ["over", "under"] {
        let mut clipped = gradients(&params, &values);
        let norm = clipped.norm(&workers(2)).unwrap();
        assert!((norm / expected.scalar("clip.norm") - 1.0).abs() < 1e-6);
        clipped.clip(norm, expected.scalar(&format!("clip.{case}.max_norm")));
        for name in ["a", "b"] {
            assert_close(case, &clipped.get(name).unwrap(), &expected.get(&format!("clip.{case}.{name}")), 1e-6);
        }
    }
}

#[test]
fn the_schedule_follows_the_formula() {
    let expected = Expected::load("ops.safetensors");
    for case in ["warm", "cold", "all_warm"] {
        let lrs = expected.get(&format!("schedule.{case}.lr")).to_vec1::<f64>().unwrap();
        let (peak, warmup) =
            (expected.scalar(&format!("schedule.{case}.peak")), expected.scalar(&format!("schedule.{case}.warmup")));
        let schedule = LrSchedule::new(warmup, lrs.len(), Schedule::Cosine);
        for (step, lr) in lrs.iter().enumerate() {
            let ours = peak * schedule.factor(step);
            assert!((ours - lr).abs() <= 1e-12 * peak, "{case} step {step}: {ours} instead of {lr}");
        }
    }
}

#[test]
fn norms_that_are_not_finite_show() {
    let params =
        Params::from_iter([("a", Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap())]).train_where(|_| true).unwrap();
    let values = [("a", Tensor::new(&[1f32, f32::NAN], &Device::Cpu).unwrap())];
    assert!(!gradients(&params, &values).norm(&workers(2)).unwrap().is_finite());
}
