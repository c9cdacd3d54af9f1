//! Small data sets for the tests of this module and its users.

use super::{Dataset, Labels, Sample, Split};
use crate::config::{self, DataSettings, DataSource};
use std::path::Path;
use tempfile::TempDir;

/// The settings' defaults for a source.
pub(crate) fn settings(source: DataSource) -> DataSettings {
    DataSettings { source, ..config::testing::settings(&[]).data }
}

/// Creates empty files, with their folders. Listing does not open them.
pub(crate) fn touch<N: AsRef<str>>(root: &Path, names: &[N]) {
    for name in names {
        let path = root.join(name.as_ref());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }
}

/// A folder with such files.
pub(crate) fn folder<N: AsRef<str>>(names: &[N]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    touch(root.path(), names);
    root
}

/// The images that a run has listed in `csv`.
pub(crate) fn listed(csv: &Path, settings: &DataSettings) -> Dataset {
    Dataset::from_splits_csv(csv, settings, Labels::Classes, false).unwrap()
}

/// An image that only its name is needed of.
pub(crate) fn sample(name: &str, label: usize, split: Split) -> Sample {
    Sample { path: name.into(), name: name.into(), label, kind: None, group: None, mask: None, split }
}

/// A file of the committed fixtures.
pub(crate) fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images").join(name)
}

/// A folder of distinct PNG images, `per_class` for each of two classes, all listed as training samples.
pub(crate) fn two_classes(per_class: u32) -> (TempDir, Dataset) {
    let root = tempfile::tempdir().unwrap();
    let mut samples = Vec::new();
    for (label, class) in ["bad", "good"].into_iter().enumerate() {
        std::fs::create_dir_all(root.path().join(class)).unwrap();
        for i in 0..per_class {
            let name = format!("{class}/{i:02}.png");
            let path = root.path().join(&name);
            let shade = |x: u32, y: u32| image::Rgb([(x * 7 + i * 11) as u8, (y * 5) as u8, (label * 100) as u8]);
            image::RgbImage::from_fn(20 + i, 16, shade).save(&path).unwrap();
            samples.push(Sample { path, ..sample(&name, label, Split::Train) });
        }
    }
    (root, Dataset { classes: vec!["bad".into(), "good".into()], samples, ..Dataset::default() })
}

/// The message of a data error, and its hint.
pub(crate) fn data_error<T: std::fmt::Debug>(result: crate::error::Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), crate::error::ExitCode::Data, "{error}");
    format!("{error}\nhint: {}", error.hint().unwrap_or_default())
}
