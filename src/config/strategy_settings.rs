//! The settings of `[strategy]`: which parameters are trained.

use super::prompt_tuning::{PromptModality, PromptTuning};
use crate::forms;
use crate::forms::shown_as_written;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which parameters are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(extend("default" = "frozen"), transform = forms::side_by_side)]
pub enum StrategySettings {
    /// Only the head.
    Frozen,
    /// Some blocks, the final norm and the head.
    Partial {
        /// For `partial` and `lora`: the blocks that are trained or adapted, as a number of last blocks, a list of indices
        /// from 0, `{ first = N }` or `{ last = N }`. Default: 3 for partial, all for lora.
        blocks: BlockChoice,
    },
    /// Everything.
    Full,
    /// Low-rank adapters beside frozen layers (`LoRA`), and the head.
    Lora(LoraSettings),
    /// Words before the text tower (`CoOp`), or tokens in the image tower with the head (VPT).
    Prompt(PromptTuning),
}

/// The keys of `strategy.kind = "lora"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoraSettings {
    /// The blocks that get adapters.
    #[serde(default, skip_serializing_if = "forms::is_default")]
    pub blocks: BlockChoice,
    /// For `lora`: the layers of a block that get an adapter. Default: q, k, v, o.
    #[serde(deserialize_with = "forms::ascending")]
    #[schemars(length(min = 1, max = 6), extend("x-unique" = true))]
    pub targets: Vec<LoraTarget>,
    /// For `lora`: the inner width of an adapter. Default: 8.
    #[schemars(range(min = 1, max = 1024))]
    pub rank: usize,
    /// For `lora`: what an adapter adds is scaled by alpha / rank. Default: 16.
    #[schemars(range(max = 1e4), extend("exclusiveMinimum" = 0.0))]
    pub alpha: f64,
    /// For `lora`: dropout rate of the adapters' inputs. Default: 0.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub dropout: f64,
}

/// Which blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Blocks", into = "Blocks")]
pub enum BlockChoice {
    /// All of them: what a strategy takes that may take all, when the key is left out.
    #[default]
    All,
    /// That many, counted from the input.
    First(usize),
    /// That many, counted from the output.
    Last(usize),
    /// Those with these indices, counted from the input, from 0, ascending.
    Listed(Vec<usize>),
}

/// `strategy.blocks` as it is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Blocks {
    /// That many, counted from the output.
    Count(#[schemars(range(min = 1, max = 1000))] usize),
    /// Those with these indices, counted from the input, from 0.
    Listed(
        #[schemars(length(min = 1, max = 1000), inner(range(min = 0, max = 999)), extend("x-unique" = true))]
        Vec<usize>,
    ),
    /// From one end.
    End(BlockEnd),
}

/// `strategy.blocks` as a table: one of its keys.
#[derive(Serialize, Deserialize, JsonSchema)]
struct BlockEnd {
    /// That many, counted from the input; excludes `last`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    first: Option<usize>,
    /// That many, counted from the output; excludes `first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("x-excludes" = ["first"]))]
    last: Option<usize>,
}

impl From<Blocks> for BlockChoice {
    fn from(written: Blocks) -> Self {
        match written {
            Blocks::Count(count) => Self::Last(count),
            Blocks::Listed(mut indices) => {
                indices.sort_unstable();
                Self::Listed(indices)
            }
            Blocks::End(BlockEnd { first: Some(first), .. }) => Self::First(first),
            Blocks::End(BlockEnd { last: Some(last), .. }) => Self::Last(last),
            Blocks::End(_) => Self::All,
        }
    }
}

impl From<BlockChoice> for Blocks {
    fn from(choice: BlockChoice) -> Self {
        match choice {
            BlockChoice::Last(count) => Self::Count(count),
            BlockChoice::Listed(indices) => Self::Listed(indices),
            BlockChoice::First(first) => Self::End(BlockEnd { first: Some(first), last: None }),
            BlockChoice::All => Self::End(BlockEnd { first: None, last: None }),
        }
    }
}

/// A layer of a block that an adapter changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// The queries.
    Q,
    /// The keys.
    K,
    /// The values.
    V,
    /// The projection of the attention's output.
    O,
    /// The first layer of the MLP.
    Fc1,
    /// The second.
    Fc2,
}

shown_as_written!(LoraTarget);

impl StrategySettings {
    /// `strategy.kind`
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Partial { .. } => "partial",
            Self::Full => "full",
            Self::Lora(_) => "lora",
            Self::Prompt(_) => "prompt",
        }
    }

    /// Whether words may be learnt, which need a text tower and its tokenizer.
    pub fn may_learn_words(&self) -> bool {
        matches!(self, Self::Prompt(prompt) if prompt.modality != PromptModality::Visual)
    }
}

impl fmt::Display for StrategySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen | Self::Full => write!(f, "{}", self.kind()),
            Self::Partial { blocks } => write!(f, "partial ({blocks})"),
            Self::Prompt(prompt) => write!(f, "{prompt}"),
            Self::Lora(lora) => {
                let targets: Vec<String> = lora.targets.iter().map(LoraTarget::to_string).collect();
                let (targets, LoraSettings { blocks, rank, alpha, .. }) = (targets.join(", "), lora);
                write!(f, "lora (rank {rank}, alpha {alpha}, on {targets} of {blocks})")
            }
        }
    }
}

impl fmt::Display for BlockChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "all blocks"),
            Self::First(1) => write!(f, "first block"),
            Self::First(count) => write!(f, "first {count} blocks"),
            Self::Last(1) => write!(f, "last block"),
            Self::Last(count) => write!(f, "last {count} blocks"),
            Self::Listed(indices) => {
                let indices: Vec<String> = indices.iter().map(ToString::to_string).collect();
                write!(f, "{} {}", if indices.len() == 1 { "block" } else { "blocks" }, indices.join(", "))
            }
        }
    }
}
