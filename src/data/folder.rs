//! Class folders, with or without those of splits above them.

use super::classes::ClassChoice;
use super::decode::EXTENSIONS;
use super::listing::{Listing, by_extension, class_name};
use super::split_folders::{innermost, out_of_data, splits};
use super::tree::{FolderContents, children, contents, file_name, relative_name};
use super::{Entry, ScoredSplit, Split, Unread};
use crate::error::{DataError, Result};
use crate::system::shown::{Shown, are, counted, quoted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All images below a root, with the split of its folder when there is one; folders of classes that are not wanted are
/// not looked into.
pub(super) fn list(root: &Path, wanted: &ClassChoice) -> Result<Listing> {
    let mut listing = Listing { source: root.to_path_buf(), ..Listing::default() };
    let folders = splits(root, wanted, true, &mut listing)?;
    if folders.is_empty() {
        list_classes(root, root, None, wanted, &mut listing)?;
    }
    for (split, folder) in folders {
        let folder = innermost(split, folder, wanted, &mut listing)?;
        list_classes(root, &folder, Some(split), wanted, &mut listing)?;
    }
    Ok(listing)
}

/// The images to be scored below a root: all, or, where it has a folder for each split, those of `part` (none: test).
pub(super) fn list_scored(root: &Path, wanted: &ClassChoice, part: Option<Split>) -> Result<Listing> {
    let mut listing = Listing { source: root.to_path_buf(), ..Listing::default() };
    let mut folders = splits(root, wanted, false, &mut listing)?;
    listing.part = ScoredSplit::of(root, folders.keys().copied().collect(), part)?;
    let of_part = |part: &ScoredSplit| Some((part.scored, folders.remove(&part.scored)?));
    let folder = match listing.part.as_ref().and_then(of_part) {
        None => root.to_path_buf(),
        Some((split, folder)) => innermost(split, folder, wanted, &mut listing)?,
    };
    list_classes(root, &folder, None, wanted, &mut listing)?;
    Ok(listing)
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
        let message = format!("{} has no class folders{}", folder.shown(), describe_loose(children.images));
        let hint = "put the images of each class into a folder of its own, or use data.manifest";
        return Err(DataError::invalid(message, hint).into());
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
            let message = format!("the class folder {} has no images{found}", class_folder.shown());
            let hint = format!("add images ({}), or remove the folder", EXTENSIONS.join(", "));
            return Err(DataError::invalid(message, hint).into());
        }
        listing.ignored_files += ignored;
        for (extension, n) in unread {
            *listing.unread.entry((class_name(&class), extension)).or_default() += n;
        }
        for path in images {
            let name = relative_name(root, &path)?;
            listing.entries.push(Entry { path, name, class: class.clone(), split, ..Entry::default() });
        }
    }
    Ok(())
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
                let hint = "if it is a split, move the other class folders into a folder train beside it; or";
                return Err(DataError::invalid(message, format!("{hint} {}", out_of_data(&[own]))).into());
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
            let message = format!("{} holds splits of its own, so it is hardly a class", class_folder.shown());
            let hint = format!("name that folder: data.root = {:?}", class_folder.shown());
            return Err(DataError::invalid(message, hint).into());
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

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
