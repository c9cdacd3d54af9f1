//! Vectors of unit length, as a cosine needs them.

use candle_core::{D, Result, Tensor};

/// Shorter vectors are divided by this, as in PyTorch's `normalize`.
pub const SHORTEST: f32 = 1e-12;

/// x (…, d) with each vector of the last dimension divided by its Euclidean length.
///
/// # Errors
/// When the device fails.
pub fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    let length = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    x.broadcast_div(&length.maximum(f64::from(SHORTEST))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn vectors_have_unit_length_and_zero_stays_zero() {
        let x = Tensor::new(&[[3f32, 4.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        assert_eq!(l2_normalize(&x).unwrap().to_vec2::<f32>().unwrap(), [[0.6, 0.8], [0.0, 0.0]]);
    }

    #[test]
    fn the_gradient_is_orthogonal_to_the_vector() {
        // d(y·g)/dx = (g − y (y·g)) / |x| with y = (0.6, 0.8), g = (1, 0).
        let x = Var::new(&[[3f32, 4.0]], &Device::Cpu).unwrap();
        let y = l2_normalize(&x).unwrap();
        let loss = y.narrow(1, 0, 1).unwrap().sum_all().unwrap();
        let gradient = loss.backward().unwrap().get(&x).unwrap().to_vec2::<f32>().unwrap();
        assert!((gradient[0][0] - 0.128).abs() < 1e-6 && (gradient[0][1] + 0.096).abs() < 1e-6, "{gradient:?}");
    }
}
