//! What lies in a folder: its folders and images, without what systems and tools leave there.

use super::decode::{EXTENSIONS, UNREAD_EXTENSIONS};
use super::dicom;
use crate::error::{DataError, Result};
use crate::system::shown::Shown;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// The direct contents of a folder.
pub(super) struct Children {
    /// Sorted by name.
    pub folders: Vec<PathBuf>,
    /// Number of image files.
    pub images: usize,
}

pub(super) fn children(folder: &Path) -> Result<Children> {
    let mut children = Children { folders: Vec::new(), images: 0 };
    for entry in walk(folder).max_depth(1) {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        if entry.file_type().is_dir() {
            if is_hidden(entry.file_name()) || is_of_a_run(entry.path()) {
                continue;
            }
            children.folders.push(entry.into_path());
        } else if is_image(entry.path()) {
            children.images += 1;
        }
    }
    Ok(children)
}

/// All files below a folder, at any depth, but hidden ones and those of runs.
#[derive(Default)]
pub(super) struct FolderContents {
    /// Sorted.
    pub images: Vec<PathBuf>,
    /// Images that are not read, by extension.
    pub unread: BTreeMap<String, usize>,
    /// All files that are not read.
    pub ignored: usize,
    /// Folders of runs.
    pub runs: usize,
}

pub(super) fn contents(folder: &Path) -> Result<FolderContents> {
    let mut found = FolderContents::default();
    // The class folder itself may be a link to a hidden folder; only what is below it is filtered.
    let mut visible = walk(folder).into_iter().filter_entry(|entry| !is_hidden(entry.file_name()));
    while let Some(entry) = visible.next() {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        if entry.file_type().is_dir() {
            if is_of_a_run(entry.path()) {
                found.runs += 1;
                visible.skip_current_dir();
            }
            continue;
        }
        if is_image(entry.path()) {
            found.images.push(entry.into_path());
            continue;
        }
        found.ignored += 1;
        let extension = extension(entry.path());
        if UNREAD_EXTENSIONS.contains(&extension.as_str()) {
            *found.unread.entry(extension).or_default() += 1;
        }
    }
    Ok(found)
}

/// Links are followed, because data sets are often assembled from links; walkdir reports loops and dead links.
fn walk(folder: &Path) -> WalkDir {
    WalkDir::new(folder).follow_links(true).min_depth(1).sort_by_file_name()
}

/// Folders that systems and tools leave among others: archives of macOS, network storage, waste bins, Python.
const SYSTEM_FOLDERS: [&str; 9] = [
    "__MACOSX", "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found",
    "__pycache__", "node_modules",
];

/// Dot files, such as `.ipynb_checkpoints`, and [`SYSTEM_FOLDERS`].
pub(super) fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || SYSTEM_FOLDERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether a folder was left by vitadapt: the pictures in it are plots, not images of a class.
pub(super) fn is_of_a_run(folder: &Path) -> bool {
    let holds = |names: [&str; 2]| names.iter().all(|name| folder.join(name).is_file());
    holds(["run.json", "config.toml"]) || holds(["compare.json", "compare.md"])
}

/// By its ending; DICOM files often have none, or end with the digits of an identifier, and are known by their content.
pub(super) fn is_image(path: &Path) -> bool {
    let ending = extension(path);
    !path.file_name().is_some_and(is_hidden)
        && (EXTENSIONS.contains(&ending.as_str())
            || ending.bytes().all(|byte| byte.is_ascii_digit()) && dicom::is_image_file(path))
}

/// An image by its name, whether it is read or not.
pub(super) fn is_image_like(path: &Path) -> bool {
    let unread = UNREAD_EXTENSIONS.contains(&extension(path).as_str()) && !path.file_name().is_some_and(is_hidden);
    unread || is_image(path)
}

/// In lower case; empty when there is none.
pub(super) fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

pub(super) fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str);
    Ok(name.map(str::to_owned).ok_or_else(|| not_unicode(path))?)
}

pub(super) fn relative_name(root: &Path, path: &Path) -> Result<String> {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Option<Vec<&str>> = relative.components().map(|part| part.as_os_str().to_str()).collect();
    Ok(parts.map(|parts| parts.join("/")).ok_or_else(|| not_unicode(path))?)
}

fn not_unicode(path: &Path) -> DataError {
    DataError::invalid(format!("the name {} is not valid Unicode", path.shown()), "rename it")
}

fn unreadable(folder: &Path, error: &walkdir::Error) -> DataError {
    let path = error.path().unwrap_or(folder).shown();
    if let Some(ancestor) = error.loop_ancestor() {
        return DataError::invalid(
            format!("{path} is a link to {}, which contains it", ancestor.shown()),
            "remove the link: a folder cannot be inside itself",
        );
    }
    let reason = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
    DataError::invalid(format!("cannot read {path}: {reason}"), "check its permissions, or where the link points to")
}
