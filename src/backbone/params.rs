//! Named parameters: a [`Var`] when it is trained, a plain tensor when it is frozen.

use super::name::{ParamName, Part};
use crate::nn::Linear;
use candle_core::{DType, Device, Result, Tensor, Var};
use std::collections::BTreeMap;

/// One parameter.
#[derive(Debug, Clone)]
pub enum Param {
    /// Costs no graph, no gradient and no optimiser state.
    Frozen(Tensor),
    /// Receives gradients.
    Trained(Var),
}

impl Param {
    /// The tensor as the forward pass of training sees it.
    pub fn tensor(&self) -> &Tensor {
        match self {
            Self::Frozen(tensor) => tensor,
            Self::Trained(var) => var.as_tensor(),
        }
    }
}

/// Parameters by canonical name, sorted, so that every walk over them has one order.
#[derive(Debug, Clone, Default)]
pub struct Params(BTreeMap<String, Param>);

/// Collects frozen parameters.
impl<N: Into<String>> FromIterator<(N, Tensor)> for Params {
    fn from_iter<I: IntoIterator<Item = (N, Tensor)>>(named: I) -> Self {
        Self(named.into_iter().map(|(name, tensor)| (name.into(), Param::Frozen(tensor))).collect())
    }
}

impl Params {
    /// Adds or replaces a frozen parameter.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), Param::Frozen(tensor));
    }

    /// Adds or replaces all of `others`.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Drops the parameters that `keep` refuses.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| keep(name));
    }

    /// The parameter of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn tensor(&self, name: impl Into<String>) -> Result<Tensor> {
        let name = name.into();
        let Some(param) = self.0.get(&name) else { candle_core::bail!("there is no parameter {name:?}") };
        Ok(param.tensor().clone())
    }

    /// The parameter of that name, if there is one.
    pub fn get(&self, name: impl Into<String>) -> Option<Tensor> {
        self.0.get(&name.into()).map(|param| param.tensor().clone())
    }

    /// The linear layer with that weight and, if there is one, the bias beside it.
    ///
    /// # Errors
    /// When there is no such weight.
    pub fn linear(&self, weight: ParamName) -> Result<Linear> {
        Ok(Linear::new(self.tensor(weight)?, self.get(weight.sibling(Part::Bias))))
    }

    /// All parameters by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.0.iter().map(|(name, param)| (name.as_str(), param))
    }

    /// The learning parameters by name.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.0.iter().filter_map(|(name, param)| match param {
            Param::Trained(var) => Some((name.as_str(), var)),
            Param::Frozen(_) => None,
        })
    }

    /// Gives the trainable parameters the values that `value` makes of their names and values; where it makes none, one
    /// stays as it is.
    ///
    /// # Errors
    /// Those of `value`; when a value has another shape.
    pub fn assign(&self, value: impl Fn(&str, &Tensor) -> Result<Option<Tensor>>) -> Result<()> {
        self.trained().try_for_each(|(name, var)| {
            let value = value(name, &var.as_detached_tensor())?;
            value.map_or(Ok(()), |value| var.set(&value.to_device(var.device())?))
        })
    }

    /// Makes the parameters that `trainable` selects trainable and freezes the others.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn train_where(self, trainable: impl Fn(&str) -> bool) -> Result<Self> {
        let convert = |(name, param): (String, Param)| {
            let param = match (param, trainable(&name)) {
                (Param::Frozen(tensor), true) => Param::Trained(Var::from_tensor(&tensor)?),
                (Param::Trained(var), false) => Param::Frozen(var.as_detached_tensor()),
                (param, _) => param,
            };
            Ok((name, param))
        };
        self.0.into_iter().map(convert).collect::<Result<_>>().map(Self)
    }

    /// The same storage without any gradient tracking: a model built on this evaluates without a graph, and sees what
    /// the optimiser writes.
    #[must_use]
    pub fn detached(&self) -> Self {
        self.restricted(|_| false)
    }

    /// The same storage, where of the learning parameters only those that `trainable` selects track gradients.
    #[must_use]
    pub fn restricted(&self, trainable: impl Fn(&str) -> bool) -> Self {
        let restrict = |(name, param): (&String, &Param)| {
            let param = match param {
                Param::Trained(var) if !trainable(name) => Param::Frozen(var.as_detached_tensor()),
                param => param.clone(),
            };
            (name.clone(), param)
        };
        Self(self.0.iter().map(restrict).collect())
    }

    /// The same parameters with the weights and biases of linear layers in `dtype`, so that products run in it; all else
    /// stays as it is (the rule of PyTorch's autocast). What learns is a variable of its own in that type, and so is its
    /// gradient.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn with_products_in(&self, dtype: DType) -> Result<Self> {
        let cast = |(name, param): (&String, &Param)| {
            let rounded = match param {
                param if !self.multiplies(name) => param.clone(),
                Param::Frozen(tensor) => Param::Frozen(tensor.to_dtype(dtype)?),
                Param::Trained(var) => Param::Trained(Var::from_tensor(&var.as_detached_tensor().to_dtype(dtype)?)?),
            };
            Ok((name.clone(), rounded))
        };
        self.0.iter().map(cast).collect::<Result<_>>().map(Self)
    }

    /// Whether a parameter belongs to a linear layer: its matrix, or the bias beside one.
    fn multiplies(&self, name: &str) -> bool {
        let Ok(name) = name.parse::<ParamName>() else { return false };
        let matrix = |name: ParamName| self.get(name).is_some_and(|tensor| tensor.rank() > 1);
        match name.part {
            Part::Bias => matrix(name.sibling(Part::Weight)),
            Part::Weight | Part::LoraA | Part::LoraB => matrix(name),
            Part::Whole | Part::Gamma | Part::LogitScale => false,
        }
    }

    /// Moves every parameter to a device, frozen. What is there already is not copied.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        let moved = |(name, param): (String, Param)| Ok((name, param.tensor().detach().to_device(device)?));
        self.0.into_iter().map(moved).collect()
    }

    /// Number of learning values and of all values.
    pub fn counts(&self) -> (usize, usize) {
        let trained = self.trained().map(|(_, var)| var.elem_count()).sum();
        (trained, self.0.values().map(|param| param.tensor().elem_count()).sum())
    }
}
