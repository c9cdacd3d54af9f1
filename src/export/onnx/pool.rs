//! The poolings in ONNX's operators.

use super::builder::Attribute::{Int, Ints};
use super::builder::ValueName;
use super::graph::NodeWriter;
use crate::backbone::{Layer, Pool, PoolQuery};
use crate::nn::pool::{Gem, LogSumExp, Stats, Top};
use candle_core::Result;

/// How many tokens are pooled.
enum Count {
    /// The patches of an image.
    Fixed(usize),
    /// The tiles of an image: as many as this value (1) says.
    Counted(ValueName),
}

impl NodeWriter<'_> {
    /// Normed tokens (N, T, d) to the features of the backbone's pooling.
    pub(super) fn pool(&mut self, tokens: &str) -> Result<ValueName> {
        Ok(match self.spec.pooling.pool {
            Pool::Cls => self.token(tokens, 0),
            Pool::ClsAvg => {
                let (token, mean) = (self.token(tokens, 0), self.patch_mean(tokens));
                self.graph.node("Concat", &[&token, &mean], &[Int("axis", 1)])
            }
            Pool::Distilled => {
                let count = self.spec.prefix_tokens();
                let first = self.token(tokens, 0);
                let sum = (1..count).fold(first, |sum, index| {
                    let token = self.token(tokens, index as i64);
                    self.graph.node("Add", &[&sum, &token], &[])
                });
                self.graph.with_number("Mul", &sum, 1.0 / count as f32)
            }
            Pool::Attention => self.attention_pool(tokens)?,
            pool => {
                let (patches, count) = (self.patches(tokens), Count::Fixed(self.spec.grid().area()));
                self.pooled(pool, &patches, (count, [Layer::GatedV, Layer::GatedU, Layer::GatedW]))?
            }
        })
    }

    /// The features of the tiles of an image (T, w) to those of the image (1, k w).
    pub(super) fn pool_tiles(&mut self, features: &str) -> Result<ValueName> {
        let Some(pool) = Pool::of_tiles(self.spec.pooling.tiles) else {
            candle_core::bail!("the pooling of tiles is still to be chosen")
        };
        let count = self.graph.node("Shape", &[features], &[Int("start", 0), Int("end", 1)]);
        let axis = self.graph.list(&[0]);
        let tiles = self.graph.node("Unsqueeze", &[features, &axis], &[]); // (1, T, w)
        self.pooled(pool, &tiles, (Count::Counted(count), [Layer::TileV, Layer::TileU, Layer::TileW]))
    }

    /// Tokens (N, T, d) to the features (N, w) of a pooling that reads them all; `gate` are the layers of gated attention.
    fn pooled(&mut self, pool: Pool, tokens: &str, (count, gate): (Count, [Layer; 3])) -> Result<ValueName> {
        Ok(match pool {
            Pool::Avg => self.over_patches("ReduceMean", tokens, false),
            Pool::Max => self.over_patches("ReduceMax", tokens, false),
            Pool::Lse => self.log_sum_exp(tokens),
            Pool::Topk => self.mean_of_largest(tokens, count),
            Pool::Gem => self.generalised_mean(tokens),
            Pool::Stats => self.statistics(tokens),
            Pool::Gated => self.gated_attention(tokens, gate)?,
            Pool::Mahalanobis => self.largest_distance(tokens)?,
            Pool::Cls | Pool::ClsAvg | Pool::Distilled | Pool::Attention => {
                candle_core::bail!("{pool:?} reads more than patches")
            }
        })
    }

    /// Patches (N, T, d) reduced to one, (N, 1, d) where the axis is kept, else (N, d).
    fn over_patches(&mut self, op: &str, patches: &str, kept: bool) -> ValueName {
        self.graph.node(op, &[patches], &[Ints("axes", &[1]), Int("keepdims", kept.into())])
    }

    /// log(mean(exp(r (x - largest)))) / r + largest.
    fn log_sum_exp(&mut self, patches: &str) -> ValueName {
        let largest = self.over_patches("ReduceMax", patches, true);
        let below = self.graph.node("Sub", &[patches, &largest], &[]);
        let sharp = self.graph.with_number("Mul", &below, LogSumExp::SHARPNESS as f32);
        let exponentials = self.graph.node("Exp", &[&sharp], &[]);
        let mean = self.over_patches("ReduceMean", &exponentials, true);
        let logarithm = self.graph.node("Log", &[&mean], &[]);
        let blunt = self.graph.with_number("Div", &logarithm, LogSumExp::SHARPNESS as f32);
        let smooth = self.graph.node("Add", &[&blunt, &largest], &[]);
        self.reshape(&smooth, &[0, -1])
    }

    fn mean_of_largest(&mut self, patches: &str, count: Count) -> ValueName {
        let count = match count {
            Count::Fixed(count) => self.graph.list(&[Top::count(count) as i64]),
            // Rounded up.
            Count::Counted(count) => {
                let (more, of) = (self.graph.list(&[Top::ONE_IN as i64 - 1]), self.graph.list(&[Top::ONE_IN as i64]));
                let sum = self.graph.node("Add", &[&count, &more], &[]);
                self.graph.node("Div", &[&sum, &of], &[])
            }
        };
        let largest = format!("largest_{patches}");
        let outputs = vec![largest.clone(), format!("places_{patches}")];
        self.graph.named("TopK", &[patches, &count], &[Int("axis", 1)], outputs);
        self.over_patches("ReduceMean", &largest, false)
    }

    /// mean(max(x, ε)³)^(1/3).
    fn generalised_mean(&mut self, patches: &str) -> ValueName {
        let positive = self.graph.with_number("Max", patches, Gem::LEAST as f32);
        let squares = self.graph.node("Mul", &[&positive, &positive], &[]);
        let cubes = self.graph.node("Mul", &[&squares, &positive], &[]);
        let mean = self.over_patches("ReduceMean", &cubes, false);
        self.graph.with_number("Pow", &mean, 1.0 / 3.0)
    }

    fn statistics(&mut self, patches: &str) -> ValueName {
        let mean = self.over_patches("ReduceMean", patches, true);
        let distance = self.graph.node("Sub", &[patches, &mean], &[]);
        let squares = self.graph.node("Mul", &[&distance, &distance], &[]);
        let variance = self.over_patches("ReduceMean", &squares, true);
        let variance = self.graph.with_number("Add", &variance, Stats::EPS as f32);
        let deviation = self.graph.node("Sqrt", &[&variance], &[]);
        let largest = self.over_patches("ReduceMax", patches, true);
        let parts = self.graph.node("Concat", &[&mean, &largest, &deviation], &[Int("axis", 2)]);
        self.reshape(&parts, &[0, -1])
    }

    /// max(√mean((W x + b)²)).
    fn largest_distance(&mut self, patches: &str) -> Result<ValueName> {
        let white = self.linear(patches, Layer::Whitening.weight())?;
        let squares = self.graph.node("Mul", &[&white, &white], &[]);
        let mean = self.graph.node("ReduceMean", &[&squares], &[Ints("axes", &[2]), Int("keepdims", 1)]);
        let distances = self.graph.node("Sqrt", &[&mean], &[]); // (N, T, 1)
        Ok(self.over_patches("ReduceMax", &distances, false))
    }

    /// Σ aₙ xₙ with a = softmax(w · (tanh(V x + b) ⊙ sigmoid(U x + c))).
    fn gated_attention(&mut self, patches: &str, [v, u, w]: [Layer; 3]) -> Result<ValueName> {
        let hidden = self.linear(patches, v.weight())?;
        let hidden = self.graph.node("Tanh", &[&hidden], &[]);
        let gate = self.linear(patches, u.weight())?;
        let gate = self.graph.node("Sigmoid", &[&gate], &[]);
        let gated = self.graph.node("Mul", &[&hidden, &gate], &[]);
        let scores = self.linear(&gated, w.weight())?; // (N, T, 1)
        let scores = self.graph.node("Transpose", &[&scores], &[Ints("perm", &[0, 2, 1])]);
        let attention = self.graph.node("Softmax", &[&scores], &[Int("axis", -1)]);
        let pooled = self.graph.node("MatMul", &[&attention, patches], &[]); // (N, 1, d)
        Ok(self.reshape(&pooled, &[0, -1]))
    }

    /// Attention of a learned query over the patches or all tokens, then a residual MLP.
    fn attention_pool(&mut self, tokens: &str) -> Result<ValueName> {
        let Some(PoolQuery { heads, reads_prefix, .. }) = self.spec.pool_query() else {
            candle_core::bail!("there is no query")
        };
        let read = if reads_prefix { tokens.to_owned() } else { self.patches(tokens) };
        let latent = self.parameter(Layer::PoolLatent.whole())?; // (1, 1, d)
        let query = self.linear(&latent, Layer::PoolQ.weight())?;
        let query = self.heads(&query, heads, &[0, 2, 1, 3]);
        let packed = self.linear(&read, Layer::PoolKv.weight())?;
        let parts = self.graph.split_last(&packed, 2);
        let attended = self.attend((&query, heads, None), &parts[0], &parts[1]);
        let attended = self.reshape(&attended, &[-1, self.spec.width as i64]);
        let pooled = self.linear(&attended, Layer::PoolProj.weight())?;
        let normed = self.norm(&pooled, Layer::PoolNorm.weight())?;
        let hidden = self.linear(&normed, Layer::PoolFc1.weight())?;
        let hidden = self.activated(&hidden);
        let hidden = self.linear(&hidden, Layer::PoolFc2.weight())?;
        Ok(self.graph.node("Add", &[&pooled, &hidden], &[]))
    }

    pub(super) fn token(&mut self, tokens: &str, index: i64) -> ValueName {
        let index = self.graph.index(index);
        self.graph.node("Gather", &[tokens, &index], &[Int("axis", 1)])
    }

    fn patches(&mut self, tokens: &str) -> ValueName {
        match self.spec.prefix_tokens() {
            0 => tokens.to_owned(),
            prefix => self.slice(tokens, prefix..self.spec.tokens()),
        }
    }

    pub(super) fn patch_mean(&mut self, tokens: &str) -> ValueName {
        let patches = self.patches(tokens);
        self.over_patches("ReduceMean", &patches, false)
    }
}
