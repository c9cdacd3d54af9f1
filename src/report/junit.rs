//! JUnit's XML, which CI systems show as tests: the form of the Ant task, as GitLab, Jenkins and the actions of GitHub read
//! it. It is a page of text, so no library is asked for it.

use crate::error::{ExitCode, Result};
use crate::system::files::write_atomic;
use std::path::Path;

/// One test.
#[derive(Debug, Clone)]
pub struct TestCase {
    /// What was tested.
    pub name: String,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// What a check looked at: one test for each kind of problem that it can find, told by the exit code.
pub fn of_problems(problems: &[(ExitCode, String)]) -> Vec<TestCase> {
    const KINDS: [(&str, ExitCode); 4] = [
        ("the settings and all else", ExitCode::Usage),
        ("the images, labels and splits", ExitCode::Data),
        ("the weights", ExitCode::Weights),
        ("files and downloads", ExitCode::Io),
    ];
    // What has no test of its own is told with the first.
    let kind = |code| KINDS.iter().position(|&(_, known)| known == code).unwrap_or_default();
    let failure = |at| {
        let found = problems.iter().filter(|(code, _)| kind(*code) == at).map(|(_, message)| message.as_str());
        Some(found.collect::<Vec<_>>().join("\n")).filter(|text| !text.is_empty())
    };
    KINDS.iter().enumerate().map(|(at, (name, _))| TestCase { name: (*name).into(), failure: failure(at) }).collect()
}

/// Writes a suite of tests.
///
/// # Errors
/// When the file cannot be written.
pub fn write(file: &Path, suite: &str, cases: &[TestCase]) -> Result<()> {
    write_atomic(file, xml(suite, cases).as_bytes())
}

fn xml(suite: &str, cases: &[TestCase]) -> String {
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let (suite, tests) = (attribute(suite), cases.len());
    let counts = format!("name=\"{suite}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\"");
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"vitadapt\" tests=\"{tests}\" \
         failures=\"{failures}\" errors=\"0\">\n  <testsuite {counts} skipped=\"0\">\n"
    );
    for case in cases {
        text.push_str(&format!("    <testcase classname=\"{suite}\" name=\"{}\"", attribute(&case.name)));
        text.push_str(&match &case.failure {
            Some(reason) => format!(">\n      <failure message=\"{}\"/>\n    </testcase>\n", attribute(reason)),
            None => "/>\n".into(),
        });
    }
    text + "  </testsuite>\n</testsuites>\n"
}

/// Text within the quotes of an attribute. XML 1.0 has no place for most control characters, escaped or not.
fn attribute(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".into(),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            '"' => "&quot;".into(),
            '\n' | '\r' | '\t' => format!("&#{};", u32::from(c)),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => c.escape_default().to_string(),
            c => c.into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_fails_a_test() {
        let problems =
            [(ExitCode::Data, "bad".into()), (ExitCode::Numerics, "odd".into()), (ExitCode::Data, "worse".into())];
        let failures: Vec<_> = of_problems(&problems).into_iter().map(|case| case.failure).collect();
        assert_eq!(failures, [Some("odd".into()), Some("bad\nworse".into()), None, None]);
    }

    #[test]
    fn suites_count_their_failures_and_names_cannot_break_out() {
        let cases = [
            TestCase { name: "accuracy (--min-accuracy 0.5)".into(), failure: None },
            TestCase { name: "recall of '<b> & \"c\"'".into(), failure: Some("too low\nand \u{1b}[31m worse".into()) },
        ];
        assert_eq!(
            xml("eval runs/a test", &cases),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuites name=\"vitadapt\" tests=\"2\" failures=\"1\" errors=\"0\">\n  \
             <testsuite name=\"eval runs/a test\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\">\n    \
             <testcase classname=\"eval runs/a test\" name=\"accuracy (--min-accuracy 0.5)\"/>\n    \
             <testcase classname=\"eval runs/a test\" name=\"recall of '&lt;b&gt; &amp; &quot;c&quot;'\">\n      \
             <failure message=\"too low&#10;and \\u{1b}[31m worse\"/>\n    </testcase>\n  \
             </testsuite>\n</testsuites>\n"
        );
    }
}
