//! Letters that the built-in font does not have, such as those of Chinese, Thai or Devanagari: a font of this system draws
//! them, looked for when the first one comes up. A bundled font for all scripts would outweigh the program (Noto Sans CJK
//! alone has 16 MB). Letters that no font has are drawn as their numbers, so that names stay apart; SVGs and pages hold
//! the letters themselves, which whoever shows them draws.
//!
//! What is written from right to left is put in the order in which it is seen, and letters of Arabic get the forms that join.

use ar_reshaper::ArabicReshaper;
use plotters::style::{FontStyle, register_font as register};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use ttf_parser::Face;
use unicode_bidi::BidiInfo;
use walkdir::WalkDir;

/// The name the SVG carries; the PNG is drawn with the font registered under it.
pub(super) const BUILT_IN: &str = "DejaVu Sans, sans-serif";
pub(super) static BUILT_IN_FILE: &[u8] = include_bytes!("../../../assets/fonts/DejaVuSans.ttf");

/// Where systems keep fonts; the first two are below a user's home.
const FOLDERS: [&str; 8] = [
    ".fonts", ".local/share/fonts", "/usr/share/fonts", "/usr/local/share/fonts", "/Library/Fonts",
    "/System/Library/Fonts", "C:\\Windows\\Fonts", "/usr/share/texmf/fonts",
];
/// Files looked at, and the largest of them in bytes.
const MOST_FILES: usize = 1000;
const LARGEST_FILE: u64 = 64 << 20;
/// Searches of a process: names are in few scripts, and a search reads every font.
const MOST_SEARCHES: usize = 4;

/// A font that draws letters the built-in one lacks.
struct Fallback {
    family: &'static str,
    face: Face<'static>,
}

#[derive(Default)]
struct FoundFonts {
    fonts: Vec<Fallback>,
    /// The position of the font of a letter; none = no font has it.
    letters: BTreeMap<char, Option<usize>>,
    searches: usize,
}

static FACE: LazyLock<Option<Face<'static>>> = LazyLock::new(|| Face::parse(BUILT_IN_FILE, 0).ok());
static FOUND: LazyLock<Mutex<FoundFonts>> = LazyLock::new(Mutex::default);

fn is_built_in(letter: char) -> bool {
    FACE.as_ref().is_none_or(|face| face.glyph_index(letter).is_some())
}

/// Whether the built-in font alone draws a text.
pub(super) fn is_plain(text: &str) -> bool {
    text.chars().all(is_built_in)
}

/// A name as it is seen, from left to right: what is drawn letter by letter has neither direction nor joined forms.
pub(super) fn seen(text: &str) -> Cow<'_, str> {
    let ordered = |text: &str| {
        let info = BidiInfo::new(text, None);
        let lines = info.paragraphs.iter().map(|paragraph| info.reorder_line(paragraph, paragraph.range.clone()));
        lines.collect::<String>()
    };
    if !BidiInfo::new(text, None).has_rtl() {
        return Cow::Borrowed(text);
    }
    let joined = ArabicReshaper::default().reshape(text);
    // A font of the system that has the letters need not have their forms.
    Cow::Owned(ordered(if is_plain(&joined) { &joined } else { text }))
}

/// A text in pieces, each with the font that has its letters.
pub(super) fn pieces(text: &str) -> Vec<(&'static str, String)> {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pieces: Vec<(&'static str, String)> = Vec::new();
    for letter in text.chars() {
        let (family, shown) = match found.font(letter) {
            Some(family) => (family, letter.to_string()),
            None => (BUILT_IN, format!("[{:X}]", u32::from(letter))),
        };
        match pieces.last_mut() {
            Some((last, text)) if *last == family => text.push_str(&shown),
            _ => pieces.push((family, shown)),
        }
    }
    pieces
}

/// The letters of some names that no font of this system has, each once: a PNG shows their numbers instead.
pub fn missing_letters(texts: &[String]) -> Vec<char> {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let mut letters: Vec<char> =
        texts.iter().flat_map(|text| text.chars()).filter(|letter| !is_built_in(*letter)).collect();
    letters.sort_unstable();
    letters.dedup();
    letters.retain(|&letter| found.font(letter).is_none());
    letters
}

impl FoundFonts {
    /// Which one draws a letter; none where it is drawn as its number.
    fn font(&mut self, letter: char) -> Option<&'static str> {
        if is_built_in(letter) || letter.is_control() {
            return Some(BUILT_IN);
        }
        let known = self.letters.get(&letter).copied();
        let position = known.unwrap_or_else(|| {
            let position = self.look_up(letter);
            self.letters.insert(letter, position);
            position
        });
        position.map(|position| self.fonts[position].family)
    }

    fn look_up(&mut self, letter: char) -> Option<usize> {
        let known = self.fonts.iter().position(|font| font.face.glyph_index(letter).is_some());
        if known.is_some() || self.searches == MOST_SEARCHES {
            return known;
        }
        self.searches += 1;
        let font = files(&folders()).into_iter().find_map(|file| load(&file, letter))?;
        self.fonts.push(font);
        Some(self.fonts.len() - 1)
    }
}

fn folders() -> Vec<PathBuf> {
    let home = std::env::home_dir().unwrap_or_default();
    FOLDERS.iter().map(|folder| home.join(folder)).collect()
}

/// Font files below some folders: those without serifs first, then by name.
fn files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let all = folders.iter().flat_map(|folder| WalkDir::new(folder).max_depth(6).into_iter().filter_map(Result::ok));
    let is_font = |path: &Path| {
        let extension = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
        extension.is_some_and(|extension| extension == "ttf" || extension == "otf" || extension == "ttc")
    };
    let small = all.filter(|entry| is_font(entry.path()));
    let small = small.filter(|entry| entry.metadata().is_ok_and(|data| data.is_file() && data.len() <= LARGEST_FILE));
    let mut files: Vec<PathBuf> = small.take(MOST_FILES).map(walkdir::DirEntry::into_path).collect();
    let serifs = |path: &PathBuf| !path.to_string_lossy().to_lowercase().contains("sans");
    files.sort_by(|a, b| serifs(a).cmp(&serifs(b)).then(a.cmp(b)));
    files
}

/// The font of a file, known to the drawing library from now on, if it has the letter.
fn load(file: &Path, letter: char) -> Option<Fallback> {
    let bytes = std::fs::read(file).ok()?;
    Face::parse(&bytes, 0).ok()?.glyph_index(letter)?;
    // The drawing library keeps fonts for ever; there are as many as scripts.
    let bytes: &'static [u8] = Vec::leak(bytes);
    let family: &'static str = String::leak(file.to_string_lossy().into_owned());
    register(family, FontStyle::Normal, bytes).ok()?;
    Some(Fallback { family, face: Face::parse(bytes, 0).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_the_built_in_font_are_plain() {
        assert!(is_plain("Ölfleck Трещина ρωγμή") && !is_plain("日本") && !is_plain("ok 日"));
        assert_eq!(pieces("Riß"), [(BUILT_IN, "Riß".to_owned())]);
    }

    #[test]
    fn names_from_right_to_left_are_seen_so() {
        assert!(matches!(seen("scratch 3"), Cow::Borrowed("scratch 3")));
        assert_eq!(seen("שרט 3"), "3 טרש");
        // The first letter is joined to the left, the second to the right, the third to none.
        assert_eq!(seen("خدش"), "\u{FEB5}\u{FEAA}\u{FEA7}");
    }

    #[test]
    fn a_letter_that_no_font_has_is_its_number() {
        // A private-use plane that no font fills.
        let name = "x\u{10FFF0}y";
        assert_eq!(pieces(name), [(BUILT_IN, "x[10FFF0]y".to_owned())]);
        assert_eq!(missing_letters(&[name.to_owned(), "Riß".to_owned()]), ['\u{10FFF0}']);
    }

    #[test]
    fn fonts_of_a_system_are_found_by_their_letters() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("truetype/sans");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("Some.TTF"), BUILT_IN_FILE).unwrap();
        std::fs::write(folder.join("broken-sans.otf"), b"no font").unwrap();
        std::fs::write(folder.join("notes.txt"), b"").unwrap();
        let files = files(&[root.path().to_path_buf(), root.path().join("absent")]);
        assert_eq!(files.len(), 2);
        let found: Vec<Fallback> = files.iter().filter_map(|file| load(file, 'Ж')).collect();
        assert!(found.len() == 1 && found[0].face.glyph_index('ß').is_some());
        assert!(files.iter().all(|file| load(file, '日').is_none()));
    }
}
