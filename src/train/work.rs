//! What a run computes, in floating-point operations: the same on every machine, however busy it is.
//!
//! Only matrix products are counted, those of the backbone and of a text tower. Heads, norms and decoding are left out, so runs
//! that differ by less than a tenth count as equal.

use super::forecast::Workload;
use crate::backbone::VitSpec;
use serde::{Deserialize, Serialize};

/// The operations of a training run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Work {
    /// Those that do not depend on the length of the training: of frozen layers that run once, and of the scoring at the end.
    pub once: f64,
    /// Those of each step of the optimiser, with its share of the validation after every epoch.
    pub step: f64,
}

impl Work {
    /// The operations of so many steps.
    pub fn of(self, steps: f64) -> f64 {
        self.once + steps * self.step
    }
}

/// Operations of the backbone forward on one input.
pub fn forward(spec: &VitSpec) -> f64 {
    let (products, attention) = block(spec, spec.tokens());
    embedding(spec) + spec.depth as f64 * (products + attention)
}

fn embedding(spec: &VitSpec) -> f64 {
    2.0 * (spec.tokens() * 3 * spec.patch.size * spec.patch.size * spec.width) as f64
}

/// Operations of one block on so many tokens: four square products and the MLP, and attention's two.
fn block(spec: &VitSpec, tokens: usize) -> (f64, f64) {
    let (tokens, width) = (tokens as f64, spec.width as f64);
    let mlp = width * (spec.mlp.expanded() + spec.mlp.hidden) as f64;
    (2.0 * tokens * (4.0 * width * width + mlp), 4.0 * tokens * tokens * width)
}

impl Workload<'_> {
    /// Steps of the optimiser in an epoch.
    pub(super) fn steps_per_epoch(&self) -> f64 {
        self.images.train.div_ceil(self.batch_size.max(1)) as f64
    }

    /// What the training computes.
    pub fn work(&self) -> Work {
        let (spec, images) = (self.spec, self.images);
        let (train, held_out) = (images.train as f64, (images.val + images.test) as f64);
        let (products, attention) = block(spec, spec.tokens() + self.prompt_tokens);
        let block = products + attention;
        let trainable = (spec.depth - self.first_block.min(spec.depth)) as f64;
        let kept_below = self.start.blocks_before(spec.depth) as f64;
        let forward = (spec.depth as f64 - kept_below) * block + if kept_below == 0.0 { embedding(spec) } else { 0.0 };
        // A product backward is one for what enters and one for the weights, if these are trained; attention has no
        // weights. Checkpointing runs forward once more, and so do tiles.
        let weights = if self.adapters || self.prompt_tokens > 0 { 0.0 } else { products };
        let again = if self.computation.checkpoint_blocks { block } else { 0.0 };
        let backward = trainable * (products + 2.0 * attention + weights + again);
        let tiled = if self.tiles.is_some() { forward } else { 0.0 };
        let step = self.passes as f64 * (forward + tiled + backward);
        let below = kept_below * block + if kept_below > 0.0 { embedding(spec) } else { 0.0 };
        // Of a frozen tower, the backward pass has the gradients of activations only.
        let texts = self.texts.map_or(0.0, |texts| 2.0 * texts.operations);
        let tiles = self.tiles.map_or(1.0, |tiles| tiles.mean);
        let epoch = tiles * (train * step + images.val as f64 * forward);
        let views = self.views.max(1) as f64;
        Work {
            once: tiles * (below * (train * views + held_out) + held_out * forward),
            step: epoch / self.steps_per_epoch().max(1.0) + texts,
        }
    }
}
