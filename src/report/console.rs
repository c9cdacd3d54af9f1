//! The only module that prints: results to stdout, logs and progress bars to stderr.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar as Bar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::system::shown::harmless;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// Warnings and errors; no progress bars (`-q`).
    Quiet,
    /// What is being done as well.
    #[default]
    Normal,
    /// Details as well (`-v`).
    Verbose,
}

impl Verbosity {
    /// From the counts of `-v` and `-q`, which cancel out.
    pub fn from_flags(verbose: u8, quiet: u8) -> Self {
        match verbose.cmp(&quiet) {
            std::cmp::Ordering::Less => Self::Quiet,
            std::cmp::Ordering::Equal => Self::Normal,
            std::cmp::Ordering::Greater => Self::Verbose,
        }
    }
}

/// Where everything the user reads is written. Shared by all threads; lines never mix, nor do they tear a bar.
pub struct Console {
    verbosity: Verbosity,
    json: bool,
    /// Whether a person's terminal shows the results.
    terminal: bool,
    results: Mutex<Box<dyn Write + Send>>,
    log: Mutex<Box<dyn Write + Send>>,
    bars: MultiProgress,
    /// Whoever read the results has gone.
    unread: AtomicBool,
}

impl Console {
    /// Prints to stdout and stderr. With `json`, stdout carries JSON and no text. Bars show only where stderr is a
    /// terminal and the console is not quiet.
    pub fn new(verbosity: Verbosity, json: bool) -> Self {
        let target = if verbosity == Verbosity::Quiet || !io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let console = Self::with_writers(verbosity, json, Box::new(io::stdout()), Box::new(io::stderr()), target);
        Self { terminal: io::stdout().is_terminal(), ..console }
    }

    fn with_writers(
        verbosity: Verbosity,
        json: bool,
        results: Box<dyn Write + Send>,
        log: Box<dyn Write + Send>,
        bars: ProgressDrawTarget,
    ) -> Self {
        let bars = MultiProgress::with_draw_target(bars);
        Self {
            verbosity,
            json,
            terminal: true,
            results: Mutex::new(results),
            log: Mutex::new(log),
            bars,
            unread: AtomicBool::new(false),
        }
    }

    /// Prints a result: as one line of JSON when that was asked for, else as the table that `table` makes.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub fn output(&self, value: &impl Serialize, table: impl FnOnce() -> String) -> Result<()> {
        if !self.json {
            return self.print(&harmless(&table()));
        }
        let text = serde_json::to_string(value).map_err(|error| Error::io("write", "stdout")(error.into()))?;
        self.result(&text)
    }

    /// Whether `--json` was given.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether `-q` was given.
    pub fn is_quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Prints text that is the same with and without `--json`, and a line break. A file or pipe gets it as it is, a
    /// terminal without control characters.
    ///
    /// # Errors
    /// [`Error::Io`] when stdout cannot be written. A reader that has gone away (`| head`) is not an error.
    pub fn result(&self, text: &str) -> Result<()> {
        if self.terminal { self.print(&harmless(text)) } else { self.print(text) }
    }

    /// Whether the reader of the results has gone away, so that more of them would be made for nobody.
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Logs a detail, for `-v`.
    pub fn detail(&self, text: impl AsRef<str>) {
        self.log_from(Verbosity::Verbose, "", text.as_ref());
    }

    /// Logs what is being done.
    pub fn info(&self, text: impl AsRef<str>) {
        self.log_from(Verbosity::Normal, "", text.as_ref());
    }

    /// Logs something the user should know and may want to change.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.log_from(Verbosity::Quiet, "warning: ", text.as_ref());
    }

    /// Logs a failure.
    pub fn error(&self, text: impl AsRef<str>) {
        self.log_from(Verbosity::Quiet, "error: ", text.as_ref());
    }

    /// A bar for `total` steps named `unit` ("images"), with their rate and the time left. It starts at once and
    /// disappears when finished or dropped.
    pub fn progress(&self, total: u64, unit: &str) -> ProgressBar {
        let bar = self.bars.add(Bar::new(total));
        bar.set_style(bar_style(unit));
        ProgressBar(bar)
    }

    fn print(&self, text: &str) -> Result<()> {
        match self.write_line(&self.results, text) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.unread.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(Error::io("write", "stdout")(error)),
            Ok(()) => Ok(()),
        }
    }

    fn log_from(&self, least: Verbosity, prefix: &str, text: &str) {
        if self.verbosity >= least {
            // There is nowhere to report that the log itself cannot be written.
            let _ = self.write_line(&self.log, &harmless(&format!("{prefix}{text}")));
        }
    }

    /// Writes a line while the bars are out of the way.
    fn write_line(&self, to: &Mutex<Box<dyn Write + Send>>, text: &str) -> io::Result<()> {
        self.bars.suspend(|| {
            // A thread that panicked while it held the writer left at worst half a line.
            let mut writer = to.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(writer, "{text}")?;
            writer.flush()
        })
    }
}

/// A progress bar. Clones of the handle are not needed: every method takes `&self` and may be called by any thread.
pub struct ProgressBar(Bar);

impl ProgressBar {
    /// Advances by `steps`.
    pub fn inc(&self, steps: u64) {
        self.0.inc(steps);
    }

    /// Moves to `done` steps.
    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Shows `text` before the bar.
    pub fn message(&self, text: impl Into<Cow<'static, str>>) {
        self.0.set_message(harmless(&text.into()).into_owned());
    }

    /// Removes the bar.
    pub fn finish(self) {
        drop(self);
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn bar_template(unit: &str) -> String {
    // Braces would be read as placeholders of the template.
    let unit = unit.replace(['{', '}'], "");
    format!("{{msg}} {{bar:30}} {{pos}}/{{len}} {unit}, {{rate}}, {{eta}} left")
}

fn bar_style(unit: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, to: &mut dyn fmt::Write| {
        // Writing to the bar's own buffer cannot fail.
        let _ = write!(to, "{:.1}/s", state.per_sec());
    };
    let style = ProgressStyle::with_template(&bar_template(unit)).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", rate).progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Keeps what is written, or refuses it.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>, Option<io::ErrorKind>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.map_or_else(|| self.0.lock().unwrap().write(bytes), |kind| Err(kind.into()))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn console(verbosity: Verbosity, json: bool) -> (Console, Sink, Sink) {
        let (out, log) = (Sink::default(), Sink::default());
        let hidden = ProgressDrawTarget::hidden();
        (Console::with_writers(verbosity, json, Box::new(out.clone()), Box::new(log.clone()), hidden), out, log)
    }

    #[test]
    fn verbosity_chooses_the_log_lines() {
        for (verbosity, wanted) in [
            (Verbosity::Quiet, "warning: w\nerror: e\n"),
            (Verbosity::Normal, "i\nwarning: w\nerror: e\n"),
            (Verbosity::Verbose, "d\ni\nwarning: w\nerror: e\n"),
        ] {
            let (console, out, log) = console(verbosity, false);
            console.detail("d");
            console.info("i");
            console.warn("w");
            console.error("e");
            assert_eq!((out.text(), log.text()), (String::new(), wanted.to_owned()));
        }
        assert_eq!(
            [(0, 0), (2, 0), (0, 1), (1, 1)].map(|(v, q)| Verbosity::from_flags(v, q)),
            [Verbosity::Normal, Verbosity::Verbose, Verbosity::Quiet, Verbosity::Normal,]
        );
    }

    #[test]
    fn stdout_carries_text_or_json_never_both() {
        for (json, wanted) in [(false, "table\n"), (true, "{\"n\":1}\n")] {
            let (console, out, log) = console(Verbosity::Quiet, json);
            console.output(&serde_json::json!({"n": 1}), || "table".to_owned()).unwrap();
            assert_eq!((out.text(), log.text()), (wanted.to_owned(), String::new()));
        }
    }

    #[test]
    fn a_closed_pipe_is_silent_and_a_full_disk_is_not() {
        let print = |kind| {
            let broken = || Box::new(Sink(Arc::default(), Some(kind)));
            let hidden = ProgressDrawTarget::hidden();
            let console = Console::with_writers(Verbosity::Normal, false, broken(), broken(), hidden);
            console.info("nobody reads this");
            assert!(!console.is_unread());
            console.result("table")?;
            assert!(console.is_unread());
            Ok::<_, Error>(())
        };
        assert!(print(io::ErrorKind::BrokenPipe).is_ok());
        assert_eq!(print(io::ErrorKind::StorageFull).unwrap_err().to_string(), "cannot write stdout");
    }

    #[test]
    fn nothing_from_outside_steers_a_terminal() {
        let (console, out, log) = console(Verbosity::Normal, false);
        console.warn("a\u{1b}[2J\r\u{202e}name\u{9b}\n  next\tcolumn");
        console.result("caf\u{e9}\u{7}").unwrap();
        console.output(&1, || "\u{1b}]0;title\u{7}".into()).unwrap();
        assert_eq!(log.text(), "warning: a\\u{1b}[2J\\r\\u{202e}name\\u{9b}\n  next\tcolumn\n");
        assert_eq!(out.text(), "caf\u{e9}\\u{7}\n\\u{1b}]0;title\\u{7}\n");
    }

    #[test]
    fn bars_leave_no_trace_in_a_log_file() {
        let (console, _, log) = console(Verbosity::Normal, false);
        let progress = console.progress(10, "images {}");
        progress.message("epoch 1");
        progress.inc(3);
        console.info("a line");
        progress.finish();
        assert_eq!(log.text(), "a line\n");
    }

    #[test]
    fn any_unit_makes_a_valid_template() {
        for unit in ["images", "{}", "100 % {bar"] {
            assert!(ProgressStyle::with_template(&bar_template(unit)).is_ok(), "{unit}");
        }
    }
}
