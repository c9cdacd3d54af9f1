use super::*;
use crate::config::DataSource;
use crate::data::testing::{data_error, folder, listed, sample, settings};
use crate::data::{Dataset, Labels, read_splits_csv, write_splits_csv};

fn open(root: &Path, csv: &[u8]) -> Result<Dataset> {
    let file = root.join("list.csv");
    std::fs::write(&file, csv).unwrap();
    Dataset::open(&settings(DataSource::Manifest(file)))
}

fn names(dataset: &Dataset) -> Vec<&str> {
    dataset.samples.iter().map(|sample| sample.name.as_str()).collect()
}

#[test]
fn any_column_order_and_a_byte_order_mark() {
    let root = folder(&["x/1.png", "x/2.png", "x/3.png"]);
    let csv = "\u{feff}Group, note ,label,SPLIT,path\nroll 1,n,good,train,x/1.png\n,n,bad,Train,./x/2.png\nroll 1,,good,,x/3.png\n";
    let dataset = open(root.path(), csv.as_bytes()).unwrap();
    assert_eq!(dataset.classes, ["bad", "good"]);
    assert_eq!(names(&dataset), ["x/1.png", "x/2.png", "x/3.png"]);
    assert_eq!(dataset.samples[0].group.as_deref(), Some("roll 1"));
    assert_eq!(dataset.samples[1].group, None);
    assert_eq!(dataset.samples[2].split, Split::Train, "it follows its group");
}

#[test]
fn a_manifest_names_masks_and_a_runs_splits_keep_them() {
    let root = folder(&["x/1.png", "x/2.png", "m/2.png"]);
    let csv = "path,label,split,mask\nx/1.png,good,train,\nx/2.png,bad,train,./m/2.png\n";
    let dataset = open(root.path(), csv.as_bytes()).unwrap();
    let masks: Vec<Option<&str>> =
        dataset.samples.iter().map(|sample| sample.mask.as_ref().map(|mask| mask.name.as_str())).collect();
    assert_eq!(masks, [None, Some("m/2.png")]);
    assert_eq!(dataset.samples[1].mask.as_ref().unwrap().path, root.path().join("m/2.png"));
    let file = root.path().join("splits.csv");
    write_splits_csv(&file, &dataset, (&[], &[])).unwrap();
    let again = list_splits(&file, root.path(), false, false).unwrap();
    assert!(again.entries.iter().map(|entry| &entry.mask).eq(dataset.samples.iter().map(|sample| &sample.mask)));

    let error = data_error(open(root.path(), csv.replace("./m/2.png", "m/3.png").as_bytes()));
    assert!(error.contains("line 3: \"m/3.png\" does not exist"), "{error}");
}

#[test]
fn all_bad_rows_are_reported_with_their_lines() {
    let root = folder(&["in/1.png", "in/2.png"]);
    let csv = "path,label,split\nin/1.png,a,\n../2.png,a,\n/etc/passwd,a,\nin/none.png,a,\nin/1.png,a,\nin/./1.png,b,\n\
               in/2.png,,\nin/2.png,b,dev\nin,a,\n,a,\n";
    let error = data_error(open(root.path(), csv.as_bytes()));
    for expected in [
        "9 bad rows",
        "line 3: \"../2.png\" has a `..` part",
        "line 4: \"/etc/passwd\" is an absolute path",
        "line 5: \"in/none.png\" does not exist",
        "line 6: \"in/1.png\" is listed before, in line 2",
        "line 7: \"in/1.png\" is labelled \"b\", but \"a\" in line 2",
        "line 8: \"in/2.png\" has no label",
        "line 9: the split \"dev\" is not one of train, val, test",
        "line 10: \"in\" is not a regular file",
        "line 11: the path is empty",
    ] {
        assert!(error.contains(expected), "{expected}\n{error}");
    }
}

#[test]
fn broken_tables_are_refused() {
    let root = folder(&["1.png", "2.png", "3.png"]);
    let cases: [(&[u8], &str); 14] = [
        (b"", "has no column \"path\""),
        (b"file,label\n1.png,a\n", "has no column \"path\", only file, label"),
        (b"path label\n1.png a\n", "separated by commas"),
        (b"path,label,label\n1.png,a,a\n", "label occurs twice"),
        (b"path,label\n", "lists no images"),
        (b"path,label\n1.png\n", "line 2: has another number of columns than the header: 1, not 2"),
        (b"path,label\n1.png,\xff\n", "line 2 is not UTF-8"),
        (b"p\0a\0t\0h\0", "zero bytes"),
        (b"path,label,groups\n1.png,a,g\n", "unknown column \"groups\": did you mean group?"),
        (b"path,label,Group ID\n1.png,a,g\n", "did you mean group?"),
        (b"path,label,spilt\n1.png,a,train\n", "did you mean split?"),
        (b"path,label\n1.png,Good\n2.png,good\n", "\"Good\" and \"good\""),
        (
            b"path,label,split,group\n1.png,a,train,g\n2.png,a,test,g\n3.png,b,train,\n",
            "group \"g\" is in train and test",
        ),
        // Labels and groups are trimmed.
        (
            b"path,label,split,group\n1.png,a,train,g \n2.png, a,test, g\n3.png,b,train,\n",
            "group \"g\" is in train and test",
        ),
    ];
    for (csv, expected) in cases {
        let error = data_error(open(root.path(), csv));
        assert!(error.contains(expected), "{expected}\n{error}");
    }
    let error = data_error(Dataset::open(&settings(DataSource::Manifest(root.path().join("none.csv")))));
    assert!(error.contains("cannot read the manifest"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused() {
    let outside = folder(&["secret.png"]);
    let root = folder(&["real.png"]);
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    std::os::unix::fs::symlink(root.path().join("real.png"), root.path().join("inside.png")).unwrap();
    let error = data_error(open(root.path(), b"path,label\nlink/secret.png,a\ninside.png,b\n"));
    assert!(error.contains("1 bad row ") && error.contains("leads outside"), "{error}");
}

#[test]
fn splits_read_back_as_they_were_written() {
    let names: Vec<String> = (0..30).map(|i| format!("d/{i:02}.png")).collect();
    let root = folder(&names);
    let labels = ["a", "\"b, \"\"c\"\"\nd\""];
    let rows = names.iter().enumerate().map(|(i, name)| format!("{name},{},g{}", labels[i % 2], i / 3));
    let csv = ["path,label,group".to_owned()].into_iter().chain(rows).collect::<Vec<_>>().join("\n");
    let dataset = open(root.path(), csv.as_bytes()).unwrap();
    let file = root.path().join("out.csv");
    write_splits_csv(&file, &dataset, (&[], &[])).unwrap();
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("path,label,split,group,sha256,pixels\nd/00.png,a,"));
    let again = listed(&file, &settings(DataSource::Root(root.path().into())));
    assert_eq!(again.classes, ["a", "b, \"c\"\nd"]);
    assert_eq!((again.classes, again.samples), (dataset.classes, dataset.samples));
}

#[test]
fn groups_and_sums_come_back_from_a_runs_splits() {
    let root = tempfile::tempdir().unwrap();
    let sample = |name: &str, group: Option<&str>| super::super::Sample {
        group: group.map(str::to_owned),
        ..sample(name, 0, Split::Test)
    };
    let samples = vec![sample("a, \"b\"/1.png", Some("roll 1")), sample("x/2.png", None)];
    let dataset = Dataset { classes: vec!["x".into()], samples, ..Dataset::default() };
    let file = root.path().join("splits.csv");
    let black = crate::data::PixelSum::of(&image::RgbImage::new(2, 2));
    write_splits_csv(&file, &dataset, (&[[0xab; 32], [0x01; 32]], &[black, black])).unwrap();
    let row = |path: &str, group: &str, byte: &str| super::super::SplitRow {
        path: path.into(),
        split: Split::Test,
        group: group.into(),
        sha256: byte.repeat(32),
        pixels: black.text(),
    };
    assert_eq!(read_splits_csv(&file).unwrap(), [row("a, \"b\"/1.png", "roll 1", "ab"), row("x/2.png", "", "01")]);
    assert!(data_error(read_splits_csv(&root.path().join("none.csv"))).contains("none.csv"));
}

#[test]
fn what_spreadsheets_write_is_read() {
    let root = folder(&["1.png", "2.png", "3.png"]);
    let wide = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("\u{feff}{text}").encode_utf16().flat_map(bytes).collect()
    };
    let table = "path,label\r\n1.png, caf\u{e9}\r\n2.png,tea \r\n";
    for csv in [
        table.as_bytes().to_vec(),
        table.replace(',', ";").into_bytes(),
        table.replace(',', "\t").into_bytes(),
        wide(table, u16::to_le_bytes),
        wide(table, u16::to_be_bytes),
    ] {
        assert_eq!(open(root.path(), &csv).unwrap().classes, ["caf\u{e9}", "tea"], "{csv:?}");
    }
}

#[test]
fn lines_that_end_with_cr_lf_are_counted_right() {
    let root = folder(&["1.png"]);
    let error =
        data_error(open(root.path(), b"path,label\r\n1.png,a\r\n\r\n\"x\r\ny\",a\r\nnone.png,b\r\n1.png,b\r\n"));
    for expected in
        ["line 4: \"x\\r\\ny\"", "line 6: \"none.png\"", "line 7: \"1.png\" is labelled \"b\", but \"a\" in line 2"]
    {
        assert!(error.contains(expected), "{expected}\n{error}");
    }
}

#[test]
fn one_mistake_in_every_row_is_one_message() {
    let root = folder(&["1.png"]);
    let rows: String = (0..50).map(|i| format!("/share/{i}.png,a\n")).collect();
    let error = data_error(open(root.path(), format!("path,label\n{rows}1.png,b\nnone.png,b\n").as_bytes()));
    assert!(error.contains("51 bad rows") && error.contains("and 47 more rows with an absolute path"), "{error}");
    assert!(error.contains("line 53: \"none.png\"") && error.lines().count() < 10, "{error}");
    assert!(error.contains("data.allow_outside"), "{error}");
}

#[cfg(unix)]
#[test]
fn paths_lead_outside_when_the_settings_say_so() {
    let share = folder(&["a/1.png", "a/2.png", "b/3.png"]);
    let root = folder(&["lists/here.png"]);
    std::os::unix::fs::symlink(share.path().join("b"), root.path().join("lists/link")).unwrap();
    let absolute = share.path().join("a/1.png").display().to_string();
    let file = root.path().join("lists/list.csv");
    let list = format!("path,label\n{absolute},a\n../lists/here.png,b\nlink/3.png,b\n");
    std::fs::write(&file, list).unwrap();
    let mut settings = settings(DataSource::Manifest(file.clone()));
    assert!(data_error(Dataset::open(&settings)).contains("3 bad rows"));
    settings.allow_outside = true;
    let dataset = Dataset::open(&settings).unwrap();
    assert_eq!(names(&dataset), ["../lists/here.png", &absolute, "link/3.png"]);
    assert!(dataset.samples.iter().all(|sample| sample.path.is_file()));
    let csv = root.path().join("splits.csv");
    write_splits_csv(&csv, &dataset, (&[], &[])).unwrap();
    assert_eq!(listed(&csv, &settings).samples, dataset.samples);

    // With data.root, its paths are relative to that folder, and absolute ones inside it are named alike.
    std::fs::write(&file, format!("path,label\n{absolute},a\nb/3.png,b\n")).unwrap();
    settings.base = Some(share.path().to_path_buf());
    assert_eq!(names(&Dataset::open(&settings).unwrap()), ["a/1.png", "b/3.png"]);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_at_once() {
    let root = tempfile::tempdir().unwrap();
    let pipe = root.path().join("list.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(data_error(Dataset::open(&settings(DataSource::Manifest(pipe)))).contains("not a file"));
}

#[test]
fn columns_may_be_called_anything() {
    let root = folder(&["x/1.png", "x/2.png", "x/3.png"]);
    let csv = "No;File Name;Diagnosis;group\r\n1;x\\1.png;good;train\r\n2;x/2.png;bad;train\r\n3;x/3.png;good;test\r\n";
    let file = root.path().join("list.csv");
    std::fs::write(&file, csv).unwrap();
    let mut settings = settings(DataSource::Manifest(file));
    let named = |name: &str| Some(name.to_owned());
    settings.columns.path = named("file name");
    settings.columns.label = named("Diagnosis");
    settings.columns.split = named("group");
    settings.columns.group = named("Patient");
    let error = data_error(Dataset::open(&settings));
    assert!(error.contains("has no column \"Patient\"") && error.contains("data.columns"), "{error}");
    settings.columns.group = named("No");
    let dataset = Dataset::open(&settings).unwrap();
    assert_eq!((dataset.classes.len(), dataset.samples[0].name.as_str()), (2, "x/1.png"), "a path of Windows");
    assert_eq!((dataset.samples[2].split, dataset.samples[2].group.as_deref()), (Split::Test, Some("3")));
    assert_eq!(manifest_table(&root.path().join("list.csv"), 0).unwrap().0[1], "File Name");
}

#[test]
fn other_images_are_scored_from_a_manifest() {
    let root = folder(&["x/1.png", "x/2.png", "x/3.png"]);
    let list = root.path().join("list.csv");
    let mut settings = settings(DataSource::Root("unused".into()));
    let classes = ["bad".to_owned(), "good".to_owned()];
    let open = |csv: &str, settings: &DataSettings| {
        std::fs::write(&list, csv).unwrap();
        Dataset::of_classes(&list, &classes, Labels::Classes, settings, (None, Split::Test))
    };
    // A column that is called as nobody has said, and one class of the two.
    let dataset = open("File Name;Diagnosis\nx/2.png;good\nx/1.png;good\n", &settings).unwrap();
    assert_eq!(names(&dataset), ["x/1.png", "x/2.png"]);
    assert!(dataset.samples.iter().all(|sample| sample.label == 1 && sample.split == Split::Test));
    // As the run's own columns are called, where the table has them.
    settings.columns.label = Some("Truth".into());
    assert_eq!(open("path,label,truth\nx/1.png,?,bad\n", &settings).unwrap().samples[0].label, 0);
    assert_eq!(open("path,label\nx/1.png,good\n", &settings).unwrap().samples[0].label, 1);
    // Of one that names splits the rows of test.
    let split = "path,label,split\nx/1.png,good,train\nx/2.png,bad,test\nx/3.png,bad,\n";
    assert_eq!(names(&open(split, &settings).unwrap()), ["x/2.png"]);
    let error = data_error(open("path,label,split\nx/1.png,good,train\n", &settings));
    assert!(error.contains("names \"train\", but has no test images"), "{error}");
    let error = data_error(open("path,label\nx/1.png,ugly\n", &settings));
    assert!(error.contains("does not know the class \"ugly\""), "{error}");
    let outside = format!("path,label\n{},good\n", root.path().join("x/1.png").display());
    assert!(data_error(open(&outside, &settings)).contains("absolute path"));
    settings.allow_outside = true;
    assert_eq!(names(&open(&outside, &settings).unwrap()), ["x/1.png"]);
}

#[test]
fn a_manifest_of_unknown_images_needs_no_labels() {
    let root = folder(&["x/1.png"]);
    let list = root.path().join("list.csv");
    std::fs::write(&list, "No,Image Path\r\n1,x\\1.png\r\n2,\"a, b.png\"\r\n3,/elsewhere/2.png\r\n").unwrap();
    let files_of = |columns: &ColumnNames| files(&list, columns);
    let expected = [root.path().join("x/1.png"), root.path().join("a, b.png"), "/elsewhere/2.png".into()];
    assert_eq!(files_of(&ColumnNames::default()).unwrap(), expected);
    let number = ColumnNames { path: Some("no".into()), ..ColumnNames::default() };
    assert_eq!(files_of(&number).unwrap()[0], root.path().join("1"));
    // A row that was emptied is none.
    std::fs::write(&list, "path,no\na.png,1\n,\n,3\n").unwrap();
    let error = data_error(files_of(&ColumnNames::default()));
    assert!(error.contains("line 4 names no file"), "{error}");
    std::fs::write(&list, "picture\na.png\n").unwrap();
    assert!(data_error(files_of(&ColumnNames::default())).contains("no column \"path\", only picture"));
}
