//! What a pretrained backbone is: its shape, its options and how its inputs were prepared.

use super::pool::{Pool, attention_linears};
use super::positions::Resampling;
use crate::data::transform::BackboneDefaults;
use crate::nn::Activation;
use std::collections::BTreeMap;

/// The architecture of a pre-norm vision transformer, in the terms all families share.
#[derive(Debug, Clone, PartialEq)]
pub struct VitSpec {
    /// The architecture's name in its own library.
    pub architecture: String,
    /// Width of the tokens.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Width of the hidden layer of the MLP.
    pub hidden: usize,
    /// Whether the MLP is a `SwiGLU`, whose first product has twice the hidden width; it has no other activation.
    pub gated: bool,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Added to the variance in every layer norm.
    pub eps: f32,
    /// Whether a class token stands before the patches.
    pub class_token: bool,
    /// Whether a distillation token follows the class token (`DeiT`).
    pub dist_token: bool,
    /// Register tokens between the class token and the patches (Darcet et al. 2023).
    pub registers: usize,
    /// How many of the tokens before the patches have a position embedding, counted from the first: none, the class
    /// token alone, or all.
    pub positioned_prefix: usize,
    /// Whether the patch embedding has a bias.
    pub patch_bias: bool,
    /// Whether the projection to queries, keys and values has a bias.
    pub qkv_bias: bool,
    /// Whether a layer norm stands before the first block (CLIP).
    pub norm_pre: bool,
    /// Whether the residual branches are scaled (LayerScale).
    pub layer_scale: bool,
    /// Whether a layer norm follows the last block, before pooling.
    pub norm: bool,
    /// Whether a layer norm follows the pooling.
    pub fc_norm: bool,
    /// The pooling the backbone was trained with.
    pub pool: Pool,
    /// Classes of the pretrained head; 0 without one.
    pub num_classes: usize,
    /// Outputs of the pretrained projection behind the features (CLIP's image embedding); 0 without one.
    pub projection: usize,
    /// How the library resamples position embeddings.
    pub resampling: Resampling,
    /// Whether resampled position embeddings are rounded to the type of the file: so in libraries that resample while
    /// loading, unlike those that resample in each forward pass.
    pub rounds_resampled: bool,
    /// How inputs are prepared.
    pub input: BackboneDefaults,
}

/// Canonical parameter names (timm's) with their shapes.
pub type Shapes = BTreeMap<String, Vec<usize>>;

impl VitSpec {
    /// Tokens before the patches: class token, distillation token, registers.
    pub fn prefix_tokens(&self) -> usize {
        usize::from(self.class_token) + usize::from(self.dist_token) + self.registers
    }

    /// Width of the features that feed the head.
    pub fn features(&self) -> usize {
        self.pool.features(self.width)
    }

    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch
    }

    /// All tokens of one image.
    pub fn tokens(&self) -> usize {
        self.prefix_tokens() + self.grid() * self.grid()
    }

    /// The name and shape of every parameter of the backbone, without the head: the one list that strict loading,
    /// strategies and memory estimates go by.
    pub fn shapes(&self) -> Shapes {
        let (d, hidden) = (self.width, self.hidden);
        let fc1 = if self.gated { 2 * hidden } else { hidden };
        let mut shapes = Shapes::new();
        let mut add = |name: String, shape: &[usize]| {
            shapes.insert(name, shape.to_vec());
        };
        let norm = |name: &str| [(format!("{name}.weight"), vec![d]), (format!("{name}.bias"), vec![d])];
        if self.class_token {
            add("cls_token".into(), &[1, 1, d]);
        }
        if self.dist_token {
            add("dist_token".into(), &[1, 1, d]);
        }
        if self.registers > 0 {
            add("reg_token".into(), &[1, self.registers, d]);
        }
        add("pos_embed".into(), &[1, self.positioned_prefix + self.grid() * self.grid(), d]);
        add("patch_embed.proj.weight".into(), &[d, 3, self.patch, self.patch]);
        if self.patch_bias {
            add("patch_embed.proj.bias".into(), &[d]);
        }
        let outer = [(self.norm_pre, "norm_pre"), (self.norm, "norm"), (self.fc_norm, "fc_norm")];
        for (_, name) in outer.into_iter().filter(|(present, _)| *present) {
            norm(name).into_iter().for_each(|(name, shape)| add(name, &shape));
        }
        for block in 0..self.depth {
            let shape = BlockShape { width: d, fc1, hidden, qkv_bias: self.qkv_bias, layer_scale: self.layer_scale };
            shape.names(block).into_iter().for_each(|(name, shape)| add(name, &shape));
        }
        if self.pool == Pool::Attention {
            add("attn_pool.latent".into(), &[1, 1, d]);
            norm("attn_pool.norm").into_iter().for_each(|(name, shape)| add(name, &shape));
            for (name, [out, inner]) in attention_linears(d, hidden) {
                add(format!("{name}.weight"), &[out, inner]);
                add(format!("{name}.bias"), &[out]);
            }
        }
        shapes
    }

    /// The name and shape of what the file holds behind the features: the pretrained classifier, that of the
    /// distillation token, the projection of CLIP.
    pub fn output_shapes(&self) -> Shapes {
        let mut shapes = Shapes::new();
        if self.num_classes > 0 {
            let heads: &[&str] = if self.pool == Pool::Distilled { &["head", "head_dist"] } else { &["head"] };
            for head in heads {
                shapes.insert(format!("{head}.weight"), vec![self.num_classes, self.features()]);
                shapes.insert(format!("{head}.bias"), vec![self.num_classes]);
            }
        }
        if self.projection > 0 {
            shapes.insert("projection.weight".into(), vec![self.projection, self.features()]);
        }
        shapes
    }
}

/// What the shapes of a block's parameters follow from.
pub(super) struct BlockShape {
    /// Width of the tokens.
    pub width: usize,
    /// Outputs of the first product of the MLP.
    pub fc1: usize,
    /// Inputs of the second.
    pub hidden: usize,
    /// Whether the projection to queries, keys and values has a bias.
    pub qkv_bias: bool,
    /// Whether the residual branches are scaled.
    pub layer_scale: bool,
}

impl BlockShape {
    /// The parameters of block `index`.
    pub fn names(&self, index: usize) -> Vec<(String, Vec<usize>)> {
        let (d, fc1, hidden) = (self.width, self.fc1, self.hidden);
        let mut parameters = vec![
            ("norm1.weight", vec![d]),
            ("norm1.bias", vec![d]),
            ("attn.qkv.weight", vec![3 * d, d]),
            ("attn.proj.weight", vec![d, d]),
            ("attn.proj.bias", vec![d]),
            ("norm2.weight", vec![d]),
            ("norm2.bias", vec![d]),
            ("mlp.fc1.weight", vec![fc1, d]),
            ("mlp.fc1.bias", vec![fc1]),
            ("mlp.fc2.weight", vec![d, hidden]),
            ("mlp.fc2.bias", vec![d]),
        ];
        if self.qkv_bias {
            parameters.push(("attn.qkv.bias", vec![3 * d]));
        }
        if self.layer_scale {
            parameters.extend([("ls1.gamma", vec![d]), ("ls2.gamma", vec![d])]);
        }
        parameters.into_iter().map(|(name, shape)| (format!("blocks.{index}.{name}"), shape)).collect()
    }
}
