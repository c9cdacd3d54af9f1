//! README, `docs/` and the help texts are checked against the program: links lead somewhere, commands and settings are read by
//! the same code that reads a user's, every command has an example and every exit code its row.

use super::Cli;
use crate::config;
use crate::error::ExitCode;
use clap::{CommandFactory, Parser};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A page and where it lies in the repository.
struct DocPage {
    path: PathBuf,
    text: String,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README, CONTRIBUTING and all of `docs/`.
fn pages() -> Vec<DocPage> {
    let docs = repository().join("docs").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    assert!(pages.len() > 5, "docs/ has only {pages:?}");
    ["README.md", "CONTRIBUTING.md"]
        .into_iter()
        .map(|name| repository().join(name))
        .chain(pages)
        .map(|path| DocPage { text: std::fs::read_to_string(&path).unwrap(), path })
        .collect()
}

impl DocPage {
    /// The blocks between fences of this language.
    fn blocks(&self, language: &str) -> Vec<String> {
        let parts = self.text.split("```").skip(1).step_by(2);
        parts.filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n')).map(str::to_owned).collect()
    }

    /// The text without what stands in fences.
    fn prose(&self) -> String {
        self.text.split("```").step_by(2).collect()
    }

    /// The targets of `[text](target)` and `![text](target)`.
    fn links(&self) -> Vec<String> {
        let prose = self.prose();
        prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
    }

    /// The anchors of its headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let prose = self.prose();
        let titles = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
        let letter = |c: char| (c.is_alphanumeric() || c == '-' || c == '_').then_some(c);
        titles
            .map(|title| {
                title.to_lowercase().chars().filter_map(|c| if c == ' ' { Some('-') } else { letter(c) }).collect()
            })
            .collect()
    }
}

#[test]
fn the_readme_is_short() {
    let lines = std::fs::read_to_string(repository().join("README.md")).unwrap().lines().count();
    assert!(lines <= 150, "README.md has {lines} lines: move what is not for the first minute to docs/");
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        for link in page.links().into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(file, id)| (file, Some(id)));
            let target = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
            let found = match anchor {
                None => target.exists(),
                Some(id) => std::fs::read_to_string(&target)
                    .is_ok_and(|text| DocPage { path: target, text }.anchors().contains(id)),
            };
            if !found {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_readme_leads_to_every_page() {
    let pages = pages();
    let linked: BTreeSet<String> = pages[0].links().into_iter().collect();
    for page in &pages {
        let name = page.path.strip_prefix(repository()).unwrap().to_string_lossy().into_owned();
        assert!(name == "README.md" || linked.contains(&name), "README.md has no link to {name}");
    }
}

/// The command lines of this program in a shell script or a help text, continued lines joined.
fn command_lines(script: &str) -> Vec<String> {
    let joined = script.replace("\\\n", " ").replace("cargo run --release -- ", "vitadapt ");
    let commands = joined.lines().flat_map(|line| line.split(" | ")).map(str::trim);
    commands.filter(|command| command.starts_with("vitadapt ")).map(str::to_owned).collect()
}

/// Reads a line as a shell, the command line and the settings do.
fn try_command(line: &str) -> Result<(), String> {
    let words = shlex::split(line).ok_or("a quote is open")?;
    Cli::try_parse_from(&words).map_err(|error| error.to_string())?;
    let mut sets = vec!["data.root=images".to_owned()];
    sets.extend(words.windows(2).filter(|pair| pair[0] == "--set").map(|pair| pair[1].clone()));
    config::load(None, &sets).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn commands_in_the_docs_are_understood() {
    let mut seen = 0;
    for page in pages() {
        for line in page.blocks("sh").iter().flat_map(|script| command_lines(script)) {
            try_command(&line).unwrap_or_else(|error| panic!("{}: {line}\n{error}", page.path.display()));
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} commands in the docs");
}

#[test]
fn settings_in_the_docs_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    let mut seen = 0;
    for page in pages() {
        for text in page.blocks("toml") {
            std::fs::write(&file, &text).unwrap();
            config::load(Some(&file), &["data.root=images".to_owned()])
                .unwrap_or_else(|error| panic!("{}:\n{text}\n{error}", page.path.display()));
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} settings in the docs");
}

#[test]
fn every_command_has_an_example_that_is_understood() {
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = command_lines(&help);
        let name = command.get_name();
        assert!(lines.iter().any(|line| line.starts_with(&format!("vitadapt {name} "))), "no example for {name}");
        lines.iter().for_each(|line| try_command(line).unwrap_or_else(|error| panic!("{line}\n{error}")));
    }
}

#[test]
fn every_exit_code_has_a_row() {
    let text = std::fs::read_to_string(repository().join("docs/faults.md")).unwrap();
    for code in (0..256).filter_map(ExitCode::of_number) {
        let row = format!("| {} | ", code as i32);
        assert!(text.lines().any(|line| line.starts_with(&row)), "docs/faults.md has no row for {code:?}");
    }
}
