//! Folders and manifests.

use super::Table;
use crate::common::fixture;
use crate::common::workspace::{CLASSES, Workspace, textile};
use std::fs;

const IMAGES: &str = "36 in 3 classes";

/// A manifest of nine images, three a class.
fn manifest() -> (Workspace, String) {
    let workspace = Workspace::new();
    let mut rows = String::from("path,label\n");
    for class in CLASSES {
        for (i, file) in textile("train", class).iter().take(3).enumerate() {
            let name = format!("{class}-{i}.jpg");
            fs::copy(file, workspace.path(&name)).unwrap();
            rows.push_str(&format!("{name},{class}\n"));
        }
    }
    (workspace, rows)
}

const LISTED: [&str; 3] = ["data.manifest=list.csv", "data.val=0", "data.test=0"];

pub(super) fn rows(table: &mut Table) {
    folders(table);
    let (workspace, listed) = manifest();
    let listed = listed.as_str();
    table.row(&workspace, "a manifest with CR LF, semicolons, tabs, in UTF-16 (both orders)", "read", |row| {
        let utf16 = |swap: bool| -> Vec<u8> {
            let units = std::iter::once(0xFEFF).chain(listed.encode_utf16());
            units.flat_map(|unit| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        let ends = listed.replace('\n', "\r\n").into_bytes();
        let others = [listed.replace(',', ";").into_bytes(), listed.replace(',', "\t").into_bytes()];
        for bytes in [ends, utf16(false), utf16(true)].into_iter().chain(others) {
            fs::write(row.path("list.csv"), bytes).unwrap();
            row.check(&LISTED, 0, &["9 in 3 classes"]);
        }
    });
    table.row(&workspace, "a manifest whose labels have white space around them", "trimmed", |row| {
        for spaced in ["global ", " global", "global\t"] {
            fs::write(row.path("list.csv"), listed.replacen(",global", &format!(",{spaced}"), 1)).unwrap();
            row.check(&LISTED, 0, &["9 in 3 classes"]);
        }
    });
    table.row(&workspace, "a manifest in Latin-1", "3, with the line", |row| {
        fs::write(row.path("list.csv"), [listed.as_bytes(), b"gew\xe4be.jpg,global\n"].concat()).unwrap();
        row.check(&LISTED, 3, &["line 11", "UTF-8"]);
    });
    table.row(&workspace, "a misspelt column of a manifest", "3, with what was meant", |row| {
        for (written, meant) in [("groups", "group"), ("Split ", "split"), ("grup", "group"), ("splits", "split")] {
            let listed = listed.replace('\n', ",a\n").replacen("label,a", &format!("label,{written}"), 1);
            fs::write(row.path("list.csv"), listed).unwrap();
            if written.trim().eq_ignore_ascii_case(meant) {
                row.check(&LISTED, 3, &["line 2"]);
            } else {
                row.check(&LISTED, 3, &[written, meant]);
            }
        }
    });
    table.row(&workspace, "a wrong row of a manifest with CR LF", "3, with its line", |row| {
        fs::write(row.path("list.csv"), listed.replace('\n', "\r\n") + "gone.jpg,global\r\n").unwrap();
        row.check(&LISTED, 3, &["line 11", "gone.jpg"]);
    });
    outside(table);
}

#[allow(clippy::too_many_lines)] // a table
fn folders(table: &mut Table) {
    let spelt = |names: [&str; 3]| {
        let workspace = Workspace::new();
        for (name, split) in names.iter().zip(["train", "val", "test"]) {
            let target = workspace.path("other").join(name);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::rename(workspace.path("data").join(split), target).unwrap();
        }
        workspace
    };
    let usual = [
        ["Training", "Validation", "Testing"],
        ["training_set", "valid", "test_set"],
        ["TRAIN", "VAL", "TEST"],
        ["seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"],
    ];
    table.row(&Workspace::new(), "split folders in another spelling", "read as splits", |row| {
        for names in usual {
            let workspace = spelt(names);
            let mut other = super::Row { workspace: &workspace, cases: 0, problems: Vec::new() };
            other.check(&["data.root=other"], 0, &[IMAGES, "global   6    3     3   12"]);
            row.cases += other.cases;
            row.problems.extend(other.problems);
        }
    });
    table.row(&spelt(["one", "two", "three"]), "classes that hold folders of the same names", "3", |row| {
        row.check(&["data.root=other"], 3, &["global", "both hold a folder"]);
    });
    let repeated = spelt(["seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"]);
    let loose = |place: &str| {
        fs::create_dir_all(repeated.path(place)).unwrap();
        fs::copy(&textile("train", "global")[20], repeated.path(place).join("a.jpg")).unwrap();
    };
    let what = "images of no class in a folder beside those of splits";
    table.row(&repeated, what, "3, with the way out; `init` finds it", |row| {
        loose("other/seg_pred/seg_pred");
        row.check(&["data.root=other"], 3, &["is beside seg_train, not in it", "data.ignore = [\"seg_pred\"]"]);
        row.check(&["data.root=other", "data.ignore=[\"seg_pred\"]"], 0, &[IMAGES]);
        row.case(
            &["init", "other", "--backbone", "builtin:vit-mini", "-o", "other.toml"],
            0,
            &["leaves out \"seg_pred\""],
        );
        row.case(&["check", "--config", "other.toml"], 0, &[IMAGES]);
    });
    table.row(&repeated, "a folder beside the one that repeats the name of its split", "3, with the way out", |row| {
        loose("other/seg_train/extra");
        let root = "data.root=other";
        row.check(&[root, "data.ignore=[\"seg_pred\"]"], 3, &["beside it there are \"extra\"", "data.ignore"]);
        row.check(&[root, "data.ignore=[\"seg_pred\", \"extra\"]"], 0, &[IMAGES]);
    });
    table.row(&Workspace::new(), "a folder around the splits, as archives have it", "3, with that folder", |row| {
        let around = row.path("around");
        fs::create_dir(&around).unwrap();
        fs::rename(row.path("data"), around.join("set")).unwrap();
        row.check(&["data.root=around"], 3, &["set holds splits of its own", "data.root = "]);
    });
    table.row(&Workspace::new(), "folders of systems and tools beside the classes", "no classes, no images", |row| {
        for name in ["@eaDir", "$RECYCLE.BIN", ".ipynb_checkpoints", "__MACOSX", "System Volume Information", ".git"] {
            let folder = row.path("data/train").join(name);
            fs::create_dir(&folder).unwrap();
            fs::copy(&textile("train", "global")[20], folder.join("a.jpg")).unwrap();
            row.check(&[], 0, &[IMAGES]);
        }
    });
    table.row(&Workspace::new(), "runs and comparisons among the classes", "no classes, no images", |row| {
        for (place, files) in [
            ("data/train/one", ["run.json", "config.toml"]),
            ("data/train/runs/one", ["run.json", "config.toml"]),
            ("data/train/global/runs/one", ["run.json", "config.toml"]),
            ("data/runs/compare", ["compare.json", "compare.md"]),
        ] {
            let folder = row.path(place);
            fs::create_dir_all(folder.join("plots")).unwrap();
            files.iter().for_each(|name| fs::write(folder.join(name), "{}").unwrap());
            fs::copy(fixture("images/palette.png"), folder.join("plots/confusion.png")).unwrap();
            row.check(&[], 0, &[IMAGES]);
        }
    });
    table.row(&Workspace::new(), "class folders alike but for case, white space, Unicode form", "3", |row| {
        for name in ["Global", " global", "global "] {
            let folder = row.path("data/train").join(name);
            fs::create_dir(&folder).unwrap();
            fs::copy(&textile("train", "global")[20], folder.join("a.jpg")).unwrap();
            row.check(&[], 3, &["differ only in letter case, white space or Unicode form"]);
            fs::remove_dir_all(folder).unwrap();
        }
    });
    let what = "control characters and changes of direction in the name of a class";
    table.row(&Workspace::new(), what, "escaped on the terminal", |row| {
        for name in ["k7\x1b[31mq8", "k7\rq8", "k7\x07q8", "k7\u{202e}q8"] {
            let folder = row.path("data/train").join(name);
            fs::create_dir(&folder).unwrap();
            // Labelled differently elsewhere, which is a warning that names both classes.
            fs::copy(&textile("train", "global")[0], folder.join("a.jpg")).unwrap();
            let all = row.check(&[], 0, &["labelled differently"]);
            assert!(!all.contains(name), "{all:?}");
            fs::write(folder.join("a.jpg"), "no image").unwrap();
            let all = row.check(&[], 3, &["a.jpg"]);
            assert!(!all.contains(name), "{all:?}");
            fs::remove_dir_all(folder).unwrap();
        }
    });
}

#[cfg(unix)]
fn outside(table: &mut Table) {
    use std::os::unix::fs::symlink;
    let circle = Workspace::new();
    table.row(&circle, "a link of a class folder to the folder that holds it", "3, with both", |row| {
        symlink(".", row.path("data/train/self")).unwrap();
        row.check(&[], 3, &["data/train/self is a link to", "which contains it"]);
    });
    let (workspace, listed) = manifest();
    let share = tempfile::tempdir().unwrap();
    let file = share.path().join("far.jpg");
    fs::copy(&textile("train", "global")[20], &file).unwrap();
    symlink(&file, workspace.path("link.jpg")).unwrap();
    let climbing = format!("{}{}", "../".repeat(12), file.display().to_string().trim_start_matches('/'));
    let places = [file.display().to_string(), climbing, "link.jpg".into()];
    for (what, outcome, allowed) in [
        ("a manifest with an absolute path, `..`, a link that leads elsewhere", "3, with the line", false),
        ("the same with `data.allow_outside`", "read", true),
    ] {
        table.row(&workspace, what, outcome, |row| {
            for place in &places {
                fs::write(row.path("list.csv"), format!("{listed}{place},global\n")).unwrap();
                if allowed {
                    row.check(
                        &[&LISTED[..], &["data.allow_outside=true", "data.root=."]].concat(),
                        0,
                        &["10 in 3 classes"],
                    );
                } else {
                    row.check(&LISTED, 3, &["line 11", "data.allow_outside"]);
                }
            }
        });
    }
}

#[cfg(not(unix))]
fn outside(_: &mut Table) {}
