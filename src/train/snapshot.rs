//! Snapshots of the trainable parameters, and other values in their place for a while.

use crate::backbone::Params;
use crate::error::Result;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The values of the trainable parameters as they are now, by name.
///
/// # Errors
/// When the device is out of memory.
pub fn snapshot(params: &Params) -> candle_core::Result<BTreeMap<String, Tensor>> {
    params.trained().map(|(name, var)| Ok((name.to_owned(), var.as_detached_tensor().copy()?))).collect()
}

/// Runs `work` while the trainable parameters have the values that `other` makes from their names and own values, then
/// puts their own values back, bit for bit, whether or not `work` succeeded.
///
/// # Errors
/// Those of `work`, and those of the device.
pub fn with_values<R>(
    params: &Params,
    other: impl Fn(&str, &Tensor) -> candle_core::Result<Tensor>,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let own = snapshot(params)?;
    let moved = params.assign(|name, value| other(name, value).map(Some));
    let result = moved.map_err(Into::into).and_then(|()| work());
    params.assign(|name, _| Ok(own.get(name).cloned()))?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use candle_core::Device;

    #[test]
    fn values_come_back_also_after_an_error() {
        let bias = Tensor::new(&[0.1f32, 0.2, 0.3], &Device::Cpu).unwrap();
        let params = Params::from_iter([("head.bias", bias)]).train_where(|_| true).unwrap();
        let values = || params.tensor("head.bias").unwrap().to_vec1::<f32>().unwrap();
        let doubled = |_: &str, value: &Tensor| value * 2.0;
        assert_eq!(with_values(&params, doubled, || Ok(values())).unwrap(), [0.2, 0.4, 0.6]);
        assert_eq!(values(), [0.1, 0.2, 0.3]);
        let failed: Result<()> = with_values(&params, doubled, || Err(Error::Numerics("on purpose".into())));
        assert!(failed.is_err());
        assert_eq!(values(), [0.1, 0.2, 0.3]);
    }
}
