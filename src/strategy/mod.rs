//! Strategies: which parameters learn, and how fast.
//!
//! A strategy is a named selection over parameter places that covers every parameter; a parameter whose place nobody
//! knows is refused, so a new backbone cannot be trained by accident in part.

mod frozen;
mod full;
mod partial;
mod prompt;

use crate::backbone::{Readout, Stage};
use crate::config::StrategySettings;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Where in the network a parameter sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Patch embedding, class token, registers, positions and the norm before the first block.
    Embedding,
    /// A block, counted from the input.
    Block(usize),
    /// Learnt tokens that join the others in a block, counted from the input.
    Prompt(usize),
    /// What stands between the last block and the head: the norm, the attention pooling.
    FinalNorm,
    /// Learnt words before the text tower, from which the head follows.
    Context,
    /// The classification head.
    Head,
}

impl Place {
    /// The place of a canonical parameter name.
    pub fn of(name: &str) -> Option<Self> {
        let (module, rest) = name.split_once('.').unwrap_or((name, ""));
        match module {
            "cls_token" | "dist_token" | "reg_token" | "pos_embed" | "patch_embed" | "norm_pre" => {
                Some(Self::Embedding)
            }
            "blocks" => {
                let (block, rest) = rest.split_once('.')?;
                block.parse().ok().map(if rest == "prompt" { Self::Prompt } else { Self::Block })
            }
            "norm" | "fc_norm" | "attn_pool" => Some(Self::FinalNorm),
            "prompt" => Some(Self::Context),
            "head" => Some(Self::Head),
            _ => None,
        }
    }

    /// Its layer in the sense of layer decay: 0 for the embedding, block + 1, depth + 1 for what follows (timm, `BEiT`).
    fn layer(self, depth: usize) -> usize {
        match self {
            Self::Embedding => 0,
            Self::Block(block) | Self::Prompt(block) => block + 1,
            Self::FinalNorm | Self::Context | Self::Head => depth + 1,
        }
    }
}

/// A way of adapting a backbone. A new one is one file that implements this and one line in `strategy()`.
pub trait Strategy {
    /// Whether a parameter at `place` learns.
    fn learns(&self, place: Place, depth: usize) -> bool;

    /// The number of blocks it needs, for checking against the backbone.
    fn blocks(&self) -> usize {
        0
    }
}

/// The registry: settings to strategy.
fn strategy(settings: &StrategySettings) -> Box<dyn Strategy> {
    match settings {
        StrategySettings::Frozen => Box::new(frozen::Frozen),
        StrategySettings::Partial { blocks } => Box::new(partial::Partial { blocks: *blocks }),
        StrategySettings::Full => Box::new(full::Full),
        StrategySettings::Prompt(prompt) => Box::new(prompt::Prompt { modality: prompt.modality }),
    }
}

/// How one learning parameter is updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Treatment {
    /// Whether it follows the head's learning rate.
    pub head: bool,
    /// Factor on the learning rate from layer decay.
    pub lr_scale: f64,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// The learning parameters with their treatment; every other parameter is frozen.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    treatments: BTreeMap<String, Treatment>,
    /// The lowest block that learns; `depth` when none does.
    pub first_block: usize,
    /// The point below which nothing learns: what comes before it is the same in every epoch.
    pub frozen_until: Stage,
}

impl Plan {
    /// Decides over every parameter: `shapes` are names with their shapes, head included.
    ///
    /// # Errors
    /// A usage error when the strategy asks for more blocks than there are, or a parameter's place is unknown.
    pub fn new<'a>(
        settings: &StrategySettings,
        layer_decay: f64,
        depth: usize,
        shapes: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<Self> {
        let strategy = strategy(settings);
        if strategy.blocks() > depth {
            return Err(Error::usage_hint(
                format!("strategy.blocks = {} but the backbone has {depth} blocks", strategy.blocks()),
                format!("give 1 to {depth}, or strategy.kind = \"full\""),
            ));
        }
        let mut treatments = BTreeMap::new();
        let (mut first_block, mut only_head, mut embedding) = (depth, true, false);
        for (name, shape) in shapes {
            let Some(place) = Place::of(name) else {
                return Err(Error::usage(format!("no strategy covers the parameter {name:?}")));
            };
            if !strategy.learns(place, depth) {
                continue;
            }
            match place {
                Place::Embedding => (first_block, embedding) = (0, true),
                Place::Block(block) | Place::Prompt(block) => first_block = first_block.min(block),
                Place::FinalNorm | Place::Context | Place::Head => {}
            }
            only_head &= matches!(place, Place::Context | Place::Head);
            let below_top = depth + 1 - place.layer(depth);
            let treatment = Treatment {
                head: place == Place::Head,
                lr_scale: layer_decay.powi(below_top as i32),
                decay: decays(name, shape),
            };
            treatments.insert(name.to_owned(), treatment);
        }
        let frozen_until = match (embedding, only_head) {
            (true, _) => Stage::Pixels,
            (false, true) => Stage::Features(Readout::POOL),
            (false, false) => Stage::Block(first_block),
        };
        Ok(Self { treatments, first_block, frozen_until })
    }

    /// The treatment of a parameter; none when it is frozen.
    pub fn get(&self, name: &str) -> Option<Treatment> {
        self.treatments.get(name).copied()
    }
}

/// No bias, norm, class or distillation token, register or position embedding is decayed (timm, MAE, `big_vision`), and
/// no prompt, which is a token too.
fn decays(name: &str, shape: &[usize]) -> bool {
    let prompt = matches!(Place::of(name), Some(Place::Prompt(_) | Place::Context));
    shape.len() > 1 && !prompt && !matches!(name, "cls_token" | "dist_token" | "reg_token" | "pos_embed")
}

/// Stochastic depth rates rising linearly over the blocks to `rate` (Huang et al. 2016). Frozen blocks never drop:
/// they are a fixed feature extractor.
pub fn drop_path_rates(rate: f64, depth: usize, first_block: usize) -> Vec<f64> {
    let last = depth.saturating_sub(1).max(1) as f64;
    (0..depth).map(|block| if block < first_block { 0.0 } else { rate * block as f64 / last }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[(&str, &[usize])] = &[
        ("cls_token", &[1, 1, 8]),
        ("pos_embed", &[1, 5, 8]),
        ("patch_embed.proj.weight", &[8, 3, 2, 2]),
        ("blocks.0.attn.qkv.weight", &[24, 8]),
        ("blocks.1.norm1.weight", &[8]),
        ("norm.bias", &[8]),
        ("head.weight", &[3, 8]),
    ];

    fn plan(settings: &StrategySettings, decay: f64) -> Plan {
        Plan::new(settings, decay, 2, NAMES.iter().copied()).unwrap()
    }

    fn learning(plan: &Plan) -> Vec<&str> {
        NAMES.iter().map(|(name, _)| *name).filter(|name| plan.get(name).is_some()).collect()
    }

    #[test]
    fn each_strategy_selects_its_parameters() {
        assert_eq!(learning(&plan(&StrategySettings::Frozen, 1.0)), ["head.weight"]);
        let partial = plan(&StrategySettings::Partial { blocks: 1 }, 1.0);
        assert_eq!(learning(&partial), ["blocks.1.norm1.weight", "norm.bias", "head.weight"]);
        assert_eq!((partial.first_block, plan(&StrategySettings::Frozen, 1.0).first_block), (1, 2));
        let until = |settings| plan(&settings, 1.0).frozen_until;
        assert_eq!(until(StrategySettings::Frozen), Stage::Features(Readout::POOL));
        assert_eq!(until(StrategySettings::Partial { blocks: 2 }), Stage::Block(0));
        assert_eq!((partial.frozen_until, until(StrategySettings::Full)), (Stage::Block(1), Stage::Pixels));
        assert_eq!(learning(&plan(&StrategySettings::Full, 1.0)).len(), NAMES.len());
    }

    #[test]
    fn prompts_learn_beside_frozen_towers() {
        let settings = |modality: &str| {
            let sets = ["data.root=/data", "strategy.kind=prompt", &format!("strategy.modality={modality}")];
            crate::config::load(None, &sets.map(str::to_owned)).unwrap().strategy
        };
        let plan = |modality: &str, prompt: &'static str| {
            let names = NAMES.iter().copied().chain([(prompt, [4, 8].as_slice())]);
            Plan::new(&settings(modality), 0.5, 2, names).unwrap()
        };
        let text = plan("text", "prompt.context");
        assert!(learning(&text).is_empty());
        let context = Treatment { head: false, lr_scale: 1.0, decay: false };
        assert_eq!(text.get("prompt.context"), Some(context));
        assert_eq!((text.first_block, text.frozen_until), (2, Stage::Features(Readout::POOL)));
        let visual = plan("visual", "blocks.0.prompt");
        assert_eq!(learning(&visual), ["head.weight"]);
        assert_eq!(visual.get("blocks.0.prompt"), Some(Treatment { lr_scale: 0.25, ..context }));
        assert_eq!((visual.first_block, visual.frozen_until), (0, Stage::Block(0)));
    }

    #[test]
    fn layer_decay_counts_from_the_head_and_vectors_do_not_decay() {
        let plan = plan(&StrategySettings::Full, 0.5);
        let scales: Vec<f64> = NAMES.iter().filter_map(|(name, _)| plan.get(name)).map(|t| t.lr_scale).collect();
        assert_eq!(scales, [0.125, 0.125, 0.125, 0.25, 0.5, 1.0, 1.0]);
        let decayed: Vec<bool> = NAMES.iter().filter_map(|(name, _)| plan.get(name)).map(|t| t.decay).collect();
        assert_eq!(decayed, [false, false, true, true, false, false, true]);
    }

    #[test]
    fn unknown_parameters_and_too_many_blocks_are_refused() {
        let stray = [("adapter.weight", [2, 2].as_slice())];
        assert!(Plan::new(&StrategySettings::Full, 1.0, 2, stray).is_err());
        let blocks = Plan::new(&StrategySettings::Partial { blocks: 3 }, 1.0, 2, NAMES.iter().copied());
        assert!(blocks.unwrap_err().to_string().contains("has 2 blocks"));
    }

    #[test]
    fn frozen_blocks_never_drop() {
        assert_eq!(drop_path_rates(0.2, 3, 2), [0.0, 0.0, 0.2]);
        assert_eq!(drop_path_rates(0.2, 3, 0), [0.0, 0.1, 0.2]);
        assert_eq!(drop_path_rates(0.2, 1, 0), [0.0]);
    }
}
