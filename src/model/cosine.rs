//! The head of models that compare images with texts: the cosine of an image's embedding with one direction a class.
//!
//! Zero-shot sets the directions to the embeddings of texts (Radford et al. 2021); a head that starts from them may be
//! trained on. Beside the texts, images may vote whose embeddings it remembers (Tip-Adapter, Zhang et al. 2022).

use crate::backbone::{Layer, Params, Part};
use crate::kernels::widened;
use crate::nn::{Linear, l2_normalize};
use candle_core::{Result, Tensor};

/// The embeddings (n, E) of the images that vote.
const KEYS: &str = "cache.keys";
/// Their classes (C, n).
const VOTES: &str = "cache.votes";
/// The weight of all votes together (1).
const ALPHA: &str = "cache.alpha";
/// How fast a vote falls with the distance (1).
const BETA: &str = "cache.beta";

/// Features to logits: project, normalise, product with the directions, scale, bias.
///
/// Its parameters are `projection.weight` (E, d), absent where features are embeddings already (`SigLIP`); `head.weight`
/// (C, E), the directions; `head.logit_scale` (1), the logarithm of the scale; `head.bias` (C); and those of
/// [`CosineHead::cache`].
#[derive(Debug, Clone)]
pub struct CosineHead {
    projection: Option<Linear>,
    directions: Linear,
    logit_scale: Tensor,
    bias: Tensor,
    cache: Option<TipCache>,
}

/// Images that vote: each for its class, with the weight α exp(-β (1 - cosine)).
#[derive(Debug, Clone)]
struct TipCache {
    keys: Linear,
    votes: Linear,
    alpha: Tensor,
    beta: Tensor,
}

impl TipCache {
    fn new(params: &Params) -> Result<Option<Self>> {
        let Some(keys) = params.get(KEYS) else { return Ok(None) };
        Ok(Some(Self {
            keys: Linear::new(keys, None),
            votes: Linear::new(params.tensor(VOTES)?, None),
            alpha: params.tensor(ALPHA)?,
            beta: params.tensor(BETA)?,
        }))
    }

    /// embeddings (B, E) of unit length to what the images add to the logits (B, C).
    fn forward(&self, embeddings: &Tensor) -> Result<Tensor> {
        let farness = (self.keys.forward(embeddings)? - 1.0)?;
        self.votes.forward(&farness.broadcast_mul(&self.beta)?.exp()?)?.broadcast_mul(&self.alpha)
    }
}

impl CosineHead {
    /// The head over `params`.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn new(params: &Params) -> Result<Self> {
        Ok(Self {
            projection: params
                .get(Layer::Projection.weight())
                .map(|weight| Linear::new(weight, params.get(Layer::Projection.bias()))),
            directions: Linear::new(params.tensor(Layer::Head.weight())?, None),
            logit_scale: params.tensor(Layer::Head.part(Part::LogitScale))?,
            bias: params.tensor(Layer::Head.bias())?,
            cache: TipCache::new(params)?,
        })
    }

    /// The embeddings (B, E) of features (B, d), of unit length, never in half precision.
    ///
    /// # Errors
    /// When the features have another width.
    pub fn embed(&self, features: &Tensor) -> Result<Tensor> {
        match &self.projection {
            Some(projection) => l2_normalize(&widened(&projection.forward(features)?)?),
            None => l2_normalize(&widened(features)?),
        }
    }

    /// features (B, d) to logits (B, C).
    ///
    /// # Errors
    /// When the features have another width.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let embeddings = self.embed(features)?;
        let cosines = widened(&self.directions.forward(&embeddings)?)?;
        let logits = cosines.broadcast_mul(&self.logit_scale.exp()?)?.broadcast_add(&widened(&self.bias)?)?;
        match &self.cache {
            Some(cache) => logits + cache.forward(&widened(&embeddings)?)?,
            None => Ok(logits),
        }
    }

    /// The parameters that make `images` vote beside the directions: `cache.keys` (n, E), their embeddings of unit
    /// length; `cache.votes` (C, n), 1 where an image is of a class; `cache.alpha` (1) and `cache.beta` (1). None of
    /// them is trainable.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn cache(keys: Tensor, labels: &[usize], classes: usize, [alpha, beta]: [f64; 2]) -> Result<Params> {
        let device = keys.device();
        let votes = (0..classes).flat_map(|class| labels.iter().map(move |&label| f32::from(u8::from(label == class))));
        let votes = Tensor::from_iter(votes, device)?.reshape((classes, labels.len()))?;
        let scalar = |value: f64| Tensor::new(&[value as f32], device);
        Ok(Params::from_iter([(VOTES, votes), (ALPHA, scalar(alpha)?), (BETA, scalar(beta)?), (KEYS, keys)]))
    }

    /// Whether a parameter is one of [`CosineHead::cache`].
    pub fn is_cached(name: &str) -> bool {
        [KEYS, VOTES, ALPHA, BETA].contains(&name)
    }

    /// The parameters of a head with directions (C, E) of unit length, the logarithm of the scale and one bias for all.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn params(directions: &Tensor, logit_scale: f32, bias: f32) -> Result<Params> {
        let device = directions.device();
        Ok(Params::from_iter([
            (Layer::Head.weight(), directions.clone()),
            (Layer::Head.part(Part::LogitScale), Tensor::new(&[logit_scale], device)?),
            (Layer::Head.bias(), Tensor::full(bias, directions.dim(0)?, device)?),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HeadKind;
    use candle_core::Device;

    fn head(projection: Option<&[[f32; 2]; 2]>) -> CosineHead {
        let directions = Tensor::new(&[[1f32, 0.0], [0.0, 1.0], [0.6, 0.8]], &Device::Cpu).unwrap();
        let mut params = CosineHead::params(&directions, 10f32.ln(), -1.0).unwrap();
        if let Some(projection) = projection {
            params.insert("projection.weight", Tensor::new(projection, &Device::Cpu).unwrap());
        }
        CosineHead::new(&params.train_where(|name| name != "projection.weight").unwrap()).unwrap()
    }

    #[test]
    fn logits_are_scaled_cosines_whatever_the_length() {
        let features = Tensor::new(&[[3f32, 4.0], [0.03, 0.04]], &Device::Cpu).unwrap();
        for logits in head(None).forward(&features).unwrap().to_vec2::<f32>().unwrap() {
            for (logit, expected) in logits.iter().zip([5.0, 7.0, 9.0]) {
                assert!((logit - expected).abs() < 1e-5, "{logits:?}");
            }
        }
    }

    #[test]
    fn features_are_projected_first() {
        let features = Tensor::new(&[[0f32, 2.0]], &Device::Cpu).unwrap();
        let swapped = head(Some(&[[0.0, 1.0], [1.0, 0.0]])).forward(&features).unwrap();
        assert!((swapped.to_vec2::<f32>().unwrap()[0][0] - 9.0).abs() < 1e-5);
    }

    #[test]
    fn directions_scale_and_bias_learn() {
        let directions = Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let params = CosineHead::params(&directions, 0.5, 0.0).unwrap().train_where(|_| true).unwrap();
        let features = Tensor::new(&[[1f32, 3.0]], &Device::Cpu).unwrap();
        let logits = CosineHead::new(&params).unwrap().forward(&features).unwrap();
        let gradients = logits.narrow(1, 1, 1).unwrap().sum_all().unwrap().backward().unwrap();
        let shapes = HeadKind::Cosine.shapes(2, 2);
        for (name, var) in params.trained() {
            assert_eq!(gradients.get(var).unwrap().dims(), shapes[&name.parse().unwrap()], "{name}");
        }
        assert_eq!(params.trained().count(), shapes.len());
    }

    #[test]
    fn images_vote_the_stronger_the_nearer() {
        let directions = Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let mut params = CosineHead::params(&directions, 0.0, 0.0).unwrap();
        let keys = Tensor::new(&[[1f32, 0.0], [0.6, 0.8], [0.0, 1.0]], &Device::Cpu).unwrap();
        params.extend(CosineHead::cache(keys, &[1, 0, 1], 2, [2.0, 3.0]).unwrap());
        let features = Tensor::new(&[[5f32, 0.0]], &Device::Cpu).unwrap();
        let logits = CosineHead::new(&params).unwrap().forward(&features).unwrap().to_vec2::<f32>().unwrap();
        let expected = [2.0 * (-1.2f32).exp(), 2.0 * (1.0 + (-3f32).exp())];
        assert!(logits[0].iter().zip(expected).all(|(logit, expected)| (logit - expected).abs() < 1e-5), "{logits:?}");
    }
}
