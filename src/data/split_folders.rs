//! Folders of splits, and what lies beside them.

use super::Split;
use super::classes::ClassChoice;
use super::listing::{Listing, class_name};
use super::tree::{Children, children, contents, file_name};
use crate::error::{DataError, Result};
use crate::system::shown::{Shown, agree, quoted};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder beside train and test that holds masks of flaws, as in `MVTec` AD.
pub(super) const MASKS: &str = "ground_truth";

/// The folders of the splits in a root; none where it holds class folders. Folders beside them that hold images must be ignored
/// by name. Among them must be train if that is `trained` on.
pub(super) fn splits(
    root: &Path,
    wanted: &ClassChoice,
    trained: bool,
    listing: &mut Listing,
) -> Result<BTreeMap<Split, PathBuf>> {
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
            return Ok(BTreeMap::new());
        }
        if !trained {
            return Ok(splits);
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
                format!("move it into the folder of a split, or {}", out_of_data(&[name])),
            )
            .into());
        }
    }
    Ok(splits)
}

/// The folder that holds the classes of a split: archives often repeat its name, as in `seg_train/seg_train/…`. A class may
/// be called so too, but holds images.
pub(super) fn innermost(
    split: Split,
    mut folder: PathBuf,
    wanted: &ClassChoice,
    listing: &mut Listing,
) -> Result<PathBuf> {
    loop {
        let (mut inner, mut others, mut ignored) = (None, Vec::new(), Vec::new());
        let Children { folders, images } = children(&folder)?;
        for child in folders {
            let name = file_name(&child)?;
            if wanted.ignores(&name) {
                ignored.push(class_name(&name));
            } else if Split::parse(&name) == Some(split) && holds_classes(&child)? {
                inner = Some(child);
            } else {
                others.push(name);
            }
        }
        let Some(repeated) = inner else { return Ok(folder) };
        if images > 0 || !others.is_empty() {
            let beside = if others.is_empty() { "images".to_owned() } else { quoted(&others) };
            let hint =
                if others.is_empty() { "move them into their class folders".into() } else { out_of_data(&others) };
            return Err(DataError::invalid(
                format!("{} holds the classes, but beside it there are {beside}, in none of them", repeated.shown()),
                hint,
            )
            .into());
        }
        listing.left_out.extend(ignored);
        folder = repeated;
    }
}

/// Whether a folder holds folders with images, and none itself.
fn holds_classes(folder: &Path) -> Result<bool> {
    let Children { folders, images } = children(folder)?;
    let with_images = folders.iter().map(|folder| Ok(!contents(folder)?.images.is_empty()));
    Ok(images == 0 && with_images.collect::<Result<Vec<bool>>>()?.contains(&true))
}

/// How folders are left out.
pub(super) fn out_of_data(names: &[String]) -> String {
    let flags: Vec<String> = names.iter().map(|name| format!("--ignore {name:?}")).collect();
    let them = agree(names.len(), "it", "them");
    format!("leave {them} out: data.ignore = {names:?} (with `init`: {})", flags.join(" "))
}

/// Folders beside those of splits whose images are in no class folder, as of images that somebody else is to classify;
/// none where there are no splits.
///
/// # Errors
/// When a folder cannot be read.
pub fn beside_splits(root: &Path) -> Result<Vec<String>> {
    let (mut found, mut train) = (Vec::new(), false);
    for folder in children(root)?.folders {
        let name = file_name(&folder)?;
        match Split::parse(&name) {
            Some(split) => train |= split == Split::Train,
            None if name != MASKS && is_loose(&folder, &name)? => found.push(name),
            None => {}
        }
    }
    Ok(if train { found } else { Vec::new() })
}

/// Whether a folder holds images but no folders, or only one of its own name that does.
fn is_loose(folder: &Path, name: &str) -> Result<bool> {
    let Children { folders, images } = children(folder)?;
    match folders.as_slice() {
        [] => Ok(images > 0),
        [only] => Ok(images == 0 && file_name(only)? == name && is_loose(only, name)?),
        _ => Ok(false),
    }
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
