//! Classification losses: cross-entropy with label smoothing (Szegedy et al. 2015), class weights and soft targets, as in
//! PyTorch; focal loss (Lin et al. 2017); logit adjustment (Menon et al. 2021).
//!
//! All are one formula: Σ c φ(log p), where c are the smoothed and weighted targets, p is the softmax of the logits plus
//! a constant for each class, and φ(log p) = -(1 - p)^γ log p. Cross-entropy has γ = 0 and no constants.

use crate::kernels::{Operation, run};
use candle_core::{D, Result, Shape, Tensor};

/// What a batch should be classified as.
#[derive(Debug, Clone)]
pub enum Targets<'a> {
    /// One class a sample.
    Hard(&'a [usize]),
    /// A distribution over the classes a sample, row-major (B, K).
    Soft(&'a [f32]),
}

/// The training loss. The default is plain cross-entropy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Criterion {
    /// Probability mass spread evenly over the classes.
    pub label_smoothing: f32,
    /// A weight a class; all 1 when empty.
    pub class_weights: Vec<f32>,
    /// γ: how much samples that are classified well already count less; 0 = not at all.
    pub focal_gamma: f64,
    /// Added to the logits of each class in training only; nothing when empty.
    pub logit_offsets: Vec<f32>,
}

impl Criterion {
    fn weight(&self, class: usize) -> f32 {
        self.class_weights.get(class).copied().unwrap_or(1.0)
    }

    /// The number PyTorch's mean divides by: the weights of the hard labels, or the count of soft ones.
    pub fn normalizer(&self, targets: &Targets<'_>, classes: usize) -> f32 {
        match targets {
            Targets::Hard(labels) => labels.iter().map(|&label| self.weight(label)).sum(),
            Targets::Soft(rows) => (rows.len() / classes.max(1)) as f32,
        }
    }

    /// The weight of each log-probability in the loss, row-major (B, K): smoothed targets times class weights.
    fn coefficients(&self, targets: &Targets<'_>, classes: usize) -> Vec<f32> {
        let spread = self.label_smoothing / classes as f32;
        let smooth = |target: f32, class: usize| ((1.0 - self.label_smoothing) * target + spread) * self.weight(class);
        match targets {
            Targets::Hard(labels) => labels
                .iter()
                .flat_map(|&label| (0..classes).map(move |class| (f32::from(class == label), class)))
                .map(|(target, class)| smooth(target, class))
                .collect(),
            Targets::Soft(rows) => rows.iter().enumerate().map(|(i, &target)| smooth(target, i % classes)).collect(),
        }
    }

    /// The loss of logits (B, K), summed over the batch and divided by `normalizer`.
    ///
    /// Shards and micro-batches of one step share the normaliser of the whole step, so that their gradients simply add
    /// up to the large batch's.
    ///
    /// # Errors
    /// When targets or logit offsets and logits disagree in number.
    pub fn forward(&self, logits: &Tensor, targets: &Targets<'_>, normalizer: f32) -> Result<Tensor> {
        let (_, classes) = logits.dims2()?;
        let coefficients = self.coefficients(targets, classes);
        if coefficients.len() != logits.elem_count() {
            candle_core::bail!("{} targets for logits of shape {:?}", coefficients.len(), logits.shape());
        }
        let offsets = match self.logit_offsets.len() {
            0 => vec![0.0; classes],
            n if n == classes => self.logit_offsets.clone(),
            n => candle_core::bail!("{n} logit offsets for {classes} classes"),
        };
        let op = WeightedLogLikelihood { coefficients, offsets, gamma: self.focal_gamma, normalizer };
        run(&op, [logits])
    }
}

/// Σ c φ(log p) / normalizer, in f64 inside.
#[derive(Clone, Default)]
pub(super) struct WeightedLogLikelihood {
    /// Row-major (B, K).
    pub coefficients: Vec<f32>,
    /// One a class.
    pub offsets: Vec<f32>,
    pub gamma: f64,
    pub normalizer: f32,
}

impl WeightedLogLikelihood {
    /// Each row's log-probabilities beside its coefficients.
    fn rows<'a>(&'a self, logits: &'a [f32]) -> impl Iterator<Item = (Vec<f64>, &'a [f32])> + 'a {
        let classes = self.offsets.len();
        let rows = logits.chunks_exact(classes).map(|row| log_softmax(row, &self.offsets));
        rows.zip(self.coefficients.chunks_exact(classes))
    }

    /// φ = -(1 - p)^γ log p.
    fn term(&self, log_p: f64) -> f64 {
        if self.gamma == 0.0 { -log_p } else { -(-log_p.exp_m1()).powf(self.gamma) * log_p }
    }

    /// dφ / d log p = (1 - p)^γ (γ p log p / (1 - p) - 1); the quotient tends to -1 as p tends to 1.
    fn slope(&self, log_p: f64) -> f64 {
        if self.gamma == 0.0 {
            return -1.0;
        }
        let rest = -log_p.exp_m1();
        let quotient = if rest == 0.0 { -1.0 } else { log_p / rest };
        rest.powf(self.gamma) * (self.gamma * log_p.exp() * quotient - 1.0)
    }
}

/// Log-probabilities of one row of logits plus offsets.
fn log_softmax(row: &[f32], offsets: &[f32]) -> Vec<f64> {
    let mut values: Vec<f64> = row.iter().zip(offsets).map(|(&x, &offset)| f64::from(x) + f64::from(offset)).collect();
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = values.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    values.iter_mut().for_each(|x| *x = *x - max - log_sum);
    values
}

impl Operation<1> for WeightedLogLikelihood {
    fn name(&self) -> &'static str {
        "classification_loss"
    }

    fn shape(&self, _: [&Shape; 1]) -> Result<Shape> {
        Ok(Shape::from(()))
    }

    fn forward(&self, [logits]: [&[f32]; 1], y: &mut [f32]) -> Result<()> {
        let row = |(log_p, c): (Vec<f64>, &[f32])| -> f64 {
            log_p.iter().zip(c).map(|(&log_p, &c)| self.term(log_p) * f64::from(c)).sum()
        };
        let total: f64 = self.rows(logits).map(row).sum();
        y.fill((total / f64::from(self.normalizer)) as f32);
        Ok(())
    }

    /// With a = c dφ/d log p, each row's gradient is (a - p Σa) / normalizer.
    fn backward(&self, [logits]: [&[f32]; 1], _y: &[f32], dy: &[f32], _: [bool; 1]) -> Result<[Option<Vec<f32>>; 1]> {
        let scale = dy.iter().copied().map(f64::from).sum::<f64>() / f64::from(self.normalizer);
        let mut gradient = Vec::with_capacity(logits.len());
        for (log_p, c) in self.rows(logits) {
            let slopes: Vec<f64> = log_p.iter().zip(c).map(|(&log_p, &c)| self.slope(log_p) * f64::from(c)).collect();
            let mass: f64 = slopes.iter().sum();
            gradient.extend(slopes.iter().zip(&log_p).map(|(a, log_p)| (scale * (a - log_p.exp() * mass)) as f32));
        }
        Ok([Some(gradient)])
    }

    fn on_gpu(&self) -> bool {
        false
    }

    fn composed(&self, [logits]: [&Tensor; 1]) -> Result<Tensor> {
        let (dtype, device) = (logits.dtype(), logits.device());
        let weights = Tensor::from_slice(&self.coefficients, logits.shape(), device)?.to_dtype(dtype)?;
        let offsets = Tensor::from_slice(&self.offsets, self.offsets.len(), device)?.to_dtype(dtype)?;
        let logits = logits.broadcast_add(&offsets)?;
        let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
        let log_p = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
        let terms = if self.gamma == 0.0 {
            log_p
        } else {
            // Bounded away from 0, where the derivative of a power below 1 is infinite.
            let rest = log_p.exp()?.affine(-1.0, 1.0)?.maximum(1e-12)?;
            (rest.powf(self.gamma)? * log_p)?
        };
        (terms * weights)?.sum_all()? * (-1.0 / f64::from(self.normalizer))
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        let coefficients = (0..15).map(|i| i as f32 / 15.0).collect();
        (Self { coefficients, offsets: vec![0.0; 5], gamma: self.gamma, normalizer: 3.0 }, [vec![3, 5]])
    }
}
