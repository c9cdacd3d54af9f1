//! `[strategy]`: keys that belong to some kinds only, and their defaults.

use super::Resolver;
use crate::config::raw_strategy::{BlockCount, BlockIndex, RawBlockEnd, RawBlocks, RawStrategy, StrategyKind};
use crate::config::strategy_settings::{BlockChoice, LoraSettings, LoraTarget, StrategySettings};

/// How many blocks `partial` trains by default: the depth with the best return in the recipe it comes from.
const PARTIAL_BLOCKS: usize = 3;

const BLOCKS: &str = "strategy.blocks";
const TARGETS: &str = "strategy.targets";

impl Resolver<'_> {
    /// The strategy and `strategy.unfreeze`.
    pub(super) fn strategy(&mut self, raw: RawStrategy) -> (StrategySettings, usize) {
        use StrategyKind::{Full, Lora, Partial};
        let kind = raw.kind.unwrap_or_default();
        for (key, given, kinds) in [
            (BLOCKS, raw.blocks.is_some(), [Partial, Lora].as_slice()),
            (TARGETS, raw.targets.is_some(), &[Lora]),
            ("strategy.rank", raw.rank.is_some(), &[Lora]),
            ("strategy.alpha", raw.alpha.is_some(), &[Lora]),
            ("strategy.dropout", raw.dropout.is_some(), &[Lora]),
            ("strategy.unfreeze", raw.unfreeze.is_some_and(|epochs| epochs > 0), &[Partial, Full, Lora]),
        ] {
            if given && !kinds.contains(&kind) {
                self.belongs_to(key, kinds);
            }
        }
        if kind != StrategyKind::Prompt {
            self.without_prompts(&raw);
        }
        let unfreezes = !matches!(kind, StrategyKind::Frozen | StrategyKind::Prompt);
        let unfreeze = if unfreezes { raw.unfreeze.unwrap_or(0) } else { 0 };
        let strategy = match kind {
            StrategyKind::Frozen => StrategySettings::Frozen,
            StrategyKind::Prompt => StrategySettings::Prompt(self.prompt_tuning(&raw)),
            Full => StrategySettings::Full,
            Partial => StrategySettings::Partial { blocks: self.blocks(raw.blocks, BlockChoice::Last(PARTIAL_BLOCKS)) },
            Lora => StrategySettings::Lora(LoraSettings {
                blocks: self.blocks(raw.blocks, BlockChoice::All),
                targets: self.targets(raw.targets),
                // peft's default rank, and an alpha of twice the rank as is common.
                rank: raw.rank.unwrap_or(8),
                alpha: raw.alpha.unwrap_or(16.0),
                dropout: raw.dropout.unwrap_or(0.0),
            }),
        };
        (strategy, unfreeze)
    }

    /// Notes a key that another kind of strategy has.
    fn belongs_to(&mut self, key: &str, kinds: &[StrategyKind]) {
        if self.supersedes("strategy.kind", key) {
            return;
        }
        let names: Vec<String> = kinds.iter().map(|kind| format!("\"{}\"", kind.name())).collect();
        let names = names.join(" or ");
        let hint = format!("leave it out, or set strategy.kind = {names}");
        self.conflict(key, &["strategy.kind"], format!("belongs to strategy.kind = {names} only"), hint);
    }

    fn blocks(&mut self, raw: Option<RawBlocks>, default: BlockChoice) -> BlockChoice {
        match raw {
            None => default,
            Some(RawBlocks::Count(BlockCount(count))) => BlockChoice::Last(count),
            Some(RawBlocks::Listed(indices)) => {
                let mut indices: Vec<usize> = indices.into_iter().map(|BlockIndex(index)| index).collect();
                indices.sort_unstable();
                if let Some(twice) = repeated(&indices) {
                    self.problem(BLOCKS, format!("block {twice} is there twice"), "expected each index once");
                }
                BlockChoice::Listed(indices)
            }
            Some(RawBlocks::End(RawBlockEnd { first, last })) => {
                let keys = ["strategy.blocks.first", "strategy.blocks.last"];
                match self.either((keys[0], first), (keys[1], last)) {
                    (Some(BlockCount(first)), _) => BlockChoice::First(first),
                    (_, Some(BlockCount(last))) => BlockChoice::Last(last),
                    (None, None) => {
                        let message = "says neither first nor last";
                        self.conflict(BLOCKS, &keys, message, "expected { first = N } or { last = N }");
                        default
                    }
                }
            }
        }
    }

    fn targets(&mut self, raw: Option<Vec<LoraTarget>>) -> Vec<LoraTarget> {
        use LoraTarget::{K, O, Q, V};
        // All products of the attention at a low rank: as good as any choice in section 7.1 of Hu et al. 2021.
        let mut targets = raw.unwrap_or_else(|| vec![Q, K, V, O]);
        targets.sort_unstable();
        if let Some(twice) = repeated(&targets) {
            let message = format!("\"{}\" is there twice", twice.name());
            self.problem(TARGETS, message, "expected each layer once");
        }
        targets
    }
}

/// The first entry of a sorted list that is there twice.
fn repeated<T: Copy + PartialEq>(sorted: &[T]) -> Option<T> {
    sorted.iter().zip(sorted.iter().skip(1)).find(|(entry, next)| entry == next).map(|(entry, _)| *entry)
}
