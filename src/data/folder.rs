//! Class folders, with or without train/ val/ test/ above them.

use super::classes::ClassChoice;
use super::decode::{EXTENSIONS, UNREAD_EXTENSIONS};
use super::dicom;
use super::listing::{Listing, by_extension, class_name};
use super::{Entry, ScoredSplit, Split, Unread};
use crate::error::{DataError, Result};
use crate::system::shown::{Shown, are, counted, quoted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// The folder beside train and test that holds masks of flaws, as in `MVTec` AD.
pub(super) const MASKS: &str = "ground_truth";

/// All images below a root, with the split of its folder when there is one; folders of classes that are not wanted are
/// not looked into.
pub(super) fn list(root: &Path, wanted: &ClassChoice) -> Result<Listing> {
    let mut listing = Listing { source: root.to_path_buf(), ..Listing::default() };
    match layout(root, wanted, true, &mut listing)? {
        RootLayout::Classes => list_classes(root, root, None, wanted, &mut listing)?,
        RootLayout::Splits(folders) => {
            for (split, folder) in folders {
                list_classes(root, &innermost(split, folder)?, Some(split), wanted, &mut listing)?;
            }
        }
    }
    Ok(listing)
}

/// The images to be scored below a root: all, or, where it has a folder for each split, those of `part` (none: test).
pub(super) fn list_scored(root: &Path, wanted: &ClassChoice, part: Option<Split>) -> Result<Listing> {
    let mut listing = Listing { source: root.to_path_buf(), ..Listing::default() };
    let mut folders = match layout(root, wanted, false, &mut listing)? {
        RootLayout::Classes => BTreeMap::new(),
        RootLayout::Splits(folders) => folders,
    };
    listing.part = ScoredSplit::of(root, folders.keys().copied().collect(), part)?;
    let of_part = |part: &ScoredSplit| Some((part.scored, folders.remove(&part.scored)?));
    let folder = match listing.part.as_ref().and_then(of_part) {
        None => root.to_path_buf(),
        Some((split, folder)) => innermost(split, folder)?,
    };
    list_classes(root, &folder, None, wanted, &mut listing)?;
    Ok(listing)
}

/// How a root is organised.
enum RootLayout {
    Classes,
    Splits(BTreeMap<Split, PathBuf>),
}

/// Folders beside the splits that hold images must be ignored by name. Among the splits must be train if that is `trained`
/// on.
fn layout(root: &Path, wanted: &ClassChoice, trained: bool, listing: &mut Listing) -> Result<RootLayout> {
    if !root.is_dir() {
        return Err(missing_folder(root).into());
    }
    let mut splits = BTreeMap::new();
    let mut others = Vec::new();
    for folder in children(root)?.folders {
        match Split::parse(&file_name(&folder)?) {
            Some(split) => {
                if let Some(first) = splits.insert(split, folder.clone()) {
                    return Err(DataError::invalid(
                        format!("{} and {} are both the {split} split", first.shown(), folder.shown()),
                        "keep one of them",
                    )
                    .into());
                }
            }
            None => others.push(folder),
        }
    }
    if !splits.contains_key(&Split::Train) {
        // Folders named val or test beside other folders are classes; alone they are splits without their train.
        if splits.is_empty() || !others.is_empty() {
            return Ok(RootLayout::Classes);
        }
        if !trained {
            return Ok(RootLayout::Splits(splits));
        }
        let found: Vec<&str> = splits.keys().map(|split| split.name()).collect();
        let message = format!("{} holds {} but no train folder", root.shown(), quoted(&found));
        return Err(DataError::invalid(message, "add train/ with one folder of images per class").into());
    }
    let train = splits.get(&Split::Train).map(|folder| file_name(folder)).transpose()?.unwrap_or_default();
    for folder in others {
        // Side folders (annotations, masks) are fine, images that would silently stay out are not.
        if folder.file_name().is_some_and(|name| name == MASKS) {
            continue;
        }
        let name = file_name(&folder)?;
        if wanted.ignores(&name) {
            listing.left_out.insert(class_name(&name));
            continue;
        }
        if !contents(&folder)?.images.is_empty() {
            return Err(DataError::invalid(
                format!("{} holds images but is beside {train}, not in it", folder.shown()),
                format!("move it into the folder of a split, or leave it out: data.ignore = [{name:?}]"),
            )
            .into());
        }
    }
    Ok(RootLayout::Splits(splits))
}

/// Adds the images of every class folder in `folder`; names are relative to `root`.
fn list_classes(
    root: &Path,
    folder: &Path,
    split: Option<Split>,
    wanted: &ClassChoice,
    listing: &mut Listing,
) -> Result<()> {
    let mut children = children(folder)?;
    if children.folders.is_empty() {
        return Err(DataError::invalid(
            format!("{} has no class folders{}", folder.shown(), describe_loose(children.images)),
            "put the images of each class into a folder of its own, or use data.manifest",
        )
        .into());
    }
    if children.images > 0 {
        let place = folder.shown();
        listing.warnings.push(format!(
            "{} {} directly in {place}, in no class folder, and left out of the data",
            counted(children.images, "image"),
            are(children.images)
        ));
    }
    let mut classes = children.folders.iter().map(|folder| file_name(folder)).collect::<Result<Vec<String>>>()?;
    listing.left_out.extend(classes.iter().filter(|class| wanted.ignores(class)).map(|class| class_name(class)));
    classes.retain(|class| !wanted.ignores(class));
    children.folders.retain(|folder| file_name(folder).is_ok_and(|class| !wanted.ignores(&class)));
    check_nested(folder, &children.folders)?;
    for (class_folder, class) in children.folders.iter().zip(classes) {
        let FolderContents { images, unread, ignored, runs } = contents(class_folder)?;
        if images.is_empty() && unread.is_empty() && runs > 0 {
            // The default of run.out beside class folders that lie where the configuration does.
            continue;
        }
        if images.is_empty() {
            let found: Unread = unread.into_iter().map(|(extension, n)| ((class.clone(), extension), n)).collect();
            let found =
                if found.is_empty() { String::new() } else { format!(" that are read, only {}", by_extension(&found)) };
            return Err(DataError::invalid(
                format!("the class folder {} has no images{found}", class_folder.shown()),
                format!("add images ({}), or remove the folder", EXTENSIONS.join(", ")),
            )
            .into());
        }
        listing.ignored_files += ignored;
        for (extension, n) in unread {
            *listing.unread.entry((class_name(&class), extension)).or_default() += n;
        }
        for path in images {
            let name = relative_name(root, &path)?;
            listing.entries.push(Entry {
                path,
                name,
                class: class.clone(),
                group: None,
                mask: None,
                split,
                copied: None,
            });
        }
    }
    Ok(())
}

/// The folder that holds the classes of a split: archives often repeat its name, as in `seg_train/seg_train/…`.
fn innermost(split: Split, mut folder: PathBuf) -> Result<PathBuf> {
    loop {
        match children(&folder)? {
            Children { mut folders, images: 0 } if folders.len() == 1 => match folders.pop() {
                Some(only) if Split::parse(&file_name(&only)?) == Some(split) => folder = only,
                _ => return Ok(folder),
            },
            _ => return Ok(folder),
        }
    }
}

/// Refuses folders that hold the same names: then these are the classes, and what was taken for classes is something
/// else, such as splits in a spelling that is not known, or cameras. Likewise a folder with splits of its own, as archives
/// put around them.
fn check_nested(folder: &Path, class_folders: &[PathBuf]) -> Result<()> {
    let mut first_with: BTreeMap<String, &PathBuf> = BTreeMap::new();
    let lower = |folder: &PathBuf| file_name(folder).map(|name| name.to_lowercase());
    let classes = class_folders.iter().map(lower).collect::<Result<BTreeSet<String>>>()?;
    for class_folder in class_folders {
        let inner_folders = children(class_folder)?.folders;
        let names = inner_folders.iter().map(|inner| file_name(inner)).collect::<Result<Vec<String>>>()?;
        let splits: BTreeSet<Split> = names.iter().filter_map(|name| Split::parse(name)).collect();
        for (inner, name) in inner_folders.into_iter().zip(names) {
            if contents(&inner)?.images.is_empty() {
                continue;
            }
            let (place, own) = (class_folder.shown(), file_name(class_folder)?);
            if classes.contains(&name.to_lowercase()) && name.to_lowercase() != own.to_lowercase() {
                let message =
                    format!("{place} holds a folder {name:?}, as a class beside it is called: hardly a class itself");
                let hint =
                    "if it is a split, move the other class folders into a folder train beside it; or leave it out:";
                return Err(DataError::invalid(message, format!("{hint} data.ignore = [{own:?}]")).into());
            }
            let Some(first) = first_with.insert(name.to_lowercase(), class_folder) else { continue };
            let both = quoted(&[file_name(first)?, own]);
            return Err(DataError::invalid(
                format!("{}: {both} both hold a folder {name:?}, so they are hardly classes", folder.shown()),
                "splits are folders named train, val and test above the class folders; if these are the classes, put \
                 their images directly into them, or list the images in a data.manifest",
            )
            .into());
        }
        if splits.len() > 1 && splits.contains(&Split::Train) {
            return Err(DataError::invalid(
                format!("{} holds splits of its own, so it is hardly a class", class_folder.shown()),
                format!("name that folder: data.root = {:?}", class_folder.shown()),
            )
            .into());
        }
    }
    Ok(())
}

fn describe_loose(images: usize) -> String {
    match images {
        0 => String::new(),
        n => format!(", only {}", counted(n, "image")),
    }
}

/// The direct contents of a folder.
struct Children {
    /// Sorted by name.
    folders: Vec<PathBuf>,
    /// Number of image files.
    images: usize,
}

fn children(folder: &Path) -> Result<Children> {
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
struct FolderContents {
    /// Sorted.
    images: Vec<PathBuf>,
    /// Images that are not read, by extension.
    unread: BTreeMap<String, usize>,
    /// All files that are not read.
    ignored: usize,
    /// Folders of runs.
    runs: usize,
}

fn contents(folder: &Path) -> Result<FolderContents> {
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
fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str);
    Ok(name.map(str::to_owned).ok_or_else(|| not_unicode(path))?)
}

fn relative_name(root: &Path, path: &Path) -> Result<String> {
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

/// The error for a missing root, which suggests a folder beside it that is spelt alike.
fn missing_folder(root: &Path) -> DataError {
    if root.exists() {
        return DataError::invalid(
            format!("data.root {} is not a folder", root.shown()),
            "name the folder that holds the class folders; a CSV file belongs in data.manifest",
        );
    }
    let wanted = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let near = children(parent).map(|children| children.folders).unwrap_or_default().into_iter().filter_map(|folder| {
        let name = file_name(&folder).ok()?;
        let likeness = strsim::jaro_winkler(&name.to_lowercase(), &wanted.to_lowercase());
        (likeness > 0.8).then_some((likeness, folder))
    });
    let start = "relative paths start at the folder of the configuration file, on the command line where you are";
    let hint = match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, folder)) => format!("did you mean {}?", folder.shown()),
        None if parent.is_dir() => start.into(),
        None => format!("{} does not exist either; {start}", parent.shown()),
    };
    DataError::invalid(format!("the folder {} does not exist", root.shown()), hint)
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
