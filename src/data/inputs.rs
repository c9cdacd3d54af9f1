//! What a user names on the command line, as image files: files, folders, patterns, and lists on standard input.

use super::folder::is_image;
use crate::error::{DataError, Error, Result};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Bytes of a list that are read at a time: as much as a pipe holds.
const LIST_BYTES: usize = 1 << 16;

/// Image files one after another; a list on standard input is read as it comes.
pub struct Inputs(VecDeque<Source>);

type Files = Box<dyn Iterator<Item = Result<PathBuf>>>;

/// What one argument stands for.
enum Source {
    Files(Files),
    List(BufReader<Box<dyn Read>>),
}

impl Inputs {
    /// The files that the arguments stand for: a folder's images, sorted, however deep; the matches of a pattern with `*`,
    /// `?` or `[…]`, sorted; the lines of `list` for `-`; else the file of that name, there or not.
    ///
    /// # Errors
    /// A usage error for a malformed pattern or one without a match, a data error for a folder without images, an I/O
    /// error for one that cannot be read.
    pub fn new(arguments: &[PathBuf], list: impl Fn() -> Box<dyn Read>) -> Result<Self> {
        arguments.iter().map(|argument| Source::new(argument, &list)).collect::<Result<_>>().map(Self)
    }

    /// The next files, `most` of them or what is left; none at the end. Once there is one, a list that has no further line
    /// ready is not waited for, unless `full` batches are wanted: whoever writes it may want an answer first.
    ///
    /// # Errors
    /// When a folder or the list cannot be read.
    pub fn batch(&mut self, most: usize, full: bool) -> Result<Vec<PathBuf>> {
        let mut batch = Vec::new();
        while batch.len() < most
            && let Some(source) = self.0.front_mut()
        {
            if !(full || batch.is_empty() || source.is_ready()) {
                break;
            }
            match source.next() {
                Some(path) => batch.push(path?),
                None => drop(self.0.pop_front()),
            }
        }
        Ok(batch)
    }
}

impl Source {
    fn new(argument: &Path, list: impl Fn() -> Box<dyn Read>) -> Result<Self> {
        if argument == Path::new("-") {
            return Ok(Self::List(BufReader::with_capacity(LIST_BYTES, list())));
        }
        if argument.is_dir() {
            return images_below(argument).map(Self::Files);
        }
        match argument.to_str() {
            Some(pattern) if !argument.exists() && pattern.contains(['*', '?', '[']) => {
                matches(pattern).map(Self::Files)
            }
            _ => Ok(Self::Files(Box::new(std::iter::once(Ok(argument.to_path_buf()))))),
        }
    }

    /// Whether the next file is known without waiting for whoever writes the list.
    fn is_ready(&self) -> bool {
        match self {
            Self::Files(_) => true,
            Self::List(list) => {
                let mut lines = list.buffer().split_inclusive(|&byte| byte == b'\n');
                lines.any(|line| line.ends_with(b"\n") && !line.trim_ascii().is_empty())
            }
        }
    }

    fn next(&mut self) -> Option<Result<PathBuf>> {
        let list = match self {
            Self::Files(files) => return files.next(),
            Self::List(list) => list,
        };
        loop {
            let mut line = String::new();
            match list.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) if line.trim().is_empty() => {}
                Ok(_) => return Some(Ok(line.trim_end_matches(['\r', '\n']).into())),
                Err(error) => return Some(Err(Error::io("read", "standard input")(error))),
            }
        }
    }
}

fn images_below(folder: &Path) -> Result<Files> {
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_path_buf();
            Error::io("read", path)(error.into())
        })?;
        if entry.file_type().is_file() && is_image(entry.path()) {
            files.push(Ok(entry.into_path()));
        }
    }
    if files.is_empty() {
        let message = format!("{} holds no images", folder.display());
        return Err(DataError::invalid(message, "JPEG, PNG, BMP, TIFF and WebP files are read").into());
    }
    Ok(Box::new(files.into_iter()))
}

fn matches(pattern: &str) -> Result<Files> {
    let found =
        glob::glob(pattern).map_err(|error| Error::usage(format!("{pattern:?} is not a valid pattern: {error}")))?;
    let mut files = found
        .map(|entry| entry.map_err(|error| Error::io("read", error.path().to_path_buf())(error.into())))
        .filter(|entry| entry.as_ref().map_or(true, |path| path.is_file()))
        .peekable();
    if files.peek().is_none() {
        return Err(Error::usage_hint(format!("no file matches {pattern:?}"), "check the pattern and the folder"));
    }
    Ok(Box::new(files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Gives its pieces one at a time, as a pipe does.
    struct Pieces(VecDeque<&'static str>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let piece = self.0.pop_front().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(piece.as_bytes());
            Ok(piece.len())
        }
    }

    fn inputs(argument: &Path, pieces: &[&'static str]) -> Result<Inputs> {
        Inputs::new(&[argument.to_path_buf()], || Box::new(Pieces(pieces.iter().copied().collect())))
    }

    fn batch(inputs: &mut Inputs, most: usize, full: bool) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        inputs.batch(most, full).unwrap().into_iter().map(name).collect()
    }

    fn names(argument: &Path, list: &'static str) -> Result<Vec<String>> {
        Ok(batch(&mut inputs(argument, &[list])?, 100, true))
    }

    #[test]
    fn a_list_is_not_waited_for_once_there_is_a_file() {
        let pieces = ["a\nb\n\n", "c\nd", "\ne"];
        let mut files = inputs(Path::new("-"), &pieces).unwrap();
        let mut next = || batch(&mut files, 2, false);
        assert_eq!([next(), next(), next(), next(), next()].map(|names| names.concat()), ["ab", "c", "d", "e", ""]);
        let mut files = inputs(Path::new("-"), &pieces).unwrap();
        let mut next = || batch(&mut files, 3, true);
        assert_eq!([next(), next(), next()].map(|names| names.concat()), ["abc", "de", ""]);
        let arguments = ["x.png", "-", "y.png"].map(PathBuf::from);
        let mut files = Inputs::new(&arguments, || Box::new(Pieces(VecDeque::from(["a\n"])))).unwrap();
        let mut next = || batch(&mut files, 8, false);
        assert_eq!([next(), next(), next()].map(|names| names.concat()), ["x.png", "a", "y.png"]);
    }

    #[test]
    fn folders_patterns_lists_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("b")).unwrap();
        for name in ["z.png", "b/a.JPG", "notes.txt", ".hidden.png"] {
            fs::write(root.join(name), "").unwrap();
        }
        assert_eq!(names(root, "").unwrap(), ["a.JPG", "z.png"]);
        assert_eq!(names(&root.join("*.txt"), "").unwrap(), ["notes.txt"]);
        assert_eq!(names(Path::new("-"), "x.png\n\n y.png\n").unwrap(), ["x.png", " y.png"]);
        assert_eq!(names(&root.join("absent.png"), "").unwrap(), ["absent.png"]);
        assert!(names(&root.join("*.gif"), "").unwrap_err().to_string().contains("no file matches"));
        assert!(names(&root.join("a["), "").is_err());
        fs::create_dir(root.join("empty")).unwrap();
        assert!(names(&root.join("empty"), "").unwrap_err().to_string().contains("no images"));
    }
}
