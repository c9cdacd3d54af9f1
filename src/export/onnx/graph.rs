//! The vision transformer in ONNX's operators: the layers of `backbone::Vit` in the same order.
//!
//! Operators are those of set 17; GELU, which came with 20, is spelt out.

mod positions;

use super::builder::Attribute::{Float, Int, Ints};
use super::builder::{Builder, ValueName};
use super::proto::GraphProto;
use crate::backbone::{Layer, MlpKind, ParamName, Part, VisualPrompts, VitSpec};
use crate::config::FeatureChoice;
use crate::export::ExportModel;
use crate::nn::SHORTEST;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// The input: standardised pixels (N, 3, S, S) of images, or of the tiles of one.
pub(super) const PIXELS: &str = "pixel_values";
/// The first output, (N, classes), or (1, classes) for tiles.
pub(super) const LOGITS: &str = "logits";
/// The second output, of the same shape: the calibrated probabilities.
pub(super) const PROBABILITIES: &str = "probabilities";

pub(super) struct NodeWriter<'a> {
    model: &'a ExportModel,
    pub(super) spec: &'a VitSpec,
    pub(super) graph: Builder,
}

/// The graph of a model, without the declarations of its inputs and outputs.
pub(super) fn of(model: &ExportModel) -> Result<GraphProto> {
    let mut writer = NodeWriter { model, spec: &model.spec, graph: Builder::default() };
    let mut features = writer.features()?;
    if model.preprocess.tiles.is_some() {
        features = writer.pool_tiles(&features)?;
    }
    writer.head(&features)?;
    Ok(writer.graph.finish(&model.spec.architecture))
}

impl NodeWriter<'_> {
    /// Pixels to the features (N, d) that feed the head.
    fn features(&mut self) -> Result<ValueName> {
        let several = self.model.readout.features != FeatureChoice::Pool;
        let first_read = self.spec.depth - if several { self.model.readout.blocks } else { 0 };
        let mut x = self.embed()?;
        let mut parts = Vec::new();
        for block in 0..self.spec.depth {
            x = self.prompted_block(&x, block)?;
            if block >= first_read {
                let tokens = self.norm_if(self.spec.pooling.norm, &x, Layer::Norm.weight())?;
                parts.extend(self.read(&tokens));
            }
        }
        if several {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            return Ok(self.graph.node("Concat", &parts, &[Int("axis", 1)]));
        }
        let tokens = self.norm_if(self.spec.pooling.norm, &x, Layer::Norm.weight())?;
        if self.spec.pooling.pool.is_added() {
            let tokens = self.norm_if(self.spec.pooling.fc_norm, &tokens, Layer::FcNorm.weight())?;
            return self.pool(&tokens);
        }
        let pooled = self.pool(&tokens)?;
        self.norm_if(self.spec.pooling.fc_norm, &pooled, Layer::FcNorm.weight())
    }

    /// Pixels to tokens (N, T, d) before the first block.
    fn embed(&mut self) -> Result<ValueName> {
        let patch = self.spec.patch.size as i64;
        let weight = self.parameter(Layer::PatchEmbed.weight())?;
        let mut inputs = vec![PIXELS.to_owned(), weight];
        if self.spec.patch.bias {
            inputs.push(self.parameter(Layer::PatchEmbed.bias())?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let (kernel, strides) = (Ints("kernel_shape", &[patch, patch]), Ints("strides", &[patch, patch]));
        let grid = self.graph.node("Conv", &inputs, &[kernel, strides]); // (N, d, g, g)
        let grid = self.reshape(&grid, &[0, self.spec.width as i64, -1]);
        let patches = self.graph.node("Transpose", &[&grid], &[Ints("perm", &[0, 2, 1])]); // (N, g², d)
        let (prefix, positions) = self.constants()?;
        let mut x = self.norm_if(self.spec.patch.norm, &patches, Layer::PatchNorm.weight())?;
        if let Some(positions) = positions {
            let positions = self.graph.tensor("pos_embed.patches", &positions)?;
            x = self.graph.node("Add", &[&x, &positions], &[]);
        }
        if let Some(prefix) = prefix {
            let prefix = self.expanded("prefix_tokens", &prefix)?;
            x = self.graph.node("Concat", &[&prefix, &x], &[Int("axis", 1)]);
        }
        self.norm_if(self.spec.norm_pre, &x, Layer::NormPre.weight())
    }

    /// The tokens before the patches with their positions, (1, P, d), and the positions of the patches, (1, g², d), where
    /// these are learnt.
    fn constants(&self) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let params = &self.model.params;
        let (positions, k) = (params.get(Layer::PosEmbed.whole()), self.spec.positions.prefix());
        let patches = positions.as_ref().map(|table| table.narrow(1, k, table.dim(1)? - k)).transpose()?;
        let tokens =
            [Layer::ClsToken, Layer::DistToken, Layer::RegToken].iter().filter_map(|token| params.get(token.whole()));
        let tokens: Vec<Tensor> = tokens.collect();
        if tokens.is_empty() {
            return Ok((None, patches));
        }
        let prefix = Tensor::cat(&tokens, 1)?;
        let others = prefix.dim(1)? - k;
        let Some(positions) = positions else { return Ok((Some(prefix), patches)) };
        let positioned = (prefix.narrow(1, 0, k)? + positions.narrow(1, 0, k)?)?;
        Ok((Some(Tensor::cat(&[positioned, prefix.narrow(1, k, others)?], 1)?), patches))
    }

    /// Constant tokens (1, P, d) once an image, (N, P, d).
    fn expanded(&mut self, name: &str, tokens: &Tensor) -> Result<ValueName> {
        let [count, width] = [tokens.dim(1)? as i64, tokens.dim(2)? as i64];
        let tokens = self.graph.tensor(name, tokens)?;
        let batch = self.graph.node("Shape", &[PIXELS], &[Int("start", 0), Int("end", 1)]);
        let rest = self.graph.list(&[count, width]);
        let shape = self.graph.node("Concat", &[&batch, &rest], &[Int("axis", 0)]);
        Ok(self.graph.node("Expand", &[&tokens, &shape], &[]))
    }

    /// A block with the learnt prompts that join before it and leave behind it.
    fn prompted_block(&mut self, x: &str, index: usize) -> Result<ValueName> {
        let prompts = VisualPrompts::of(self.spec, &self.model.params);
        let (before, count) = prompts.span()?;
        let tokens = self.spec.tokens();
        let mut x = x.to_owned();
        if let Some(prompt) = prompts.joining(index) {
            let prompt = self.expanded(&Layer::Prompt.whole().in_block(index).to_string(), &prompt.unsqueeze(0)?)?;
            x = self.around(&x, (before, before..tokens), Some(prompt));
        }
        x = self.block(&x, index)?;
        if prompts.are_leaving(index) {
            x = self.around(&x, (before, before + count..tokens + count), None);
        }
        Ok(x)
    }

    /// The first tokens of (N, T, d), those between, and those of a range.
    fn around(&mut self, x: &str, (first, rest): (usize, Range<usize>), between: Option<ValueName>) -> ValueName {
        let front = (first > 0).then(|| self.slice(x, 0..first));
        let back = self.slice(x, rest);
        let parts: Vec<ValueName> = front.into_iter().chain(between).chain([back]).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.graph.node("Concat", &parts, &[Int("axis", 1)])
    }

    /// Some tokens of (N, T, d).
    pub(super) fn slice(&mut self, tokens: &str, range: Range<usize>) -> ValueName {
        let (start, end) = (self.graph.list(&[range.start as i64]), self.graph.list(&[range.end as i64]));
        let axis = self.graph.list(&[1]);
        self.graph.node("Slice", &[tokens, &start, &end, &axis], &[])
    }

    fn block(&mut self, x: &str, index: usize) -> Result<ValueName> {
        let at = |name: ParamName| name.in_block(index);
        let behind = self.spec.norms.behind;
        let [norm1, norm2] = [Layer::Norm1, Layer::Norm2].map(|norm| at(norm.weight()));
        let entered = self.norm_if(!behind, x, norm1)?;
        let attended = self.attention(&entered, index)?;
        let attended = self.norm_if(behind, &attended, norm1)?;
        let branch = self.scaled(&attended, at(Layer::Scale1.part(Part::Gamma)))?;
        let x = self.graph.node("Add", &[x, &branch], &[]);
        let entered = self.norm_if(!behind, &x, norm2)?;
        let hidden = self.linear(&entered, at(Layer::Fc1.weight()))?;
        let hidden = self.activated(&hidden);
        let hidden = self.norm_if(self.spec.mlp.norm, &hidden, at(Layer::MlpNorm.weight()))?;
        let hidden = self.linear(&hidden, at(Layer::Fc2.weight()))?;
        let hidden = self.norm_if(behind, &hidden, norm2)?;
        let branch = self.scaled(&hidden, at(Layer::Scale2.part(Part::Gamma)))?;
        Ok(self.graph.node("Add", &[&x, &branch], &[]))
    }

    /// Multi-head self-attention, (N, T, d) to (N, T, d).
    fn attention(&mut self, x: &str, index: usize) -> Result<ValueName> {
        let packed = self.linear(x, Layer::Qkv.weight().in_block(index))?;
        let parts = self.graph.split_last(&packed, 3);
        let (query, key) =
            (self.heads_normed(&parts[0], Layer::QNorm, index)?, self.heads_normed(&parts[1], Layer::KNorm, index)?);
        let (query, key) = (self.turned(&query, index)?, self.turned(&key, index)?);
        let heads = self.spec.attention.heads;
        let query = self.heads(&query, heads, &[0, 2, 1, 3]);
        let bias = self.relative(index)?;
        let attended = self.attend((&query, heads, bias.as_deref()), &key, &parts[2]);
        let norm = Layer::ProjNorm.weight().in_block(index);
        let attended = self.norm_if(self.spec.attention.norm, &attended, norm)?;
        self.linear(&attended, Layer::Proj.weight().in_block(index))
    }

    /// Queries or keys (N, T, d) with each head normed, where they have norms.
    fn heads_normed(&mut self, x: &str, norm: Layer, index: usize) -> Result<ValueName> {
        if !self.spec.attention.qk_norm {
            return Ok(x.to_owned());
        }
        let (width, heads) = (self.spec.width, self.spec.attention.heads);
        let x = self.reshape(x, &[0, 0, heads as i64, (width / heads) as i64]);
        let x = self.norm(&x, norm.weight().in_block(index))?;
        Ok(self.reshape(&x, &[0, 0, width as i64]))
    }

    /// softmax(q kᵀ / √e + bias) v: queries (N or 1, heads, Q, e), keys and values (N, T, d) to (N, Q, d).
    pub(super) fn attend(
        &mut self,
        (query, heads, bias): (&str, usize, Option<&str>),
        keys: &str,
        values: &str,
    ) -> ValueName {
        let head_width = self.spec.width / heads;
        let keys = self.heads(keys, heads, &[0, 2, 3, 1]); // (N, heads, e, T)
        let values = self.heads(values, heads, &[0, 2, 1, 3]); // (N, heads, T, e)
        let query = self.graph.with_number("Mul", query, (head_width as f32).powf(-0.5));
        let scores = self.graph.node("MatMul", &[&query, &keys], &[]);
        let scores = match bias {
            Some(bias) => self.graph.node("Add", &[&scores, bias], &[]),
            None => scores,
        };
        let weights = self.graph.node("Softmax", &[&scores], &[Int("axis", -1)]);
        let attended = self.graph.node("MatMul", &[&weights, &values], &[]); // (N, heads, Q, e)
        let attended = self.graph.node("Transpose", &[&attended], &[Ints("perm", &[0, 2, 1, 3])]);
        self.reshape(&attended, &[0, 0, self.spec.width as i64])
    }

    /// (N, T, d) to (N, T, heads, e), then its axes in the order `axes`.
    pub(super) fn heads(&mut self, x: &str, heads: usize, axes: &[i64]) -> ValueName {
        let x = self.reshape(x, &[0, 0, heads as i64, (self.spec.width / heads) as i64]);
        self.graph.node("Transpose", &[&x], &[Ints("perm", axes)])
    }

    /// What a readout takes of a block's normed tokens: class token, mean patch, or both.
    fn read(&mut self, tokens: &str) -> Vec<ValueName> {
        let features = self.model.readout.features;
        let mut parts = Vec::new();
        if matches!(features, FeatureChoice::Cls | FeatureChoice::Both) {
            parts.push(self.token(tokens, 0));
        }
        if matches!(features, FeatureChoice::Avg | FeatureChoice::Both) {
            parts.push(self.patch_mean(tokens));
        }
        parts
    }

    fn head(&mut self, features: &str) -> Result<()> {
        let product = if self.model.compares_directions() {
            self.scaled_cosines(features)?
        } else {
            let weight = self.matrix(Layer::Head.weight())?;
            self.graph.node("MatMul", &[features, &weight], &[])
        };
        let bias = self.parameter(Layer::Head.bias())?;
        self.graph.named("Add", &[&product, &bias], &[], vec![LOGITS.into()]);
        self.graph.named("Softmax", &[LOGITS], &[Int("axis", -1)], vec![PROBABILITIES.into()]);
        Ok(())
    }

    /// Features to scaled cosines with the directions of the classes; the scale is in the directions.
    fn scaled_cosines(&mut self, features: &str) -> Result<ValueName> {
        let projected = self.model.params.get(Layer::Projection.weight()).is_some();
        let embedding =
            if projected { self.linear(features, Layer::Projection.weight())? } else { features.to_owned() };
        let length = self.graph.node("ReduceL2", &[&embedding], &[Ints("axes", &[-1]), Int("keepdims", 1)]);
        let length = self.graph.with_number("Max", &length, SHORTEST);
        let unit = self.graph.node("Div", &[&embedding, &length], &[]);
        let scale = self.model.params.tensor(Layer::Head.part(Part::LogitScale))?.exp()?;
        let directions = self.model.params.tensor(Layer::Head.weight())?.broadcast_mul(&scale)?.t()?;
        let directions = self.graph.tensor(&transposed(Layer::Head.weight()), &directions)?;
        Ok(self.graph.node("MatMul", &[&unit, &directions], &[]))
    }

    /// What an MLP does between its two products.
    pub(super) fn activated(&mut self, x: &str) -> ValueName {
        match self.spec.mlp.kind {
            MlpKind::Plain(activation) => self.graph.activation(activation, x),
            MlpKind::SwiGlu => self.graph.swiglu(x),
        }
    }

    /// The linear layer with that weight and, if there is one, the bias beside it.
    pub(super) fn linear(&mut self, x: &str, weight: ParamName) -> Result<ValueName> {
        let matrix = self.matrix(weight)?;
        let product = self.graph.node("MatMul", &[x, &matrix], &[]);
        let bias = weight.sibling(Part::Bias);
        if self.model.params.get(bias).is_none() {
            return Ok(product);
        }
        let bias = self.parameter(bias)?;
        Ok(self.graph.node("Add", &[&product, &bias], &[]))
    }

    pub(super) fn norm(&mut self, x: &str, weight: ParamName) -> Result<ValueName> {
        if self.spec.norms.rms {
            let square = self.graph.node("Mul", &[x, x], &[]);
            let square = self.graph.node("ReduceMean", &[&square], &[Ints("axes", &[-1]), Int("keepdims", 1)]);
            let square = self.graph.with_number("Add", &square, self.spec.norms.eps);
            let root = self.graph.node("Sqrt", &[&square], &[]);
            let unit = self.graph.node("Div", &[x, &root], &[]);
            let weight = self.parameter(weight)?;
            return Ok(self.graph.node("Mul", &[&unit, &weight], &[]));
        }
        let (weight, bias) = (self.parameter(weight)?, self.parameter(weight.sibling(Part::Bias))?);
        let options = [Int("axis", -1), Float("epsilon", self.spec.norms.eps)];
        Ok(self.graph.node("LayerNormalization", &[x, &weight, &bias], &options))
    }

    fn norm_if(&mut self, present: bool, x: &str, weight: ParamName) -> Result<ValueName> {
        if present { self.norm(x, weight) } else { Ok(x.to_owned()) }
    }

    fn scaled(&mut self, branch: &str, gamma: ParamName) -> Result<ValueName> {
        if self.model.params.get(gamma).is_none() {
            return Ok(branch.to_owned());
        }
        let gamma = self.parameter(gamma)?;
        Ok(self.graph.node("Mul", &[branch, &gamma], &[]))
    }

    pub(super) fn reshape(&mut self, x: &str, shape: &[i64]) -> ValueName {
        let shape = self.graph.list(shape);
        self.graph.node("Reshape", &[x, &shape], &[])
    }

    pub(super) fn parameter(&mut self, name: ParamName) -> Result<ValueName> {
        let tensor = self.model.params.tensor(name)?;
        self.graph.tensor(&name.to_string(), &tensor)
    }

    /// The weight (out, in) of a linear layer as the factor (in, out) of a product.
    fn matrix(&mut self, weight: ParamName) -> Result<ValueName> {
        let matrix = self.model.params.tensor(weight)?.t()?;
        self.graph.tensor(&transposed(weight), &matrix)
    }
}

/// The name of a weight that is stored transposed.
fn transposed(weight: ParamName) -> String {
    format!("{weight}.T")
}
