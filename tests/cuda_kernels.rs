//! The CUDA kernels without a GPU: each file is compiled by the host's C++ compiler against the simulator in `cuda_host`,
//! where a block's threads are fibers, and held against f64 at awkward sizes in f32, f16 and bf16.
//!
//! It needs a C++20 compiler with the address sanitizer: `CXX`, or g++.
//! `cargo test --test cuda_kernels -- --ignored`
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("core/src/kernels/cuda")
}

/// Compiles and runs the cases of a kernel file, which lies with its headers in `kernels`: what they say when they fail.
fn simulate(name: &str, kernels: &Path) -> Result<(), String> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda_host");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(name);
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".into());
    let compiled = Command::new(compiler)
        .args(["-std=c++20", "-O1", "-g1", "-x", "c++", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
        .arg("-I")
        .arg(kernels)
        .arg("-I")
        .arg(&cases)
        .arg(cases.join(format!("{name}.cpp")))
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    // Fibers switch stacks, which the leak checker and the fake stacks do not follow.
    let ran =
        Command::new(program).env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0").output().unwrap();
    if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).into_owned()) }
}

#[test]
#[ignore = "needs a C++20 compiler"]
fn every_kernel_is_its_definition() {
    let mut files: Vec<_> = fs::read_dir(kernels()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cu"));
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        simulate(name, &kernels()).unwrap_or_else(|said| panic!("{name}: {said}"));
    }
}

/// One fault of each sort: what must be found in a copy of the kernels where `from` reads `to`.
#[test]
#[ignore = "needs a C++20 compiler"]
fn planted_faults_are_found() {
    let faults = [
        ("layer_norm", "layer_norm.cu", "- n * gn_mean", "+ n * gn_mean", "layer_norm dx"),
        ("layer_norm", "layer_norm.cu", "values[k] += g[k]", "values[k] -= g[k]", "layer_norm dx onto"),
        ("adamw", "tensors.cuh", "<= blockIdx.x", "< blockIdx.x", "moments"),
        ("reduce", "tensors.cuh", "N * blockDim.x", "blockDim.x", "sum of squares"),
        ("columns", "columns.cuh", "__syncthreads();", "", "sum of rows"),
        ("columns", "columns.cuh", "if (column < width) {", "{", "heap-buffer-overflow"),
        ("attention", "attention.cu", "+ log2f(", "- log2f(", "attention dqkv"),
        ("attention", "tensor_cores.cuh", "wait_for_copies();", "", "attention, value"),
        ("layer_norm", "common.cuh", "offset > 0", "lane() < 31 && offset > 0", "threads wait"),
    ];
    for (name, file, from, to, expected) in faults {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(kernels()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        let source = fs::read_to_string(kernels().join(file)).unwrap();
        assert!(source.contains(from), "{file} has no {from:?} any more");
        fs::write(folder.path().join(file), source.replacen(from, to, 1)).unwrap();
        let said = simulate(name, folder.path()).expect_err(&format!("{to:?} for {from:?} in {file} went unnoticed"));
        assert!(said.contains(expected), "{to:?} for {from:?} in {file}: {said}");
    }
}
