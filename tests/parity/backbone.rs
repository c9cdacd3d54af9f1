//! Every weight format against its own library: tokens, features, logits, loss and the gradient of every parameter, at
//! the native and at two other resolutions, one of them not square, on weights written by `fixtures/make_backbone_fixtures.py`.

use crate::common::{Expected, assert_close, fixture};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use vitadapt::backbone::{
    Backbone, FAMILIES, Header, Lora, Params, Pool, Readout, Segment, Sizes, Source, TextEncoder, TextTower, Vit,
    WeightMapping,
};
use vitadapt::config::{LoraTarget, VisualPromptSettings};
use vitadapt::nn::{Criterion, Linear, Mode, Targets};
use vitadapt::size::Size;
use vitadapt::train::accumulator::gradients_of;

const BOUND: f64 = 1e-4;

fn load(case: &str, sizes: impl Into<Sizes>) -> Backbone {
    Backbone::load(fixture("backbones").join(case).to_str().unwrap(), sizes).unwrap()
}

/// All parameters trainable, the pretrained classifier or projection among them.
fn trainable(backbone: &Backbone, dtype: DType) -> Params {
    let all = backbone.params.iter().chain(backbone.outputs.iter());
    let params: Params = all.map(|(name, param)| (name, param.tensor().to_dtype(dtype).unwrap())).collect();
    params.train_where(|_| true).unwrap()
}

fn header(case: &str) -> Header {
    Source::open(fixture("backbones").join(case).to_str().unwrap()).unwrap().tensors().unwrap().header()
}

/// A gradient of which copies of what several heads share there each have the sum.
fn folded(mapping: &WeightMapping, gradient: &Tensor) -> Tensor {
    let WeightMapping::Grouped { heads, head_dim, .. } = mapping else { return gradient.clone() };
    let thirds = gradient.chunk(3, 0).unwrap();
    let sum = |third: &Tensor| {
        let rest = &third.dims()[1..];
        let shared = third.dims()[0] / (heads * head_dim);
        let split = third.reshape([&[shared, *heads, *head_dim], rest].concat()).unwrap();
        split
            .sum_keepdim(1)
            .unwrap()
            .broadcast_as(split.shape())
            .unwrap()
            .contiguous()
            .unwrap()
            .reshape(third.shape())
            .unwrap()
    };
    Tensor::cat(&[thirds[0].clone(), sum(&thirds[1]), sum(&thirds[2])], 0).unwrap()
}

/// Asserts that a gradient is the expected one. What adds the same to every score of a row has none but rounding.
fn assert_gradient(what: &str, gradient: &Tensor, expected: &Tensor) {
    let shifts = what.ends_with("attn.k_norm.bias") || what.ends_with("rel_pos.mlp.fc2.bias");
    let size = |tensor: &Tensor| {
        let largest = tensor.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap();
        largest.to_scalar::<f64>().unwrap()
    };
    if shifts && size(expected) < 1e-4 {
        assert!(size(gradient) < 1e-4, "{what}: {gradient}");
    } else {
        assert_close(what, gradient, expected, BOUND);
    }
}

/// Where one of our parameters lies in the file.
fn mapped(backbone: &Backbone, header: &Header, name: &str) -> WeightMapping {
    let family = FAMILIES.iter().find(|family| family.name == backbone.family).unwrap();
    (family.mapping)(name.parse().unwrap(), header)
}

/// The library's gradient of one of our parameters, put together as the parameter is.
fn expected_gradient(header: &Header, backbone: &Backbone, read: impl Fn(&str) -> Tensor, name: &str) -> Tensor {
    let mapping = mapped(backbone, header, name);
    let name = name.parse().unwrap();
    let parts: Vec<Tensor> = mapping.names().iter().map(|part| read(part)).collect();
    let shape = backbone.spec.shapes().remove(&name).or_else(|| backbone.spec.output_shapes().remove(&name)).unwrap();
    mapping.assemble(&parts, &shape).unwrap()
}

/// The logits of the pretrained classifier; of two that are averaged, where each reads its own token.
fn logits(backbone: &Backbone, params: &Params, tokens: &Tensor, features: &Tensor) -> Tensor {
    let head =
        |name: &str| Linear::new(params.tensor(format!("{name}.weight")).unwrap(), params.get(format!("{name}.bias")));
    if backbone.spec.pooling.pool != Pool::Distilled {
        return head("head").forward(features).unwrap();
    }
    let token = |index: usize| tokens.narrow(1, index, 1).unwrap().squeeze(1).unwrap();
    let (taught, distilled) = (head("head").forward(&token(0)), head("head_dist").forward(&token(1)));
    ((taught.unwrap() + distilled.unwrap()).unwrap() * 0.5).unwrap()
}

/// The library's numbers at an image size.
fn expected_at(case: &str, at: &str) -> Expected {
    let file = if at == "third" { "third" } else { "expected" };
    Expected::load(&format!("backbones/{case}/{file}.safetensors"))
}

fn check(case: &str, at: &str, sizes: impl Into<Sizes>, dtype: DType) {
    let expected = expected_at(case, at);
    let read = |name: &str| expected.get(&format!("{name}.{at}")).to_dtype(dtype).unwrap();
    let backbone = load(case, sizes);
    let params = trainable(&backbone, dtype);
    let vit = Vit::new(&backbone.spec, &params, &[]).unwrap();
    let pixels = read("pixels");
    let what = |part: &str| format!("{case} {at} {part}");
    let tokens = vit.tokens(&pixels, Mode::Eval).unwrap();
    assert_close(&what("tokens"), &tokens, &read("tokens"), BOUND);
    let features = vit.features(&pixels, Mode::Eval).unwrap();
    assert_eq!(features.dims()[1], backbone.spec.features());
    assert_close(&what("features"), &features, &read("features"), BOUND);
    let loss = if params.get("head.weight").is_some() {
        let logits = logits(&backbone, &params, &tokens, &features);
        assert_close(&what("logits"), &logits, &read("logits"), BOUND);
        let labels = expected.labels("labels");
        let criterion = Criterion::default();
        criterion.forward(&logits, &Targets::Hard(&labels), labels.len() as f32).unwrap()
    } else {
        let last = match params.get("projection.weight") {
            Some(projection) => {
                let embedding = Linear::new(projection, None).forward(&features).unwrap();
                assert_close(&what("embedding"), &embedding, &read("embedding"), BOUND);
                embedding
            }
            None => features,
        };
        (&last * read("upstream")).unwrap().sum_all().unwrap()
    };
    assert_close(&what("loss"), &loss, &read("loss"), BOUND);
    let gradients = gradients_of(&loss, &params).unwrap();
    assert_eq!(gradients.names().count(), params.iter().count(), "{case}: a parameter got no gradient");
    let header = header(case);
    let kept = expected.names().iter().any(|name| name.starts_with(&format!("grad.{at}.")));
    assert!(kept || at == "other");
    for name in gradients.names() {
        // Of parameters that are one tensor there, the sum.
        let mapping = mapped(&backbone, &header, name);
        let shared = gradients.names().filter(|other| mapped(&backbone, &header, other) == mapping);
        let gradient = shared.map(|name| gradients.get(name).unwrap().clone()).reduce(|a, b| (a + b).unwrap()).unwrap();
        let largest = gradient.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap();
        let largest = largest.to_scalar::<f64>().unwrap();
        assert!(largest > 0.0, "{case}: the gradient of {name} is zero");
        if kept {
            let gradient = folded(&mapping, &gradient);
            // A wrapper's names of its model begin with the attribute that holds it.
            let wrapped = expected.names().iter().any(|name| name.starts_with(&format!("grad.{at}.timm_model.")));
            let wrapper = if wrapped { "timm_model." } else { "" };
            let read = |part: &str| expected.get(&format!("grad.{at}.{wrapper}{part}"));
            // Where the library resamples in each forward pass, this gradient is that of what the file holds.
            let is_table = ["pos_embed", "relative_position_bias_table"].iter().any(|table| name.ends_with(table));
            let stored = mapping.stored(gradient.dims(), 0).iter().product::<usize>();
            if is_table && at == "third" && read(&mapping.names()[0]).elem_count() != stored {
                continue;
            }
            let expected = expected_gradient(&header, &backbone, read, name);
            assert_gradient(&what(&format!("gradient of {name}")), &gradient, &expected);
        }
    }
}

fn cases() -> Vec<String> {
    let mut cases: Vec<String> = std::fs::read_dir(fixture("backbones"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    cases.sort();
    assert!(cases.len() >= 55, "{cases:?}");
    cases
}

#[test]
fn native_resolution() {
    cases().iter().for_each(|case| check(case, "native", None, DType::F32));
}

/// In f64 every layer is the composition of candle's operations that serves the GPU, too.
#[test]
fn native_resolution_without_fused_kernels() {
    cases().iter().for_each(|case| check(case, "native", None, DType::F64));
}

/// Blocks on plain values, forward and backward, against their graphs, on every architecture, with learnt tokens and
/// without.
#[test]
fn plain_blocks_are_their_graphs() {
    for case in cases() {
        let mut backbone = load(&case, None);
        let pixels = Expected::load(&format!("backbones/{case}/expected.safetensors")).get("pixels.native");
        plain_blocks_agree(&case, &backbone, &pixels);
        for deep in [false, true] {
            VisualPromptSettings { tokens: 3, deep }.insert(&backbone.spec, &mut backbone.params, 5).unwrap();
            plain_blocks_agree(&format!("{case} deep={deep}"), &backbone, &pixels);
        }
    }
}

fn plain_blocks_agree(what: &str, backbone: &Backbone, pixels: &Tensor) {
    let params = trainable(backbone, DType::F32);
    let vit = Vit::new(&backbone.spec, &params, &[]).unwrap();
    for index in 0..backbone.spec.depth {
        let x = Var::from_tensor(&vit.prefix(pixels, index, Mode::Eval).unwrap().detach()).unwrap();
        let graph = vit.run_segment(Segment::Block(index), &x, Mode::Eval).unwrap();
        let block = vit.plain_block(Segment::Block(index), &x).unwrap().unwrap();
        let (plain, saved) = block.forward(&x.as_detached_tensor(), Mode::Eval).unwrap();
        assert_close(&format!("{what} block {index}"), &plain, &graph.detach(), BOUND);
        let wave = (0..plain.elem_count()).map(|i| (i as f32 * 1.7).sin()).collect();
        let dy = Tensor::from_vec(wave, plain.shape(), &Device::Cpu).unwrap();
        let mut store = GradStore::default();
        let dx = block.backward(saved, &dy, true, &mut store).unwrap().unwrap();
        let expected = (graph * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        assert_close(&format!("{what} block {index} dx"), &dx, expected.get(&x).unwrap(), BOUND);
        let prefix = format!("blocks.{index}.");
        for (name, var) in params.trained().filter(|(name, _)| name.starts_with(&prefix)) {
            let (gradient, expected) = (store.get(var).unwrap(), expected.get(var).unwrap());
            assert_gradient(&format!("{what} {name}"), gradient, expected);
        }
    }
}

#[test]
fn two_other_resolutions() {
    let mut squares = Vec::new();
    for case in cases() {
        for at in ["other", "third"] {
            let pixels = expected_at(&case, at).get(&format!("pixels.{at}"));
            let size = Size { height: pixels.dims()[2], width: pixels.dims()[3] };
            check(&case, at, Sizes { image: Some(size), patch: None }, DType::F32);
            squares.extend((at == "third" && size.side().is_some()).then(|| case.clone()));
        }
    }
    assert_eq!(squares, ["hf_aimv2", "hf_aimv2_biases"], "their library takes nothing else");
}

#[test]
fn a_batch_equals_its_images_one_by_one() {
    for case in cases() {
        let pixels = Expected::load(&format!("backbones/{case}/expected.safetensors")).get("pixels.native");
        let backbone = load(&case, None);
        let vit = Vit::new(&backbone.spec, &backbone.params, &[]).unwrap();
        let batch = vit.features(&pixels, Mode::Eval).unwrap();
        for image in 0..pixels.dims()[0] {
            let single = vit.features(&pixels.narrow(0, image, 1).unwrap(), Mode::Eval).unwrap();
            assert_close(&case, &single, &batch.narrow(0, image, 1).unwrap(), 1e-5);
        }
    }
}

/// Adapters of all layers give what the weights merged with them give, on every architecture.
#[test]
fn adapters_are_their_merged_weights() {
    for case in cases() {
        let pixels = Expected::load(&format!("backbones/{case}/expected.safetensors")).get("pixels.native");
        let Backbone { spec, mut params, .. } = load(&case, None);
        let targets =
            [LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::O, LoraTarget::Fc1, LoraTarget::Fc2].to_vec();
        let lora = Lora { blocks: (0..spec.depth).collect(), targets, rank: 2, alpha: 4.0, dropout: 0.0 };
        lora.insert(&mut params, 3).unwrap();
        let wave = |shape: &[usize]| {
            let values = (0..shape.iter().product()).map(|i: usize| 0.1 * (i as f32 * 1.7).sin()).collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        for name in lora.names().iter().map(ToString::to_string).filter(|name| name.ends_with("lora_b")) {
            let shape = params.tensor(name.as_str()).unwrap().dims().to_vec();
            params.insert(name, wave(&shape));
        }
        let features = |vit: Vit| vit.features(&pixels, Mode::Eval).unwrap();
        let plain = features(Vit::new(&spec, &load(&case, None).params, &[]).unwrap());
        let adapted = features(Vit::new(&spec, &params, &[]).unwrap().adapted(&lora, &params).unwrap());
        let merged = features(Vit::new(&spec, &lora.merged(&params).unwrap(), &[]).unwrap());
        assert_close(&case, &adapted, &merged, BOUND);
        let moved = (adapted - plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(moved > 1e-2, "{case}: the adapters change nothing");
    }
}

/// Learnt tokens that join before the first block are further registers: patches keep their places, and attention
/// roll-out leaves them out.
#[test]
fn prompts_of_rotary_towers_are_registers() {
    let mut checked = 0;
    for case in cases() {
        let Backbone { spec, params, .. } = load(&case, None);
        let unplaced = spec.positions.rotary().is_some() && (spec.positions.prefix() == 0 || spec.prefix.registers > 0);
        if !unplaced || spec.norm_pre {
            continue;
        }
        let pixels = Expected::load(&format!("backbones/{case}/expected.safetensors")).get("pixels.native");
        let mut prompted = params.clone();
        VisualPromptSettings { tokens: 3, deep: false }.insert(&spec, &mut prompted, 5).unwrap();
        let prompts = prompted.tensor("blocks.0.prompt").unwrap().unsqueeze(0).unwrap();
        let mut registered = params;
        let registers = match registered.get("reg_token") {
            Some(registers) => Tensor::cat(&[registers, prompts], 1).unwrap(),
            None => prompts,
        };
        registered.insert("reg_token", registers);
        let mut with_registers = spec.clone();
        with_registers.prefix.registers += 3;
        let by_prompts = Vit::new(&spec, &prompted, &[]).unwrap().rollout(Readout::POOL, &pixels).unwrap();
        let by_registers =
            Vit::new(&with_registers, &registered, &[]).unwrap().rollout(Readout::POOL, &pixels).unwrap();
        assert_close(&format!("{case} features"), &by_prompts.features, &by_registers.features, BOUND);
        assert_close(&format!("{case} shares"), &by_prompts.shares, &by_registers.shares, BOUND);
        checked += 1;
    }
    assert!(checked >= 8, "{checked}");
}

#[test]
fn text_towers() {
    let mut checked = 0;
    for case in cases() {
        let expected = Expected::load(&format!("backbones/{case}/expected.safetensors"));
        if !expected.has("text.ids") {
            continue;
        }
        let tower = TextTower::load(fixture("backbones").join(&case).to_str().unwrap()).unwrap();
        let ids = expected.get("text.ids").to_dtype(DType::U32).unwrap();
        let embedding = TextEncoder::new(&tower.spec, &tower.params).unwrap().encode(&ids).unwrap();
        assert_close(&format!("{case} texts"), &embedding, &expected.get("text.embedding"), BOUND);
        checked += 1;
    }
    assert!(checked >= 5, "{checked}");
}

#[test]
fn a_frozen_prefix_keeps_no_graph() {
    let backbone = load("timm_vit_cls", None);
    let vit = Vit::new(&backbone.spec, &backbone.params, &[]).unwrap();
    let pixels = Tensor::zeros((1, 3, 16, 16), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(!vit.features(&pixels, Mode::Eval).unwrap().track_op());
}
