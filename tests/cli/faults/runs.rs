//! Runs and their files, and what commands leave.

use super::Table;
use super::images::damaged_jpegs;
use crate::common::workspace::{Workspace, copy, textile};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Changes one value of a JSON file; true as a test of the path.
pub(super) fn forge(path: &Path, keys: &[&str], value: Value) {
    let mut all = read(path);
    let mut place = &mut all;
    for key in keys {
        place = &mut place[*key];
    }
    *place = value;
    fs::write(path, all.to_string()).unwrap();
}

pub(super) fn names(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(names(&path));
        }
        found.push(path);
    }
    found
}

pub(super) fn rows(table: &mut Table) {
    let workspace = Workspace::new();
    workspace.finetune("small", &["--set", "train.steps=6"]);
    table.row(&workspace, "a finished run", "without temporary files", |row| {
        let left = names(&row.path("runs/small"));
        let temporary = |path: &&PathBuf| {
            let ending = path.extension().unwrap_or_default();
            ending == "tmp" || ending == "old"
        };
        assert_eq!(left.iter().find(temporary), None);
        row.cases += 1;
    });
    records(table, &workspace);
    predict(table, &workspace);
    table.row(&workspace, "`eval --data` with a damaged JPEG", "3, as in training", |row| {
        let place = row.path("other/global/odd.jpg");
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::create_dir_all(row.path("other/local")).unwrap();
        fs::copy(&textile("test", "local")[4], row.path("other/local/a.jpg")).unwrap();
        for (_, bytes) in damaged_jpegs() {
            fs::write(&place, bytes).unwrap();
            row.case(&["eval", "--run", "runs/small", "--data", "other"], 3, &["odd.jpg", "damaged"]);
        }
    });
    table.row(
        &workspace,
        "an output that exists, or a sidecar that the command did not write",
        "2, nothing replaced",
        |row| {
            fs::write(row.path("x.csv"), "mine").unwrap();
            row.case(&["extract", "--run", "runs/small", "--out", "x.npy"], 2, &["x.csv"]);
            assert_eq!(fs::read(row.path("x.csv")).unwrap(), b"mine");
            row.case(&["export", "--run", "runs/small", "--format", "timm", "--out", "data"], 2, &["data"]);
            fs::write(row.path("tsne.csv"), "mine").unwrap();
            row.case(&["tsne", "--run", "runs/small", "--out", "."], 2, &["tsne.csv"]);
            assert_eq!(fs::read(row.path("tsne.csv")).unwrap(), b"mine");
            row.case(&["init", "data", "--out", "small.toml"], 2, &["small.toml"]);
        },
    );
    #[cfg(unix)]
    {
        lists(table, &workspace);
        names_shown(table, &workspace);
        special(table, &workspace);
    }
    table.row(&workspace, "`run.threads`, `run.decode_threads` of 1024", "2", |row| {
        for key in ["run.threads=1024", "run.decode_threads=1024"] {
            row.case(&["finetune", "--config", "small.toml", "--set", key], 2, &["this machine has"]);
        }
    });
    let what = "a failure after the last epoch, also one that `train.steps` cut short";
    table.row(&workspace, what, "its own code; `run.json` says `failed`; `--resume` scores again", |row| {
        for steps in ["train.steps=2", "train.steps=7", "train.steps=10"] {
            fs::create_dir_all(row.path("runs/late")).unwrap();
            fs::write(row.path("runs/late/plots"), "in the way").unwrap();
            let late = ["finetune", "--config", "small.toml", "--set", "run.name=late", "--set", steps];
            row.case(&late, 5, &["plots"]);
            assert_eq!(read(&row.path("runs/late/run.json"))["status"], "failed");
            fs::remove_file(row.path("runs/late/plots")).unwrap();
            row.case(&[&late[..], &["--resume"]].concat(), 0, &[]);
            fs::remove_dir_all(row.path("runs/late")).unwrap();
        }
        fs::create_dir_all(row.path("runs/probe")).unwrap();
        fs::write(row.path("runs/probe/plots"), "in the way").unwrap();
        row.case(&["probe", "--config", "small.toml", "--set", "run.name=probe"], 5, &["plots"]);
        assert_eq!(read(&row.path("runs/probe/run.json"))["status"], "failed");
    });
}

/// What `predict` is given and asked for by other programs, and the modes of what commands write.
#[cfg(unix)]
fn lists(table: &mut Table, workspace: &Workspace) {
    let predict = ["predict", "--run", "runs/small", "-"];
    let what = "`predict` of a list with a name that is not UTF-8, a dead link, a pipe, a device, an empty line";
    table.row(workspace, what, "3; a row each, the good ones predicted", |row| {
        fs::copy(&textile("test", "global")[0], row.path("good.jpg")).unwrap();
        std::os::unix::fs::symlink("nowhere.jpg", row.path("dead.jpg")).unwrap();
        super::weights::pipe(&row.path("pipe.jpg"));
        for bad in [&b"caf\xe9.jpg"[..], b"dead.jpg", b"pipe.jpg", b"/dev/zero", b"\r"] {
            fs::write(row.path("list"), [b"good.jpg\n", bad, b"\n\ngood.jpg"].concat()).unwrap();
            let bads = usize::from(bad != b"\r");
            let said = format!("{bads} of {} files", 2 + bads);
            let said = if bads == 0 { "good.jpg" } else { &said };
            let all = row.shell("exec <list;", &predict, if bads == 0 { 0 } else { 3 }, &[said]);
            assert_eq!(all.matches("\"top\"").count(), 2, "{all}");
        }
    });
    table.row(workspace, "`predict` of an endless list, whose reader takes one row", "ends, 0", |row| {
        row.shell("yes good.jpg | \"$0\" \"$@\" | head -1; exit;", &predict, 0, &["good.jpg"]);
    });
    table.row(workspace, "what commands write under `umask 027`", "0640, as that asks for", |row| {
        use std::os::unix::fs::PermissionsExt;
        let umask = "umask 027;";
        row.shell(umask, &["predict", "--run", "runs/small", "good.jpg", "--out", "rows-mode.csv"], 0, &[]);
        row.shell(umask, &["extract", "--run", "runs/small", "--out", "mode.npy"], 0, &[]);
        row.shell(umask, &["export", "--run", "runs/small", "--format", "timm", "--out", "mode"], 0, &[]);
        let run = ["finetune", "--config", "small.toml", "--set", "run.name=mode", "--set", "train.steps=1"];
        row.shell(umask, &run, 0, &[]);
        let written = names(&row.path("mode")).into_iter().chain(names(&row.path("runs/mode")));
        for file in written.chain([row.path("rows-mode.csv"), row.path("mode.npy")]).filter(|path| path.is_file()) {
            let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o640, "{}", file.display());
        }
    });
    table.row(
        workspace,
        "`report` of a run whose images are gone, some or all",
        "0, a page without them, and said",
        |row| {
            let report = ["report", "--run", "runs/small"];
            for gone in ["data/test/global", "data"] {
                fs::rename(row.path(gone), row.path("away")).unwrap();
                row.case(&report, 0, &["of the run are gone"]);
                fs::rename(row.path("away"), row.path(gone)).unwrap();
            }
            row.case(&report, 0, &["report.html"]);
        },
    );
    table.row(workspace, "`export` of a run whose images are gone", "0, on made-up patterns, and said", |row| {
        fs::rename(row.path("data"), row.path("away")).unwrap();
        for format in ["timm", "onnx"] {
            let out = format!("blind.{format}");
            let export = ["export", "--run", "runs/small", "--format", format, "--out", &out];
            row.case(&export, 0, &["made-up patterns"]);
        }
        fs::rename(row.path("away"), row.path("data")).unwrap();
    });
}

/// Names that steer a terminal or imitate a line of it, wherever a command takes a path.
#[cfg(unix)]
fn names_shown(table: &mut Table, workspace: &Workspace) {
    let what = "line breaks, control characters and changes of direction in the names of files and folders";
    table.row(workspace, what, "escaped, on one line", |row| {
        for name in ["k7\nq8", "k7\rq8", "k7\x1b[31mq8", "k7\u{202e}q8"] {
            let [toml, csv, jpg] = ["toml", "csv", "jpg"].map(|ending| format!("{name}.{ending}"));
            let (run, damaged) = (format!("{name}/run"), row.path("data/train/global").join(jpg));
            copy(&row.path("runs/small"), &row.path(&run));
            fs::write(row.path(&run).join("checkpoints/best/model.safetensors"), "damaged").unwrap();
            fs::write(&damaged, "no image").unwrap();
            fs::write(row.path(&csv), "path,label\nabsent.jpg,a\n").unwrap();
            let [root, manifest] =
                [("root", &toml), ("manifest", &csv)].map(|(key, value)| format!("data.{key}={value}"));
            let backbone = format!("model.backbone=./{name}");
            let commands: [(&[&str], i32); 15] = [
                (&["check", "--config", &toml], 2),
                (&["check", "--config", "small.toml"], 3),
                (&["check", "--config", "small.toml", "--set", &root], 3),
                (&["check", "--config", "small.toml", "--set", &manifest], 3),
                (&["check", "--config", "small.toml", "--set", &backbone], 3),
                (&["finetune", "--config", "small.toml"], 3),
                (&["init", &toml], 3),
                (&["init", "data", "--out", &csv], 2),
                (&["predict", "--run", "runs/small", name], 3),
                (&["predict", "--run", name, "data/test"], 2),
                (&["predict", "--run", &run, "data/test"], 4),
                (&["eval", "--run", &run], 4),
                (&["export", "--run", "runs/small", "--format", "timm", "--out", name], 2),
                (&["extract", "--run", "runs/small", "--out", &csv], 2),
                (&["tsne", "--run", "runs/small", "--out", &csv], 5),
            ];
            for (command, code) in commands {
                let all = row.case(command, code, &["q8"]);
                assert!(!all.contains(name), "{command:?}: {all:?}");
            }
            fs::remove_file(damaged).unwrap();
            fs::remove_file(row.path(&csv)).unwrap();
            fs::remove_dir_all(row.path(name)).unwrap();
        }
    });
}

/// What only Unix has.
#[cfg(unix)]
#[allow(clippy::too_many_lines)] // a table
fn special(table: &mut Table, workspace: &Workspace) {
    use std::os::unix::fs::symlink;
    let good = textile("test", "global")[0].display().to_string();
    let (predict, eval) = (["predict", "--run", "runs/small", &good], ["eval", "--run", "runs/small"]);
    table.row(workspace, "an output that is a device", "5, and it stays one", |row| {
        let (rows, features) = (row.path("to-device.csv"), row.path("device.npy"));
        [&rows, &features].iter().for_each(|link| symlink("/dev/null", link).unwrap());
        row.case(&[&predict[..], &["--out", "to-device.csv"]].concat(), 5, &["to-device.csv", "device"]);
        row.case(&["extract", "--run", "runs/small", "--out", "device.npy"], 5, &["device.npy", "device"]);
        for link in [rows, features] {
            assert!(link.is_symlink());
            fs::remove_file(link).unwrap();
        }
    });
    table.row(workspace, "a file of a run that is a pipe", "refused at once, 2 to 5, or done without", |row| {
        for (name, codes) in [
            ("run.json", [2, 2]),
            ("config.toml", [2, 2]),
            ("splits.csv", [3, 0]),
            ("known.safetensors", [0, 5]),
            ("metrics.jsonl", [0, 0]),
            ("checkpoints/best/model.safetensors", [5, 5]),
            ("checkpoints/best/state.json", [5, 5]),
            ("checkpoints/best/manifest.json", [5, 5]),
        ] {
            let file = row.path("runs/small").join(name);
            let content = fs::read(&file).unwrap();
            super::weights::pipe(&file);
            for (args, code) in [&eval[..], &predict[..]].into_iter().zip(codes) {
                row.case(args, code, &[]);
            }
            fs::remove_file(&file).unwrap();
            fs::write(file, content).unwrap();
        }
    });
    table.row(
        workspace,
        "a damaged file that the page about a run is made of",
        "a warning; the page goes without it",
        |row| {
            for (name, damage) in [
                ("eval-val.json", &b"{}"[..]),
                ("eval-test.json", b"\0"),
                ("predictions-test.csv", b"path,label\n\xff"),
                ("metrics.jsonl", b""),
                ("metrics.jsonl", b"{\"epoch\":1}\n"),
            ] {
                let file = row.path("runs/small").join(name);
                let content = fs::read(&file).unwrap();
                fs::write(&file, damage).unwrap();
                row.case(&["report", "--run", "runs/small"], 0, &["warning: ", name, "damaged"]);
                fs::write(file, content).unwrap();
            }
        },
    );
    table.row(workspace, "files that may not grow, as on a full disk", "5, with the file", |row| {
        let limit = "ulimit -f 40;";
        let new = ["finetune", "--config", "small.toml", "--set", "run.name=full", "--set", "train.steps=2"];
        row.shell(limit, &new, 5, &["cannot write", "cannot write", "ulimit -f"]);
        assert_eq!(read(&row.path("runs/full/run.json"))["status"], "failed");
        row.shell(limit, &["extract", "--run", "runs/small", "--out", "f.npy"], 5, &["cannot write"]);
        row.shell(
            limit,
            &["export", "--run", "runs/small", "--format", "timm", "--out", "model"],
            5,
            &["cannot write"],
        );
        for left in ["f.npy", "f.csv", "model"] {
            assert!(!row.path(left).exists(), "{left}");
        }
    });
    let what = "no home, an unknown locale and time zone, few open files, no streams, a cache that cannot be written";
    table.row(workspace, what, "done", |row| {
        for words in [
            "unset HOME XDG_CACHE_HOME;",
            "export LC_ALL=xx_YY TZ=Nowhere/None COLUMNS=0 TERM=dumb RAYON_NUM_THREADS=some;",
            "ulimit -n 16;",
            "exec <&- >&- 2>&-;",
            "export XDG_CACHE_HOME=/dev/null/cache;",
        ] {
            row.shell(words, &eval, 0, &[]);
        }
    });
    table.row(workspace, "an image that vanishes or changes while a training reads it", "3, with the file", |row| {
        for (name, content) in [("gone", None), ("changed", Some("no image"))] {
            let run = format!("run.name={name}");
            let args = ["finetune", "--config", "small.toml", "--set", &run, "--set", "train.epochs=100000", "-q"];
            let image = row.path("data/train/local").join(textile("train", "local")[0].file_name().unwrap());
            let kept = fs::read(&image).unwrap();
            let metrics = row.path(&format!("runs/{name}/metrics.jsonl"));
            let place = image.clone();
            let changer = std::thread::spawn(move || {
                while !metrics.exists() {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                match content {
                    Some(content) => fs::write(place, content),
                    None => fs::remove_file(place),
                }
            });
            row.case(&args, 3, &[image.file_name().unwrap().to_str().unwrap(), "cannot be used"]);
            changer.join().unwrap().unwrap();
            fs::write(image, kept).unwrap();
        }
    });
}

fn records(table: &mut Table, workspace: &Workspace) {
    let (path, eval) = (workspace.path("runs/small/run.json"), ["eval", "--run", "runs/small"]);
    let whole = fs::read(&path).unwrap();
    table.row(
        workspace,
        "a forged, damaged or nested `run.json`, or one of another version",
        "4, with the reason",
        |row| {
            for (keys, value, said) in [
                (&["preprocess", "image_size"][..], json!(0), "image_size 0"),
                (&["preprocess", "image_size"], json!(1u64 << 32), "image_size 4294967296"),
                (&["preprocess", "image_size"], json!(-1), "run.json"),
                (&["preprocess", "crop_pct"], json!(-1.0), "crop_pct -1"),
                (&["preprocess", "normalization", "std"], json!([0.0, 1.0, 1.0]), "standard deviation of 0"),
                (&["temperature"], json!(-1.0), "temperature -1"),
                (&["classes"], json!(["a", "b", "a"]), "the class \"a\" twice"),
                (&["classes"], json!([]), "no classes"),
                (&["classes"], json!(7), "run.json"),
                (&["head"], json!("other"), "run.json"),
            ] {
                fs::write(&path, &whole).unwrap();
                forge(&path, keys, value);
                row.case(&eval, 4, &[said]);
            }
            fs::write(&path, &whole).unwrap();
            forge(&path, &["version"], json!("9.0.0"));
            forge(&path, &["preprocess"], json!({}));
            row.case(&eval, 4, &["made by vitadapt 9.0.0"]);
            for bytes in [b"\xff\xfe{}".to_vec(), vec![b'['; 1 << 20], b"{".to_vec(), Vec::new(), vec![0; 1 << 20]] {
                fs::write(&path, bytes).unwrap();
                row.case(&eval, 4, &["run.json"]);
            }
            fs::write(&path, &whole).unwrap();
        },
    );
}

fn predict(table: &mut Table, workspace: &Workspace) {
    let good = textile("test", "global")[0].display().to_string();
    table.row(workspace, "`predict --out` of a name that ends in .csv", "CSV, a column for each class", |row| {
        for out in ["rows.csv", "ROWS.CSV"] {
            row.case(&["predict", "--run", "runs/small", &good, "--out", out], 0, &[out]);
            let rows = fs::read_to_string(row.path(out)).unwrap();
            assert!(rows.starts_with("path,label,probability,error,") && rows.contains(",probability:nominal\n"));
        }
    });
    table.row(
        workspace,
        "`predict` of damaged files, with a good one among them",
        "3; rows of those say why, the other is predicted",
        |row| {
            let place = row.path("odd.jpg");
            let others = [b"".to_vec(), b"no image".to_vec(), b"\0\0\0\x18ftypheic\0\0\0\0".to_vec()];
            for bytes in damaged_jpegs().into_iter().map(|(_, bytes)| bytes).chain(others) {
                fs::write(&place, bytes).unwrap();
                let all =
                    row.case(&["predict", "--run", "runs/small", "odd.jpg", &good], 3, &["1 of 2 files", "\"error\""]);
                assert!(all.contains("\"probability\""), "{all}");
            }
        },
    );
}
