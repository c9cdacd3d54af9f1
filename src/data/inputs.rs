//! What a user names on the command line, as image files: files, folders, patterns, and lists on standard input.

use super::manifest;
use super::tree::{is_hidden, is_image_like, is_of_a_run};
use crate::config::ColumnNames;
use crate::error::{DataError, Error, Result};
use crate::system::shown::Shown;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Bytes of a list that are read at a time: as much as a pipe holds.
const LIST_BYTES: usize = 1 << 16;

/// Image files one after another; a list on standard input is read as it comes.
pub struct Inputs(VecDeque<InputFiles>);

type Files = Box<dyn Iterator<Item = Result<PathBuf>>>;

/// What one argument stands for.
enum InputFiles {
    Files(Files),
    List(BufReader<Box<dyn Read>>),
}

impl Inputs {
    /// The files that the arguments stand for: a folder's images, sorted, however deep; the matches of a pattern with `*`,
    /// `?` or `[…]`, sorted; the rows of a CSV file, whose column of files is called as in `columns`, or as usual; the
    /// lines of `list` for `-`; else the file of that name, there or not.
    ///
    /// # Errors
    /// A usage error for a malformed pattern or one without a match, a data error for a folder without images or a
    /// malformed CSV file, an I/O error for a folder that cannot be read.
    pub fn new(arguments: &[PathBuf], columns: &ColumnNames, list: impl Fn() -> Box<dyn Read>) -> Result<Self> {
        arguments.iter().map(|argument| InputFiles::new(argument, columns, &list)).collect::<Result<_>>().map(Self)
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

impl InputFiles {
    fn new(argument: &Path, columns: &ColumnNames, list: impl Fn() -> Box<dyn Read>) -> Result<Self> {
        if argument == Path::new("-") {
            return Ok(Self::List(BufReader::with_capacity(LIST_BYTES, list())));
        }
        if argument.is_dir() {
            return images_below(argument).map(Self::Files);
        }
        if argument
            .extension()
            .is_some_and(|ending| ["csv", "tsv"].iter().any(|table| ending.eq_ignore_ascii_case(table)))
        {
            return Ok(Self::Files(Box::new(manifest::files(argument, columns)?.into_iter().map(Ok))));
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
            let mut line = Vec::new();
            match list.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) if line.trim_ascii().is_empty() => {}
                Ok(_) => {
                    let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
                    line.truncate(end);
                    return Some(Ok(path_of(line)));
                }
                Err(error) => return Some(Err(Error::io("read", "standard input")(error))),
            }
        }
    }
}

/// The file that a line names; on Unix, names are bytes and need not be UTF-8.
fn path_of(line: Vec<u8>) -> PathBuf {
    #[cfg(unix)]
    {
        <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(line).into()
    }
    #[cfg(not(unix))]
    {
        String::from_utf8_lossy(&line).into_owned().into()
    }
}

/// Whatever looks like an image, so that a pipe, a dead link or a format that is not read is answered with its reason.
fn images_below(folder: &Path) -> Result<Files> {
    let mut files = Vec::new();
    let entries = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    let shown = |entry: &walkdir::DirEntry| {
        !(is_hidden(entry.file_name()) || entry.file_type().is_dir() && is_of_a_run(entry.path()))
    };
    for entry in entries.filter_entry(|entry| entry.depth() == 0 || shown(entry)) {
        match entry {
            Ok(entry) if entry.file_type().is_dir() || !is_image_like(entry.path()) => {}
            Ok(entry) => files.push(Ok(entry.into_path())),
            Err(error) => match error.path().filter(|&path| path != folder) {
                Some(path) => files.push(Ok(path.to_path_buf())),
                None => return Err(Error::io("read", folder)(error.into())),
            },
        }
    }
    if files.is_empty() {
        let message = format!("{} holds no images", folder.shown());
        return Err(DataError::invalid(message, "JPEG, PNG, BMP, TIFF, WebP and DICOM files are read").into());
    }
    Ok(Box::new(files.into_iter()))
}

fn matches(pattern: &str) -> Result<Files> {
    let found =
        glob::glob(pattern).map_err(|error| Error::usage(format!("{pattern:?} is not a valid pattern: {error}")))?;
    let mut files = found
        .map(|entry| entry.map_err(|error| Error::io("read", error.path().to_path_buf())(error.into())))
        .filter(|entry| entry.as_ref().map_or(true, |path| !path.is_dir()))
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
    struct Pipe(VecDeque<&'static str>);

    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let piece = self.0.pop_front().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(piece.as_bytes());
            Ok(piece.len())
        }
    }

    fn inputs(argument: &Path, pieces: &[&'static str]) -> Result<Inputs> {
        Inputs::new(&[argument.to_path_buf()], &ColumnNames::default(), || {
            Box::new(Pipe(pieces.iter().copied().collect()))
        })
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
        let mut files =
            Inputs::new(&arguments, &ColumnNames::default(), || Box::new(Pipe(VecDeque::from(["a\n"])))).unwrap();
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
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(root.join("nowhere"), root.join("b/dead.png")).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(root.join("b/pipe.png")).status().unwrap().success());
            fs::create_dir(root.join("@eaDir")).unwrap();
            fs::write(root.join("@eaDir/thumb.png"), "").unwrap();
            fs::write(root.join("b/phone.heic"), "").unwrap();
            assert_eq!(names(root, "").unwrap(), ["a.JPG", "dead.png", "phone.heic", "pipe.png", "z.png"]);
            assert_eq!(names(&root.join("b/*.png"), "").unwrap(), ["dead.png", "pipe.png"]);
        }
        fs::create_dir(root.join("empty")).unwrap();
        assert!(names(&root.join("empty"), "").unwrap_err().to_string().contains("no images"));
    }

    #[cfg(unix)]
    #[test]
    fn a_line_that_is_not_utf8_is_a_file_like_any_other() {
        use std::os::unix::ffi::OsStrExt;
        let bytes: &'static [u8] = b"caf\xe9.png\r\nb.png\n";
        let mut files = Inputs::new(&[PathBuf::from("-")], &ColumnNames::default(), || Box::new(bytes)).unwrap();
        let paths = files.batch(8, true).unwrap();
        assert_eq!(paths[0].as_os_str().as_bytes(), b"caf\xe9.png");
        assert_eq!(paths[1], Path::new("b.png"));
    }
}
