//! The regulariser of a head that starts from texts: a penalty on how far its directions are from their start (CLAP,
//! Silva-Rodríguez et al. 2024), and a ceiling of its scale (Radford et al. 2021).

use crate::backbone::{Layer, ParamName, Params, Part};
use crate::optim::gradients::Gradients;
use candle_core::{Result, Tensor};

/// CLIP's largest scale of the cosines, 100, as a logarithm.
pub const CEILING: f32 = 4.605_170_2;

const DIRECTIONS: ParamName = Layer::Head.weight();
const LOGIT_SCALE: ParamName = Layer::Head.part(Part::LogitScale);

/// The start, and the weight of the penalty.
#[derive(Debug, Clone)]
pub struct Regulariser {
    directions: Tensor,
    /// λ (C, 1); none = no penalty.
    multipliers: Option<Tensor>,
    ceiling: f32,
}

impl Regulariser {
    /// A head that starts from `directions` (C, E). Its scale may grow to 100, or stay where it starts if that is higher
    /// already (`SigLIP`). Each class has its multiplier of the penalty; without multipliers there is none.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(directions: Tensor, logit_scale: f32, multipliers: &[f32]) -> Result<Self> {
        let shape = (multipliers.len(), 1);
        let penalised = !multipliers.is_empty();
        let multipliers = penalised.then(|| Tensor::from_slice(multipliers, shape, directions.device())).transpose()?;
        Ok(Self { directions, multipliers, ceiling: logit_scale.max(CEILING) })
    }

    /// Adds the penalty's gradient to those of a step and gives its part of the loss, a scalar: the mean over the classes of
    /// λ |w - t|², where w is the direction of a class and t the one it started from. None without a penalty.
    ///
    /// # Errors
    /// When the head has other directions.
    pub fn add_penalty(&self, params: &Params, gradients: &mut Gradients) -> Result<Option<Tensor>> {
        let Some(multipliers) = &self.multipliers else { return Ok(None) };
        let away = (params.tensor(DIRECTIONS)?.detach() - &self.directions)?;
        let weighted = (away.broadcast_mul(multipliers)? * (1.0 / away.dim(0)? as f64))?;
        let loss = (&weighted * &away)?.sum_all()?;
        gradients.add_to(DIRECTIONS, &(weighted * 2.0)?)?;
        Ok(Some(loss))
    }

    /// Puts the scale back to its ceiling when a step went beyond.
    ///
    /// # Errors
    /// When the head has no scale.
    pub fn constrain(&self, params: &Params) -> Result<()> {
        let Some((_, scale)) = params.trained().find(|(name, _)| name.parse() == Ok(LOGIT_SCALE)) else {
            return Ok(());
        };
        scale.set(&scale.as_detached_tensor().minimum(f64::from(self.ceiling))?)
    }
}

/// CLAP's multipliers: for each class the mean probability that a model gives it on its own images. `logits` are
/// row-major (n, C). A class without images counts as one that is always right.
///
/// Two things differ from the authors' program: there the multipliers are updated once an epoch, where they stay as they
/// are here; and there the directions keep the length that the text tower gives them, where it is 1 here, so that the
/// same multiplier weighs less.
pub fn multipliers(logits: &[f32], labels: &[usize], classes: usize) -> Vec<f32> {
    let mut sums = vec![(0.0f64, 0usize); classes];
    for (row, &label) in logits.chunks_exact(classes.max(1)).zip(labels) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = row.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
        sums[label].0 += f64::from(row[label] - largest).exp() / total;
        sums[label].1 += 1;
    }
    sums.into_iter().map(|(sum, count)| if count == 0 { 1.0 } else { (sum / count as f64) as f32 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CosineHead;
    use crate::train::accumulator::gradients_of;
    use candle_core::Device;

    fn params(directions: &[[f32; 2]; 2], logit_scale: f32) -> Params {
        let directions = Tensor::new(directions, &Device::Cpu).unwrap();
        CosineHead::params(&directions, logit_scale, 0.0).unwrap().train_where(|_| true).unwrap()
    }

    fn scale(params: &Params) -> f32 {
        params.tensor(LOGIT_SCALE).unwrap().to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn each_class_is_penalised_by_its_multiplier() {
        let start = Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let moved = params(&[[1.0, 0.5], [0.0, 2.0]], 0.0);
        let loss = moved.tensor(DIRECTIONS).unwrap().sum_all().unwrap();
        let others = (moved.tensor(LOGIT_SCALE).unwrap().sum_all().unwrap()
            + moved.tensor("head.bias").unwrap().sum_all().unwrap())
        .unwrap();
        let mut gradients = gradients_of(&(loss + others).unwrap(), &moved).unwrap();
        assert!(
            Regulariser::new(start.clone(), 0.0, &[]).unwrap().add_penalty(&moved, &mut gradients).unwrap().is_none()
        );
        let penalty = Regulariser::new(start, 0.0, &[4.0, 2.0]).unwrap().add_penalty(&moved, &mut gradients).unwrap();
        // (4 · 0.25 + 2 · 1) / 2
        assert!((penalty.unwrap().to_scalar::<f32>().unwrap() - 1.5).abs() < 1e-6);
        let gradient = gradients.get(DIRECTIONS).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(gradient, [[1.0, 3.0], [1.0, 3.0]]);
    }

    #[test]
    fn the_scale_stays_below_a_hundred_or_below_its_start() {
        let start = Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        for (begun, reached, expected) in [(4.0, 4.5, 4.5), (4.0, 5.0, CEILING), (4.8, 5.0, 4.8), (CEILING, 4.0, 4.0)] {
            let params = params(&[[1.0, 0.0], [0.0, 1.0]], reached);
            Regulariser::new(start.clone(), begun, &[]).unwrap().constrain(&params).unwrap();
            assert_eq!(scale(&params), expected);
        }
        assert!((f64::from(CEILING).exp() - 100.0).abs() < 1e-4);
    }

    #[test]
    fn multipliers_are_mean_probabilities_of_the_own_class() {
        let found = multipliers(&[0.0, 0.0, 0.0, 3f32.ln(), 100.0, -900.0], &[0, 0, 0], 2);
        assert!((found[0] - (0.5 + 0.25 + 1.0) / 3.0).abs() < 1e-6, "{found:?}");
        assert_eq!(found[1], 1.0);
    }
}
