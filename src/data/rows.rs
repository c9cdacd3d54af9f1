//! The rows of a table that people write: in which lines they stand, and what is wrong with them.

use crate::system::shown::counted;
use std::borrow::Cow;

/// What is wrong with a row.
pub(super) struct Flaw {
    /// Completes "rows …".
    pub kind: &'static str,
    /// The whole of it, without the line.
    pub what: String,
}

/// The flaws of all rows, by kind, so that one mistake made in every row is one message.
#[derive(Default)]
pub(super) struct Problems {
    /// In the order of their first row: how many, and the first few.
    kinds: Vec<(&'static str, usize, Vec<String>)>,
}

impl Problems {
    /// Of each kind so many are told.
    const SHOWN: usize = 3;

    pub fn add(&mut self, line: usize, Flaw { kind, what }: Flaw) {
        let at = self.kinds.iter().position(|(known, ..)| *known == kind).unwrap_or_else(|| {
            self.kinds.push((kind, 0, Vec::new()));
            self.kinds.len() - 1
        });
        let (_, count, lines) = &mut self.kinds[at];
        *count += 1;
        if lines.len() < Self::SHOWN {
            lines.push(format!("line {line}: {}", short(&what)));
        }
    }

    pub fn count(&self) -> usize {
        self.kinds.iter().map(|(_, count, _)| count).sum()
    }

    /// Whether there is one of these kinds.
    pub fn any_of(&self, kinds: &[&str]) -> bool {
        self.kinds.iter().any(|(kind, ..)| kinds.contains(kind))
    }

    /// The first few of each kind, then their number.
    pub fn lines(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (kind, count, lines) in &self.kinds {
            all.extend(lines.iter().cloned());
            if *count > lines.len() {
                all.push(format!("and {} {kind}", counted(count - lines.len(), "more row")));
            }
        }
        all
    }
}

/// No more of a text than a message can hold: a field may be as long as its file.
pub(super) fn short(text: &str) -> Cow<'_, str> {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => Cow::Owned(format!("{}… ({} bytes)", &text[..end], text.len())),
        None => Cow::Borrowed(text),
    }
}

/// Counts the lines of a text once, for places that are asked for in their order. The CSV reader's own count is wrong where
/// lines end with CR LF.
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> Lines<'a> {
    pub fn of(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0, line: 1 }
    }

    /// The line, from 1, of the row that starts at a byte, behind blank lines.
    pub fn at(&mut self, start: usize) -> usize {
        let blank = self.bytes.iter().skip(start).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let end = (start + blank).clamp(self.at, self.bytes.len());
        self.line += self.bytes[self.at..end].split(|&byte| byte == b'\n').count() - 1;
        self.at = end;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_on_whatever_they_end_with() {
        let text = "path\r\n\r\na\r\nb\r\n";
        let mut lines = Lines::of(text);
        assert_eq!([0, 6, 11, 99].map(|start| lines.at(start)), [1, 3, 4, 5]);
    }

    #[test]
    fn a_million_flaws_are_a_few_lines_and_a_long_field_is_cut() {
        let mut problems = Problems::default();
        for line in 2..1_000_002 {
            problems.add(line, Flaw { kind: "that are odd", what: "ä".repeat(if line == 2 { 400 } else { 1 }) });
        }
        problems.add(7, Flaw { kind: "of another kind", what: "x".into() });
        let lines = problems.lines();
        assert_eq!((problems.count(), lines.len()), (1_000_001, 5));
        assert!(lines[0].starts_with("line 2: ää") && lines[0].ends_with("ä… (800 bytes)"), "{}", lines[0]);
        assert_eq!(lines[3], "and 999997 more rows that are odd");
    }
}
