//! Weights as trainers, papers and image processors leave them.

use super::weights::{EXTRACT, Weights, archive, folder};
use super::{Row, Table};
use crate::common::fixture;
use crate::common::workspace::{Workspace, copy};
use candle_core::{Device, safetensors};
use serde_json::{Value, json};
use std::fs;

const NESTED: [&str; 6] = ["state_dict_ema", "model_ema", "model", "state_dict", "module", "teacher"];

fn text(value: &str) -> Vec<u8> {
    [&b"X"[..], &(value.len() as u32).to_le_bytes(), value.as_bytes()].concat()
}

fn integer(value: usize) -> Vec<u8> {
    [&b"J"[..], &(value as u32).to_le_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn dict(items: &[Vec<u8>]) -> Vec<u8> {
    [b"}(", &items.concat()[..], b"u"].concat()
}

/// The tensors of a file as `torch.save` writes them, under each of these keys, with the values beside them.
fn saved(weights: &Weights, keys: &[&str]) -> Vec<u8> {
    let (mut storages, mut tensors) = (Vec::new(), Vec::new());
    for (name, entry) in weights.header.iter().filter(|(name, _)| *name != "__metadata__") {
        let numbers = |key: &str| -> Vec<usize> {
            entry[key].as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
        };
        let (shape, place) = (numbers("shape"), numbers("data_offsets"));
        let strides: Vec<usize> = (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect();
        let key = storages.len().to_string();
        let count = shape.iter().product();
        let storage =
            tuple(&[text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(&key), text("cpu"), integer(count)]);
        let sizes = |numbers: &[usize]| tuple(&numbers.iter().map(|&number| integer(number)).collect::<Vec<_>>());
        let parts = [storage, b"Q".to_vec(), integer(0), sizes(&shape), sizes(&strides), b"\x89}".to_vec()];
        tensors.extend([text(name), b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), tuple(&parts), b"R".to_vec()]);
        storages.push((format!("archive/data/{key}"), &weights.values[place[0]..place[1]]));
    }
    let inner = dict(&tensors);
    let nested: Vec<Vec<u8>> = keys.iter().flat_map(|key| [text(key), inner.clone()]).collect();
    let beside: Vec<(&str, &[u8])> = storages.iter().map(|(name, values)| (name.as_str(), *values)).collect();
    archive(&[b"\x80\x02", &dict(&nested)[..], b"."].concat(), &beside)
}

/// The folder `weights`, anew with the files of a fixture.
fn lay(row: &Row<'_>, case: &str) {
    fs::remove_dir_all(row.path("weights")).unwrap();
    copy(&fixture("backbones").join(case), &row.path("weights"));
}

/// Changes the JSON of a file.
fn edit(row: &Row<'_>, name: &str, change: impl FnOnce(&mut Value)) {
    let path = row.path("weights").join(name);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

pub(super) fn rows(table: &mut Table) {
    let workspace = folder();
    let what = "a state dict under each name that trainers give it, and beside its average";
    table.row(&workspace, what, "loaded, averages first, and said", |row| {
        let (weights, file) = (Weights::read(), row.path("weights/pytorch_model.bin"));
        let together = [["model", "model_ema"], ["state_dict", "state_dict_ema"]];
        let cases = NESTED.iter().map(std::slice::from_ref).chain(together.iter().map(|pair| &pair[..]));
        for keys in cases {
            fs::write(&file, saved(&weights, keys)).unwrap();
            row.case(&EXTRACT, 0, &[&format!("took the weights under \"{}\"", keys.last().unwrap())]);
        }
    });
    table.row(
        &workspace,
        "ViT-MAE with its decoder, MSN, I-JEPA, TimmWrapper, DINOv2's own names, `global_pool: \"\"`",
        "loaded",
        |row| {
            for case in ["hf_mae", "hf_msn", "hf_ijepa", "timm_wrapper"] {
                lay(row, case);
                row.case(&EXTRACT, 0, &[]);
            }
            lay(row, "timm_dinov2");
            let file = row.path("weights/model.safetensors");
            let mut tensors = safetensors::load(&file, &Device::Cpu).unwrap();
            tensors.insert("mask_token".into(), tensors["cls_token"].squeeze(0).unwrap());
            safetensors::save(&tensors, &file).unwrap();
            row.case(&EXTRACT, 0, &[]);
            lay(row, "timm_vit_cls");
            edit(row, "config.json", |config| {
                config["global_pool"] = json!("");
                config["model_args"]["global_pool"] = json!("");
            });
            row.case(&EXTRACT, 0, &[]);
        },
    );
    let what = "an image processor with a size of its own, with `rescale_factor`s, without a rescaling";
    table.row(&workspace, what, "followed; 4 where it is no number to divide by", |row| {
        lay(row, "hf_dinov2");
        let look = ["check", "--set", "data.root=data", "--set", "model.backbone=./weights"];
        let size = json!({"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}});
        for (key, value, code, said) in [
            ("do_center_crop", json!(true), 0, "a side under 16 pixels"),
            ("rescale_factor", json!(1.0 / 127.5), 0, "a side under 16 pixels"),
            ("do_rescale", json!(false), 0, "a side under 16 pixels"),
            ("rescale_factor", json!(0.0), 4, "rescale_factor = 0"),
        ] {
            fs::write(row.path("weights/preprocessor_config.json"), size.to_string()).unwrap();
            edit(row, "preprocessor_config.json", |processor| processor[key] = value);
            row.case(&look, code, &[said]);
        }
    });
    let workspace = Workspace::with_text_models();
    table.row(&workspace, "`zeroshot` of an image twice as wide as high", "a warning, with the way out", |row| {
        let oblong = row.path("data/test/global/oblong.png");
        image::RgbImage::from_fn(80, 40, |x, y| image::Rgb([x as u8, y as u8, 90])).save(oblong).unwrap();
        row.case(&["zeroshot", "--config", "clip.toml"], 0, &["not square", "preprocess.resize = \"crop\""]);
    });
}
