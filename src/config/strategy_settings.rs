//! The settings of `[strategy]`: what of the backbone learns.

use super::prompt_tuning::PromptTuning;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `[strategy]`, with the keys of its kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StrategySettings {
    /// Only the head learns.
    Frozen,
    /// Some blocks, the final norm and the head learn.
    Partial {
        /// Which blocks.
        blocks: BlockChoice,
    },
    /// Everything learns.
    Full,
    /// Low-rank adapters and the head learn.
    Lora(LoraSettings),
    /// Prompts learn: words before the text tower, or tokens in the image tower together with the head.
    Prompt(PromptTuning),
}

/// The keys of `strategy.kind = "lora"`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraSettings {
    /// The blocks that get adapters.
    pub blocks: BlockChoice,
    /// The layers of a block that do, each once, in their order.
    pub targets: Vec<LoraTarget>,
    /// Inner width of an adapter.
    pub rank: usize,
    /// What an adapter adds is scaled by alpha / rank.
    pub alpha: f64,
    /// Dropout rate of the adapters' inputs.
    pub dropout: f64,
}

/// Which blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockChoice {
    /// All of them.
    All,
    /// That many, counted from the input.
    First(usize),
    /// That many, counted from the output.
    Last(usize),
    /// Those with these indices, counted from the input, from 0.
    Listed(Vec<usize>),
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

impl LoraTarget {
    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::O => "o",
            Self::Fc1 => "fc1",
            Self::Fc2 => "fc2",
        }
    }
}

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
}

impl fmt::Display for StrategySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen | Self::Full => write!(f, "{}", self.kind()),
            Self::Partial { blocks } => write!(f, "partial ({blocks})"),
            Self::Prompt(prompt) => write!(f, "{prompt}"),
            Self::Lora(lora) => {
                let targets: Vec<&str> = lora.targets.iter().map(|target| target.name()).collect();
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
