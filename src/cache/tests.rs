//! Rows come back as stored, by content, in bounds, and damage costs time only.

use super::*;
use proptest::prelude::*;

fn key(n: u8) -> Key {
    [n; 32]
}

fn cache(folder: &Path, max_bytes: u64) -> Cache {
    Cache { folder: folder.to_path_buf(), max_bytes }
}

/// Asks for rows whose values are the key's first byte; gives them with the positions that were computed.
fn ask(cache: &Cache, namespace: &str, width: usize, keys: &[u8]) -> (FeatureRows, Vec<usize>) {
    let keys: Vec<Key> = keys.iter().map(|&n| key(n)).collect();
    let mut computed = Vec::new();
    let rows = cache
        .rows(&Namespace::new(namespace), width, &keys, |missing, sink| {
            computed = missing.to_vec();
            missing.iter().try_for_each(|&position| sink(&vec![f32::from(keys[position][0]); width]))
        })
        .unwrap();
    for (position, key) in keys.iter().enumerate() {
        assert!(rows.row(position).iter().all(|&value| value == f32::from(key[0])), "row {position}");
    }
    (rows, computed)
}

#[test]
fn features_that_have_no_room_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |max_bytes| ask(&cache(folder.path(), max_bytes), "a", 64, &[1, 2, 3]);
    assert!(rows(100).0.warnings[0].contains("no room in cache.max_bytes = 100"));
    assert!(rows(0).0.warnings.is_empty(), "without a cache there is nothing to say");
    assert!(rows(1 << 20).0.warnings.is_empty());
    assert!(rows(1 << 20).1.is_empty());
}

fn only_pack(folder: &Path) -> PathBuf {
    let packs: Vec<PathBuf> = subfolders(folder).iter().flat_map(|folder| packs_in(folder)).collect();
    assert_eq!(packs.len(), 1, "{packs:?}");
    packs[0].clone()
}

#[test]
fn a_second_request_computes_nothing_and_another_recipe_everything() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path(), 1 << 20);
    assert_eq!(ask(&cache, "a", 3, &[1, 2, 3]).1, [0, 1, 2]);
    let (rows, computed) = ask(&cache, "a", 3, &[3, 1, 9, 2, 9]);
    assert_eq!((computed, rows.usage.hits, rows.usage.misses), (vec![2], 4, 1));
    assert!(rows.usage.seconds > 0.0);
    assert_eq!(ask(&cache, "a", 3, &[1]).0.usage, CacheUse { hits: 1, misses: 0, seconds: 0.0 });
    assert_eq!(ask(&cache, "b", 3, &[1, 2]).1, [0, 1]);
}

#[test]
fn a_damaged_row_is_computed_again_and_a_torn_pack_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path(), 1 << 20);
    ask(&cache, "a", 4, &[1, 2, 3]);
    let path = only_pack(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    let rows = bytes.len() - 3 * (16 + 36);
    bytes[rows + 16] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (rows, computed) = ask(&cache, "a", 4, &[1, 2, 3]);
    assert_eq!(computed, [1]);
    assert!(rows.warnings[0].contains("damaged"), "{:?}", rows.warnings);
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(ask(&cache, "a", 4, &[1, 2, 3]).1, [0, 2]);
    assert!(!path.exists() || Pack::open(&path, 4).is_ok());
}

#[test]
fn the_pack_used_least_recently_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let one = PackWriter::size(1, 256);
    let cache = cache(folder.path(), 2 * one);
    ask(&cache, "a", 256, &[1]);
    ask(&cache, "a", 256, &[2]);
    let old = SystemTime::now() - Duration::from_mins(5);
    for pack in subfolders(folder.path()).iter().flat_map(|folder| packs_in(folder)) {
        fs::File::options().write(true).open(pack).unwrap().set_modified(old).unwrap();
    }
    ask(&cache, "a", 256, &[1]); // renews its time
    ask(&cache, "b", 256, &[3]);
    assert_eq!(ask(&cache, "a", 256, &[1]).0.usage.hits, 1);
    assert_eq!(ask(&cache, "b", 256, &[3]).0.usage.hits, 1);
    assert_eq!(ask(&cache, "a", 256, &[2]).0.usage.hits, 0);
}

#[test]
fn without_room_or_a_folder_rows_stay_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, _) = ask(&cache(folder.path(), 0), "a", 3, &[1, 2]);
    assert!(rows.warnings.is_empty() && entries(folder.path()).is_empty());
    assert_eq!(ask(&cache(folder.path(), 100), "a", 300, &[1, 2]).1.len(), 2);
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let (rows, _) = ask(&cache(&file, 1 << 20), "a", 3, &[1, 2]);
    assert!(rows.warnings[0].contains("stay in memory"), "{:?}", rows.warnings);
}

#[test]
fn what_others_keep_beside_the_cache_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let old = SystemTime::now() - 2 * STALE;
    let keep = |folder: &str, file: &str| {
        fs::create_dir_all(folder).unwrap();
        let path = Path::new(folder).join(file);
        fs::write(&path, [0; 4000]).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        path
    };
    let own = folder.path().join(&Namespace::new("a").0[..NAME]).display().to_string();
    let beside = folder.path().join("good").display().to_string();
    let others = [keep(&beside, "0001.png"), keep(&beside, "model.safetensors"), keep(&own, "notes.txt")];
    let stale = keep(&own, ".x.safetensors.1-0.tmp");
    ask(&cache(folder.path(), 3000), "a", 7, &[1, 2]);
    assert!(others.iter().all(|path| path.exists()) && !stale.exists());
}

#[test]
fn rows_go_to_several_packs_and_a_failure_keeps_the_complete_ones() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path(), 1 << 30);
    let width = PACK_BYTES / 4 / 2; // two rows a pack
    let keys: Vec<Key> = (0..3).map(key).collect();
    let failed = cache.rows(&Namespace::new("a"), width, &keys, |missing, sink| {
        for &position in &missing[..2] {
            sink(&vec![position as f32; width])?;
        }
        Err(Error::usage("stopped"))
    });
    assert!(failed.is_err());
    assert_eq!(ask(&cache, "a", width, &[0, 1, 2]).1, [2]);
}

#[test]
fn processes_that_write_the_same_rows_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path(), 1 << 20);
    std::thread::scope(|scope| {
        for start in 0..6u8 {
            let cache = &cache;
            scope.spawn(move || {
                let keys: Vec<u8> = (0..20).map(|n| (n + start * 3) % 20).collect();
                ask(cache, "a", 5, &keys);
            });
        }
    });
    assert_eq!(ask(&cache, "a", 5, &(0..20).collect::<Vec<u8>>()).0.usage.misses, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_sequence_of_requests_gives_the_right_rows(requests in prop::collection::vec(
        prop::collection::vec(0u8..12, 0..10), 1..6), max_bytes in 0u64..4000) {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), max_bytes);
        for keys in requests {
            ask(&cache, "a", 7, &keys);
            let total: u64 = subfolders(folder.path()).iter().flat_map(|folder| files_in(folder))
                .map(|path| fs::metadata(path).unwrap().len()).sum();
            prop_assert!(total <= max_bytes, "{total} of {max_bytes}");
        }
    }
}
