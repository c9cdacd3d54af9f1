//! The plain pass over a block against its graph.

use super::super::lora::Lora;
use super::super::name::ParamName;
use super::super::params::Params;
use super::super::spec::{AttentionSpec, BlockSpec, MlpKind, MlpSpec, NormSpec};
use super::*;
use crate::config::LoraTarget;
use crate::nn::{Activation, CoordinateMlp, MaskKeys, Pairs, RelativeBias, Rotary};
use crate::rng::{Purpose, Stream};
use candle_core::{Device, Var};

const WIDTH: usize = 24;
const HIDDEN: usize = 40;
const ENTRIES: usize = 11;
const SHAPE: (usize, usize, usize) = (3, 7, WIDTH);

fn random(shape: &[usize], key: u64) -> Tensor {
    let mut stream = Stream::new(0, Purpose::Init, &[key]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| 0.3 * stream.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// What a block may be beside the plain pre-norm one.
#[derive(Clone, Copy, Default)]
struct BlockForm {
    scaled: bool,
    drop_path: f64,
    gated: bool,
    causal: bool,
    rotary: bool,
    /// With norms inside attention and MLP.
    normed: bool,
    /// With a table of relative positions, of which the last entry has none.
    relative: bool,
    /// Rotary, by learnt frequencies.
    learnt: bool,
    /// With relative positions that a network makes of distances.
    distances: bool,
    /// With norms of queries and keys.
    qk_normed: bool,
    /// With RMS norms and no biases.
    rms: bool,
    /// With norms at the end of the branches.
    behind: bool,
    /// The dropout rate of adapters on all layers.
    adapted: Option<f64>,
}

const TARGETS: [LoraTarget; 5] = [LoraTarget::Q, LoraTarget::V, LoraTarget::O, LoraTarget::Fc1, LoraTarget::Fc2];

impl BlockForm {
    fn lora(self) -> Option<Lora> {
        self.adapted.map(|dropout| Lora { blocks: vec![0], targets: TARGETS.into(), rank: 2, alpha: 3.0, dropout })
    }

    fn params(self, trained: &dyn Fn(&str) -> bool) -> Params {
        let expanded = if self.gated { 2 * HIDDEN } else { HIDDEN };
        let mut shapes = vec![
            ("norm1.weight", vec![WIDTH]),
            ("norm1.bias", vec![WIDTH]),
            ("attn.qkv.weight", vec![3 * WIDTH, WIDTH]),
            ("attn.qkv.bias", vec![3 * WIDTH]),
            ("attn.proj.weight", vec![WIDTH, WIDTH]),
            ("attn.proj.bias", vec![WIDTH]),
            ("norm2.weight", vec![WIDTH]),
            ("norm2.bias", vec![WIDTH]),
            ("mlp.fc1.weight", vec![expanded, WIDTH]),
            ("mlp.fc1.bias", vec![expanded]),
            ("mlp.fc2.weight", vec![WIDTH, HIDDEN]),
        ];
        if self.scaled {
            shapes.extend([("ls1.gamma", vec![WIDTH]), ("ls2.gamma", vec![WIDTH])]);
        }
        if self.normed {
            shapes.extend([("attn.norm.weight", vec![WIDTH]), ("attn.norm.bias", vec![WIDTH])]);
            shapes.extend([("mlp.norm.weight", vec![HIDDEN]), ("mlp.norm.bias", vec![HIDDEN])]);
        }
        if self.relative {
            shapes.push(("attn.relative_position_bias_table", vec![ENTRIES, 3]));
        }
        if self.learnt {
            shapes.push(("attn.rope.freqs", vec![2, 3, WIDTH / 6]));
        }
        if self.distances {
            shapes.extend([("attn.rel_pos.mlp.fc1.weight", vec![5, 2]), ("attn.rel_pos.mlp.fc1.bias", vec![5])]);
            shapes.extend([("attn.rel_pos.mlp.fc2.weight", vec![3, 5]), ("attn.rel_pos.mlp.fc2.bias", vec![3])]);
        }
        if self.qk_normed {
            shapes.extend([("attn.q_norm.weight", vec![WIDTH / 3]), ("attn.q_norm.bias", vec![WIDTH / 3])]);
            shapes.extend([("attn.k_norm.weight", vec![WIDTH / 3]), ("attn.k_norm.bias", vec![WIDTH / 3])]);
        }
        if self.rms {
            shapes.retain(|(name, _)| !name.ends_with("bias"));
        }
        let named = |(name, shape)| (format!("blocks.0.{name}").parse().unwrap(), shape);
        let mut shapes: Vec<(ParamName, Vec<usize>)> = shapes.into_iter().map(named).collect();
        if let Some(lora) = self.lora() {
            shapes.extend(lora.shapes(&shapes.iter().cloned().collect()));
        }
        let params = (1..).zip(shapes).map(|(key, (name, shape))| (name, random(&shape, key)));
        params.collect::<Params>().train_where(|name| trained(name)).unwrap()
    }

    fn block(self, params: &Params) -> Block {
        let angles = random(&[3, SHAPE.1, WIDTH / 6], 77).affine(9.0, 0.0).unwrap();
        let kind = if self.gated { MlpKind::SwiGlu } else { MlpKind::Plain(Activation::Gelu) };
        let spec = BlockSpec {
            width: WIDTH,
            norms: NormSpec { behind: self.behind, rms: self.rms, ..NormSpec::layer(1e-6) },
            attention: AttentionSpec { norm: self.normed, qk_norm: self.qk_normed, ..AttentionSpec::of(3) },
            causal: self.causal,
            mlp: MlpSpec { hidden: HIDDEN, kind, norm: self.normed, bias: true, unscaled: false },
            layer_scale: self.scaled,
        };
        let rotary = self.rotary.then(|| Rotary::new(&angles, Pairs::Halves).unwrap());
        let rotary = if self.learnt {
            let frequencies = params.tensor("blocks.0.attn.rope.freqs").unwrap();
            let places: Vec<[f32; 2]> = (0..SHAPE.1).map(|token| [token as f32, 4.0 - 0.7 * token as f32]).collect();
            Some(Rotary::learnt(frequencies, places.as_flattened().into(), None, Pairs::Neighbours).unwrap())
        } else {
            rotary
        };
        let index: Vec<u32> = (0..SHAPE.1 * SHAPE.1).map(|pair| (pair * 3 % (ENTRIES + 1)) as u32).collect();
        let linear =
            |name: &str| params.linear(format!("blocks.0.attn.rel_pos.mlp.{name}.weight").parse().unwrap()).unwrap();
        let distances = self.distances.then(|| {
            let coordinates = random(&[ENTRIES, 2], 78).affine(9.0, 0.0).unwrap();
            let mlp = CoordinateMlp { coordinates, fc1: linear("fc1"), fc2: linear("fc2") };
            RelativeBias::of_mlp(mlp, index.clone().into(), SHAPE.1).unwrap()
        });
        let bias = self.relative.then(|| {
            let table = params.tensor("blocks.0.attn.relative_position_bias_table").unwrap();
            RelativeBias::new(table, index.clone().into(), SHAPE.1).unwrap()
        });
        let mut block = Block::new(&spec, params, 0, self.drop_path).unwrap();
        (block.attention.rotary, block.attention.relative) = (rotary, bias.or(distances));
        if let Some(lora) = self.lora() {
            block.adapt(&lora, params).unwrap();
        }
        block
    }
}

fn assert_close(what: &str, a: &Tensor, b: &Tensor) {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (a, b) = (flat(a), flat(b));
    // Sums that cancel keep the rounding of their terms.
    let largest = b.iter().fold(2e-2f32, |largest, x| largest.max(x.abs()));
    let worst = a.iter().zip(&b).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(a.len() == b.len() && worst <= 1e-5 * largest, "{what}: {worst} of {largest}");
}

/// Outputs and gradients equal those of the graph, whatever is scaled, dropped, adapted, frozen or left out.
fn check(kind: BlockForm, rows: usize, trained: &dyn Fn(&str) -> bool) {
    let params = kind.params(trained);
    let block = kind.block(&params);
    let noise = MaskKeys { seed: 1, step: 2, samples: vec![0, 1, 2] };
    let mode = Mode::Train(&noise);
    let x = Var::from_tensor(&random(&[SHAPE.0, SHAPE.1, SHAPE.2], 99)).unwrap();
    let dy = random(&[SHAPE.0, rows, SHAPE.2], 100);
    assert!(block.is_plain(&x));

    let composed = block.compose(x.as_tensor(), rows, mode).unwrap();
    let mut expected = (&composed * &dy).unwrap().sum_all().unwrap().backward().unwrap();
    let (output, kept) = block.forward_plain(&x.as_detached_tensor(), rows, mode).unwrap();
    assert_close("output", &output, &composed);
    let mut store = GradStore::default();
    let dx = block.backward_plain(kept, &dy, true, &mut store).unwrap().unwrap();
    assert_close("dx", &dx, &expected.remove(x.as_tensor()).unwrap());
    for (name, var) in params.trained() {
        assert_close(name, store.get(var.as_tensor()).unwrap(), expected.get(var.as_tensor()).unwrap());
    }
    let count = params.trained().count();
    assert_eq!(params.iter().filter(|(_, param)| store.get(param.tensor()).is_some()).count(), count);
    assert_eq!(block.trainable(), count > 0);

    let (_, kept) = block.forward_plain(&x.as_detached_tensor(), rows, mode).unwrap();
    let mut alone = GradStore::default();
    let unwanted = block.backward_plain(kept, &dy, false, &mut alone).unwrap();
    assert!(unwanted.is_none() || block.norm1.trainable());
    for (name, var) in params.trained() {
        assert_close(name, alone.get(var.as_tensor()).unwrap(), store.get(var.as_tensor()).unwrap());
    }
}

/// Checks a form with all of its parameters trained, with none, and with those alone whose name holds one of `parts`; then
/// with adapters, which are trained alone.
fn check_parts(form: BlockForm, parts: &[&str]) {
    let adapted = BlockForm { adapted: Some(0.3), scaled: true, drop_path: 0.5, ..form };
    for rows in [SHAPE.1, 1, 2] {
        check(form, rows, &|_| true);
        check(form, rows, &|_| false);
        parts.iter().for_each(|part| check(form, rows, &|name| name.contains(part)));
        check(BlockForm { adapted: Some(0.3), ..form }, rows, &|name| name.contains("lora"));
        for part in ["lora", "lora_b", "attn.v.lora"] {
            check(adapted, rows, &|name| name.contains(part));
        }
    }
}

const PLAIN: [&str; 7] = ["norm1", "norm2", "qkv", "proj", "fc1", "fc2", "bias"];

#[test]
fn outputs_and_gradients_are_those_of_the_graph() {
    for (scaled, drop_path, dropout) in [(false, 0.0, 0.0), (false, 0.5, 0.0), (true, 0.0, 0.3), (true, 0.5, 0.0)] {
        let form = BlockForm { scaled, drop_path, ..BlockForm::default() };
        check_parts(form, &PLAIN);
        for rows in [SHAPE.1, 1, 2] {
            check(form, rows, &|name| name.contains("mlp"));
            check(form, rows, &|name| name.contains("norm1") || name.contains("bias"));
            check(BlockForm { adapted: Some(dropout), ..form }, rows, &|name| name.contains("lora"));
        }
    }
}

#[test]
fn gated_causal_and_rotary_blocks_too() {
    let gated = BlockForm { gated: true, ..BlockForm::default() };
    for rows in [SHAPE.1, 1, 2] {
        check(gated, rows, &|name| !name.contains("fc2"));
    }
    check_parts(BlockForm { scaled: true, ..gated }, &PLAIN);
    check_parts(BlockForm { causal: true, ..BlockForm::default() }, &["qkv"]);
    check_parts(BlockForm { rotary: true, ..BlockForm::default() }, &["qkv"]);
    check_parts(BlockForm { rotary: true, causal: true, ..gated }, &["qkv"]);
}

#[test]
fn blocks_with_more_or_other_norms_too() {
    for gated in [false, true] {
        let normed = BlockForm { normed: true, gated, ..BlockForm::default() };
        check_parts(normed, &["attn.norm", "mlp.norm", "norm1", "qkv", "proj", "fc1", "fc2"]);
        check_parts(BlockForm { rotary: true, ..normed }, &[]);
    }
    for (rms, behind) in [(true, false), (false, true), (true, true)] {
        let form = BlockForm { rms, behind, gated: rms, ..BlockForm::default() };
        check_parts(form, &[]);
        check_parts(BlockForm { drop_path: 0.5, ..form }, &PLAIN);
        check_parts(BlockForm { normed: true, scaled: true, ..form }, &[]);
    }
    for rms in [false, true] {
        check_parts(
            BlockForm { qk_normed: true, rotary: true, rms, ..BlockForm::default() },
            &["q_norm", "k_norm", "qkv"],
        );
    }
}

#[test]
fn blocks_with_relative_and_learnt_positions_too() {
    check_parts(BlockForm { relative: true, ..BlockForm::default() }, &["relative", "qkv"]);
    check_parts(BlockForm { learnt: true, ..BlockForm::default() }, &["rope", "qkv"]);
    check_parts(BlockForm { distances: true, ..BlockForm::default() }, &["rel_pos", "rel_pos.mlp.fc1", "qkv"]);
}

/// A frozen block in a graph passes the gradient of its input on, and gives the same bits as without one.
#[test]
fn a_frozen_block_is_one_operation_of_a_graph() {
    for kind in [BlockForm::default(), BlockForm { causal: true, gated: true, scaled: true, ..BlockForm::default() }] {
        let block = kind.block(&kind.params(&|_| false));
        let x = Var::from_tensor(&random(&[SHAPE.0, SHAPE.1, SHAPE.2], 99)).unwrap();
        let dy = random(&[SHAPE.0, 2, SHAPE.2], 100);
        let gradient = |y: &Tensor| (y * &dy).unwrap().sum_all().unwrap().backward().unwrap().remove(&x).unwrap();
        let output = block.forward(&x, 2, Mode::Eval).unwrap();
        let composed = block.compose(&x, 2, Mode::Eval).unwrap();
        assert_close("output", &output, &composed);
        assert_close("dx", &gradient(&output), &gradient(&composed));
        let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let without = block.forward(&x.as_detached_tensor(), 2, Mode::Eval).unwrap();
        assert_eq!(bits(&output), bits(&without));
        assert!(!without.track_op());
    }
}
