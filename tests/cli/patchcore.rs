//! A probe of sound parts alone as a user meets it, on a folder laid out like `MVTec`'s data sets.

use crate::common::workspace::{Workspace, json, textile};
use crate::features::stderr;
use serde_json::Value;
use std::fs;

/// train/good, test/good, test/hole and `ground_truth`/hole, nothing else.
fn mvtec(workspace: &Workspace) {
    fs::remove_dir_all(workspace.path("data")).unwrap();
    for (split, class, from, count) in
        [("train", "good", "nominal", 10), ("test", "good", "nominal", 4), ("test", "hole", "local", 4)]
    {
        let target = workspace.path(&format!("data/{split}/{class}"));
        fs::create_dir_all(&target).unwrap();
        for file in textile(split, from).iter().take(count) {
            fs::copy(file, target.join(file.file_name().unwrap())).unwrap();
        }
    }
    let masks = workspace.path("data/ground_truth/hole");
    fs::create_dir_all(&masks).unwrap();
    image::GrayImage::new(8, 8).save(masks.join("000_mask.png")).unwrap();
}

fn command(workspace: &Workspace, args: &[&str]) -> std::process::Output {
    workspace.command(args).output().unwrap()
}

const PROBE: [&str; 13] = [
    "probe", "--config", "small.toml", "--json", "-q", "--set", "probe.method=patchcore", "--set",
    "model.backbone=builtin:vit-flaw", "--set", "model.image_size=64", "--set", "preprocess.tiles=false",
];

#[test]
fn sound_parts_alone_suffice_in_mvtec_s_layout() {
    let workspace = Workspace::new();
    mvtec(&workspace);
    let refused = command(&workspace, &["finetune", "--config", "small.toml", "-q"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("no training image of \"hole\"") && stderr(&refused).contains("patchcore"));

    let run = |extra: &[&str]| json(&command(&workspace, &[&PROBE[..], extra].concat()));
    let result = run(&["--set", "run.name=a", "--set", "probe.coreset=0.05"]);
    // One or two of ten images are held out, and 64 patches of the others are counted.
    let (sound, held_out) = (result["sound_images"].as_u64().unwrap(), result["held_out_images"].as_u64().unwrap());
    assert!(sound + held_out == 10 && held_out >= 1, "{result}");
    assert_eq!(result["patches"], sound * 64);
    assert_eq!(result["bank"], (sound * 64).div_ceil(20));
    assert!(
        result["passing"].as_f64().unwrap() < 0.99 && result["overkill"] == 0.01,
        "so few images show less: {result}"
    );
    let kinds: Vec<&str> =
        result["kinds"].as_array().unwrap().iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["good", "hole"]);
    assert!(result["kinds"][1]["auroc"].is_f64() && result["kinds"][0]["auroc"].is_null());

    // Another run of it is the same, to the last digit; eval repeats it, and so does another folder.
    let again = run(&["--set", "run.name=b", "--set", "probe.coreset=0.05", "--set", "run.threads=1"]);
    assert_eq!((&again["threshold"], &again["kinds"]), (&result["threshold"], &result["kinds"]));
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(workspace.path(name)).unwrap()).unwrap() };
    let then = read("runs/a/eval-test.json");
    for extra in [&[][..], &["--data", "data"]] {
        let eval = json(&command(&workspace, &[&["eval", "--run", "runs/a", "--json", "-q"], extra].concat()));
        assert_eq!((&eval["kinds"], &eval["inspection"]["auroc"]), (&then["kinds"], &then["inspection"]["auroc"]));
    }
    let val = fs::read(workspace.path("runs/a/predictions-val.csv")).unwrap();
    json(&command(&workspace, &["eval", "--run", "runs/a", "--split", "val", "--json", "-q"]));
    assert_eq!(fs::read(workspace.path("runs/a/predictions-val.csv")).unwrap(), val);

    let predict = ["predict", "--run", "runs/a", "data/test", "--maps", "maps", "--json", "-q"];
    let rows = json(&command(&workspace, &predict));
    let rows = rows["predictions"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let (score, threshold) = (row["score"].as_f64().unwrap(), row["threshold"].as_f64().unwrap());
        assert!((threshold - result["threshold"].as_f64().unwrap()).abs() < 1e-6);
        assert_eq!(row["decision"] == "defect", score >= threshold, "{row}");
        assert_eq!(row["label"] == "good", score < threshold, "{row}");
        assert_eq!(row["map_kind"], "distance");
        assert_eq!(row["box"].is_null(), score < threshold, "a box is where something is beyond the threshold: {row}");
        assert!(image::open(workspace.path(row["map"].as_str().unwrap())).is_ok());
    }
    // On images that are not square too.
    let wide = run(&["--set", "run.name=wide", "--set", "probe.coreset=0.05", "--set", "model.image_size=[32, 96]"]);
    assert_eq!(wide["patches"], sound * 4 * 12);
    let predict = ["predict", "--run", "runs/wide", "data/test", "--maps", "wide", "--json", "-q"];
    for row in json(&command(&workspace, &predict))["predictions"].as_array().unwrap() {
        assert_eq!(image::image_dimensions(workspace.path(row["map"].as_str().unwrap())).unwrap(), (96, 32), "{row}");
    }
    let csv = ["predict", "--run", "runs/a", "data/test", "--format", "csv", "-q"];
    let text = String::from_utf8(command(&workspace, &csv).stdout).unwrap();
    assert!(text.lines().next().unwrap().contains("decision,score,threshold"), "{text}");
    assert_eq!(text.lines().nth(1).unwrap().split(',').count(), text.lines().next().unwrap().split(',').count());
    assert!(command(&workspace, &["report", "--run", "runs/a", "-q"]).status.success());
    assert!(command(&workspace, &["runs", "runs", "-q"]).status.success());
    let check = [&["check"], &PROBE[1..]].concat();
    assert!(command(&workspace, &check).status.success(), "{}", stderr(&command(&workspace, &check)));

    for (args, why) in [
        (&["export", "--run", "runs/a", "--format", "onnx", "--out", "x.onnx"][..], "probe.method = \"logistic\""),
        (&["tsne", "--run", "runs/a"], "give the configuration instead of the run"),
        (&["extract", "--run", "runs/a", "--out", "x.npy"], "give the configuration instead of the run"),
        (&["eval", "--run", "runs/a", "--set", "inspection.max_overkill=0.2"], "run `vitadapt probe` again"),
    ] {
        let refused = command(&workspace, args);
        assert!(refused.status.code() == Some(2) && stderr(&refused).contains(why), "{args:?}: {}", stderr(&refused));
    }
}

#[test]
fn images_are_compared_at_their_own_resolution_in_tiles() {
    let workspace = Workspace::new();
    mvtec(&workspace);
    let (holes, masks) = (workspace.path("data/test/hole"), workspace.path("data/ground_truth/hole"));
    [&holes, &masks].into_iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    [&holes, &masks].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    for (number, file) in textile("test", "nominal").iter().skip(4).take(4).enumerate() {
        let mut image = image::open(file).unwrap().to_rgb8();
        let mut mask = image::GrayImage::new(image.width(), image.height());
        for (x, y) in (0..14).flat_map(|x| (0..10).map(move |y| (40 + 50 * number as u32 + x, 200 - y))) {
            image.put_pixel(x, y, image::Rgb([if (x * 7 + y * 5) % 3 == 0 { 250 } else { 5 }; 3]));
            mask.put_pixel(x, y, image::Luma([255]));
        }
        image.save(holes.join(format!("{number}.png"))).unwrap();
        mask.save(masks.join(format!("{number}_mask.png"))).unwrap();
    }
    // No word of tiles: 250 pixels are three of 112 a side, of 196 patches each.
    let probe = ["probe", "--config", "small.toml", "--json", "-q", "--set", "probe.method=patchcore"];
    let more = ["model.backbone=builtin:vit-flaw", "model.image_size=112", "run.name=tiles", "data.val=0.2"];
    let more: Vec<&str> = more.iter().flat_map(|set| ["--set", set]).collect();
    let result = json(&command(&workspace, &[&probe[..], &more].concat()));
    assert_eq!(result["patches"], result["sound_images"].as_u64().unwrap() * 9 * 196);
    assert_eq!(result["drawn"], result["patches"], "there is room for all");
    assert_eq!(result["cache"]["misses"], result["sound_images"], "each image is seen once");
    assert!(result["kinds"][1]["auroc"].as_f64().unwrap() > 0.9, "four flaws and four sound parts: {result}");
    let page = fs::read_to_string(workspace.path("runs/tiles/report.html")).unwrap();
    assert!(page.contains("These flaws were found"), "with their places");
    assert!(page.contains("is how far each patch is from") && !page.contains("adds to the score"), "of distances");

    let eval = json(&command(&workspace, &["eval", "--run", "runs/tiles", "--data", "data", "--json", "-q"]));
    assert_eq!(eval["kinds"], result["kinds"]);
    assert_eq!(eval["places"]["pointing_game"], 1.0, "{eval}");
    assert!(eval["places"]["pixel_auroc"].as_f64().unwrap() > 0.95, "{eval}");
    let predict = ["predict", "--run", "runs/tiles", "data/test", "--maps", "maps", "--json", "-q"];
    let rows = json(&command(&workspace, &predict));
    let rows = rows["predictions"].as_array().unwrap();
    let rejected = rows.iter().filter(|row| row["decision"] == "defect").count() as u64;
    let of_kinds = result["kinds"].as_array().unwrap().iter().map(|kind| kind["rejected"].as_u64().unwrap());
    assert_eq!(rejected, of_kinds.sum::<u64>(), "predict judges as the test did");
    for row in rows {
        assert_eq!(
            (&row["map_kind"], row["box"].is_null()),
            (&Value::from("distance"), row["decision"] != "defect"),
            "{row}"
        );
        assert_eq!(image::open(workspace.path(row["map"].as_str().unwrap())).unwrap().width(), 250);
    }
}

#[test]
fn what_patchcore_cannot_use_is_said() {
    let workspace = Workspace::new();
    for (sets, code, why) in [
        (&[][..], 3, "name the class of sound parts with inspection.good"),
        (&["inspection.good=sound"], 3, "no training image of \"sound\""),
        (&["inspection.good=[\"nominal\",\"local\"]"], 3, "one class of sound parts"),
        (&["inspection.good=nominal", "probe.patch_blocks=[2,7]"], 2, "the backbone has 6 blocks"),
        (&["inspection.good=nominal", "probe.neighborhood=2"], 2, "expected an odd number"),
        (&["inspection.good=nominal", "probe.method=knn", "probe.coreset=0.5"], 2, "belongs to probe.method"),
        (&["inspection.good=nominal", "preprocess.normalize=batch"], 2, "depend on its neighbours"),
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|&set| ["--set", set]).collect();
        let refused = command(&workspace, &[&PROBE[..], &sets].concat());
        assert!(
            refused.status.code() == Some(code) && stderr(&refused).contains(why),
            "{sets:?}: {}",
            stderr(&refused)
        );
    }
    fs::remove_dir_all(workspace.path("data/val")).unwrap();
    let refused =
        command(&workspace, &[&PROBE[..], &["--set", "inspection.good=nominal", "--set", "data.val=0"]].concat());
    assert!(refused.status.code() == Some(3) && stderr(&refused).contains("set data.val"), "{}", stderr(&refused));
    let result = json(&command(&workspace, &[&PROBE[..], &["--set", "inspection.good=nominal"]].concat()));
    let kinds: Vec<&str> =
        result["kinds"].as_array().unwrap().iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["global", "local", "nominal"], "training images of defects do no harm");
}
