//! Files with the same bytes, found before splits are drawn: a drawn split must not part them.

use super::{Entry, decode};
use crate::system::files::check_regular;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes at the start of a file that tell most files of one size apart.
const START: u64 = 1 << 16;

/// Marks the entries whose bytes are those of another one, which are named when the files are looked at.
///
/// Sizes are compared first, then the starts, so that few files are read whole. A file that is empty or cannot be
/// read is like no other here; what is wrong with it is said when it is decoded.
pub(super) fn mark(entries: &mut [Entry]) {
    let size = |entry: &Entry| std::fs::metadata(&entry.path).ok().map(|found| found.len()).filter(|&bytes| bytes > 0);
    let start = |entry: &Entry| start(&entry.path).ok();
    let whole = |entry: &Entry| decode::read(&entry.path).map(|bytes| <[u8; 32]>::from(Sha256::digest(bytes))).ok();
    let all: Vec<usize> = (0..entries.len()).collect();
    let alike = shared(entries, vec![all], size).into_iter().map(|(_, members)| members).collect();
    let alike = shared(entries, alike, start).into_iter().map(|(_, members)| members).collect();
    for (digest, members) in shared(entries, alike, whole) {
        members.iter().for_each(|&member| entries[member].copied = Some(digest));
    }
}

/// The members of each class that share a key with another one.
fn shared<K: Ord>(
    entries: &[Entry],
    classes: Vec<Vec<usize>>,
    key: impl Fn(&Entry) -> Option<K>,
) -> Vec<(K, Vec<usize>)> {
    let parts = classes.into_iter().flat_map(|class| {
        let mut parts: BTreeMap<K, Vec<usize>> = BTreeMap::new();
        for member in class {
            if let Some(key) = key(&entries[member]) {
                parts.entry(key).or_default().push(member);
            }
        }
        parts
    });
    parts.filter(|(_, members)| members.len() > 1).collect()
}

fn start(path: &Path) -> std::io::Result<Vec<u8>> {
    check_regular(path)?;
    let mut bytes = Vec::new();
    File::open(path)?.take(START).read_to_end(&mut bytes)?;
    Ok(Sha256::digest(bytes).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_told_from_files_of_one_size_and_one_start() {
        let root = tempfile::tempdir().unwrap();
        let long = |last: u8| [vec![7; START as usize], vec![last]].concat();
        let contents = [long(1), b"abc".to_vec(), long(2), long(1), b"abd".to_vec(), long(1), Vec::new()];
        let entry = |(index, bytes): (usize, &Vec<u8>)| {
            let path = root.path().join(index.to_string());
            std::fs::write(&path, bytes).unwrap();
            Entry { path, name: index.to_string(), class: "a".into(), ..Entry::default() }
        };
        let mut entries: Vec<Entry> = contents.iter().enumerate().map(entry).collect();
        let gone = Entry { path: root.path().join("gone"), ..entries[0].clone() };
        entries.push(gone);
        mark(&mut entries);
        let marked: Vec<usize> = (0..entries.len()).filter(|&index| entries[index].copied.is_some()).collect();
        assert_eq!(marked, [0, 3, 5]);
    }
}
