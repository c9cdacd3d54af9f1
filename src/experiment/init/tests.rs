use super::*;
use crate::data::testing::{fixture, folder};
use crate::report::Verbosity;
use std::fs;

fn console() -> Console {
    Console::new(Verbosity::from_flags(0, 2), false)
}

/// Runs `init` for `data` in a folder; the builtin backbone, so that nothing asks a network.
fn init_in(folder: &Path, data: &str) -> Result<(Initialised, String)> {
    let options = InitOptions {
        out: Some(folder.join("my.toml")),
        backbone: Some("builtin:vit-flaw".into()),
        ..InitOptions::default()
    };
    let made = init(&folder.join(data), &options, &console())?;
    let text = fs::read_to_string(&made.config).unwrap();
    Ok((made, text))
}

fn names(folder: &str, n: usize) -> Vec<String> {
    (0..n).map(|n| format!("{folder}/{n:03}.png")).collect()
}

fn files(all: &[Vec<String>]) -> tempfile::TempDir {
    folder(&all.concat())
}

#[test]
fn class_folders_are_used_as_they_are() {
    let root = files(&[names("d/ok", 40), names("d/scratch", 10)]);
    let (made, text) = init_in(root.path(), "d").unwrap();
    assert_eq!((made.good.as_deref(), made.manifest, made.groups), (Some("ok"), None, None));
    for expected in
        ["root = \"d\"\n", "val = 0.2", "class_weights = \"balanced\"", "good = \"ok\"", "#   scratch      10\n"]
    {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(made.splits["val"] >= 8 && made.splits["test"] >= 8, "{:?}", made.splits);
    let again = init_in(root.path(), "d").unwrap_err();
    assert!(matches!(again, Error::Usage { .. }) && again.to_string().contains("nothing is overwritten"), "{again}");
}

#[test]
fn groups_of_names_and_trees_of_anomalies_get_a_manifest() {
    let parts = |class: &str| (0..24).map(|n| format!("d/{class}/part{}_{n}.png", n / 2)).collect::<Vec<_>>();
    let root = files(&[parts("good"), parts("bad")]);
    let (made, text) = init_in(root.path(), "d").unwrap();
    assert_eq!(made.groups, Some(12));
    assert!(text.contains("root = \"d\"") && text.contains("names suggest 12 groups"), "{text}");
    assert!(fs::read_to_string(made.manifest.unwrap()).unwrap().contains("good/part0_1.png,good,part0\n"));

    // Where the data names its splits, those of train are looked for, since validation is drawn from it.
    let tree = |split: &str, parts: std::ops::Range<usize>| -> Vec<String> {
        let of = |part: usize| (0..4).map(move |n| format!("d/{split}/{}/Part-{part}_{n}.png", ["bad", "good"][n % 2]));
        parts.flat_map(of).collect()
    };
    let root = files(&[tree("train", 0..20), tree("test", 19..26)]);
    let (made, text) = init_in(root.path(), "d").unwrap();
    assert_eq!((made.groups, made.splits["test"], made.splits.values().sum::<usize>()), (Some(26), 28, 108));
    assert!(text.contains("names suggest 26 groups") && text.contains("val = 0.15"), "{text}");
    let rows = fs::read_to_string(made.manifest.unwrap()).unwrap();
    // Of a part in both, the images to be tested on are not held back: they are where the data has them.
    for row in ["train/good/Part-19_1.png,good,part19,train\n", "test/good/Part-19_1.png,good,,test\n", "part25,test\n"]
    {
        assert!(rows.contains(row), "{row}\n{rows}");
    }
    let drawn = Dataset::open(&config::load(Some(&made.config), &[]).unwrap().data).unwrap();
    let val: Vec<&str> = drawn.indices(Split::Val).iter().filter_map(|&i| drawn.samples[i].group.as_deref()).collect();
    let both = |&&i: &&usize| val.contains(&drawn.samples[i].group.as_deref().unwrap_or_default());
    assert!(val.len() >= 8 && drawn.indices(Split::Train).iter().filter(both).count() == 0, "{val:?}");
    // Where it names all of them, nothing is drawn.
    let root = files(&[tree("train", 0..20), tree("val", 20..24), tree("test", 24..28)]);
    assert_eq!(init_in(root.path(), "d").unwrap().0.groups, None);

    let root = files(&[
        names("bottle/train/good", 30),
        names("bottle/test/good", 5),
        names("bottle/test/broken_large", 9),
        names("bottle/ground_truth/broken_large", 9),
    ]);
    let (made, text) = init_in(root.path(), "bottle").unwrap();
    assert_eq!((made.classes["good"], made.classes["broken_large"], made.classes.len()), (35, 9, 2));
    assert!(text.contains("allow_outside = true") && text.contains("good = \"good\""), "{text}");
    let splits: Vec<usize> = made.splits.values().copied().collect();
    assert!(splits.iter().sum::<usize>() == 44 && splits.iter().all(|&n| n > 2), "{splits:?}");
}

#[test]
fn columns_of_a_table_are_told_by_their_names() {
    let root = files(&[names("img", 40)]);
    let rows: String =
        (0..40).map(|n| format!("{};img/{n:03}.png;P{};{}\r\n", n, n / 2, ["ok", "crack"][n / 20])).collect();
    fs::write(root.path().join("list.csv"), format!("\u{feff}No;File Name;Patient-ID;Diagnosis\r\n{rows}")).unwrap();
    let (made, text) = init_in(root.path(), "list.csv").unwrap();
    let columns = "columns = { path = \"File Name\", label = \"Diagnosis\", group = \"Patient-ID\" }";
    assert!(text.contains(columns) && text.contains("manifest = \"list.csv\""), "{text}");
    assert_eq!((made.groups, made.manifest, made.classes["crack"]), (Some(20), None, 20));
    let absolute: String = (0..40).map(|n| format!("{}/img/{n:03}.png,{}\n", root.path().display(), n % 2)).collect();
    fs::create_dir(root.path().join("lists")).unwrap();
    fs::write(root.path().join("lists/far.csv"), format!("path,label\n{absolute}")).unwrap();
    fs::remove_file(root.path().join("my.toml")).unwrap();
    assert!(init_in(root.path(), "lists/far.csv").unwrap().1.contains("allow_outside = true"));
}

#[test]
fn columns_that_are_called_otherwise_are_told_by_what_is_in_them() {
    let root = files(&[names("Bilder", 40)]);
    let write = |more: &str, value: &dyn Fn(usize) -> String| {
        let row =
            |n: usize| format!("Bilder\\{n:03}.png;\"{}\";Müller{}\r\n", ["i. O.", "Riss, tief"][n / 20], value(n));
        let rows: String = (0..40).map(row).collect();
        fs::write(root.path().join("liste.csv"), format!("\u{feff}Datei;Befund;Prüfer{more}\r\n{rows}")).unwrap();
    };
    write(";Nr", &|n| format!(";{n}"));
    let (made, text) = init_in(root.path(), "liste.csv").unwrap();
    assert!(text.contains("columns = { path = \"Datei\", label = \"Befund\" }"), "{text}");
    assert_eq!((made.good.as_deref(), made.classes["Riss, tief"]), (Some("i. O."), 20));

    fs::remove_file(root.path().join("my.toml")).unwrap();
    write(";Schicht", &|n| format!(";{}", n % 3));
    let error = init_in(root.path(), "liste.csv").unwrap_err().to_string();
    assert!(error.contains("several look like them: Befund, Schicht"), "{error}");
    let options = InitOptions {
        out: Some(root.path().join("other.toml")),
        backbone: Some("builtin:vit-flaw".into()),
        label_column: Some("Schicht".into()),
        ..InitOptions::default()
    };
    assert_eq!(init(&root.path().join("liste.csv"), &options, &console()).unwrap().classes.len(), 3);
    fs::write(root.path().join("one.csv"), "Datei;Befund\r\nBilder\\000.png;gut\r\n").unwrap();
    let error = init_in(root.path(), "one.csv").unwrap_err().to_string();
    assert!(error.contains("none looks like them: Datei, Befund"), "{error}");
}

#[test]
fn patients_of_dicom_files_stay_together() {
    let root = tempfile::tempdir().unwrap();
    let bytes = fs::read(fixture("dicom_ct.dcm")).unwrap();
    let at = bytes.windows(5).position(|five| five == b"ID 17").unwrap();
    for class in ["ill", "well"] {
        fs::create_dir_all(root.path().join("scans").join(class)).unwrap();
        for image in 0..24_u8 {
            let mut bytes = [bytes.clone(), vec![image; 2]].concat();
            let patient = format!("{class:4}{}", (b'a' + image / 3) as char);
            bytes[at..at + 5].copy_from_slice(patient.as_bytes());
            fs::write(root.path().join(format!("scans/{class}/{image}.dcm")), bytes).unwrap();
        }
    }
    let (made, text) = init_in(root.path(), "scans").unwrap();
    assert!(text.contains("group_by = \"patient\" # 16 patients"), "{text}");
    assert!(text.contains("root = \"scans\"") && !text.contains("wella"), "{text}");
    assert_eq!(made.splits.values().sum::<usize>(), 48);

    // Where the data names its splits too, unless it has a patient in two of them.
    let splits = root.path().join("splits");
    fs::create_dir_all(splits.join("test")).unwrap();
    fs::rename(root.path().join("scans"), splits.join("train")).unwrap();
    for class in ["ill", "well"] {
        fs::create_dir(splits.join("test").join(class)).unwrap();
        for image in 21..24 {
            let [from, to] = ["train", "test"].map(|split| splits.join(format!("{split}/{class}/{image}.dcm")));
            fs::rename(from, to).unwrap();
        }
    }
    fs::remove_file(&made.config).unwrap();
    assert!(init_in(root.path(), "splits").unwrap().1.contains("group_by = \"patient\" # 16 patients"));
    fs::remove_file(&made.config).unwrap();
    fs::rename(splits.join("train/ill/0.dcm"), splits.join("test/ill/0.dcm")).unwrap();
    assert!(!init_in(root.path(), "splits").unwrap().1.contains("group_by"));
}

#[test]
fn large_images_of_parts_are_cut_into_tiles() {
    let root = tempfile::tempdir().unwrap();
    for class in ["good", "bent"] {
        fs::create_dir_all(root.path().join("d").join(class)).unwrap();
        for n in 0..8 {
            let image = image::RgbImage::from_fn(600, 500, |x, y| image::Rgb([x as u8, y as u8, n]));
            image.save(root.path().join(format!("d/{class}/{n}.png"))).unwrap();
        }
    }
    let (made, text) = init_in(root.path(), "d").unwrap();
    assert_eq!(made.image_size, Some(112));
    let settings = config::load(Some(&made.config), &[]).unwrap();
    assert!(settings.preprocess.tiles.is_some() && text.contains("squash to 248 pixels"), "{text}");
    // Where no class is good, the picture as a whole may decide.
    fs::rename(root.path().join("d/good"), root.path().join("d/oak")).unwrap();
    fs::remove_file(made.config).unwrap();
    let (made, text) = init_in(root.path(), "d").unwrap();
    assert!(made.image_size == Some(248) && !text.contains("tiles"), "{text}");
}

#[test]
fn tables_are_read_as_spreadsheets_leave_them() {
    let root = files(&[names("pictures", 40)]);
    let rows: String = (0..40).map(|n| format!("{n:03}.png;{};;\r\n", ["ok", "crack"][n / 20])).collect();
    // A line about the separator, columns without a name, rows that were emptied, images in a folder beside.
    let text = format!("sep=;\r\nBild;Befund;;\r\n{rows};;;\r\n;;;\r\n");
    fs::write(root.path().join("list.csv"), text).unwrap();
    let (made, text) = init_in(root.path(), "list.csv").unwrap();
    assert_eq!((made.classes["ok"], made.classes["crack"]), (20, 20));
    assert!(text.contains("root = \"pictures\"") && text.contains("label = \"Befund\""), "{text}");
    // A row is no header.
    fs::remove_file(made.config).unwrap();
    fs::write(root.path().join("bare.csv"), &rows).unwrap();
    let error = init_in(root.path(), "bare.csv").unwrap_err().to_string();
    assert!(error.contains("first line has an image, \"000.png\""), "{error}");
}

#[test]
fn what_lies_beside_the_splits_is_left_out_and_drawn_splits_are_called_so() {
    let root = files(&[
        names("d/seg_train/seg_train/a", 30),
        names("d/seg_train/seg_train/b", 30),
        names("d/seg_test/seg_test/a", 9),
        names("d/seg_test/seg_test/b", 9),
        names("d/seg_pred/seg_pred", 5),
    ]);
    let (made, text) = init_in(root.path(), "d").unwrap();
    assert_eq!((made.classes.len(), made.splits["test"]), (2, 18));
    assert!(made.splits["val"] > 5, "{:?}", made.splits);
    for expected in ["ignore = [\"seg_pred\"]", "# the data names train and test, not val:\nval = 0.2 # the smallest"] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("test = ") && !text.contains("the splits are those"), "{text}");
    let options = InitOptions {
        out: Some(root.path().join("other.toml")),
        backbone: Some("builtin:vit-flaw".into()),
        ignore: vec!["seg_pred".into(), "b".into()],
        ..InitOptions::default()
    };
    let error = init(&root.path().join("d"), &options, &console()).unwrap_err().to_string();
    assert!(error.contains("there is only one class, \"a\""), "{error}");
}
