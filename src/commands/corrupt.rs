//! `eval --corrupt`: the images of a split with flaws of growing strength.

use crate::augment::Corruption;
use crate::config::closest;
use clap::Args;

/// Which flaws are tried.
#[derive(Debug, Clone, Args)]
pub struct CorruptArgs {
    #[arg(long, value_name = "KIND", num_args = 0.., help = help(), value_delimiter = ',', default_missing_value = "all",
          value_parser = flaws)]
    corrupt: Option<Vec<Flaws>>,
    /// How many strengths from 0 to 1 are tried
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=20),
          requires = "corrupt")]
    pub levels: u8,
}

/// One word of the list.
#[derive(Debug, Clone, Copy)]
enum Flaws {
    All,
    One(Corruption),
}

fn names() -> Vec<&'static str> {
    Corruption::all().into_iter().map(Corruption::name).collect()
}

fn help() -> String {
    format!("Score the images with flaws of growing strength too: all, or some of {}", names().join(", "))
}

fn flaws(name: &str) -> std::result::Result<Flaws, String> {
    if name == "all" {
        return Ok(Flaws::All);
    }
    if let Some(corruption) = Corruption::parse(name) {
        return Ok(Flaws::One(corruption));
    }
    let names = names();
    Err(match closest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("give all, or some of {}", names.join(", ")),
    })
}

impl CorruptArgs {
    /// Whether any flaw is asked for.
    pub fn asks(&self) -> bool {
        !self.kinds().is_empty()
    }

    /// The flaws asked for, each once, in their own order; none when there is nothing to try.
    pub fn kinds(&self) -> Vec<Corruption> {
        let asked = self.corrupt.as_deref().unwrap_or_default();
        let wanted = |kind: &Corruption| {
            asked.iter().any(|flaws| match flaws {
                Flaws::All => true,
                Flaws::One(one) => one == kind,
            })
        };
        Corruption::all().into_iter().filter(wanted).collect()
    }
}
