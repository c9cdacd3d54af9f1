use super::*;
use crate::config::DataSource;
use crate::data::testing::{data_error, fixture, folder, listed, settings, touch};
use crate::data::{Dataset, Labels};

fn open(root: &Path) -> Result<Dataset> {
    Dataset::open(&settings(DataSource::Root(root.to_path_buf())))
}

/// The message of opening a folder with these files.
fn refused(names: &[&str]) -> String {
    let root = folder(names);
    data_error(open(root.path()))
}

fn two_classes_of(n: usize) -> Vec<String> {
    (0..n).flat_map(|i| [format!("a/{i:02}.png"), format!("b/{i:02}.png")]).collect()
}

#[test]
fn class_folders_with_everything_that_lies_about() {
    let mut names = two_classes_of(10);
    let odd = ["a/x.JPG", "a/deep/er/y.Tiff", "b/notes.txt", "b/.DS_Store", "a/.hidden/z.png", "b/._y.png", "top.png"];
    names.extend(odd.map(String::from));
    let root = folder(&names);
    let dataset = open(root.path()).unwrap();
    assert_eq!(dataset.classes, ["a", "b"]);
    assert_eq!(dataset.samples.len(), 22);
    assert_eq!(dataset.ignored_files, 1);
    assert!(dataset.samples.is_sorted_by(|a, b| a.name < b.name));
    assert!(dataset.samples.iter().any(|sample| sample.name == "a/deep/er/y.Tiff" && sample.path.is_file()));
    assert_eq!(dataset.class_counts(Split::Val), [2, 2]);
    assert_eq!(dataset.class_counts(Split::Test), [2, 2]);
    assert!(dataset.warnings.len() == 1 && dataset.warnings[0].starts_with("1 image is directly in"));
}

#[test]
fn dicom_files_need_no_ending() {
    let root = tempfile::tempdir().unwrap();
    touch(root.path(), &two_classes_of(10).iter().map(String::as_str).collect::<Vec<_>>());
    for name in ["IM0001", "1.2.840.113619.2.5", "DICOMDIR", "dicomdir"] {
        std::fs::copy(fixture("dicom_ct.dcm"), root.path().join("a").join(name)).unwrap();
    }
    std::fs::write(root.path().join("a/README"), [0; 500]).unwrap();
    let dataset = open(root.path()).unwrap();
    let dicom: Vec<&str> =
        dataset.samples.iter().map(|sample| &*sample.name).filter(|name| !name.contains(".png")).collect();
    assert_eq!((dicom, dataset.ignored_files), (vec!["a/1.2.840.113619.2.5", "a/IM0001"], 3));
}

#[test]
fn textile_has_its_own_splits() {
    let dataset = open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/textile")).unwrap();
    assert_eq!(dataset.classes, ["global", "local", "nominal"]);
    assert_eq!(dataset.samples.len(), 360);
    assert!(Split::ALL.iter().all(|&split| dataset.class_counts(split).iter().all(|&n| n > 0)));
    assert!(dataset.samples.iter().all(|sample| sample.name.starts_with(sample.split.name())));
}

#[test]
fn a_missing_split_is_drawn() {
    let mut names: Vec<String> = two_classes_of(10).iter().map(|name| format!("Train/{name}")).collect();
    names.extend(["validation/a/1.png", "validation/b/1.png", "masks/readme.txt"].map(String::from));
    let root = folder(&names);
    let dataset = open(root.path()).unwrap();
    assert_eq!(dataset.class_counts(Split::Val), [1, 1]);
    assert_eq!(dataset.class_counts(Split::Test), [2, 2]);
    let mut no_test = settings(DataSource::Root(root.path().into()));
    no_test.test = 0.0;
    assert_eq!(Dataset::open(&no_test).unwrap().class_counts(Split::Test), [0, 0]);
}

#[test]
fn unusable_layouts_say_why() {
    let cases: [(&[&str], &str); 15] = [
        (
            &["a/1.png", "b/1.png", "test/a/2.png", "test/b/2.png"],
            "test holds a folder \"a\", as a class beside it is called",
        ),
        (&["a/train/1.png", "b/train/1.png", "b/test/2.png"], "both hold a folder \"train\""),
        (&["set/train/a/1.png", "set/Testing/a/2.png", "other/1.png"], "set holds splits of its own"),
        (&["day 1/a/1.png", "day 1/b/1.png", "Day 2/A/1.png"], "\"Day 2\" and \"day 1\" both hold a folder"),
        (&["bad/1.png", "bad /1.png"], "\"bad\" and \"bad \" differ only in letter case, white space"),
        (&["a/1.png"], "only one class, \"a\""),
        (&["a/1.png", "b/notes.txt"], "b has no images"),
        (&["1.png", "2.png"], "has no class folders, only 2 images"),
        (&["notes.txt"], "has no class folders"),
        (&["val/a/1.png", "test/a/1.png"], "holds \"val\" and \"test\" but no train"),
        (&["train/a/1.png", "train/b/1.png", "c/1.png"], "is beside train, not in it"),
        (&["train/a/1.png", "valid/a/1.png", "validation/a/1.png"], "are both the val split"),
        (&["train/a/1.png", "train/b/1.png", "test/c/1.png"], "no training image of \"c\""),
        (&["Good/1.png", "good/1.png"], "\"Good\" and \"good\" differ only in letter case"),
        (&["stra\u{df}e/1.png", "STRASSE/1.png"], "differ only in letter case"),
    ];
    for (names, expected) in cases {
        let error = refused(names);
        assert!(error.contains(expected), "{names:?}: {error}");
    }
    let error = refused(&["caf\u{e9}/1.png", "cafe\u{301}/1.png"]);
    assert!(error.contains("caf\u{e9}") && error.contains("\\u{301}"), "both spellings are told apart: {error}");
}

#[test]
fn a_missing_root_names_its_neighbour() {
    let parent = folder(&["textile/a/1.png", "other/a/1.png"]);
    let error = data_error(open(&parent.path().join("textiles")));
    assert!(
        error.contains("does not exist") && error.contains("did you mean") && error.contains("textile?"),
        "{error}"
    );
    let error = data_error(open(&parent.path().join("textile/a/1.png")));
    assert!(error.contains("is not a folder"), "{error}");
}

#[test]
fn small_classes_are_warned_about() {
    let root = folder(&["one/1.png", "two/1.png", "two/2.png", "three/1.png", "three/2.png", "three/3.png"]);
    let dataset = open(root.path()).unwrap();
    let warned = |text: &str| dataset.warnings.iter().any(|warning| warning.contains(text));
    assert!(warned("class \"one\" has one image"), "{:?}", dataset.warnings);
    assert!(warned("class \"two\" has no val image") && !warned("\"three\""), "{:?}", dataset.warnings);
    assert_eq!(dataset.class_counts(Split::Train), [1, 1, 2]);
}

#[test]
fn names_are_normalised_but_paths_are_not() {
    let root = folder(&["cafe\u{301}/a\nb, \"c\".png", "tea/1.png"]);
    let dataset = open(root.path()).unwrap();
    assert_eq!(dataset.classes, ["caf\u{e9}", "tea"]);
    assert!(dataset.samples.iter().all(|sample| sample.path.is_file()));
    let csv = root.path().join("splits.csv");
    crate::data::write_splits_csv(&csv, &dataset, (&[], &[])).unwrap();
    let again = listed(&csv, &settings(DataSource::Root(root.path().into())));
    assert_eq!((again.classes, again.samples), (dataset.classes, dataset.samples));
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_loops_and_dead_links_are_errors() {
    use std::os::unix::fs::symlink;
    let root = folder(&["a/1.png", "b/1.png"]);
    let elsewhere = folder(&["2.png", "3.png"]);
    symlink(elsewhere.path(), root.path().join("c")).unwrap();
    let dataset = open(root.path()).unwrap();
    assert_eq!(dataset.classes, ["a", "b", "c"]);
    let csv = elsewhere.path().join("splits.csv");
    crate::data::write_splits_csv(&csv, &dataset, (&[], &[])).unwrap();
    assert_eq!(listed(&csv, &settings(DataSource::Root(root.path().into()))).samples, dataset.samples);

    symlink(root.path(), root.path().join("a/loop")).unwrap();
    let error = data_error(open(root.path()));
    assert!(error.contains("which contains it"), "{error}");
    std::fs::remove_file(root.path().join("a/loop")).unwrap();
    symlink("nowhere.png", root.path().join("a/dead.png")).unwrap();
    let error = data_error(open(root.path()));
    assert!(error.contains("cannot read") && error.contains("dead.png"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_unicode_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let root = folder(&["a/1.png", "b/1.png"]);
    std::fs::write(root.path().join("a").join(std::ffi::OsStr::from_bytes(b"\xff.png")), b"").unwrap();
    let error = data_error(open(root.path()));
    assert!(error.contains("not valid Unicode"), "{error}");
}

fn scored(source: &Path, classes: &[String]) -> Result<Dataset> {
    Dataset::of_classes(
        source,
        classes,
        Labels::Classes,
        &settings(DataSource::Root("unused".into())),
        (None, Split::Test),
    )
}

#[test]
fn another_folder_is_labelled_by_known_classes() {
    let root = folder(&["b/1.png", "b/2.png"]);
    let classes = ["a".to_owned(), "b".to_owned()];
    let samples = scored(root.path(), &classes).unwrap().samples;
    assert!(samples.iter().all(|sample| sample.label == 1 && sample.split == Split::Test));
    assert_eq!(samples.len(), 2);

    touch(root.path(), &["crack/1.png", "dent/1.png"]);
    let error = data_error(scored(root.path(), &classes));
    assert!(error.contains("does not know the class \"crack\" and \"dent\""), "{error}");
    assert!(error.contains("it knows \"a\" and \"b\""), "{error}");

    let split = folder(&["train/a/1.png", "train/b/1.png", "test/a/9.png"]);
    let samples = scored(split.path(), &classes).unwrap().samples;
    assert_eq!(samples.iter().map(|sample| sample.name.as_str()).collect::<Vec<_>>(), ["test/a/9.png"]);
}

#[test]
fn the_usual_spellings_of_splits_are_recognised() {
    for [train, val, test] in [
        ["Training", "Validation", "Testing"],
        ["training_set", "valid_set", "test_set"],
        ["seg_train/seg_train", "seg_val", "seg_test/seg_test"],
        ["TRAIN", "Valid", "TEST-images"],
    ] {
        let folders = [train, val, test].map(|split| [format!("{split}/a/1.png"), format!("{split}/b/1.png")]);
        let root = folder(folders.as_flattened());
        let dataset = open(root.path()).unwrap();
        assert_eq!(dataset.classes, ["a", "b"], "{train}");
        assert!(Split::ALL.iter().all(|&split| dataset.class_counts(split) == [1, 1]), "{train}");
    }
    for word in ["trained", "tester", "set", "train_test", ""] {
        assert_eq!(Split::parse(word), None, "{word}");
    }
}

#[test]
fn images_that_are_not_read_are_counted_by_class_and_extension() {
    let mut names = two_classes_of(3);
    names.extend(["a/1.heic", "a/2.HEIC", "a/3.gif", "b/1.jp2", "b/1.txt", "b/x.jfif", "b/y.JPE"].map(String::from));
    let root = folder(&names);
    let dataset = open(root.path()).unwrap();
    assert_eq!((dataset.samples.len(), dataset.ignored_files), (8, 5));
    assert_eq!(dataset.unread[&("a".to_owned(), "heic".to_owned())], 2);
    let said =
        |warnings: &[String]| warnings.iter().any(|text| text.contains("1 .gif and 2 .heic in \"a\", 1 .jp2 in \"b\""));
    assert!(said(&dataset.warnings), "{:?}", dataset.warnings);
    let classes = ["a".to_owned(), "b".to_owned()];
    assert!(said(&scored(root.path(), &classes).unwrap().warnings));
    let error = refused(&["a/1.png", "b/1.heic"]);
    assert!(error.contains("b has no images that are read, only 1 .heic in \"b\""), "{error}");
}

#[test]
fn folders_of_systems_and_tools_are_no_classes_and_hold_no_images() {
    let mut names = two_classes_of(3);
    for folder in ["@eaDir", "$RECYCLE.BIN", ".ipynb_checkpoints", "__MACOSX", "System Volume Information"] {
        names.extend([format!("{folder}/1.png"), format!("a/{folder}/1.png")]);
    }
    let root = folder(&names);
    let dataset = open(root.path()).unwrap();
    assert_eq!((dataset.classes.len(), dataset.samples.len()), (2, 6));
}

#[test]
fn masks_beside_the_splits_are_no_images_left_out() {
    let root = folder(&["train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/2.png", "ground_truth/b/2_mask.png"]);
    assert_eq!(open(root.path()).unwrap().samples.len(), 4);
}

#[test]
fn white_space_around_a_folder_is_no_part_of_its_class() {
    let root = folder(&["bad /1.png", "good/1.png"]);
    assert_eq!(open(root.path()).unwrap().classes, ["bad", "good"]);
}

#[test]
fn one_warning_for_many_small_classes() {
    let names: Vec<String> = (0..40).map(|i| format!("class {i:02}/1.png")).collect();
    let root = folder(&names);
    let dataset = open(root.path()).unwrap();
    assert_eq!(dataset.warnings.len(), 1, "{:?}", dataset.warnings);
    assert!(dataset.warnings[0].starts_with("40 classes (\"class 00\", "), "{:?}", dataset.warnings);
}
