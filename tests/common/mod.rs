//! What the integration tests share: fixtures and comparisons.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)] // each test file uses its own part

pub mod training;
pub mod workspace;

use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// A path below `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The tensors of a safetensors fixture.
pub struct Expected(HashMap<String, Tensor>);

impl Expected {
    pub fn load(name: &str) -> Self {
        Self(candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap())
    }

    pub fn get(&self, name: &str) -> Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} in the fixture")).clone()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub fn scalar(&self, name: &str) -> f64 {
        self.get(name).to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    pub fn labels(&self, name: &str) -> Vec<usize> {
        self.get(name).to_vec1::<i64>().unwrap().into_iter().map(|label| label as usize).collect()
    }
}

/// Uniform in [-1, 1) by a hash of the numbers from `start` on, as `noise` in `make_text_fixtures.py`.
pub fn hashed_noise(start: usize, count: usize) -> impl Iterator<Item = f64> {
    (start..start + count).map(|number| {
        let mut hash = number as u32;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x7feb_352d);
        hash = (hash ^ (hash >> 15)).wrapping_mul(0x846c_a68b);
        f64::from(hash ^ (hash >> 16)) / 2f64.powi(31) - 1.0
    })
}

/// The folder of a model whose weights a fixture describes in `weights.json` instead of holding them: made in `target`.
pub fn made(fixture: &Path, weights: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(fixture.file_name().unwrap());
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir(fixture).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let recipe = fs::read(fixture.join("weights.json")).unwrap();
    let recipe: BTreeMap<String, (Vec<usize>, f64, f64)> = serde_json::from_slice(&recipe).unwrap();
    let mut tensors = HashMap::new();
    let mut start = 0;
    for (name, (shape, mean, spread)) in recipe {
        let count = shape.iter().product();
        let values = hashed_noise(start, count).map(|noise| (mean + spread * noise) as f32).collect();
        tensors.insert(name, Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap());
        start += count;
    }
    candle_core::safetensors::save(&tensors, folder.join(weights)).unwrap();
    folder
}

/// Largest absolute difference over the largest absolute value expected.
pub fn relative_error(actual: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(actual.dims(), expected.dims());
    let flat = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (actual, expected) = (flat(actual), flat(expected));
    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let worst = actual.iter().zip(&expected).fold(0.0f64, |worst, (a, e)| {
        assert!(a.is_finite());
        worst.max((a - e).abs())
    });
    if largest == 0.0 { worst } else { worst / largest }
}

/// Asserts that the relative error is within `bound`.
pub fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, bound: f64) {
    let error = relative_error(actual, expected);
    assert!(error <= bound, "{what}: relative error {error:.2e} above {bound:.0e}");
}
