//! The transformers format of `DINOv2`, with and without registers.
//!
//! Reference: transformers' `modeling_dinov2.py` and `modeling_dinov2_with_registers.py`. Their classifiers read the
//! class token beside the mean of the patch tokens, so these are the features of the bare models too. Positions cover
//! the class token and the patches but not the registers, which are inserted afterwards.

use super::family::{Description, Family, Header, block_parts, outputs};
use super::hf::{self, Defaults, prefix_if_used};
use super::hf_vit;
use super::options::{Config, IMAGENET};
use super::origin::Origin;
use super::pool::Pool;
use super::positions::Resampling;
use super::spec::VitSpec;
use crate::data::transform::{BackboneDefaults, Interpolation};
use crate::nn::Activation;
use serde_json::Value;

/// transformers' `DINOv2`.
pub struct HfDinov2;

const PREFIXES: [&str; 2] = ["dinov2_with_registers.", "dinov2."];

impl Family for HfDinov2 {
    fn name(&self) -> &'static str {
        "transformers DINOv2"
    }

    fn recognises(&self, config: &Value) -> bool {
        config["model_type"] == "dinov2" || has_registers(config)
    }

    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String> {
        let config = Config(&description.config);
        let registers = has_registers(&description.config);
        let defaults = Defaults { patch: if registers { 16 } else { 14 }, activation: Activation::Gelu, eps: 1e-6 };
        // As the published weights were trained; 224 of 256 pixels.
        let (mean, std) = IMAGENET;
        let input = BackboneDefaults { mean, std, interpolation: Interpolation::Bicubic, crop_pct: 0.875 };
        let spec = hf::base(&config, &defaults, hf::input(&description.preprocessor, input)?)?;
        let hidden = (spec.width as f64 * config.number("mlp_ratio", 4.0)) as usize;
        let gated = config.flag("use_swiglu_ffn", false);
        Ok(VitSpec {
            architecture: hf::class_name(&description.config, "Dinov2Model"),
            // Two thirds, so that three matrices have the size of two, to a multiple of eight.
            hidden: if gated { ((hidden as f64 * 2.0 / 3.0) as usize).next_multiple_of(8) } else { hidden },
            gated,
            registers: if registers { config.integer("num_register_tokens", 4)? } else { 0 },
            layer_scale: true,
            pool: Pool::ClsAvg,
            num_classes: outputs(header, "classifier.weight"),
            resampling: if registers { Resampling::BicubicAntialiased } else { Resampling::Bicubic },
            ..spec
        })
    }

    fn origin(&self, name: &str, header: &Header) -> Origin {
        let prefix = PREFIXES.iter().map(|prefix| prefix_if_used(header, prefix)).find(|p| !p.is_empty()).unwrap_or("");
        if name == "reg_token" {
            return Origin::One(format!("{prefix}embeddings.register_tokens"));
        }
        let Some((block, inner, parameter)) = block_parts(name) else { return hf_vit::origin(name, header, prefix) };
        let block = format!("{prefix}encoder.layer.{block}");
        let at = |module: &str| format!("{block}.{module}.{parameter}");
        let in_memory = |module: &str| header.contains_key(&format!("{block}.{module}.weight"));
        let stack = |modules: &[&str]| Origin::Stack(modules.iter().map(|module| at(module)).collect());
        match inner {
            "attn.qkv" if in_memory("attention.q_proj") => {
                stack(&["attention.q_proj", "attention.k_proj", "attention.v_proj"])
            }
            "attn.qkv" => stack(&["attention.attention.query", "attention.attention.key", "attention.attention.value"]),
            "attn.proj" if in_memory("attention.o_proj") => Origin::One(at("attention.o_proj")),
            "attn.proj" => Origin::One(at("attention.output.dense")),
            "ls1" => Origin::One(format!("{block}.layer_scale1.lambda1")),
            "ls2" => Origin::One(format!("{block}.layer_scale2.lambda1")),
            "mlp.fc1" if in_memory("mlp.gate_proj") => stack(&["mlp.gate_proj", "mlp.up_proj"]),
            "mlp.fc1" if in_memory("mlp.weights_in") => Origin::One(at("mlp.weights_in")),
            "mlp.fc2" if in_memory("mlp.down_proj") => Origin::One(at("mlp.down_proj")),
            "mlp.fc2" if in_memory("mlp.weights_out") => Origin::One(at("mlp.weights_out")),
            other => Origin::One(at(other)),
        }
    }

    fn ignores(&self, name: &str, _header: &Header) -> bool {
        name.ends_with("embeddings.mask_token")
    }
}

fn has_registers(config: &Value) -> bool {
    config["model_type"] == "dinov2_with_registers"
}
