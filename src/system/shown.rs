//! Text from outside on its way into a message. Names of files and classes, and what servers say, may hold line breaks,
//! escape sequences and marks that reverse the direction of writing.

use std::borrow::Cow;
use std::ffi::OsStr;

/// Whether a character steers a terminal instead of being shown by it.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, which: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&which) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if which(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// A name as one line: whatever steers a terminal is escaped, everything else stays as it is.
pub fn printable(name: &str) -> String {
    escaped(name, steers).into_owned()
}

/// A message of several lines and columns that cannot steer a terminal.
pub fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text, |c| steers(c) && !matches!(c, '\n' | '\t'))
}

/// How a path stands in messages and tables; `Path::display` is not used, since it shows a name as it is.
pub trait Shown {
    /// The path as one line, as [`printable`].
    fn shown(&self) -> String;
}

impl<T: AsRef<OsStr> + ?Sized> Shown for T {
    fn shown(&self) -> String {
        printable(&self.as_ref().to_string_lossy())
    }
}

/// `"a", "b" and "c"`
pub fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{:?}", name.as_ref())).collect();
    match names.as_slice() {
        [] => "nothing".into(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_what_steers_is_escaped() {
        let name = "caf\u{e9} \"x\" \\ \u{1F600}\n\t\u{1b}[2J\u{202e}";
        assert_eq!(printable(name), "caf\u{e9} \"x\" \\ \u{1F600}\\n\\t\\u{1b}[2J\\u{202e}");
        assert_eq!(Path::new(name).shown(), printable(name));
        assert_eq!(harmless(name), "caf\u{e9} \"x\" \\ \u{1F600}\n\t\\u{1b}[2J\\u{202e}");
        assert!(matches!(harmless("a\nb"), Cow::Borrowed(_)));
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"a\xff\n.png"));
        assert_eq!(path.shown(), "a\u{fffd}\\n.png");
    }
}
