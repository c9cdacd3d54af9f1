//! Strategies: which parameters are trainable, and how fast each is updated.
//!
//! A strategy is a named selection over parameter names, by where in the network a parameter lies and what it is there
//! for. It covers every parameter: a name that is not known cannot be asked about, so a new backbone cannot be trained by
//! accident in part.

mod blocks;

use crate::backbone::{Lora, ParamName, Role, Segment, Shapes};
use crate::config::{LoraSettings, PromptModality, StrategySettings};
use crate::error::Result;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a strategy trains a parameter; `blocks` are those that it names. A new strategy is a case here.
fn trains(settings: &StrategySettings, blocks: &[usize], name: ParamName) -> bool {
    match (settings, name.role()) {
        // Some blocks, the final norm and the head; all else stays as pretrained, the map to the space of texts too.
        (StrategySettings::Partial { .. }, Role::Tower) => match name.segment() {
            Segment::Block(block) => blocks.contains(&block),
            segment => segment == Segment::Pool,
        },
        // The backbone, or the rest of it, is a fixed feature extractor.
        (StrategySettings::Frozen | StrategySettings::Partial { .. }, role) => role == Role::Head,
        // Everything, usually with layer decay so that the lower layers move less.
        (StrategySettings::Full, _) => true,
        (StrategySettings::Lora(_), role) => matches!(role, Role::Adapter | Role::Head),
        // Both towers stay as pretrained (`CoOp`, Zhou et al. 2022; VPT, Jia et al. 2022). The directions of the classes
        // follow from the context.
        (StrategySettings::Prompt(prompt), Role::Head) => prompt.modality != PromptModality::Text,
        (StrategySettings::Prompt(_), role) => matches!(role, Role::Context | Role::Prompt),
    }
}

/// How one trainable parameter is updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Treatment {
    /// Whether it follows the head's learning rate.
    pub head: bool,
    /// Factor on the learning rate from layer decay.
    pub lr_scale: f64,
    /// Whether weight decay applies.
    pub decay: bool,
    /// The phase of gradual unfreezing from which it is trained.
    pub phase: usize,
}

/// The trainable parameters with their treatment; every other parameter is frozen.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    treatments: BTreeMap<String, Treatment>,
    depth: usize,
    /// The blocks that are trained or adapted, the lowest first.
    blocks: Vec<usize>,
    /// Epochs from one block's unfreezing to the next; 0 = everything is trained from the start.
    unfreeze: usize,
    /// The lowest block that is trained; `depth` when none is.
    pub first_block: usize,
    /// The lowest segment in which anything is ever trained: what comes before it is the same in every epoch.
    pub lowest: Segment,
    /// The adapters beside the backbone's own parameters; they are part of the plan.
    pub lora: Option<Lora>,
}

impl Plan {
    /// Decides over every parameter: `shapes` are those of all, head included, adapters not.
    ///
    /// # Errors
    /// A usage error when the strategy asks for more blocks than there are.
    pub fn new(settings: &StrategySettings, layer_decay: f64, depth: usize, shapes: &Shapes) -> Result<Self> {
        let (mut chosen, mut lora) = (Vec::new(), None);
        match settings {
            StrategySettings::Partial { blocks } => chosen = blocks::chosen(blocks, depth)?,
            StrategySettings::Lora(settings) => {
                let LoraSettings { blocks, targets, rank, alpha, dropout } = settings.clone();
                lora = Some(Lora { blocks: blocks::chosen(&blocks, depth)?, targets, rank, alpha, dropout });
            }
            StrategySettings::Frozen | StrategySettings::Full | StrategySettings::Prompt(_) => {}
        }
        let factors = lora.iter().flat_map(Lora::names).map(|name| (name, true));
        let all = shapes.iter().map(|(name, shape)| (*name, shape.len() > 1)).chain(factors);
        let trainable: Vec<(ParamName, bool)> = all.filter(|(name, _)| trains(settings, &chosen, *name)).collect();
        let blocks: BTreeSet<usize> = trainable.iter().filter_map(|(name, _)| name.block).collect();
        let blocks: Vec<usize> = blocks.into_iter().collect();
        let lowest = trainable.iter().map(|(name, _)| name.segment()).min().unwrap_or(Segment::Head);
        let treatments = trainable.into_iter().map(|(name, matrix)| {
            let below_top = depth + 1 - name.segment().layer(depth);
            let treatment = Treatment {
                head: name.role() == Role::Head,
                lr_scale: layer_decay.powi(below_top as i32),
                decay: matrix && !name.is_token(),
                phase: phase(name, &blocks),
            };
            (name.into(), treatment)
        });
        Ok(Self {
            treatments: treatments.collect(),
            depth,
            unfreeze: 0,
            first_block: blocks.first().copied().unwrap_or(depth),
            lowest,
            blocks,
            lora,
        })
    }

    /// The same, where one block after another is unfrozen, from the top, one every `unfreeze` epochs; the head is
    /// trained from the start, the final norm with the highest block, the embedding with the lowest (gradual unfreezing,
    /// Howard and Ruder 2018). 0 = everything is trained from the start.
    #[must_use]
    pub fn unfreezing(self, unfreeze: usize) -> Self {
        Self { unfreeze, ..self }
    }

    /// What is trained in that epoch, counted from 0; none when it is everything that ever will.
    pub fn at(&self, epoch: usize) -> Option<Self> {
        let phase = epoch.checked_div(self.unfreeze).filter(|phase| *phase < self.blocks.len())?;
        let mut plan = self.clone();
        plan.treatments.retain(|_, treatment| treatment.phase <= phase);
        plan.first_block = self.blocks.iter().rev().take(phase).next_back().copied().unwrap_or(self.depth);
        Some(plan)
    }

    /// Epochs before everything is trained.
    pub fn epochs_of_unfreezing(&self) -> usize {
        self.unfreeze * self.blocks.len()
    }

    /// The treatment of a parameter; none when it is frozen.
    pub fn get(&self, name: &str) -> Option<Treatment> {
        self.treatments.get(name).copied()
    }
}

/// The phase from which a parameter is trained when `blocks` are, the lowest first: one for each block.
fn phase(name: ParamName, blocks: &[usize]) -> usize {
    match (name.segment(), name.role()) {
        (_, Role::Head) => 0,
        (Segment::Pool, _) | (_, Role::Projection) => 1,
        (Segment::Head, _) => 0,
        (Segment::Block(block), _) => blocks.iter().filter(|other| **other >= block).count(),
        (Segment::Embed, _) => blocks.len(),
    }
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
    use crate::config::testing::settings;
    use crate::config::{BlockChoice, LoraTarget};

    const NAMES: &[(&str, &[usize])] = &[
        ("cls_token", &[1, 1, 8]),
        ("pos_embed", &[1, 5, 8]),
        ("patch_embed.proj.weight", &[8, 3, 2, 2]),
        ("blocks.0.attn.qkv.weight", &[24, 8]),
        ("blocks.1.norm1.weight", &[8]),
        ("norm.bias", &[8]),
        ("projection.weight", &[6, 8]),
        ("head.weight", &[3, 8]),
    ];

    fn shapes(names: &[(&str, &[usize])]) -> Shapes {
        names.iter().map(|(name, shape)| (name.parse().unwrap(), shape.to_vec())).collect()
    }

    fn plan(settings: &StrategySettings, decay: f64) -> Plan {
        Plan::new(settings, decay, 2, &shapes(NAMES)).unwrap()
    }

    fn last(blocks: usize) -> StrategySettings {
        StrategySettings::Partial { blocks: BlockChoice::Last(blocks) }
    }

    fn trained(plan: &Plan) -> Vec<&str> {
        NAMES.iter().map(|(name, _)| *name).filter(|name| plan.get(name).is_some()).collect()
    }

    #[test]
    fn each_strategy_selects_its_parameters() {
        assert_eq!(trained(&plan(&StrategySettings::Frozen, 1.0)), ["head.weight"]);
        let partial = plan(&last(1), 1.0);
        assert_eq!(trained(&partial), ["blocks.1.norm1.weight", "norm.bias", "head.weight"]);
        assert_eq!((partial.first_block, plan(&StrategySettings::Frozen, 1.0).first_block), (1, 2));
        let until = |settings| plan(&settings, 1.0).lowest;
        assert_eq!(until(StrategySettings::Frozen), Segment::Head);
        assert_eq!(until(last(2)), Segment::Block(0));
        assert_eq!((partial.lowest, until(StrategySettings::Full)), (Segment::Block(1), Segment::Embed));
        assert_eq!(trained(&plan(&StrategySettings::Full, 1.0)).len(), NAMES.len());
    }

    #[test]
    fn the_lowest_chosen_block_decides_what_stays_the_same() {
        let plan = plan(&StrategySettings::Partial { blocks: BlockChoice::First(1) }, 1.0);
        assert_eq!(trained(&plan), ["blocks.0.attn.qkv.weight", "norm.bias", "head.weight"]);
        assert_eq!((plan.first_block, plan.lowest), (0, Segment::Block(0)));
    }

    #[test]
    fn lora_adds_its_factors_and_freezes_the_rest() {
        let targets = vec![LoraTarget::V, LoraTarget::O];
        let lora = LoraSettings { blocks: BlockChoice::Last(1), targets, rank: 4, alpha: 8.0, dropout: 0.0 };
        let plan = plan(&StrategySettings::Lora(lora), 0.5);
        assert_eq!(trained(&plan), ["head.weight"]);
        let factors: Vec<String> = plan.lora.as_ref().unwrap().names().into_iter().map(String::from).collect();
        let modules = ["attn.v", "attn.proj"].map(|module| format!("blocks.1.{module}.lora_"));
        assert_eq!(factors, modules.iter().flat_map(|m| [format!("{m}a"), format!("{m}b")]).collect::<Vec<_>>());
        for name in &factors {
            assert_eq!(plan.get(name), Some(Treatment { head: false, lr_scale: 0.5, decay: true, phase: 1 }));
        }
        assert_eq!((plan.first_block, plan.lowest), (1, Segment::Block(1)));
    }

    #[test]
    fn blocks_are_unfrozen_from_the_top() {
        let plan = plan(&StrategySettings::Full, 1.0).unfreezing(2);
        let head = ["head.weight"].as_slice();
        let top = ["blocks.1.norm1.weight", "norm.bias", "projection.weight", "head.weight"].as_slice();
        for (epoch, expected, first_block) in [(0, head, 2), (1, head, 2), (2, top, 1), (3, top, 1)] {
            let phase = plan.at(epoch).unwrap();
            assert_eq!((trained(&phase).as_slice(), phase.first_block), (expected, first_block), "epoch {epoch}");
            assert_eq!(phase.lowest, plan.lowest, "the kept inputs stay the same");
        }
        assert_eq!((plan.at(4), plan.epochs_of_unfreezing()), (None, 4));
        assert_eq!(plan.unfreezing(0).at(0), None);
    }

    #[test]
    fn prompts_learn_beside_frozen_towers() {
        let settings =
            |modality: &str| settings(&["strategy.kind=prompt", &format!("strategy.modality={modality}")]).strategy;
        let plan = |modality: &str, prompt: &'static str| {
            let mut shapes = shapes(NAMES);
            shapes.insert(prompt.parse().unwrap(), vec![4, 8]);
            Plan::new(&settings(modality), 0.5, 2, &shapes).unwrap()
        };
        let text = plan("text", "prompt.context");
        assert!(trained(&text).is_empty());
        let context = Treatment { head: false, lr_scale: 1.0, decay: false, phase: 0 };
        assert_eq!(text.get("prompt.context"), Some(context));
        assert_eq!((text.first_block, text.lowest), (2, Segment::Head));
        let visual = plan("visual", "blocks.0.prompt");
        assert_eq!(trained(&visual), ["head.weight"]);
        assert_eq!(visual.get("blocks.0.prompt"), Some(Treatment { lr_scale: 0.25, phase: 1, ..context }));
        assert_eq!((visual.first_block, visual.lowest), (0, Segment::Block(0)));
    }

    #[test]
    fn layer_decay_counts_from_the_head_and_vectors_do_not_decay() {
        let plan = plan(&StrategySettings::Full, 0.5);
        let scales: Vec<f64> = NAMES.iter().filter_map(|(name, _)| plan.get(name)).map(|t| t.lr_scale).collect();
        assert_eq!(scales, [0.125, 0.125, 0.125, 0.25, 0.5, 1.0, 1.0, 1.0]);
        let decayed: Vec<bool> = NAMES.iter().filter_map(|(name, _)| plan.get(name)).map(|t| t.decay).collect();
        assert_eq!(decayed, [false, false, true, true, false, false, true, true]);
    }

    #[test]
    fn too_many_blocks_are_refused() {
        let blocks = Plan::new(&last(3), 1.0, 2, &shapes(NAMES));
        assert!(blocks.unwrap_err().to_string().contains("has 2 blocks"));
    }

    #[test]
    fn frozen_blocks_never_drop() {
        assert_eq!(drop_path_rates(0.2, 3, 2), [0.0, 0.0, 0.2]);
        assert_eq!(drop_path_rates(0.2, 3, 0), [0.0, 0.1, 0.2]);
        assert_eq!(drop_path_rates(0.2, 1, 0), [0.0]);
    }
}
