//! The classes that the settings want: `data.classes`, `data.ignore` and `data.max_per_class`.

use super::listing::{Listing, class_name};
use super::split::name_key;
use crate::config::{DataSettings, closest};
use crate::error::{DataError, Result};
use crate::rng::{Purpose, Stream};
use crate::system::shown::{Shown, part_of, quoted};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of classes.
pub(super) struct ClassChoice {
    /// The new name of those that get one.
    names: BTreeMap<String, String>,
    ignored: BTreeSet<String>,
}

impl ClassChoice {
    pub(super) fn new(settings: &DataSettings) -> Self {
        let merged = settings.classes.iter().flat_map(|(to, from)| from.iter().map(move |from| (from, to)));
        Self {
            names: merged.map(|(from, to)| (class_name(from), class_name(to))).collect(),
            ignored: settings.ignore.iter().map(|class| class_name(class)).collect(),
        }
    }

    /// Whether a class is left out.
    pub(super) fn ignores(&self, class: &str) -> bool {
        !self.ignored.is_empty() && self.ignored.contains(&class_name(class))
    }

    /// Refuses names that no class of the data has.
    pub(super) fn check(&self, listing: &Listing) -> Result<()> {
        let classes: BTreeSet<String> = listing.entries.iter().map(|entry| class_name(&entry.class)).collect();
        let known: BTreeSet<&str> = classes.iter().chain(&listing.left_out).map(String::as_str).collect();
        let keys =
            [("data.classes", self.names.keys().collect::<Vec<_>>()), ("data.ignore", self.ignored.iter().collect())];
        for (key, names) in keys {
            if let Some(name) = names.into_iter().find(|name| !known.contains(name.as_str())) {
                let hint = closest(name, known.iter().copied()).map_or_else(
                    || format!("the classes are {}", quoted(&known.iter().collect::<Vec<_>>())),
                    |close| format!("did you mean {close:?}?"),
                );
                let message = format!("{}: {key}: there is no class {name:?}", listing.source.shown());
                return Err(DataError::invalid(message, hint).into());
            }
        }
        Ok(())
    }

    /// Renames, merges and leaves out.
    pub(super) fn apply(&self, listing: &mut Listing) {
        let ignored = listing.entries.iter().map(|entry| class_name(&entry.class)).filter(|class| self.ignores(class));
        listing.left_out.extend(ignored.collect::<BTreeSet<_>>());
        if !listing.left_out.is_empty() {
            let left_out: Vec<&String> = listing.left_out.iter().collect();
            listing.notes.push(format!("data.ignore leaves out {}", quoted(&left_out)));
            listing.entries.retain(|entry| !self.ignores(&entry.class));
        }
        if self.names.is_empty() {
            return;
        }
        for entry in &mut listing.entries {
            if let Some(name) = self.names.get(&class_name(&entry.class)) {
                entry.class.clone_from(name);
            }
        }
        for ((class, extension), files) in std::mem::take(&mut listing.unread) {
            let class = self.names.get(&class).cloned().unwrap_or(class);
            *listing.unread.entry((class, extension)).or_default() += files;
        }
    }
}

/// Keeps at most so many images of each class, of every split that the data names the same share. Which ones depends on the
/// seed and their names only: those that are kept are kept under a higher cap too.
pub(super) fn cap(listing: &mut Listing, most: usize, seed: u64) {
    let mut strata = BTreeMap::<_, Vec<(u64, usize)>>::new();
    for (index, entry) in listing.entries.iter().enumerate() {
        let order = Stream::new(seed, Purpose::ClassCap, &[name_key(&entry.name)]).below(u64::MAX);
        strata.entry((class_name(&entry.class), entry.split)).or_default().push((order, index));
    }
    // Where each image stands in its split, from 0 to 1: the first of a class in this order are a fair share of its splits.
    let mut classes: BTreeMap<String, Vec<(f64, usize)>> = BTreeMap::new();
    for ((class, _), mut images) in strata {
        images.sort_unstable();
        let all = images.len() as f64;
        let places = images.into_iter().enumerate().map(|(rank, (_, index))| ((rank as f64 + 0.5) / all, index));
        classes.entry(class).or_default().extend(places);
    }
    let (mut kept, mut capped) = (vec![true; listing.entries.len()], Vec::new());
    for (class, mut images) in classes {
        if images.len() > most {
            images.sort_by(|a, b| a.0.total_cmp(&b.0));
            images[most..].iter().for_each(|&(_, index)| kept[index] = false);
            capped.push(format!("{} of {class:?}", part_of(most, images.len(), "image")));
        }
    }
    if !capped.is_empty() {
        listing.notes.push(format!("data.max_per_class keeps {}", capped.join(", ")));
        let mut kept = kept.into_iter();
        listing.entries.retain(|_| kept.next().unwrap_or(true));
    }
}

#[cfg(test)]
#[path = "classes_tests.rs"]
mod tests;
