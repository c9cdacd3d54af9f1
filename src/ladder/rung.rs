//! The rungs, from what costs least to what costs most.

use crate::config::{BlockChoice, ProbeMethod, Settings, StrategySettings, closest};
use crate::error::{Error, Result};
use crate::forms::shown_as_written;
use serde::Serialize;

/// A way to make a classifier of a backbone, as one command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Images are compared with texts; nothing is trained.
    Zeroshot,
    /// Training images vote.
    Knn,
    /// A linear classifier on frozen features, solved.
    Probe,
    /// The same, trained by gradient descent.
    Frozen,
    /// Prompts are trained.
    Prompt,
    /// Some blocks and the head are trained.
    Partial,
    /// Adapters and the head are trained.
    Lora,
    /// Everything is trained.
    Full,
}

shown_as_written!(Rung);

impl Rung {
    /// All of them, from below.
    pub const ALL: [Self; 8] =
        [Self::Zeroshot, Self::Knn, Self::Probe, Self::Frozen, Self::Prompt, Self::Partial, Self::Lora, Self::Full];

    /// Those that are compared unless others are asked for: zero-shot for models with a text tower, learnt prompts, which
    /// take the longest training, only when asked for.
    pub fn usual(with_texts: bool) -> Vec<Self> {
        let applies = |rung: &Self| match rung {
            Self::Zeroshot => with_texts,
            Self::Prompt => false,
            _ => true,
        };
        Self::ALL.into_iter().filter(applies).collect()
    }

    /// The rungs of these names, in the order of the ladder and each once.
    ///
    /// # Errors
    /// A usage error that lists the names there are.
    pub fn named<T: AsRef<str>>(names: &[T]) -> Result<Vec<Self>> {
        let mut rungs = names.iter().map(|name| Self::of_name(name.as_ref().trim())).collect::<Result<Vec<_>>>()?;
        rungs.sort_unstable();
        rungs.dedup();
        Ok(rungs)
    }

    fn of_name(name: &str) -> Result<Self> {
        let names = Self::ALL.map(|rung| rung.to_string());
        Self::ALL.into_iter().find(|rung| rung.to_string() == name).ok_or_else(|| {
            let near = closest(name, names.iter().map(String::as_str));
            let meant = near.map_or(String::new(), |near| format!("did you mean {near}? "));
            Error::usage_hint(format!("there is no strategy {name:?}"), format!("{meant}One of {}", names.join(", ")))
        })
    }

    /// The command that makes its runs.
    pub fn command(self) -> &'static str {
        match self {
            Self::Zeroshot => "zeroshot",
            Self::Knn | Self::Probe => "probe",
            Self::Frozen | Self::Prompt | Self::Partial | Self::Lora | Self::Full => "finetune",
        }
    }

    /// Whether an interrupted run can continue.
    pub fn resumes(self) -> bool {
        self.command() == "finetune"
    }

    /// The overrides that make a config one of this rung. `base` is what the config says without them: its linear probe
    /// may be a support vector machine.
    pub(super) fn sets(self, base: &Settings) -> Vec<String> {
        let linear = match base.probe.method {
            ProbeMethod::Svm => "svm",
            ProbeMethod::Logistic | ProbeMethod::Knn | ProbeMethod::Tip | ProbeMethod::Patchcore => "logistic",
        };
        let (kind, method) = match self {
            Self::Zeroshot => (Self::Frozen, None),
            Self::Knn => (Self::Frozen, Some("knn")),
            Self::Probe => (Self::Frozen, Some(linear)),
            other => (other, None),
        };
        let method = method.map(|method| format!("probe.method={method}"));
        std::iter::once(format!("strategy.kind={kind}")).chain(method).collect()
    }

    /// Which part of the backbone a run with these settings changes.
    pub fn backbone_updated(self, settings: &Settings) -> String {
        match &settings.strategy {
            StrategySettings::Frozen => "no".into(),
            StrategySettings::Partial { blocks } => blocks.to_string(),
            StrategySettings::Lora(lora) if lora.blocks == BlockChoice::All => {
                format!("adapters of rank {}", lora.rank)
            }
            StrategySettings::Lora(lora) => format!("adapters of rank {}, {}", lora.rank, lora.blocks),
            StrategySettings::Prompt(_) => "no, prompts".into(),
            StrategySettings::Full => "yes".into(),
        }
    }

    /// Whether and how the head is fitted.
    pub fn head_updated(self) -> &'static str {
        match self {
            Self::Zeroshot | Self::Knn => "no",
            Self::Probe => "solved",
            _ => "yes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_single_and_typos_pointed_out() {
        assert_eq!(Rung::named(&["full", " knn", "full"]).unwrap(), [Rung::Knn, Rung::Full]);
        let error = Rung::named(&["partail"]).unwrap_err();
        assert_eq!(error.to_string(), "there is no strategy \"partail\"");
        assert!(error.hint().unwrap().starts_with("did you mean partial? One of zeroshot, knn,"), "{error:?}");
        assert!(Rung::named(&[""]).is_err());
    }

    #[test]
    fn texts_add_the_lowest_rung() {
        assert_eq!(Rung::usual(true)[..2], [Rung::Zeroshot, Rung::Knn]);
        assert_eq!(Rung::usual(false).len(), 6);
    }
}
