//! Elementary functions that vectorise. Bounds are stated and tested against f64.

/// e^x for f32, relative error below 3e-7 in the range of normal results; 0 below -87.3, capped above 88.
///
/// Cody and Waite reduction, then the Taylor polynomial of degree 6 on |r| <= ln 2 / 2.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits: no conversion, which would have to
    // saturate.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.0);
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + coefficient;
    }
    let scale = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    // A comparison, not a branch, so that masked attention and far tails give exactly 0; NaN stays NaN.
    if x < -87.3 { 0.0 } else { p * scale }
}

/// The standard normal distribution function and e^(-x^2/2), absolute error below 3e-7.
///
/// Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
#[inline(always)]
pub fn normal_cdf(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut p = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        p = p * t + coefficient;
    }
    let gauss = exp(-z * z);
    let half_tail = 0.5 * p * t * gauss;
    (if x >= 0.0 { 1.0 - half_tail } else { half_tail }, gauss)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its Taylor series in f64, good for |x| < 4.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn exp_is_within_its_bound() {
        let worst = (-8700..8800)
            .map(|i| i as f32 / 100.0)
            .map(|x| (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 3e-7, "{worst}");
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn normal_cdf_is_within_its_bound() {
        let worst = (-400..400)
            .map(|i| i as f32 / 100.0)
            .map(|x| (f64::from(normal_cdf(x).0) - 0.5 * (1.0 + erf(f64::from(x) / 2f64.sqrt()))).abs())
            .fold(0.0, f64::max);
        assert!(worst < 3e-7, "{worst}");
    }
}
