//! Computed once, used by every command: rows of features or activations, addressed by content.
//!
//! A row is found by what it was computed from and how: the *namespace* (weights, preprocessing, the layer's output) names a
//! folder, the *key* (the image's bytes, and the augmented view if there is one) names a row in one of its packs.
//! Nothing is ever updated, so several processes share a cache without locks: a pack appears complete by a rename, and
//! two processes that compute the same rows write two packs. The folder's size is bounded; the packs used least recently go
//! first. The cache is an optimisation only: whatever is wrong with it is a warning, and the rows are computed again.

mod pack;
mod rows;

pub use rows::{CacheUse, FeatureRows};

use crate::config::CacheSettings;
use crate::error::{Error, Result};
use crate::system::digest::sha256;
use crate::system::shown::Shown;
use pack::{Pack, PackWriter};
use rows::RowLocation;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The content address of one row: a SHA-256 sum.
pub type Key = [u8; 32];

/// Hexadecimal digits in the name of a folder.
const NAME: usize = 32;

/// Bytes of rows in one pack: few enough that a stopped computation keeps most of its work, and that the bound on
/// the folder is met closely.
const PACK_BYTES: usize = 64 << 20;

/// Temporaries this old belong to a process that died.
const STALE: Duration = Duration::from_hours(24);

/// How rows are computed; equal recipes give bit-identical rows for equal keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The recipe of a description of everything that can change a row's numbers.
    pub fn new(description: &str) -> Self {
        Self(sha256(description.as_bytes()))
    }
}

/// A bounded folder of packs.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    max_bytes: u64,
}

/// Rows that are computed one after another.
pub type RowSink<'a> = &'a mut dyn FnMut(&[f32]) -> Result<()>;

impl Cache {
    /// The cache of the settings; nothing is created before there is something to store.
    pub fn new(settings: &CacheSettings) -> Self {
        Self { folder: settings.dir.clone(), max_bytes: settings.max_bytes }
    }

    /// The rows of `keys`, each of `width` values. Those not stored are computed: `compute` receives the positions of the
    /// missing keys and passes on their rows in that order.
    ///
    /// # Errors
    /// Those of `compute` alone.
    pub fn rows(
        &self,
        namespace: &Namespace,
        width: usize,
        keys: &[Key],
        compute: impl FnOnce(&[usize], RowSink<'_>) -> Result<()>,
    ) -> Result<FeatureRows> {
        let folder = self.folder.join(&namespace.0[..NAME]);
        let mut rows = FeatureRows { width, ..FeatureRows::default() };
        let stored = self.stored(&folder, keys, &mut rows);
        let mut first = HashMap::new();
        let mut missing = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            if !stored.contains_key(key) && !first.contains_key(key) {
                first.insert(*key, missing.len());
                missing.push(position);
            }
        }
        let missing_keys: Vec<Key> = missing.iter().map(|&position| keys[position]).collect();
        let clock = Instant::now();
        let mut store = Store {
            cache: self,
            folder: &folder,
            keys: &missing_keys,
            rows: &mut rows,
            writer: None,
            to_disk: self.max_bytes > 0,
            places: Vec::with_capacity(missing.len()),
        };
        if !missing.is_empty() {
            compute(&missing, &mut |row| {
                store.append(row);
                Ok(())
            })?;
        }
        let computed = store.places;
        let seconds = if missing.is_empty() { 0.0 } else { clock.elapsed().as_secs_f64() };
        let place = |key: &Key| stored.get(key).copied().or_else(|| computed.get(*first.get(key)?).copied());
        rows.places = keys.iter().filter_map(place).collect();
        if rows.len() != keys.len() {
            let message = format!("{} feature rows were requested, {} were computed", keys.len(), rows.len());
            return Err(Error::Tensor(message.into()));
        }
        rows.usage = CacheUse { hits: keys.len() - missing.len(), misses: missing.len(), seconds };
        Ok(rows)
    }

    /// Where the intact rows of the keys are. Damaged packs are removed.
    fn stored(&self, folder: &Path, keys: &[Key], rows: &mut FeatureRows) -> HashMap<Key, RowLocation> {
        let wanted: HashSet<&Key> = keys.iter().collect();
        let mut found = HashMap::new();
        if self.max_bytes == 0 {
            return found;
        }
        for path in packs_in(folder) {
            let pack = match Pack::open(&path, rows.width) {
                Ok(pack) => pack,
                Err(reason) => {
                    rows.warn_damaged(&path, &reason);
                    // Best effort: another process may have removed it already.
                    let _ = fs::remove_file(&path);
                    continue;
                }
            };
            let number = rows.packs.len();
            let mut used = false;
            for (row, key) in pack.keys().enumerate() {
                if !wanted.contains(&key) || found.contains_key(&key) {
                    continue;
                }
                if pack.intact(row) {
                    found.insert(key, RowLocation::Packed { pack: number, row });
                    used = true;
                } else {
                    rows.warn_damaged(&path, "a row does not match its checksum");
                    // Its intact rows stay mapped for now; the next request computes them again.
                    let _ = fs::remove_file(&path);
                }
            }
            if used {
                // The time of the last use decides what goes first; a read-only cache keeps its old times.
                let _ =
                    fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                rows.packs.push(pack);
            }
        }
        found
    }

    /// Removes the packs used least recently until `wanted` more bytes fit; whether they do.
    fn make_room(&self, wanted: u64) -> bool {
        if wanted > self.max_bytes {
            return false;
        }
        let mut packs: Vec<(SystemTime, u64, PathBuf)> = subfolders(&self.folder)
            .iter()
            .flat_map(|folder| files_in(folder))
            .filter_map(|path| {
                let metadata = fs::metadata(&path).ok()?;
                Some((metadata.modified().ok()?, metadata.len(), path))
            })
            .collect();
        packs.sort();
        let mut total: u64 = packs.iter().map(|(_, bytes, _)| bytes).sum();
        for (modified, bytes, path) in packs {
            let ends_in = |ending: &str| path.extension().is_some_and(|own| own == ending);
            let finished = ends_in(pack::EXTENSION);
            let stale = ends_in("tmp") && SystemTime::now().duration_since(modified).is_ok_and(|age| age > STALE);
            let over = total + wanted > self.max_bytes;
            // A map of a removed pack stays valid where the system allows the removal at all.
            if (finished && over || !finished && stale) && fs::remove_file(&path).is_ok() {
                total -= bytes;
            }
        }
        total + wanted <= self.max_bytes
    }
}

/// Stores computed rows: in packs while that works, else in memory.
struct Store<'a> {
    cache: &'a Cache,
    folder: &'a Path,
    keys: &'a [Key],
    rows: &'a mut FeatureRows,
    writer: Option<PackWriter>,
    to_disk: bool,
    /// Where the rows so far are.
    places: Vec<RowLocation>,
}

impl Store<'_> {
    fn append(&mut self, row: &[f32]) {
        if self.to_disk && self.writer.is_none() {
            self.open_writer();
        }
        let written = self.writer.as_mut().map(|writer| writer.append(row));
        // The row is kept in memory until its pack is complete: a pack that fails half-way loses nothing.
        self.places.push(self.rows.remember(row));
        match written {
            Some(Ok(false)) => self.close_writer(),
            Some(Err(error)) => self.give_up(&error),
            Some(Ok(true)) | None => {}
        }
    }

    fn open_writer(&mut self) {
        let width = self.rows.width;
        let left = &self.keys[self.places.len().min(self.keys.len())..];
        let keys = left.chunks((PACK_BYTES / (width * 4).max(1)).max(1)).next().unwrap_or_default();
        let wanted = PackWriter::size(keys.len(), width);
        if !self.cache.make_room(wanted) {
            self.to_disk = false;
            let most = self.cache.max_bytes;
            self.rows.warn(format!(
                "{wanted} bytes of features have no room in cache.max_bytes = {most}: they are computed again next time"
            ));
            return;
        }
        match PackWriter::create(self.folder, keys, width) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => self.give_up(&error),
        }
    }

    /// Publishes the full pack and takes its rows out of memory.
    fn close_writer(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        let rows = writer.rows();
        match writer.publish().map(|path| (Pack::open(&path, self.rows.width), path)) {
            Ok((Ok(pack), _)) => {
                let number = self.rows.packs.len();
                self.rows.packs.push(pack);
                let first = self.places.len() - rows;
                for (row, place) in self.places[first..].iter_mut().enumerate() {
                    *place = RowLocation::Packed { pack: number, row };
                }
                self.rows.forget(rows);
            }
            Ok((Err(reason), path)) => self.rows.warn_damaged(&path, &reason),
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&mut self, error: &Error) {
        self.writer = None;
        self.to_disk = false;
        let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        self.rows.warn(format!("features cannot be stored in {} ({reason}); they stay in memory", self.folder.shown()));
    }
}

/// Those that this cache has named: its folder may hold others, which are not its own to remove.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.len() == NAME && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    entries(folder).into_iter().filter(|path| path.is_dir() && is_ours(path)).collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|path| path.is_file()).collect()
}

fn packs_in(folder: &Path) -> Vec<PathBuf> {
    let is_pack = |path: &PathBuf| path.extension().is_some_and(|extension| extension == pack::EXTENSION);
    files_in(folder).into_iter().filter(is_pack).collect()
}

/// The sorted entries of a folder; none when it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests;
