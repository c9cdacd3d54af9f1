use crate::config::{DataSettings, DataSource};
use crate::data::testing::{data_error, folder, settings, touch};
use crate::data::{Dataset, Labels, Split};
use std::path::Path;

fn root<N: AsRef<str>>(names: &[N]) -> (tempfile::TempDir, DataSettings) {
    let root = folder(names);
    let settings = settings(DataSource::Root(root.path().into()));
    (root, settings)
}

fn merge(settings: &mut DataSettings, to: &str, from: &[&str]) {
    settings.classes.insert(to.into(), from.iter().map(|&name| name.to_owned()).collect());
}

fn labels(dataset: &Dataset) -> Vec<(&str, &str)> {
    dataset.samples.iter().map(|sample| (sample.name.as_str(), dataset.classes[sample.label].as_str())).collect()
}

#[test]
fn classes_are_renamed_merged_and_left_out() {
    let names = ["dent/1.png", "scratch/1.png", "ok/1.png", "ok/2.png", "defect/1.png", "unsure/1.png", "raw/1.heic"];
    let (root, mut settings) = root(&names);
    merge(&mut settings, "defect", &["dent", "scratch"]);
    merge(&mut settings, "good", &["ok"]);
    settings.ignore = vec!["raw".into(), "unsure".into()];
    let dataset = Dataset::open(&settings).unwrap();
    let expected = [
        ("defect/1.png", "defect"),
        ("dent/1.png", "defect"),
        ("ok/1.png", "good"),
        ("ok/2.png", "good"),
        ("scratch/1.png", "defect"),
    ];
    assert_eq!(labels(&dataset), expected);
    assert_eq!(dataset.notes, ["data.ignore leaves out \"raw\" and \"unsure\""]);

    // Other images are labelled by the same names, and need not have all of them.
    touch(root.path(), &["new/dent/9.png", "new/good/9.png", "new/unsure/9.png"]);
    let new = Dataset::of_classes(
        &root.path().join("new"),
        &dataset.classes,
        Labels::Classes,
        &settings,
        (None, Split::Test),
    )
    .unwrap();
    assert_eq!(labels(&new), [("dent/9.png", "defect"), ("good/9.png", "good")]);

    // Where a part is sound or not, all other classes are one, and what they are called is the kind.
    touch(root.path(), &["new/never seen/9.png"]);
    let (good, classes) = (["good".to_owned()], ["defect".to_owned(), "good".to_owned()]);
    let parts =
        Dataset::of_classes(&root.path().join("new"), &classes, Labels::Parts(&good), &settings, (None, Split::Test));
    let parts = parts.unwrap();
    assert_eq!(labels(&parts), [("dent/9.png", "defect"), ("good/9.png", "good"), ("never seen/9.png", "defect")]);
    let kinds: Vec<_> = parts.samples.iter().map(|sample| sample.kind.as_deref().unwrap()).collect();
    assert_eq!(kinds, ["defect", "good", "never seen"]);

    let doubtful = folder(&["unsure/9.png"]);
    let none = Dataset::of_classes(doubtful.path(), &dataset.classes, Labels::Classes, &settings, (None, Split::Test));
    assert!(data_error(none).contains("holds no images to score"));
    std::fs::remove_dir_all(root.path().join("new")).unwrap();
    settings.classes.clear();
    settings.ignore = ["defect", "dent", "ok", "raw", "scratch", "unsure"].map(String::from).into();
    let none = data_error(Dataset::open(&settings));
    assert!(none.contains("no class is left") && none.contains("data.ignore"), "{none}");
}

#[test]
fn a_folder_beside_the_splits_may_be_left_out_by_name() {
    let (_root, mut settings) = root(&["seg_train/a/1.png", "seg_train/b/1.png", "seg_pred/1.png"]);
    assert!(data_error(Dataset::open(&settings)).contains("data.ignore = [\"seg_pred\"]"));
    settings.ignore = vec!["seg_pred".into()];
    let dataset = Dataset::open(&settings).unwrap();
    assert_eq!((dataset.samples.len(), dataset.classes.len()), (2, 2));
    assert_eq!(dataset.notes, ["data.ignore leaves out \"seg_pred\""]);
}

#[test]
fn a_manifest_is_merged_like_folders_and_spellings_become_one_class() {
    let (root, mut settings) = root(&["1.png", "2.png", "3.png", "4.png"]);
    let list = root.path().join("list.csv");
    std::fs::write(&list, "path,label\n1.png,OK\n2.png, ok \n3.png,Crack\n4.png,?\n").unwrap();
    settings.source = DataSource::Manifest(list);
    assert!(data_error(Dataset::open(&settings)).contains("data.classes"), "the way out is named");
    merge(&mut settings, "good", &["OK", "ok"]);
    settings.ignore = vec!["?".into()];
    let dataset = Dataset::open(&settings).unwrap();
    assert_eq!(labels(&dataset), [("1.png", "good"), ("2.png", "good"), ("3.png", "Crack")]);
}

#[test]
fn names_that_no_class_has_are_refused() {
    let (_root, mut settings) = root(&["dent/1.png", "scratch/1.png", "ok/1.png"]);
    merge(&mut settings, "defect", &["dent", "scrach"]);
    let error = data_error(Dataset::open(&settings));
    assert!(error.contains("data.classes: there is no class \"scrach\"") && error.contains("\"scratch\"?"), "{error}");
    settings.classes.clear();
    settings.ignore = vec!["foreign".into()];
    let error = data_error(Dataset::open(&settings));
    assert!(error.contains("data.ignore") && error.contains("\"dent\", \"ok\" and \"scratch\""), "{error}");
}

fn many(splits: &[(&str, usize)]) -> (tempfile::TempDir, DataSettings) {
    let names: Vec<String> =
        splits.iter().flat_map(|&(place, n)| (0..n).map(move |i| format!("{place}/{i:03}.png"))).collect();
    root(&names)
}

fn kept(dataset: &Dataset, below: &str) -> Vec<String> {
    let names = dataset.samples.iter().map(|sample| sample.name.clone());
    names.filter(|name| Path::new(name).starts_with(below)).collect()
}

#[test]
fn a_cap_keeps_a_seeded_choice_that_a_higher_one_keeps_too() {
    let (_root, mut settings) = many(&[("many", 100), ("few", 7)]);
    let open = |settings: &DataSettings| Dataset::open(settings).unwrap();
    settings.max_per_class = Some(20);
    let twenty = open(&settings);
    assert_eq!((kept(&twenty, "many").len(), kept(&twenty, "few").len()), (20, 7));
    assert_eq!(twenty.notes, ["data.max_per_class keeps 20 of 100 images of \"many\""]);
    assert_eq!(open(&settings), twenty, "the same again");
    assert!(Split::ALL.iter().all(|&split| twenty.class_counts(split).iter().all(|&n| n > 0)));
    settings.max_per_class = Some(30);
    let thirty = kept(&open(&settings), "many");
    assert!(kept(&twenty, "many").iter().all(|name| thirty.contains(name)));
    (settings.max_per_class, settings.split_seed) = (Some(20), 1);
    assert_ne!(kept(&open(&settings), "many"), kept(&twenty, "many"));
    settings.max_per_class = Some(100);
    assert!(open(&settings).notes.is_empty());
}

#[test]
fn a_cap_takes_the_same_share_of_every_split() {
    let (_root, mut settings) = many(&[("train/a", 60), ("val/a", 20), ("test/a", 20), ("train/b", 4), ("test/b", 2)]);
    settings.max_per_class = Some(10);
    let dataset = Dataset::open(&settings).unwrap();
    assert_eq!(Split::ALL.map(|split| dataset.class_counts(split)), [[6, 4], [2, 0], [2, 2]]);
}

/// Kaggle's Intel set: folders repeat their names, and images of no class lie beside the splits.
#[test]
fn images_of_no_class_beside_repeated_folders_are_found_and_left_out() {
    let files = ["seg_train/seg_train/a/1.png", "seg_train/seg_train/b/1.png", "seg_test/seg_test/a/2.png"];
    let (root, mut settings) = root(&[&files[..], &["seg_test/seg_test/b/2.png", "seg_pred/seg_pred/3.png"]].concat());
    assert_eq!(crate::data::beside_splits(root.path()).unwrap(), ["seg_pred"]);
    let refused = data_error(Dataset::open(&settings));
    assert!(refused.contains("--ignore \"seg_pred\""), "{refused}");
    settings.ignore = vec!["seg_pred".into()];
    let dataset = Dataset::open(&settings).unwrap();
    assert_eq!((dataset.classes.len(), dataset.named), (2, vec![Split::Train, Split::Test]));
    // What lies beside the repeated folder is no class.
    std::fs::create_dir_all(root.path().join("seg_train/extra")).unwrap();
    std::fs::copy(root.path().join("seg_pred/seg_pred/3.png"), root.path().join("seg_train/extra/3.png")).unwrap();
    let refused = data_error(Dataset::open(&settings));
    assert!(refused.contains("seg_train/seg_train holds the classes, but beside it there are \"extra\""), "{refused}");
    settings.ignore.push("extra".into());
    assert_eq!(Dataset::open(&settings).unwrap().samples.len(), 4);
}

#[test]
fn a_class_may_be_called_as_its_split() {
    let (_root, settings) = root(&["train/train/1.png", "train/bus/1.png", "train/car/1.png"]);
    assert_eq!(Dataset::open(&settings).unwrap().classes, ["bus", "car", "train"]);
}
