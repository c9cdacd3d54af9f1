//! Images cut into tiles, as a user meets them.

use crate::common::workspace::{CLASSES, Workspace, json};
use crate::features::{misses, output, run, stderr};
use safetensors::SafeTensors;
use serde_json::Value;

/// Tiles of 64 pixels, so that an image of 250 x 250 has 25.
const TILES: [&str; 4] = ["--set", "preprocess.tiles.side=64", "--set", "preprocess.tiles.overlap=16"];

fn with<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&TILES[..], extra].concat()
}

/// Makes the training images of all splits oblong, 250 x 150.
fn make_oblong(workspace: &Workspace) {
    for split in ["train", "val", "test"] {
        for class in CLASSES {
            for file in std::fs::read_dir(workspace.path(&format!("data/{split}/{class}"))).unwrap() {
                let path = file.unwrap().path();
                let image = image::open(&path).unwrap().into_rgb8();
                image::imageops::crop_imm(&image, 0, 40, 250, 150).to_image().save(&path).unwrap();
            }
        }
    }
}

#[test]
fn a_probe_on_tiles_is_a_run_that_every_command_takes() {
    let workspace = Workspace::new();
    make_oblong(&workspace);
    let good = "inspection.good=nominal";
    let result =
        run(&workspace, "probe", &with(&["--set", "run.name=tiles", "--set", "model.pool=max", "--set", good]));
    assert_eq!(misses(&result), 36);
    let record: Value = serde_json::from_slice(&std::fs::read(workspace.path("runs/tiles/run.json")).unwrap()).unwrap();
    let tiles = &record["preprocess"]["tiles"];
    assert_eq!((&tiles["side"], &tiles["overlap"]), (&64.into(), &16.into()));
    workspace.assert_scores_repeat("tiles", &result);
    // The same rows again from the cache; other tiles and other poolings are other rows.
    let again = run(&workspace, "probe", &with(&["--set", "run.name=again", "--set", "model.pool=max"]));
    assert_eq!((misses(&again), workspace.tensors("tiles", "best")), (0, workspace.tensors("again", "best")));
    for other in [
        "model.tile_pool=avg", "preprocess.tiles.overlap=20", "preprocess.tiles.staggered=true",
        "preprocess.tiles=false",
    ] {
        let other =
            run(&workspace, "probe", &with(&["--set", "run.name=other", "--set", "model.pool=max", "--set", other]));
        assert_eq!(misses(&other), 36);
    }

    let predict = ["predict", "--run", "runs/tiles", "data/test", "--maps", "maps", "--json", "-q"];
    let rows = json(&workspace.command(&predict).output().unwrap());
    let rows = rows["predictions"].as_array().unwrap();
    assert_eq!(rows.len(), 9);
    for row in rows {
        assert_eq!(row["map_kind"], "evidence");
        assert_eq!(image::image_dimensions(workspace.path(row["map"].as_str().unwrap())).unwrap(), (250, 150));
        if let Some(edges) = row["box"].as_array() {
            let [left, upper, right, lower] = [0, 1, 2, 3].map(|edge| edges[edge].as_u64().unwrap());
            assert!(left < right && right <= 250 && upper < lower && lower <= 150, "{row}");
        }
    }
    assert!(rows.iter().any(|row| row["box"].is_array()));
    let page = std::fs::read_to_string(workspace.path("runs/tiles/report.html")).unwrap();
    assert!(page.contains("is what each place adds to the score") || page.contains("These flaws were found"));

    let extract = ["extract", "--run", "runs/tiles", "--out", "rows.npy", "--json", "-q"];
    let extracted = json(&workspace.command(&extract).output().unwrap());
    assert_eq!((extracted["n"].as_u64(), misses(&extracted)), (Some(36), 0), "the rows of the probe");
    assert!(workspace.command(&["tsne", "--run", "runs/tiles", "-q"]).output().unwrap().status.success());
    assert!(workspace.command(&["check", "--run", "runs/tiles", "-q"]).output().unwrap().status.success());
    let refused = |args: &[&str], why: &str| {
        let output = workspace.command(args).output().unwrap();
        assert!(output.status.code() == Some(2) && stderr(&output).contains(why), "{}", stderr(&output));
    };
    refused(
        &["export", "--run", "runs/tiles", "--format", "timm", "--out", "out"],
        "cannot express images that are cut into tiles",
    );
    let exported = ["export", "--run", "runs/tiles", "--format", "onnx", "--out", "out.onnx", "--json", "-q"];
    let exported = json(&workspace.command(&exported).output().unwrap());
    assert!(exported["max_probability_diff"].as_f64().unwrap() < 1e-5, "{exported}");
    let facts: Value = serde_json::from_slice(&std::fs::read(workspace.path("out.json")).unwrap()).unwrap();
    assert_eq!(facts["input"]["tiles"], serde_json::json!({ "side": 64, "overlap": 16, "staggered": false }));
    refused(&["eval", "--run", "runs/tiles", "--corrupt", "all"], "draws its flaws on whole images");
}

#[test]
fn a_frozen_backbone_trains_on_tiles_and_what_needs_whole_images_says_so_first() {
    let workspace = Workspace::new();
    let frozen =
        with(&["--set", "strategy.kind=frozen", "--set", "augment.preset=none", "--set", "model.tile_pool=lse"]);
    let result = workspace.finetune("frozen", &frozen);
    workspace.assert_scores_repeat("frozen", &result);
    // One image a batch or four: the rows are the same.
    let fewer = ["--set", "run.decode_threads=1", "--set", "cache.max_bytes=0"];
    workspace.finetune("fewer", &[&frozen[..], &fewer].concat());
    assert_eq!(workspace.tensors("frozen", "best"), workspace.tensors("fewer", "best"));

    for (settings, why) in [
        (&["strategy.kind=lora", "augment.hflip=true"][..], "[augment] changes whole images"),
        (&["strategy.kind=frozen", "augment.hflip=true"], "[augment] changes whole images"),
        (&["strategy.kind=frozen", "train.mixup=0.2"], "mix whole images"),
        (&["strategy.kind=frozen", "preprocess.tiles.overlap=49"], "more than three quarters of a tile of 64 pixels"),
        (&["preprocess.resize=letterbox"], "cuts images instead of resizing them"),
        (&["preprocess.normalize=batch"], "leaves no batches of whole images"),
        (&["preprocess.tiles.scale=2"], "preprocess.tiles.side"),
        (&["strategy.kind=frozen", "model.pool=mahalanobis", "augment.preset=none"], "measured on training images"),
    ] {
        // Nothing is read before: the images are gone.
        std::fs::rename(workspace.path("data/train/local"), workspace.path("aside")).unwrap();
        std::fs::create_dir(workspace.path("data/train/local")).unwrap();
        std::fs::write(workspace.path("data/train/local/broken.png"), "broken").unwrap();
        let sets: Vec<&str> = settings.iter().flat_map(|&set| ["--set", set]).collect();
        let refused = output(&workspace, "finetune", &with(&sets));
        std::fs::remove_dir_all(workspace.path("data/train/local")).unwrap();
        std::fs::rename(workspace.path("aside"), workspace.path("data/train/local")).unwrap();
        assert!(
            refused.status.code() == Some(2) && stderr(&refused).contains(why),
            "{settings:?}: {}",
            stderr(&refused)
        );
    }
}

#[test]
fn layers_train_on_tiles_and_go_on_where_they_stopped() {
    let workspace = Workspace::new();
    let plain = [
        ["--set", "augment.preset=none"],
        ["--set", "model.pool=max"],
        ["--set", "train.schedule=constant"],
        ["--set", "train.warmup=0"],
    ]
    .concat();
    for strategy in ["strategy.kind=lora", "strategy.kind=partial"] {
        let args = with(&[&plain[..], &["--set", strategy]].concat());
        let whole = workspace.finetune("whole", &args);
        assert!(whole["cache"].is_null(), "tiles run in every epoch");
        workspace.assert_scores_repeat("whole", &whole);
        // An epoch, and then the others: the same bits.
        workspace.finetune("parts", &[&args[..], &["--set", "train.epochs=1"]].concat());
        workspace.finetune("parts", &[&args[..], &["--resume"]].concat());
        assert!(workspace.tensors("whole", "best") == workspace.tensors("parts", "best"), "{strategy}");
        std::fs::remove_dir_all(workspace.path("runs")).unwrap();
    }
}

#[test]
fn a_probe_of_the_most_unusual_patch_is_a_run_like_others() {
    let workspace = Workspace::new();
    let staggered = with(&["--set", "preprocess.tiles.staggered=true", "--set", "model.pool_block=1"]);
    let twice = with(&["--set", "preprocess.tiles.second_look=2"]);
    for (name, tiles) in [("tiles", &TILES[..]), ("staggered", &staggered), ("twice", &twice), ("squares", &[][..])] {
        let named = format!("run.name={name}");
        let sets = [tiles, &["--set", "model.pool=mahalanobis", "--set", &named]].concat();
        let result = run(&workspace, "probe", &sets);
        workspace.assert_scores_repeat(name, &result);
        let folder = format!("runs/{name}");
        let predict = ["predict", "--run", &folder, "data/test", "--maps", name, "--json", "-q"];
        let rows = json(&workspace.command(&predict).output().unwrap());
        for row in rows["predictions"].as_array().unwrap() {
            assert_eq!(row["map_kind"], "evidence");
        }
        // Another measure has other rows, though all else is the same.
        let fewer = [&sets[..], &["--set", "run.name=other", "--set", "data.ignore=['global']"]].concat();
        assert!(misses(&run(&workspace, "probe", &fewer)) > 0);
    }
    let refused = output(&workspace, "tsne", &["--set", "model.pool=mahalanobis"]);
    assert!(stderr(&refused).contains("measured on training images"), "{}", stderr(&refused));
    let mut export = workspace.command(&["export", "--run", "runs/twice", "--format", "onnx", "--out", "x.onnx"]);
    let refused = stderr(&export.output().unwrap());
    assert!(
        refused.contains("preprocess.tiles.second_look, which picks") && refused.contains("no format can"),
        "{refused}"
    );
    let refused = output(&workspace, "probe", &with(&["--set", "preprocess.tiles.second_look=2"]));
    assert!(stderr(&refused).contains("belongs to model.pool = \"mahalanobis\" only"), "{}", stderr(&refused));
    let patches = with(&[
        "--set", "preprocess.tiles.second_look=2", "--set", "model.pool=mahalanobis", "--set", "probe.method=patchcore",
    ]);
    let refused = stderr(&output(&workspace, "probe", &patches));
    assert!(refused.contains("belongs to probe.method = \"logistic\" or"), "{refused}");
}

#[test]
fn texts_are_compared_with_the_mean_of_tiles() {
    let workspace = Workspace::with_text_models();
    let args = ["zeroshot", "--config", "clip.toml", "--json", "-q", "--set", "run.name=tiles"];
    let sets = ["--set", "preprocess.tiles.side=100", "--set", "model.tile_pool=avg"];
    let result = json(&workspace.command(&[&args[..], &sets].concat()).output().unwrap());
    workspace.assert_scores_repeat("tiles", &result);
    let maps = workspace.command(&["predict", "--run", "runs/tiles", "data/test", "--maps", "maps"]).output().unwrap();
    assert!(maps.status.code() == Some(2) && stderr(&maps).contains("nothing is added"), "{}", stderr(&maps));
}

#[test]
fn places_are_held_against_masks_where_there_are_any() {
    let workspace = Workspace::new();
    // A bright square in each image of a class, at its upper left or further down, and its mask.
    let masks = workspace.path("data/ground_truth/local");
    std::fs::create_dir_all(&masks).unwrap();
    for split in ["train", "val", "test"] {
        for (number, file) in std::fs::read_dir(workspace.path(&format!("data/{split}/local"))).unwrap().enumerate() {
            let path = file.unwrap().path();
            let mut image = image::open(&path).unwrap().into_rgb8();
            let mut mask = image::RgbImage::new(image.width(), image.height());
            let corner = 20 + 30 * number as u32;
            for (x, y) in (corner..corner + 24).flat_map(|x| (corner..corner + 24).map(move |y| (x, y))) {
                let stripe = if (x / 3) % 2 == 0 { 255 } else { 0 };
                image.put_pixel(x, y, image::Rgb([stripe, 0, 255 - stripe]));
                mask.put_pixel(x, y, image::Rgb([255; 3]));
            }
            image.save(&path).unwrap();
            mask.save(masks.join(format!("{}_mask.png", path.file_stem().unwrap().to_str().unwrap()))).unwrap();
        }
    }
    for (name, sets) in [("tiles", &TILES[..]), ("squash", &["--set", "model.image_size=128"])] {
        let named = format!("run.name={name}");
        let probe = [sets, &["--set", "model.pool=max", "--set", &named]].concat();
        run(&workspace, "probe", &probe);
        let folder = format!("runs/{name}");
        let eval = json(&workspace.command(&["eval", "--run", &folder, "--json", "-q"]).output().unwrap());
        let places = &eval["places"];
        assert_eq!((&places["images"], &places["masked"], &places["regions"]), (&9.into(), &3.into(), &3.into()));
        for number in ["pointing_game", "box_holds", "pixel_auroc", "pro"] {
            let value = places[number].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&value), "{name} {number} {value}");
        }
        // The same masks as a manifest names them.
        let mut list = "path,label,mask\n".to_owned();
        for class in CLASSES {
            for file in std::fs::read_dir(workspace.path(&format!("data/test/{class}"))).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                let stem = name.rsplit_once('.').unwrap().0;
                let mask =
                    if class == "local" { format!("data/ground_truth/local/{stem}_mask.png") } else { String::new() };
                list.push_str(&format!("data/test/{class}/{name},{class},{mask}\n"));
            }
        }
        workspace.write("list.csv", &list);
        let named = ["eval", "--run", &folder, "--data", "list.csv", "--json", "-q"];
        let named = &json(&workspace.command(&named).output().unwrap())["places"];
        assert_eq!((&named["pro"], &named["pointing_game"]), (&places["pro"], &places["pointing_game"]));
        // A name that is left out is not passed over in silence.
        let (missing, _) = list.rsplit_once(",local,data").unwrap();
        let rest = list[missing.len()..].split_once('\n').unwrap().1;
        workspace.write("missing.csv", &format!("{missing},local,\n{rest}"));
        let missing = ["eval", "--run", &folder, "--data", "missing.csv", "--json"];
        let missing = workspace.command(&missing).output().unwrap();
        assert!(json(&missing)["places"].is_null());
        assert!(
            stderr(&missing).contains("maps are not held against masks") && stderr(&missing).contains("has no mask"),
            "{}",
            stderr(&missing)
        );
        let written = std::fs::read(workspace.path(&folder).join("places-test.json")).unwrap();
        assert_eq!(&serde_json::from_slice::<Value>(&written).unwrap(), places);
        let text = workspace.command(&["eval", "--run", &folder, "-q"]).output().unwrap();
        assert!(String::from_utf8_lossy(&text.stdout).contains("most evidence lies in the flaw"));
    }
    // What is given must be of use; what lies there may be.
    run(&workspace, "probe", &["--set", "run.name=cls", "--set", "model.pool=cls"]);
    let eval =
        |extra: &[&str]| workspace.command(&[&["eval", "--run", "runs/cls", "--json", "-q"], extra].concat()).output();
    assert!(json(&eval(&[]).unwrap())["places"].is_null());
    let refused = eval(&["--masks", "data/ground_truth"]).unwrap();
    assert!(
        refused.status.code() == Some(2) && stderr(&refused).contains("not a sum over patches"),
        "{}",
        stderr(&refused)
    );
}

/// Few tiles of each image.
fn large<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&["--set", "preprocess.tiles.side=125"], extra].concat()
}

#[test]
fn tiles_are_pooled_by_what_does_best_and_by_attention_that_is_learnt() {
    let workspace = Workspace::new();
    make_oblong(&workspace);
    let auto = run(&workspace, "probe", &large(&["--set", "run.name=auto", "--set", "model.tile_pool=auto"]));
    let pools = auto["pools"].as_array().unwrap();
    let score = |pool: &Value| pool["val_score"].as_f64().unwrap();
    assert_eq!(pools.len(), 6, "{pools:?}");
    let chosen = pools.iter().find(|pool| pool["tile_pool"] == auto["tile_pool"]).unwrap();
    assert!(pools.iter().all(|pool| score(pool) <= score(chosen)), "{pools:?} but {}", auto["tile_pool"]);
    workspace.assert_scores_repeat("auto", &auto);
    // What was chosen, given by name, is the same probe.
    let pool = format!("model.tile_pool={}", auto["tile_pool"].as_str().unwrap());
    let given = run(&workspace, "probe", &large(&["--set", "run.name=given", "--set", &pool]));
    assert_eq!(given["test_accuracy"], auto["test_accuracy"]);
    let both = large(&["--set", "run.name=both", "--set", "model.tile_pool=auto", "--set", "model.pool=auto"]);
    let both = run(&workspace, "probe", &both);
    assert!(both["pools"].as_array().unwrap().len() > 36, "{}", both["pools"]);
    workspace.assert_scores_repeat("both", &both);

    for pool in ["stats", "attention"] {
        let pooled = format!("model.tile_pool={pool}");
        let sets = ["--set", "strategy.kind=frozen", "--set", "augment.preset=none", "--set", &pooled];
        let result = workspace.finetune(pool, &large(&sets));
        workspace.assert_scores_repeat(pool, &result);
        let predict = format!("predict --run runs/{pool} data/test --maps maps-{pool} --json -q");
        let rows = json(&workspace.command(&predict.split(' ').collect::<Vec<_>>()).output().unwrap());
        assert!(rows["predictions"].as_array().unwrap().iter().all(|row| row["map_kind"] == "evidence"), "{rows}");
    }
    let saved = workspace.tensors("attention", "best");
    assert!(SafeTensors::deserialize(&saved).unwrap().names().contains(&"tile_pool.w.weight"));
    for command in ["finetune", "extract", "tsne"] {
        let mut auto = large(&["--set", "model.tile_pool=auto", "--set", "strategy.kind=frozen"]);
        auto.extend((command == "extract").then_some(["--out", "auto.npy"]).into_iter().flatten());
        let refused = output(&workspace, command, &auto);
        assert!(stderr(&refused).contains("model.tile_pool = \"auto\" is chosen on validation images"), "{refused:?}");
    }
    let refused = output(&workspace, "probe", &large(&["--set", "model.tile_pool=attention"]));
    assert!(stderr(&refused).contains("model.tile_pool = \"attention\" is learnt in training"), "{}", stderr(&refused));
}
