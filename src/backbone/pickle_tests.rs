//! Files that are not state dicts, state dicts inside others, and bombs.

use super::tensors::Tensors;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// An archive as `torch.save` writes it, with one f32 tensor of two values for every storage.
fn save(path: &Path, pickle: &[u8], beside: &[&str]) {
    let mut archive = zip::ZipWriter::new(File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("archive/data.pkl", options).unwrap();
    archive.write_all(pickle).unwrap();
    archive.start_file("archive/data/0", options).unwrap();
    archive.write_all(&[0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
    for name in beside {
        archive.start_file(*name, options).unwrap();
    }
    archive.finish().unwrap();
}

fn text(value: &str) -> Vec<u8> {
    [&b"X"[..], &(value.len() as u32).to_le_bytes(), value.as_bytes()].concat()
}

/// `{name: value, …}`
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat());
    [b"}(".to_vec(), entries.collect(), b"u".to_vec()].concat()
}

fn tensor() -> Vec<u8> {
    let storage = [
        b"(".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        b"K\x02tQ".to_vec(),
    ];
    let storage = storage.concat();
    [b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(), storage, b"K\x00K\x02\x85K\x01\x85\x89}tR".to_vec()].concat()
}

fn pickle(object: Vec<u8>) -> Vec<u8> {
    [b"\x80\x02".to_vec(), object, b".".to_vec()].concat()
}

fn read(pickle: &[u8], beside: &[&str]) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    save(&path, pickle, beside);
    let mut tensors = Tensors::default();
    tensors.add_pickle(&path)?;
    tensors.strip_prefixes();
    let names: Vec<String> = tensors.header().into_keys().collect();
    for name in &names {
        assert_eq!(tensors.read(name).unwrap().to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    }
    let notes = tensors.notes().iter().map(|note| format!("({note})"));
    Ok(names.iter().cloned().chain(notes).collect())
}

#[test]
fn nested_state_dicts_are_found_the_averaged_one_first() {
    let weights = |name: &str| dict(&[(name, tensor())]);
    assert_eq!(read(&pickle(weights("a")), &[]).unwrap(), ["a"]);
    let nested = [("model", weights("a")), ("epoch", b"K\x01".to_vec()), ("state_dict_ema", weights("b"))];
    let found = read(&pickle(dict(&nested)), &[]).unwrap();
    assert!(found[0] == "b" && found[1].contains("state_dict_ema"), "{found:?}");
    let found = read(&pickle(dict(&nested[..2])), &[]).unwrap();
    assert!(found[0] == "a" && found[1].contains("\"model\""), "{found:?}");
    let found = read(&pickle(dict(&[("teacher", weights("module.backbone.a"))])), &[]).unwrap();
    assert!(found[0] == "a" && found[2].contains("module.backbone."), "{found:?}");
}

#[test]
fn other_files_are_called_what_they_are() {
    let module = b"ctimm.models.vision_transformer\nVisionTransformer\n)\x81".to_vec();
    let error = read(&pickle(module), &[]).unwrap_err();
    assert!(error.contains("VisionTransformer") && error.contains("state_dict()"), "{error}");
    let error = read(&pickle(dict(&[])), &["archive/constants.pkl"]).unwrap_err();
    assert!(error.contains("TorchScript") && error.contains("state_dict()"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    for (bytes, said) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..], "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "before 1.6"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Tensors::default().add_pickle(&path).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    for (bytes, said) in
        [(&b"version https://git-lfs.github.com/spec/v1\n"[..], "git lfs pull"), (b"<html>", "web page")]
    {
        let error = Tensors::default().add_safetensors(bytes).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn bombs_are_refused_before_they_are_unpickled() {
    let nested = [vec![b'N'], vec![0x85; 200_000]].concat();
    assert!(read(&pickle(nested), &[]).unwrap_err().contains("nested deeper"));
    // Lists in lists, from the outside.
    let lists = [vec![b']'; 100_000], vec![b'a'; 99_999]].concat();
    assert!(read(&pickle(lists), &[]).unwrap_err().contains("nested deeper"));
    // Each tuple holds the one before twice: 2^40 objects.
    let doubled: Vec<u8> = (0..40u8).flat_map(|i| [b'q', i, b'h', i, 0x86]).collect();
    assert!(read(&pickle([vec![b'N'], doubled].concat()), &[]).unwrap_err().contains("objects"));
    for cut in [&b"\x80"[..], b"X\xff\xff\xff\xff", b"\x85", b"t", b"h\x07", b"ctorch\n"] {
        assert!(read(cut, &[]).is_err(), "{cut:?}");
    }
}

#[test]
fn a_safetensors_header_names_a_tensor_once() {
    let entry = r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let file = |header: String| {
        let header = format!("{header:<width$}", width = header.len().next_multiple_of(8));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
    };
    assert!(Tensors::default().add_safetensors(&file(format!("{{{entry}}}"))).is_ok());
    let twice = file(format!("{{{entry},{entry}}}"));
    let error = Tensors::default().add_safetensors(&twice).unwrap_err();
    assert!(error.contains("\"a\" twice"), "{error}");
}
