//! What a pretrained backbone is: its shape, its options and how its inputs were prepared.

use crate::data::transform::BackboneDefaults;
use crate::nn::Activation;
use std::collections::BTreeMap;

/// How the tokens after the last block become the features that feed the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The class token.
    Cls,
    /// The mean of the patch tokens, without class token and registers.
    Avg,
}

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
    /// Register tokens between the class token and the patches (Darcet et al. 2023).
    pub registers: usize,
    /// Whether position embeddings cover the class token and registers too.
    pub positions_cover_prefix: bool,
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
    /// Whether the library resamples position embeddings with antialiasing.
    pub antialias_positions: bool,
    /// How inputs are prepared.
    pub input: BackboneDefaults,
}

/// Canonical parameter names (timm's) with their shapes.
pub type Shapes = BTreeMap<String, Vec<usize>>;

impl VitSpec {
    /// Class token and registers.
    pub fn prefix_tokens(&self) -> usize {
        usize::from(self.class_token) + self.registers
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
        let mut shapes = Shapes::new();
        let mut add = |name: String, shape: &[usize]| {
            shapes.insert(name, shape.to_vec());
        };
        let norm = |name: &str| [(format!("{name}.weight"), vec![d]), (format!("{name}.bias"), vec![d])];
        if self.class_token {
            add("cls_token".into(), &[1, 1, d]);
        }
        if self.registers > 0 {
            add("reg_token".into(), &[1, self.registers, d]);
        }
        let covered = if self.positions_cover_prefix { self.prefix_tokens() } else { 0 };
        add("pos_embed".into(), &[1, covered + self.grid() * self.grid(), d]);
        add("patch_embed.proj.weight".into(), &[d, 3, self.patch, self.patch]);
        if self.patch_bias {
            add("patch_embed.proj.bias".into(), &[d]);
        }
        let outer = [(self.norm_pre, "norm_pre"), (self.norm, "norm"), (self.fc_norm, "fc_norm")];
        for (_, name) in outer.into_iter().filter(|(present, _)| *present) {
            norm(name).into_iter().for_each(|(name, shape)| add(name, &shape));
        }
        for block in 0..self.depth {
            let at = |name: &str| format!("blocks.{block}.{name}");
            for name in ["norm1", "norm2"] {
                norm(&at(name)).into_iter().for_each(|(name, shape)| add(name, &shape));
            }
            add(at("attn.qkv.weight"), &[3 * d, d]);
            if self.qkv_bias {
                add(at("attn.qkv.bias"), &[3 * d]);
            }
            add(at("attn.proj.weight"), &[d, d]);
            add(at("attn.proj.bias"), &[d]);
            add(at("mlp.fc1.weight"), &[hidden, d]);
            add(at("mlp.fc1.bias"), &[hidden]);
            add(at("mlp.fc2.weight"), &[d, hidden]);
            add(at("mlp.fc2.bias"), &[d]);
            if self.layer_scale {
                add(at("ls1.gamma"), &[d]);
                add(at("ls2.gamma"), &[d]);
            }
        }
        shapes
    }
}
