//! What each image classifier of transformers can express, and how a model is brought into its form.
//!
//! Reference: transformers' `modeling_{vit,vit_msn,ijepa,beit,data2vec_vision,dinov2,dinov2_with_registers,deit,siglip,clip,
//! metaclip_2}.py`. `Siglip2ForImageClassification` is not among them: its image processor keeps the shape of an image,
//! but these models are trained on squares.

use super::{ExportModel, adapt};
use crate::backbone::{Layer, MlpSpec, Pool, Positions, VitSpec};
use crate::forms::decimal;
use crate::nn::Activation;
use candle_core::{DType, Device, Result, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A classifier of the library.
pub(super) struct HfClass {
    /// Its name.
    pub name: &'static str,
    /// Its `model_type`.
    pub kind: &'static str,
    /// Stands before the names of the backbone's tensors.
    prefix: &'static str,
    /// Which parts of an architecture it cannot express; empty when it fits.
    pub obstacles: fn(&VitSpec) -> Vec<String>,
    /// Brings a model into its form.
    pub adapt: fn(&mut ExportModel) -> Result<()>,
    /// The keys of its config beside those of every classifier.
    pub config: fn(&VitSpec) -> Value,
}

/// The classes, the plainest first.
pub(super) const CLASSES: &[HfClass] = &[
    VIT,
    HfClass { name: "ViTMSNForImageClassification", kind: "vit_msn", ..VIT },
    HfClass {
        name: "Dinov2ForImageClassification",
        kind: "dinov2",
        prefix: "dinov2.",
        obstacles: |spec| [dinov2(spec), unless(spec.prefix.registers == 0, "registers")].concat(),
        adapt: to_dinov2,
        config: dinov2_config,
    },
    HfClass {
        name: "Dinov2WithRegistersForImageClassification",
        kind: "dinov2_with_registers",
        prefix: "dinov2_with_registers.",
        obstacles: |spec| [dinov2(spec), unless(spec.prefix.registers > 0, "a backbone without registers")].concat(),
        adapt: to_dinov2,
        config: |spec| {
            let mut config = dinov2_config(spec);
            config["num_register_tokens"] = json!(spec.prefix.registers);
            config
        },
    },
    DEIT,
    HfClass { name: WITH_TEACHER, obstacles: |spec| pooled(spec, &["class", "distillation"], Pool::Distilled), ..DEIT },
    HfClass {
        name: "SiglipForImageClassification",
        kind: "siglip",
        prefix: "vision_model.",
        obstacles: |spec| [averaged(spec), of_squares(spec)].concat(),
        adapt: |model| {
            adapt::with_patch_bias(model)?;
            adapt::with_qkv_bias(model)
        },
        config: |spec| {
            let mut tower = common(spec);
            // Its classifier takes the mean of the tokens, whatever the head would make of them.
            tower["vision_use_head"] = json!(false);
            json!({ "vision_config": tower })
        },
    },
    HfClass {
        name: "IJepaForImageClassification",
        kind: "ijepa",
        prefix: "ijepa.",
        obstacles: averaged,
        adapt: adapt::with_patch_bias,
        config: common,
    },
    CLIP,
    HfClass { name: "MetaClip2ForImageClassification", kind: "metaclip_2", ..CLIP },
    BEIT,
    HfClass {
        name: "Data2VecVisionForImageClassification",
        kind: "data2vec-vision",
        prefix: "data2vec_vision.",
        ..BEIT
    },
];

const VIT: HfClass = HfClass {
    name: "ViTForImageClassification",
    kind: "vit",
    prefix: "vit.",
    obstacles: |spec| pooled(spec, &["class"], Pool::Cls),
    adapt: |model| {
        adapt::with_patch_bias(model)?;
        adapt::with_positioned_prefix(model, 1)
    },
    config: common,
};

const DEIT: HfClass = HfClass {
    name: "DeiTForImageClassification",
    kind: "deit",
    prefix: "deit.",
    obstacles: |spec| pooled(spec, &["class", "distillation"], Pool::Cls),
    adapt: |model| {
        adapt::with_patch_bias(model)?;
        adapt::with_positioned_prefix(model, 2)
    },
    config: common,
};

const CLIP: HfClass = HfClass {
    name: "CLIPForImageClassification",
    kind: "clip",
    prefix: "vision_model.",
    obstacles: |spec| {
        [
            tokens(spec, &["class"]),
            unless(spec.positions.rotary().is_none(), "rotary positions"),
            unless(!spec.positions.are_relative(), "relative positions"),
            other_layers(spec),
            unless(!spec.layer_scale, "LayerScale"),
            unless(spec.norm_pre, "a backbone without a layer norm before the blocks"),
            unless(!spec.patch.bias, "a bias of the patch embedding"),
            unless(!spec.pooling.norm && !spec.pooling.fc_norm, "a layer norm after the blocks"),
            unless(spec.pooling.pool == Pool::Avg, POOLING),
            of_squares(spec),
        ]
        .concat()
    },
    adapt: |model| {
        adapt::with_qkv_bias(model)?;
        adapt::with_positioned_prefix(model, 1)
    },
    config: |spec| json!({ "vision_config": common(spec) }),
};

const BEIT: HfClass = HfClass {
    name: "BeitForImageClassification",
    kind: "beit",
    prefix: "beit.",
    obstacles: |spec| {
        let mean = spec.pooling.pool == Pool::Avg && spec.pooling.fc_norm && !spec.pooling.norm;
        let class = spec.pooling.pool == Pool::Cls && spec.pooling.norm && !spec.pooling.fc_norm;
        [
            tokens(spec, &["class"]),
            unless(matches!(spec.positions, Positions::Table(_) | Positions::Relative(_)), "positions of this kind"),
            other_layers(spec),
            unless(!spec.norm_pre, "a layer norm before the blocks"),
            unless(mean || class, POOLING),
            if spec.positions.are_relative() { Vec::new() } else { of_squares(spec) },
        ]
        .concat()
    },
    adapt: |model| {
        adapt::with_patch_bias(model)?;
        adapt::with_qkv_bias(model)?;
        // A bias of the keys would add the same to all scores of a query, which softmax does not see.
        model.spec.attention.key_bias = false;
        adapt::with_positioned_prefix(model, 1)
    },
    config: |spec| {
        let mut config = common(spec);
        config["use_absolute_position_embeddings"] = json!(spec.positions.table().is_some());
        config["use_relative_position_bias"] = json!(spec.positions.are_relative());
        config["use_mean_pooling"] = json!(spec.pooling.pool == Pool::Avg);
        config["layer_scale_init_value"] = json!(if spec.layer_scale { 0.1 } else { 0.0 });
        config
    },
};

const WITH_TEACHER: &str = "DeiTForImageClassificationWithTeacher";
const POOLING: &str = "this pooling of the tokens";

impl HfClass {
    /// Names by which a family recognises the spelling to use: that of files on the hub, with the prefix of classifiers.
    pub fn seeds(&self, spec: &VitSpec) -> Vec<String> {
        let mut names = vec![format!("{}encoder.", self.prefix)];
        if self.two_heads() {
            names.push("cls_classifier.weight".into());
        }
        if spec.mlp.is_gated() {
            let packed = |block| format!("{}encoder.layer.{block}.mlp.weights", self.prefix);
            let both = |block| [format!("{}_in.weight", packed(block)), format!("{}_out.weight", packed(block))];
            names.extend((0..spec.depth).flat_map(both));
        }
        names
    }

    /// The length of the model's name in that of the class, if the architecture is called so too, else 0: the longest names the
    /// class that the backbone came from.
    pub fn likeness(&self, architecture: &str) -> usize {
        let model = self.name.split("ForImage").next().unwrap_or_default();
        if architecture.starts_with(model) { model.len() } else { 0 }
    }

    /// Whether it averages the logits of a classifier on each of two tokens.
    pub fn two_heads(&self) -> bool {
        self.name == WITH_TEACHER
    }

    /// Tensors that the class has but its classifier does not read; without them the library would warn.
    pub fn unused(&self, width: usize) -> Result<BTreeMap<String, Tensor>> {
        let at = |name: &str| format!("{}{name}", self.prefix);
        let mut tensors = BTreeMap::new();
        if ["clip", "metaclip_2"].contains(&self.kind) {
            let ones = Tensor::ones(width, DType::F32, &Device::Cpu)?;
            tensors.insert(at("post_layernorm.weight"), ones);
            tensors.insert(at("post_layernorm.bias"), adapt::zeros(&[width])?);
        }
        if self.kind.starts_with("dinov2") {
            tensors.insert(at("embeddings.mask_token"), adapt::zeros(&[1, width])?);
        }
        Ok(tensors)
    }
}

/// The obstacle `what` unless something holds.
fn unless(holds: bool, what: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![what.to_owned()] }
}

/// Tokens before the patches that are not `wanted`, and wanted ones that are missing.
fn tokens(spec: &VitSpec, wanted: &[&str]) -> Vec<String> {
    let token = |present: bool, name: &str| match (present, wanted.contains(&name)) {
        (true, false) => vec![format!("a {name} token")],
        (false, true) => vec![format!("a backbone without a {name} token")],
        _ => Vec::new(),
    };
    let mut found = token(spec.prefix.class, "class");
    found.extend(token(spec.prefix.distillation, "distillation"));
    if wanted != ["class", "register"] {
        found.extend(unless(spec.prefix.registers == 0, "registers"));
    }
    found
}

/// Layers, norms and biases that a plain tower cannot express.
fn other_layers(spec: &VitSpec) -> Vec<String> {
    [
        unless(!spec.mlp.is_gated(), "a SwiGLU"),
        unless(!spec.attention.norm && !spec.attention.qk_norm && !spec.mlp.norm, "norms inside attention or MLP"),
        unless(!spec.norms.rms, "RMS norms"),
        unless(!spec.mlp.unscaled, "LayerScale on attention alone"),
        unless(!spec.norms.behind, "norms at the end of the branches"),
        unless(!spec.patch.norm, "a norm of the patch embedding"),
        unless(spec.attention.proj_bias && spec.mlp.bias, "layers without biases"),
    ]
    .concat()
}

/// What a plain tower, with a layer norm behind the blocks and nothing else, cannot express.
fn plain(spec: &VitSpec, wanted: &[&str]) -> Vec<String> {
    let layers = [
        unless(spec.positions.rotary().is_none(), "rotary positions"),
        unless(!spec.positions.are_relative(), "relative positions"),
        other_layers(spec),
        unless(!spec.layer_scale, "LayerScale"),
        unless(!spec.norm_pre, "a layer norm before the blocks"),
        unless(!spec.pooling.fc_norm, "a layer norm after the pooling"),
        unless(spec.pooling.norm || spec.pooling.fc_norm, "a backbone without a final layer norm"),
    ];
    [tokens(spec, wanted), layers.concat()].concat()
}

/// What a plain tower of that pooling cannot express.
fn pooled(spec: &VitSpec, wanted: &[&str], pool: Pool) -> Vec<String> {
    [plain(spec, wanted), unless(spec.pooling.pool == pool, POOLING)].concat()
}

/// What a plain tower cannot express that has no token before the patches and reads their mean.
fn averaged(spec: &VitSpec) -> Vec<String> {
    pooled(spec, &[], Pool::Avg)
}

/// What a class cannot express that takes its positions, or the number of its patches, for those of a square.
fn of_squares(spec: &VitSpec) -> Vec<String> {
    unless(spec.image_size.side().is_some(), "an input that is not square")
}

/// What `DINOv2` cannot express, whatever its registers. It reads the class token beside the mean patch, so that each
/// of them alone is a head with zeros for the other.
fn dinov2(spec: &VitSpec) -> Vec<String> {
    let pool = matches!(spec.pooling.pool, Pool::Cls | Pool::Avg | Pool::ClsAvg);
    [
        plain(
            &VitSpec {
                mlp: MlpSpec {
                    norm: spec.mlp.norm,
                    bias: spec.mlp.bias,
                    ..MlpSpec::plain(spec.mlp.hidden, Activation::Gelu)
                },
                layer_scale: false,
                ..spec.clone()
            },
            &["class", "register"],
        ),
        unless(pool, POOLING),
        unless(dinov2_ratio(spec).is_some(), "this width of the MLP"),
        of_squares(spec),
    ]
    .concat()
}

/// The whole ratio from which `DINOv2` computes the width of the MLP.
fn dinov2_ratio(spec: &VitSpec) -> Option<usize> {
    // Of a SwiGLU two thirds, to a multiple of eight.
    let hidden = |ratio: usize| {
        let ungated = spec.width * ratio;
        if spec.mlp.is_gated() { ((ungated as f64 * 2.0 / 3.0) as usize).next_multiple_of(8) } else { ungated }
    };
    (1..=16).find(|&ratio| hidden(ratio) == spec.mlp.hidden)
}

fn to_dinov2(model: &mut ExportModel) -> Result<()> {
    adapt::with_patch_bias(model)?;
    adapt::with_layer_scale(model)?;
    adapt::with_positioned_prefix(model, 1)?;
    let head = model.params.tensor(Layer::Head.weight())?;
    let zeros = head.zeros_like()?;
    match model.spec.pooling.pool {
        Pool::Cls => model.params.insert(Layer::Head.weight(), Tensor::cat(&[head, zeros], 1)?),
        Pool::Avg => model.params.insert(Layer::Head.weight(), Tensor::cat(&[zeros, head], 1)?),
        _ => {}
    }
    model.spec.pooling.pool = Pool::ClsAvg;
    Ok(())
}

fn dinov2_config(spec: &VitSpec) -> Value {
    let mut config = common(spec);
    config["mlp_ratio"] = json!(dinov2_ratio(spec));
    config["use_swiglu_ffn"] = json!(spec.mlp.is_gated());
    config
}

/// The keys that all towers share.
fn common(spec: &VitSpec) -> Value {
    json!({
        "image_size": spec.image_size,
        "patch_size": spec.patch.size,
        "num_channels": 3,
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.attention.heads,
        "intermediate_size": spec.mlp.hidden,
        "hidden_act": match spec.mlp.activation() {
            Some(Activation::Gelu) | None => "gelu",
            Some(Activation::GeluTanh) => "gelu_pytorch_tanh",
            Some(Activation::QuickGelu) => "quick_gelu",
        },
        "layer_norm_eps": decimal(spec.norms.eps),
        "qkv_bias": spec.attention.qkv_bias,
    })
}
