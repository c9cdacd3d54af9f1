//! What the integration tests share: fixtures and comparisons.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)] // each test file uses its own part

pub mod training;
pub mod workspace;

use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::PathBuf;

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
