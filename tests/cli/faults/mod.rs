//! Data, weights and files as they come to people: every case is made and tried, and the table in `docs/faults.md` is what
//! came of it; each process has 2 GiB of address space. `VITADAPT_RENEW=1 cargo test --test cli faults` writes the table anew.

mod checkpoints;
mod data;
mod images;
mod models;
mod runs;
mod weights;

use crate::common::workspace::Workspace;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing may be waited for longer than this, not even on a machine with much else to do.
const PATIENCE: Duration = Duration::from_mins(2);
/// Nor may anything need more address space, in KiB: what is refused before it is allocated never comes near.
const MOST_KIB: u64 = 2 << 20;
const START: &str = "<!-- the table begins: tests/cli/faults writes it -->\n";
const END: &str = "<!-- the table ends -->\n";

/// What a process left behind.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs a command to its end; one that waits for something fails the test.
fn run(command: &mut Command) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{command:?} does not end: {}", fs::read_to_string(&err).unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Outcome { code: status.code(), stdout: text(&out), stderr: text(&err) }
}

/// The same command behind a few words of a shell, such as its limits.
fn behind(words: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{words} exec \"$0\" \"$@\"")).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    shell.current_dir(command.get_current_dir().unwrap());
    shell
}

/// The rows of a table: what was tried, how often, what came of it; and where another outcome was wanted.
#[derive(Default)]
struct Table {
    rows: Vec<String>,
    problems: Vec<String>,
}

/// One row under way.
struct Row<'a> {
    workspace: &'a Workspace,
    cases: usize,
    problems: Vec<String>,
}

impl Table {
    /// A row whose cases all have the same outcome, as `tried` asserts.
    fn row(&mut self, workspace: &Workspace, what: &str, outcome: &str, tried: impl FnOnce(&mut Row<'_>)) {
        let mut row = Row { workspace, cases: 0, problems: Vec::new() };
        tried(&mut row);
        assert!(row.cases > 0, "{what}: nothing was tried");
        self.rows.push(format!("| {what} | {} | {outcome} |\n", row.cases));
        self.problems.extend(row.problems);
    }

    fn text(&self) -> String {
        format!("| what | cases | outcome |\n|---|---|---|\n{}", self.rows.concat())
    }
}

impl Row<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.workspace.path(name)
    }

    /// A case that must end with `code` and say all of `said`, on either stream.
    fn case(&mut self, args: &[&str], code: i32, said: &[&str]) -> String {
        self.shell("", args, code, said)
    }

    /// The same behind a few words of a shell.
    fn shell(&mut self, before: &str, args: &[&str], code: i32, said: &[&str]) -> String {
        let command = self.workspace.command(args);
        let mut limited =
            if cfg!(unix) { behind(&format!("ulimit -v {MOST_KIB}; {before}"), &command) } else { command };
        let Outcome { code: found, stdout, stderr } = run(&mut limited);
        let all = stdout + &stderr;
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let unsaid = said.iter().filter(|said| !words(&all).contains(&words(said))).map(|said| format!("no {said:?}"));
        let ended = (found != Some(code)).then(|| format!("{found:?} is not {code}"));
        let panicked = all.contains("panicked").then(|| "a panic".to_owned());
        let problems: Vec<String> = unsaid.chain(ended).chain(panicked).collect();
        if !problems.is_empty() {
            self.problems.push(format!("{before} {args:?}: {}\n{all}", problems.join(", ")));
        }
        self.cases += 1;
        all
    }

    /// A look at the images of `small.toml`.
    fn check(&mut self, sets: &[&str], code: i32, said: &[&str]) -> String {
        let mut args = vec!["check", "--config", "small.toml"];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        self.case(&args, code, said)
    }
}

#[test]
fn every_case_has_the_outcome_that_is_documented() {
    let mut table = Table::default();
    data::rows(&mut table);
    images::rows(&mut table);
    weights::rows(&mut table);
    models::rows(&mut table);
    runs::rows(&mut table);
    checkpoints::rows(&mut table);
    assert!(table.problems.is_empty(), "{} cases: {}", table.problems.len(), table.problems.join("\n\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(START).unwrap();
    let (documented, after) = rest.split_once(END).unwrap();
    if std::env::var_os("VITADAPT_RENEW").is_some() {
        fs::write(&path, [before, START, &table.text(), END, after].concat()).unwrap();
    } else {
        assert_eq!(documented, table.text(), "VITADAPT_RENEW=1 cargo test --test cli faults writes it anew");
    }
}
