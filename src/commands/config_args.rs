//! Where the settings of a command come from: a file, overrides, and short forms of the overrides that are typed most.

use crate::config::{self, Settings};
use crate::error::{Error, Place, Result};
use clap::Args;
use std::path::{Path, PathBuf};

/// The settings of a command that takes a configuration.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The TOML file to read
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key of the file, as in train.lr=1e-4; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    short: ShortForms,
}

/// What the help lists them under: said of each, as clap would carry it on to all that follow them.
const SHORT: &str = "Short forms of --set";

/// Each is the same as `--set KEY=VALUE` with the key that its help names.
#[derive(Debug, Clone, Args)]
struct ShortForms {
    /// data.root, or data.manifest when it is a file: the images
    #[arg(long, value_name = "FOLDER|CSV", help_heading = SHORT)]
    data: Option<String>,
    /// model.backbone: builtin:vit-flaw (without a file the default), a folder, or owner/name of the Hugging Face Hub
    #[arg(long, value_name = "NAME", help_heading = SHORT)]
    backbone: Option<String>,
    /// train.epochs: passes over the training images
    #[arg(long, value_name = "N", help_heading = SHORT)]
    epochs: Option<String>,
    /// train.lr: the peak learning rate
    #[arg(long, value_name = "X", help_heading = SHORT)]
    lr: Option<String>,
    /// `train.batch_size`: images in a step
    #[arg(long, value_name = "N", help_heading = SHORT)]
    batch_size: Option<String>,
    /// run.device: auto, cpu, cuda:N
    #[arg(long, value_name = "DEVICE", help_heading = SHORT)]
    device: Option<String>,
    /// run.seed: of every random draw of the training
    #[arg(long, value_name = "N", help_heading = SHORT)]
    seed: Option<String>,
    /// run.name: the folder of the run below run.out
    #[arg(long, value_name = "NAME", help_heading = SHORT)]
    name: Option<String>,
    /// `--out` of [`RunArgs`]: elsewhere it means something else.
    #[arg(skip)]
    out: Option<String>,
}

/// The same for a command that leaves a run, whose place has a short form too.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// run.out: the folder that holds the runs
    #[arg(long, value_name = "DIR", help_heading = SHORT)]
    out: Option<String>,
}

/// The arguments that make a configuration, for commands to which a run may be given instead.
pub const CONFIG: [&str; 9] = ["config", "set", "data", "backbone", "epochs", "lr", "batch_size", "seed", "name"];

impl ConfigArgs {
    /// Reads the settings. An error names what was typed: `--lr fast`, not `--set train.lr=fast`.
    ///
    /// # Errors
    /// As [`Self::sets`], a usage error when nothing was given, and every problem of the settings.
    pub fn load(&self) -> Result<Settings> {
        let sets = complete(self.file(), self.sets()?)?;
        config::load(self.file(), &sets).map_err(|error| self.as_typed(error))
    }

    /// The file; none when overrides alone make the settings.
    pub fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// `--device`, which is the run's where a run is given.
    pub fn device(&self) -> Option<&str> {
        self.short.device.as_deref()
    }

    /// All overrides.
    ///
    /// # Errors
    /// A usage error when a key has both its short form and a `--set`.
    pub fn sets(&self) -> Result<Vec<String>> {
        self.with_short_forms(|_| true)
    }

    /// The overrides without `--device`, for commands that are given a run and take that argument by itself.
    ///
    /// # Errors
    /// As [`Self::sets`].
    pub fn sets_beside_run(&self) -> Result<Vec<String>> {
        self.with_short_forms(|flag| flag != "device")
    }

    fn with_short_forms(&self, wanted: fn(&str) -> bool) -> Result<Vec<String>> {
        if let Some(data) = &self.short.data {
            let other = if self.data_key() == "data.root" { "data.manifest" } else { "data.root" };
            self.refuse_twice("data", other, data)?;
        }
        let mut sets = self.set.clone();
        for (flag, key, value) in self.short_forms().into_iter().filter(|(flag, ..)| wanted(flag)) {
            self.refuse_twice(flag, key, value)?;
            sets.push(format!("{key}={value}"));
        }
        Ok(sets)
    }

    /// The key that `--data` is short for.
    fn data_key(&self) -> &'static str {
        let is_file = self.short.data.as_ref().is_some_and(|data| Path::new(data).is_file());
        if is_file { "data.manifest" } else { "data.root" }
    }

    /// The short forms that were typed: flag, key and value.
    fn short_forms(&self) -> Vec<(&'static str, &'static str, &String)> {
        let short = &self.short;
        let all = [
            ("data", self.data_key(), &short.data),
            ("backbone", "model.backbone", &short.backbone),
            ("epochs", "train.epochs", &short.epochs),
            ("lr", "train.lr", &short.lr),
            ("batch-size", "train.batch_size", &short.batch_size),
            ("seed", "run.seed", &short.seed),
            ("name", "run.name", &short.name),
            ("device", "run.device", &short.device),
            ("out", "run.out", &short.out),
        ];
        all.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value.as_ref()?))).collect()
    }

    /// An error that names what was typed.
    pub fn as_typed(&self, mut error: Error) -> Error {
        if let Error::Config(found) = &mut error {
            for problem in &mut found.problems {
                if let Place::Set(set) = &problem.place
                    && let Some(argument) = self.short_form(set)
                {
                    problem.place = Place::Argument(argument);
                }
            }
        }
        error
    }

    /// An override as it was typed.
    pub fn typed(&self, set: &str) -> String {
        self.short_form(set).unwrap_or_else(|| format!("--set {set}"))
    }

    /// The short form that an override came from; none when that was `--set`.
    fn short_form(&self, set: &str) -> Option<String> {
        let found = self.short_forms().into_iter().find(|(_, key, value)| set == format!("{key}={value}"));
        found.map(|(flag, _, value)| format!("--{flag} {value}"))
    }

    fn refuse_twice(&self, flag: &str, key: &str, value: &str) -> Result<()> {
        let says = |set: &&String| set.split_once('=').is_some_and(|(given, _)| given.trim() == key);
        match self.set.iter().find(says) {
            Some(set) => Err(Error::usage_hint(
                format!("--{flag} {value} and --set {set} are both given"),
                format!("--{flag} is short for --set {key}=…: leave one of them out"),
            )),
            None => Ok(()),
        }
    }
}

impl RunArgs {
    /// The configuration, `--out` included.
    pub fn all(&self) -> ConfigArgs {
        let mut all = self.config.clone();
        all.short.out.clone_from(&self.out);
        all
    }

    /// As [`ConfigArgs::load`].
    ///
    /// # Errors
    /// Likewise.
    pub fn load(&self) -> Result<Settings> {
        self.all().load()
    }

    /// `--out`, where `other` is given instead of a configuration.
    ///
    /// # Errors
    /// A usage error when there is a configuration all the same.
    pub fn only_out(&self, other: &str) -> Result<Option<PathBuf>> {
        if self.config.file().is_some() || !self.config.sets()?.is_empty() {
            let message = format!("{other} takes runs as they are: no configuration goes with it");
            return Err(Error::usage_hint(message, "leave out --config, --set and its short forms but --out"));
        }
        Ok(self.out.as_ref().map(PathBuf::from))
    }
}

/// The overrides, with what makes up for a file where there is none.
///
/// # Errors
/// A usage error for a command line that gives neither a file nor an override.
pub fn complete(file: Option<&Path>, sets: Vec<String>) -> Result<Vec<String>> {
    if file.is_some() || !sets.is_empty() {
        return Ok(config::with_backbone(file, sets));
    }
    let message = "no configuration was given";
    let hint = "use --config FILE, or at least --data FOLDER; configs/quickstart.toml is an example";
    Err(Error::usage_hint(message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn sets(words: &[&str]) -> Result<Vec<String>> {
        Line::parse_from(["x"].iter().chain(words)).run.all().sets()
    }

    #[test]
    fn short_forms_are_overrides() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let csv = file.path().to_str().unwrap();
        let given = sets(&["--set", "train.warmup=0", "--lr", "1e-4", "--data", csv, "--device", "cpu", "--out", "r"]);
        let manifest = format!("data.manifest={csv}");
        assert_eq!(given.unwrap(), ["train.warmup=0", &manifest, "train.lr=1e-4", "run.device=cpu", "run.out=r"]);
        let all = ["--data", "d", "--epochs", "3", "--batch-size", "8", "--seed", "1", "--name", "7"];
        let settings = Line::parse_from(["x"].iter().chain(&all)).run.load().unwrap();
        assert_eq!((settings.run.name.as_str(), settings.run.seed, settings.train.batch_size), ("7", 1, 8));
        assert_eq!(settings.model.backbone, "builtin:vit-flaw");
    }

    #[test]
    fn an_error_names_what_was_typed() {
        let run =
            Line::parse_from(["x", "--data", "d", "--lr", "fast", "--set", "train.epochs=many", "--seed", "-"]).run;
        let said = run.load().unwrap_err().to_string();
        for line in ["\n  --lr fast: train.lr: ", "\n  --set train.epochs=many: ", "\n  --seed -: run.seed: "] {
            assert!(said.contains(line), "{said}");
        }
        assert!(said.starts_with("command line: 3 problems") && !said.contains("--set train.lr"), "{said}");
        let run = Line::parse_from(["x", "--data", "d", "--out", ""]).run;
        let said = run.load().unwrap_err().to_string();
        assert!(said.contains("\n  --out : run.out: "), "{said}");
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        for words in [
            ["--lr", "1", "--set", "train.lr=2"],
            ["--batch-size", "1", "--set", "train.batch_size = 1"],
            ["--data", "d", "--set", "data.manifest=m.csv"],
            ["--data", "d", "--set", "data.root=e"],
            ["--out", "d", "--set", "run.out=e"],
            ["--device", "cpu", "--set", "run.device=cpu"],
        ] {
            let error = sets(&words).unwrap_err();
            assert!(matches!(error, Error::Usage { .. }) && error.to_string().contains(words[3]), "{error}");
        }
        assert!(sets(&["--lr", "1", "--set", "train.lr_x=2"]).is_ok());
    }

    #[test]
    fn short_forms_name_their_key_first() {
        let schema: serde_json::Value = serde_json::from_str(&config::json_schema()).unwrap();
        for arg in Line::command().get_arguments().filter(|arg| arg.get_help_heading().is_some()) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let key = help.split([':', ',']).next().unwrap_or_default().trim_matches('`').to_owned();
            let (section, name) = key.split_once('.').unwrap_or_else(|| panic!("{help}"));
            let properties = &schema["properties"][section]["properties"];
            assert!(properties.get(name).is_some(), "{key} is not a key");
        }
    }

    #[test]
    fn only_short_forms_stand_under_their_heading() {
        for command in crate::commands::Cli::command().get_subcommands() {
            for arg in command.get_arguments().filter(|arg| arg.get_help_heading() == Some(SHORT)) {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.trim_start_matches('`').contains('.') && help.contains([':', ',']), "{help}");
                let own = CONFIG.contains(&arg.get_id().as_str()) || ["device", "out"].contains(&arg.get_id().as_str());
                assert!(own, "{} {}", command.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn arguments_that_make_a_configuration_are_all_listed() {
        let command = Line::command();
        let ids: Vec<&str> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        let missing: Vec<_> = ids.iter().filter(|id| !CONFIG.contains(id) && !["device", "out"].contains(id)).collect();
        assert!(missing.is_empty() && CONFIG.iter().all(|id| ids.contains(id)), "{missing:?}");
    }
}
