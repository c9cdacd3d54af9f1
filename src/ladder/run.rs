//! The runs of a comparison, one for each rung and repeat: their settings and their command lines.

use super::rung::Rung;
use super::shell;
use crate::config::{self, BlockChoice, Fold, Settings, StrategySettings};
use crate::error::{Error, Place, Result};
use crate::report::Repeats;
use crate::system::shown::Shown;
use std::path::{Path, PathBuf};

/// Overrides that belong to some rungs only: where ours contradict them, they are left out instead of being refused.
const OF_STRATEGIES: &str = "strategy.";
/// Likewise, for folds.
const TEST_FRACTION: &str = "data.test=";

/// The last blocks that `partial` trains unless the config says otherwise.
const USUAL_BLOCKS: usize = 3;

/// The folder of a comparison in which the logs of its runs are.
pub const LOGS: &str = "logs";

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRun {
    /// What kind of run.
    pub rung: Rung,
    /// Its name among all.
    pub name: String,
    /// What its command line resolves to.
    pub settings: Settings,
    /// Command and arguments.
    args: Vec<String>,
}

impl PlannedRun {
    /// Its run directory.
    pub fn folder(&self) -> PathBuf {
        self.settings.run.out.join(&self.settings.run.name)
    }

    /// The file that its messages are written to.
    pub fn log(&self) -> PathBuf {
        self.settings.run.out.join(LOGS).join(format!("{}.log", self.name))
    }

    /// What follows the program's name. With `resume`, an interrupted run continues, and others start.
    pub fn args(&self, resume: bool) -> Vec<String> {
        let resume = (resume && self.rung.resumes()).then(|| "--resume".to_owned());
        self.args.iter().cloned().chain(resume).collect()
    }

    /// The line to type.
    pub fn line(&self, program: &str, resume: bool) -> String {
        shell::line(&[vec![program.to_owned()], self.args(resume)].concat())
    }
}

/// A config that is about to be compared.
#[derive(Debug)]
pub struct Ladder<'a> {
    config: Option<&'a Path>,
    sets: &'a [String],
    /// What all runs share, with a frozen backbone.
    pub base: Settings,
    /// How many blocks the backbone has, as far as is known: where those that `partial` usually trains would be all, it
    /// trains one less than all.
    pub depth: usize,
}

impl<'a> Ladder<'a> {
    /// Reads the config with the overrides of the user.
    ///
    /// # Errors
    /// As [`config::load`], but for keys of strategies that it does not name.
    pub fn new(config: Option<&'a Path>, sets: &'a [String]) -> Result<Self> {
        let (base, _) = load(config, sets, &["strategy.kind=frozen".to_owned()])?;
        Ok(Self { config, sets, base, depth: usize::MAX })
    }

    /// The folder of the comparison.
    pub fn folder(&self) -> PathBuf {
        self.base.run.out.join(format!("{}-compare", self.base.run.name))
    }

    /// The runs, rung by rung.
    ///
    /// # Errors
    /// A usage error when seeds exceed their range, or an override fits none of the rungs; problems of the settings.
    pub fn runs(&self, rungs: &[Rung], repeats: Repeats) -> Result<Vec<PlannedRun>> {
        let repeats = self.repeats(repeats)?;
        let mut runs = Vec::new();
        let mut refused: Vec<&String> = self.sets.iter().filter(|set| set.starts_with(OF_STRATEGIES)).collect();
        for &rung in rungs {
            for (suffix, set) in &repeats {
                let (run, kept) = self.run(rung, suffix, set)?;
                refused.retain(|&set| !kept.contains(set));
                runs.push(run);
            }
        }
        match (refused.first(), rungs.first()) {
            (Some(&set), Some(rung)) => Err(self.refusal(set, *rung)),
            _ => Ok(runs),
        }
    }

    /// What a config of this rung says of an override that fits no rung.
    fn refusal(&self, set: &str, rung: Rung) -> Error {
        let sets = [vec![set.to_owned()], rung.sets(&self.base)].concat();
        config::load(self.config, &sets).err().unwrap_or_else(|| {
            let hint = "leave it out, or add the strategy it is for";
            Error::usage_hint(format!("--set {set} fits none of the strategies compared"), hint)
        })
    }

    fn run(&self, rung: Rung, suffix: &str, repeat: &str) -> Result<(PlannedRun, Vec<String>)> {
        let name = format!("{rung}-{suffix}");
        let folder = self.folder();
        let folder = folder.to_str().ok_or_else(|| {
            let message = format!("run.out: {} is not valid UTF-8", folder.shown());
            Error::usage_hint(message, "rename the folder, or choose another run.out")
        })?;
        let mut ours = vec![format!("run.name={name}"), format!("run.out={folder}")];
        ours.extend(rung.sets(&self.base));
        ours.push(repeat.to_owned());
        let (mut settings, mut kept) = load(self.config, self.sets, &ours)?;
        let usual = StrategySettings::Partial { blocks: BlockChoice::Last(USUAL_BLOCKS) };
        if self.depth <= USUAL_BLOCKS && settings.strategy == usual {
            ours.push(format!("strategy.blocks={}", self.depth.saturating_sub(1).max(1)));
            (settings, kept) = load(self.config, self.sets, &ours)?;
        }
        let mut args = vec![rung.command().to_owned()];
        args.extend(
            self.config.into_iter().flat_map(|file| ["--config".to_owned(), file.to_string_lossy().into_owned()]),
        );
        args.extend(kept.iter().chain(&ours).flat_map(|set| ["--set".to_owned(), set.clone()]));
        Ok((PlannedRun { rung, name, settings, args }, kept))
    }

    /// What distinguishes the runs of a rung: the end of their names, and an override.
    fn repeats(&self, repeats: Repeats) -> Result<Vec<(String, String)>> {
        let first = self.base.run.seed;
        let seed = |index: usize| match first.checked_add(index as u64).filter(|seed| i64::try_from(*seed).is_ok()) {
            Some(seed) => Ok((format!("seed{seed}"), format!("run.seed={seed}"))),
            None => Err(Error::usage_hint(
                format!("run.seed = {first} leaves no room for more seeds above it"),
                format!("choose a seed below {}", i64::MAX),
            )),
        };
        match repeats {
            Repeats::Seeds(count) => (0..count).map(seed).collect(),
            Repeats::Folds(of) => {
                let folds = (1..=of).map(|number| Fold { number, of });
                Ok(folds.map(|fold| (format!("fold{}of{of}", fold.number), format!("data.fold={fold}"))).collect())
            }
        }
    }
}

/// The settings under the user's overrides and ours, without those of the user that ours contradict; and what was kept.
fn load(config: Option<&Path>, sets: &[String], ours: &[String]) -> Result<(Settings, Vec<String>)> {
    let mut kept = sets.to_vec();
    loop {
        let all: Vec<String> = kept.iter().chain(ours).cloned().collect();
        let error = match config::load(config, &all) {
            Ok(settings) => return Ok((settings, kept)),
            Err(error) => error,
        };
        let contradicted = |set: &String| {
            let yields = [OF_STRATEGIES, TEST_FRACTION].iter().any(|start| set.starts_with(start));
            let Error::Config(problems) = &error else { return false };
            yields && problems.problems.iter().any(|problem| problem.place == Place::Set(set.clone()))
        };
        let before = kept.len();
        kept.retain(|set| !contradicted(set));
        if kept.len() == before {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainLength;

    const CONFIG: &str = "[run]\nname = \"textile\"\nout = \"/runs\"\n\n[data]\nroot = \"/data\"\ntest = 0.2\n\n[strategy]\n\
                          kind = \"partial\"\nblocks = 2\n\n[train]\nepochs = 4\n";

    fn runs(sets: &[&str], rungs: &[Rung], repeats: Repeats) -> Result<Vec<PlannedRun>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("textile.toml");
        std::fs::write(&file, CONFIG).unwrap();
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        Ladder::new(Some(&file), &sets)?.runs(rungs, repeats)
    }

    #[test]
    fn every_rung_has_a_valid_line_whatever_the_config_asks_for() {
        let runs = runs(&["train.batch_size=8"], &Rung::ALL, Repeats::Seeds(2)).unwrap();
        assert_eq!(runs.len(), 16);
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names[..3], ["zeroshot-seed42", "zeroshot-seed43", "knn-seed42"]);
        for run in &runs {
            assert_eq!(run.folder(), Path::new("/runs/textile-compare").join(&run.name));
            assert_eq!((run.settings.train.batch_size, &run.settings.train.length), (8, &TrainLength::Epochs(4)));
            assert_eq!(run.args(true).contains(&"--resume".to_owned()), run.args[0] == "finetune");
        }
        let StrategySettings::Partial { blocks } = &runs[10].settings.strategy else { panic!("{:?}", runs[10]) };
        assert_eq!(*blocks, BlockChoice::Last(2), "the config's own keys stay where they fit");
        let line = runs[4].line("vitadapt", true);
        let rest = line.split_once("textile.toml ").unwrap().1;
        assert_eq!(
            rest,
            "--set train.batch_size=8 --set run.name=probe-seed42 --set run.out=/runs/textile-compare --set \
             strategy.kind=frozen --set probe.method=logistic --set run.seed=42"
        );
    }

    #[test]
    fn overrides_of_a_strategy_stay_with_it() {
        let found =
            runs(&["strategy.rank=2", "strategy.blocks=1"], &[Rung::Frozen, Rung::Lora], Repeats::Seeds(1)).unwrap();
        assert!(
            !found[0].args.iter().any(|arg| arg.starts_with("strategy.rank") || arg.starts_with("strategy.blocks"))
        );
        let StrategySettings::Lora(lora) = &found[1].settings.strategy else { panic!("{:?}", found[1]) };
        assert_eq!((lora.rank, &lora.blocks), (2, &BlockChoice::Last(1)));
        let refused = runs(&["strategy.rank=2"], &[Rung::Full], Repeats::Seeds(1)).unwrap_err();
        assert!(refused.to_string().contains("strategy.rank: belongs to strategy.kind = \"lora\" only"), "{refused}");
        for (typo, meant) in [("train.epoch=2", "epochs?"), ("strategy.rnk=2", "rank?")] {
            let typo = runs(&[typo], &[Rung::Full, Rung::Lora], Repeats::Seeds(1)).unwrap_err();
            assert!(typo.to_string().contains("did you mean") && typo.to_string().contains(meant), "{typo}");
        }
    }

    #[test]
    fn partial_leaves_a_block_of_a_small_backbone_as_it_is() {
        let blocks = |depth: usize, sets: &[&str]| {
            let sets: Vec<String> = ["data.root=/data"].iter().chain(sets).map(ToString::to_string).collect();
            let ladder = Ladder { depth, ..Ladder::new(None, &sets).unwrap() };
            let runs = ladder.runs(&[Rung::Partial, Rung::Full], Repeats::Seeds(1)).unwrap();
            let args = runs[0].args(false).iter().filter(|arg| arg.starts_with("strategy.blocks=")).cloned().collect();
            (runs[0].settings.strategy.to_string(), args)
        };
        let changed = |to: &str| vec![format!("strategy.blocks={to}")];
        assert_eq!(blocks(12, &[]), ("partial (last 3 blocks)".to_owned(), vec![]));
        assert_eq!(blocks(3, &[]), ("partial (last 2 blocks)".to_owned(), changed("2")));
        assert_eq!(blocks(2, &[]), ("partial (last block)".to_owned(), changed("1")));
        assert_eq!(blocks(2, &["strategy.blocks=2"]), ("partial (last 2 blocks)".to_owned(), changed("2")));
        assert_eq!(blocks(1, &[]), ("partial (last block)".to_owned(), changed("1")));
    }

    #[test]
    fn folds_take_the_place_of_the_test_fraction() {
        let found = runs(&["data.test=0.3", "run.seed=7"], &[Rung::Knn], Repeats::Folds(3)).unwrap();
        assert_eq!(found[1].settings.data.fold, Some(Fold { number: 2, of: 3 }));
        assert_eq!((found[1].name.as_str(), found[1].settings.run.seed), ("knn-fold2of3", 7));
    }

    #[test]
    fn seeds_end_where_a_config_can_hold_them() {
        let last = format!("run.seed={}", i64::MAX);
        assert!(runs(&[&last], &[Rung::Knn], Repeats::Seeds(1)).is_ok());
        assert!(runs(&[&last], &[Rung::Knn], Repeats::Seeds(2)).unwrap_err().to_string().contains("no room"));
    }
}
