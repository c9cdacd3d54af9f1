//! The image files that the command line names: files, folders, patterns, and a list on standard input.

use super::folder::is_image;
use crate::error::{DataError, Error, Result};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Image files one after another; a list on standard input is read as it comes.
pub type Inputs = Box<dyn Iterator<Item = Result<PathBuf>>>;

/// The files that `argument` stands for: a folder's images, sorted, however deep; the matches of a pattern with `*`, `?`
/// or `[…]`, sorted; the lines of `list` for `-`; else the file of that name, there or not.
///
/// # Errors
/// A usage error for a malformed pattern or one without a match, a data error for a folder without images, an I/O error
/// for one that cannot be read.
pub fn expand(argument: &Path, list: impl FnOnce() -> Box<dyn BufRead>) -> Result<Inputs> {
    if argument == Path::new("-") {
        let lines = list().lines().filter(|line| line.as_ref().map_or(true, |line| !line.trim().is_empty()));
        return Ok(Box::new(lines.map(|line| line.map(PathBuf::from).map_err(Error::io("read", "standard input")))));
    }
    if argument.is_dir() {
        return images_below(argument);
    }
    match argument.to_str() {
        Some(pattern) if !argument.exists() && pattern.contains(['*', '?', '[']) => matches(pattern),
        _ => Ok(Box::new(std::iter::once(Ok(argument.to_path_buf())))),
    }
}

fn images_below(folder: &Path) -> Result<Inputs> {
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

fn matches(pattern: &str) -> Result<Inputs> {
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

    fn names(argument: &Path, list: &'static str) -> Result<Vec<String>> {
        expand(argument, || Box::new(list.as_bytes()))?
            .map(|path| Ok(path?.file_name().unwrap_or_default().to_string_lossy().into_owned()))
            .collect()
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
