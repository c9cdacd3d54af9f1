//! Numbers in their shortest decimal form.

/// The shortest decimal that reads as `value`: 0.485, where a plain conversion would give 0.48500001430511475.
pub(super) fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// The same for each channel.
pub(super) fn decimals(values: [f32; 3]) -> [f64; 3] {
    values.map(decimal)
}
