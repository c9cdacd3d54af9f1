//! What a command prints, and its exit code, against a file in `snapshots`.
//!
//! Hidden is what differs between machines or runs, and nothing else: places, times, speeds, and memory that was measured
//! or is free. Every other number is exact and shows: counts, parameters, exit codes, what is forecast from sizes alone,
//! and scores. Scores come from products that round differently on processors with other instructions, by about 1e-6 of
//! their size; they are printed with two to four digits, and accuracies change only where two classes are that close.

use crate::common::workspace::Workspace;
use insta::Settings;
use insta_cmd::get_cargo_bin;

/// Patterns, and what is shown for them.
const HIDDEN: [(&str, &str); 8] = [
    (r"(?m)^(time +)\d.*$", "${1}[TIME]"),
    (r"\babout \d+ (s|min|h)\b", "about [TIME]"),
    (r"\d+(\.\d+)? images/s", "[SPEED] images/s"),
    (r"(?m)^(peak memory +)\d+ MiB", "${1}[MEMORY]"),
    (r"\d+(\.\d+)? [GM]iB free", "[MEMORY] free"),
    // What `check` says of the machine.
    (r"(?m)^(processor|memory|GPU)( +).*$", "$1$2[MACHINE]"),
    (r"(?m)^(cores +)\d+", "${1}[MACHINE]"),
    (r"vitadapt\.exe", "vitadapt"),
];

/// Snapshots of commands that run in `workspace`.
pub fn settings(workspace: &Workspace) -> Settings {
    let mut settings = Settings::clone_current();
    for (place, shown) in [(get_cargo_bin("vitadapt"), "vitadapt"), (workspace.folder.path().to_owned(), "[TMP]")] {
        settings.add_filter(&literal(place.to_str().unwrap()), shown);
    }
    HIDDEN.iter().for_each(|(pattern, shown)| settings.add_filter(pattern, *shown));
    settings
}

/// A pattern that finds `text` itself.
fn literal(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_alphanumeric() || c == '/' { vec![c] } else { vec!['\\', c] }).collect()
}

/// Runs the command line in the workspace and compares; what else is hidden follows as pairs.
macro_rules! snapshot {
    ($workspace:expr, $args:expr $(, $hidden:expr)* $(,)?) => {{
        #[allow(unused_mut)] // without more to hide
        let mut settings = $crate::snapshot::settings(&$workspace);
        $(settings.add_filter($hidden.0, $hidden.1);)*
        settings.bind(|| insta_cmd::assert_cmd_snapshot!($workspace.command($args)));
    }};
}
pub(crate) use snapshot;
