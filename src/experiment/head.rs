//! The head of a model: how it makes logits, and with it which parameters of the whole model are trainable. It is decided
//! here for training runs, for probes, for runs that are opened again, and for the plan that `check` shows.

use crate::backbone::{Layer, ParamName, Params, Readout, Shapes, VitSpec};
use crate::config::{PromptModality, Settings, StrategySettings, VisualPromptSettings};
use crate::error::Result;
use crate::model::{CONTEXT, HeadKind};
use crate::strategy::Plan;
use crate::text::ContextPrompts;

/// The map from features to the space of texts, among [`Backbone::outputs`](crate::backbone::Backbone::outputs).
pub const PROJECTION: [ParamName; 2] = [Layer::Projection.weight(), Layer::Projection.bias()];

/// How a head makes logits that starts from the texts of the classes, follows from learnt words or is compared with
/// texts; and how any other does.
pub fn kind(with_texts: bool) -> HeadKind {
    if with_texts { HeadKind::Cosine } else { HeadKind::Linear }
}

/// The prompts that the strategy adds to the image tower.
pub fn visual_prompts(settings: &Settings) -> Option<VisualPromptSettings> {
    match &settings.strategy {
        StrategySettings::Prompt(prompt) if prompt.modality == PromptModality::Visual => Some(prompt.visual),
        _ => None,
    }
}

/// A head, and what is trainable in a model that ends in it.
#[derive(Debug, Clone)]
pub struct HeadPlan {
    /// How it makes logits.
    pub kind: HeadKind,
    /// Which features it reads.
    pub readout: Readout,
    /// Its classes.
    pub classes: usize,
    /// Values that it takes of an image: its features, or their embedding.
    pub width: usize,
    /// Which parameters are trainable.
    pub plan: Plan,
    /// The shapes of all parameters but adapters.
    shapes: Shapes,
}

impl HeadPlan {
    /// On a backbone of this architecture with these `outputs`, whose directions follow from `words` if there are any.
    ///
    /// # Errors
    /// A usage error when the strategy does not fit the backbone.
    pub fn new(
        settings: &Settings,
        (spec, outputs): (&VitSpec, &Params),
        (kind, readout, classes): (HeadKind, Readout, usize),
        words: Option<&ContextPrompts>,
    ) -> Result<Self> {
        let width = match kind {
            HeadKind::Cosine if spec.outputs.projection > 0 => spec.outputs.projection,
            _ => readout.width(spec),
        };
        let mut shapes = spec.shapes();
        shapes.extend(kind.shapes(width, classes));
        if let Some(visual) = visual_prompts(settings) {
            shapes.extend(visual.shapes(spec));
        }
        if kind == HeadKind::Cosine {
            let projections = PROJECTION.into_iter().filter_map(|name| Some((name, outputs.get(name)?)));
            shapes.extend(projections.map(|(name, projection)| (name, projection.dims().to_vec())));
        }
        if let Some(words) = words {
            shapes.insert(CONTEXT, words.start().dims().to_vec());
        }
        let plan = Plan::new(&settings.strategy, settings.train.layer_decay, spec.depth, &shapes)?;
        Ok(Self { kind, readout, classes, width, plan: plan.unfreezing(settings.unfreeze), shapes })
    }

    /// Number of trainable values and of all values, without those of a text tower.
    pub fn parameters(&self) -> (usize, usize) {
        let adapters = self.plan.lora.as_ref().map(|lora| lora.shapes(&self.shapes)).unwrap_or_default();
        let all = self.shapes.iter().chain(&adapters);
        all.fold((0, 0), |(trainable, all), (name, shape)| {
            let values = shape.iter().product::<usize>();
            (trainable + if self.plan.get(&name.to_string()).is_some() { values } else { 0 }, all + values)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::Backbone;
    use crate::config::testing::settings;

    #[test]
    fn what_is_trainable_follows_from_strategy_and_head() {
        let spec = Backbone::describe("builtin:vit-mini", None).unwrap();
        let planned = |sets: &[&str], with_texts| {
            let settings = settings(sets);
            HeadPlan::new(&settings, (&spec, &Params::default()), (kind(with_texts), Readout::POOL, 3), None).unwrap()
        };
        let (width, backbone) = (Readout::POOL.width(&spec), planned(&[], false).parameters().1);
        let frozen = planned(&["strategy.kind=frozen"], false);
        assert_eq!((frozen.kind, frozen.parameters()), (HeadKind::Linear, (3 * width + 3, backbone)));
        // Beside directions and a bias, a cosine head has its scale.
        let cosine = planned(&["strategy.kind=frozen"], true);
        assert_eq!((cosine.kind, cosine.width, cosine.parameters().1), (HeadKind::Cosine, width, backbone + 1));
        let full = planned(&["strategy.kind=full"], false);
        assert_eq!(full.parameters(), (backbone, backbone));
        // Adapters come on top.
        let (trainable, all) = planned(&["strategy.kind=lora"], false).parameters();
        assert_eq!(all - backbone, trainable - (3 * width + 3));
        assert!(trainable > 3 * width + 3);
    }
}
