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

/// `a, b and c`, with that word before the last.
pub fn listed<T: AsRef<str>>(names: &[T], word: &str) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [first @ .., next, last] => [first, &[&format!("{next} {word} {last}")]].concat().join(", "),
        _ => names.concat(),
    }
}

/// `"a", "b" and "c"`
pub fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{:?}", name.as_ref())).collect();
    if names.is_empty() { "nothing".into() } else { listed(&names, "and") }
}

/// `1 image`, `2 images`: so many of what a noun in the singular names, whose last word takes the ending.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {}", plural(noun)) }
}

fn plural(noun: &str) -> String {
    let ends = |endings: &[&str]| endings.iter().any(|ending| noun.ends_with(ending));
    match noun.strip_suffix('y') {
        Some(stem) if !ends(&["ay", "ey", "oy"]) => format!("{stem}ies"),
        _ if ends(&["s", "x", "ch", "sh"]) && !ends(&["epoch"]) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// `2 of 6 images`, `the only image`
pub fn part_of(part: usize, whole: usize, noun: &str) -> String {
    if (part, whole) == (1, 1) { format!("the only {noun}") } else { format!("{part} of {}", counted(whole, noun)) }
}

/// The form of a word after such a count.
pub fn agree<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// `is` or `are`
pub fn are(count: usize) -> &'static str {
    agree(count, "is", "are")
}

/// A number of at most so many significant digits, with an exponent only where it is very small or large. A config file
/// takes the same notation.
pub fn significant(value: f64, digits: usize) -> String {
    let rounded: f64 = format!("{value:.*e}", digits.saturating_sub(1)).parse().unwrap_or(value);
    if rounded == 0.0 || (1e-3..1e5).contains(&rounded.abs()) { format!("{rounded}") } else { format!("{rounded:e}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn one_is_singular() {
        for (count, noun, expected) in [
            (0, "image", "0 images"),
            (1, "image", "1 image"),
            (2, "validation image", "2 validation images"),
            (1, "class", "1 class"),
            (3, "class", "3 classes"),
            (2, "copy", "2 copies"),
            (2, "array", "2 arrays"),
            (5, "patch", "5 patches"),
            (2, "epoch", "2 epochs"),
        ] {
            assert_eq!(counted(count, noun), expected);
        }
        assert_eq!([are(0), are(1), are(2)], ["are", "is", "are"]);
        assert_eq!([part_of(1, 1, "image"), part_of(1, 6, "image")], ["the only image", "1 of 6 images"]);
    }

    #[test]
    fn numbers_are_as_short_as_their_digits() {
        for (value, expected) in
            [(5.623_413e0, "5.623"), (5000.0, "5000"), (0.5, "0.5"), (1e-6, "1e-6"), (123_456.0, "1.235e5"), (0.0, "0")]
        {
            assert_eq!(significant(value, 4), expected);
        }
    }

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
