//! `[strategy]` as it is written in the configuration file.

use super::prompt_tuning::{NamePosition, PromptModality};
use super::strategy_settings::LoraTarget;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[strategy]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStrategy {
    /// Which parameters learn.
    #[schemars(extend("default" = "frozen"))]
    pub kind: Option<StrategyKind>,
    /// For `partial` and `lora`: the blocks that learn or are adapted, as a number of last blocks, a list of indices from
    /// 0, `{ first = N }` or `{ last = N }`. Default: 3 for partial, all for lora.
    pub blocks: Option<RawBlocks>,
    /// For `lora`: the layers of a block that get an adapter. Default: q, k, v, o.
    #[schemars(length(min = 1, max = 6))]
    pub targets: Option<Vec<LoraTarget>>,
    /// For `lora`: the inner width of an adapter. Default: 8.
    #[schemars(range(min = 1, max = 1024))]
    pub rank: Option<usize>,
    /// For `lora`: what an adapter adds is scaled by alpha / rank. Default: 16.
    #[schemars(range(max = 1e4), extend("exclusiveMinimum" = 0.0))]
    pub alpha: Option<f64>,
    /// For `lora`: dropout rate of the adapters' inputs. Default: 0.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub dropout: Option<f64>,
    /// For `prompt`: what learns. Default: what the keys below are about, or else `auto`.
    pub modality: Option<PromptModality>,
    /// For prompts of text: how many words learn, from random vectors; excludes `init`. Default: 16.
    #[schemars(range(min = 1, max = 64))]
    pub context: Option<usize>,
    /// For prompts of text: the words that learning starts from, such as "a photo of a"; excludes `context`.
    #[schemars(length(min = 1))]
    pub init: Option<String>,
    /// For prompts of text: one context for all classes, or one for each. Default: true.
    pub shared: Option<bool>,
    /// For prompts of text: where the name of the class stands. Default: end.
    pub position: Option<NamePosition>,
    /// For visual prompts: how many tokens learn, in a block. Default: 10.
    #[schemars(range(min = 1, max = 1000))]
    pub tokens: Option<usize>,
    /// For visual prompts: tokens for every block, or before the first alone. Default: true.
    pub deep: Option<bool>,
    /// Gradual unfreezing: the head learns from the start, then the strategy's blocks join one by one from the top, one
    /// every so many epochs. 0 = all learn from the start.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 0))]
    pub unfreeze: Option<usize>,
}

/// `strategy.blocks`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawBlocks {
    /// That many, counted from the output.
    Count(BlockCount),
    /// Those with these indices, counted from the input, from 0.
    Listed(#[schemars(length(min = 1, max = 1000))] Vec<BlockIndex>),
    /// From one end.
    End(RawBlockEnd),
}

/// `strategy.blocks` as a table: one of its keys.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBlockEnd {
    /// That many, counted from the input; excludes `last`.
    pub first: Option<BlockCount>,
    /// That many, counted from the output; excludes `first`.
    pub last: Option<BlockCount>,
}

/// `strategy.kind`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StrategyKind {
    /// Only the head.
    #[default]
    Frozen,
    /// Some blocks, the final norm and the head.
    Partial,
    /// Everything.
    Full,
    /// Low-rank adapters beside frozen layers (`LoRA`), and the head.
    Lora,
    /// Words before the text tower (`CoOp`), or tokens in the image tower with the head (VPT).
    Prompt,
}

impl StrategyKind {
    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Partial => "partial",
            Self::Full => "full",
            Self::Lora => "lora",
            Self::Prompt => "prompt",
        }
    }
}

/// A number of blocks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct BlockCount(#[schemars(range(min = 1, max = 1000))] pub usize);

/// A block, counted from the input, from 0.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct BlockIndex(#[schemars(range(min = 0, max = 999))] pub usize);
