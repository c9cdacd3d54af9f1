//! Poolings and evidence maps as a user meets them.

use crate::common::workspace::{Workspace, json};
use crate::features::{misses, output, run, stderr};
use serde_json::Value;
use std::fs;

#[test]
fn a_pooling_is_chosen_on_validation_and_is_the_run_s_own_from_then_on() {
    let workspace = Workspace::new();
    let auto = run(&workspace, "probe", &["--set", "run.name=auto", "--set", "model.pool=auto"]);
    let pools = auto["pools"].as_array().unwrap();
    assert!(pools.len() >= 7, "{pools:?}");
    let (first, last) = (&pools[0]["pool"], &pools[pools.len() - 1]["pool"]);
    assert_eq!((first, last), (&Value::from("backbone"), &Value::from("mahalanobis")));
    assert_eq!(misses(&auto), 2 * 36, "one pass for all but the most unusual patch");
    let score = |pool: &Value| pool["val_score"].as_f64().unwrap();
    let chosen = pools.iter().find(|pool| pool["pool"] == auto["pool"]).unwrap();
    assert!(pools.iter().all(|pool| score(pool) <= score(chosen)), "{pools:?} but {}", auto["pool"]);
    let pool = format!("model.pool={}", auto["pool"].as_str().unwrap());
    let named = run(&workspace, "probe", &["--set", "run.name=named", "--set", &pool]);
    assert_eq!((&auto["chosen"], &auto["test_accuracy"]), (&named["chosen"], &named["test_accuracy"]));
    workspace.assert_scores_repeat("auto", &auto);
    for (settings, why) in [
        (&["model.pool=auto", "probe.blocks=2"][..], "leave probe.features and probe.blocks out"),
        (&["model.pool=attention"], "`vitadapt probe` trains nothing"),
        (&["model.pool=stats", "probe.blocks=2"], "reads the last block only"),
    ] {
        let sets: Vec<&str> = settings.iter().flat_map(|&set| ["--set", set]).collect();
        let refused = output(&workspace, "probe", &sets);
        assert!(refused.status.code() == Some(2) && stderr(&refused).contains(why), "{}", stderr(&refused));
    }
    let refused = output(&workspace, "finetune", &["--set", "model.pool=auto"]);
    assert!(stderr(&refused).contains("only `vitadapt probe` does"), "{}", stderr(&refused));
}

#[test]
fn predict_draws_where_a_class_was_found_and_calls_attention_a_hint() {
    let workspace = Workspace::new();
    for (name, pool, kind) in [("max", "max", "evidence"), ("cls", "cls", "hint")] {
        let sets = [format!("run.name={name}"), format!("model.pool={pool}")];
        run(
            &workspace,
            "probe",
            &["--set", &sets[0], "--set", &sets[1], "--set", "inspection.good=nominal", "--set", "probe.c=[1]"],
        );
        let folder = format!("runs/{name}");
        let predict = ["predict", "--run", &folder, "data/test", "--maps", name, "--json", "-q"];
        let rows = json(&workspace.command(&predict).output().unwrap());
        let rows = rows["predictions"].as_array().unwrap();
        assert!(!rows.is_empty());
        for row in rows {
            assert_eq!(row["map_kind"], kind);
            let map = image::open(workspace.path(row["map"].as_str().unwrap())).unwrap();
            let (width, height) = image::image_dimensions(workspace.path(row["path"].as_str().unwrap())).unwrap();
            assert_eq!(map.width(), map.height());
            let edges =
                row["box"].as_array().map(|edges| edges.iter().map(|edge| edge.as_u64().unwrap()).collect::<Vec<_>>());
            match edges.as_deref() {
                Some(&[left, upper, right, lower]) => {
                    assert!(kind == "evidence" && left < right && upper < lower, "{row}");
                    assert!(right <= u64::from(width) && lower <= u64::from(height), "{row}");
                    assert!(row["evidence"].as_f64().unwrap() > 0.0);
                }
                _ => assert!(kind == "hint" && row["evidence"].is_null(), "{row}"),
            }
        }
        let again = workspace.command(&predict).output().unwrap();
        assert!(
            again.status.code() == Some(2) && stderr(&again).contains("nothing is overwritten"),
            "{}",
            stderr(&again)
        );
        let other = format!("{name}-csv");
        let predict = ["predict", "--run", &folder, "data/test", "--maps", &other, "--format", "csv", "-q"];
        let text = String::from_utf8(workspace.command(&predict).output().unwrap().stdout).unwrap();
        assert!(text.lines().next().unwrap().contains("map,map_kind,box_left,box_upper,box_right,box_lower,evidence"));
        assert_eq!(text.lines().nth(1).unwrap().split(',').count(), text.lines().next().unwrap().split(',').count());
        let page = fs::read_to_string(workspace.path(&folder).join("report.html")).unwrap();
        let exact = page.contains("is what each place adds to the score") || page.contains("These flaws were found");
        assert_eq!(exact, kind == "evidence", "{name}");
    }
}

#[test]
fn poolings_train_with_a_frozen_and_an_unfrozen_backbone() {
    let workspace = Workspace::new();
    for (name, pool, kind) in [("a", "attention", "frozen"), ("b", "attention", "full"), ("c", "stats", "full")] {
        let sets =
            ["model.pool=", "strategy.kind="].iter().zip([pool, kind]).map(|(key, value)| format!("{key}{value}"));
        let sets: Vec<String> = sets.collect();
        let result = workspace.finetune(name, &["--set", &sets[0], "--set", &sets[1], "--epochs", "1"]);
        workspace.assert_scores_repeat(name, &result);
    }
}
