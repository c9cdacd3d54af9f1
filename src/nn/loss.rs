//! Cross-entropy with label smoothing (Szegedy et al. 2015), class weights and soft targets, as in PyTorch.

use super::kernels::{contiguous, fused, read};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

/// What a batch should be classified as.
#[derive(Debug, Clone)]
pub enum Targets<'a> {
    /// One class a sample.
    Hard(&'a [usize]),
    /// A distribution over the classes a sample, row-major (B, K).
    Soft(&'a [f32]),
}

/// The training loss: smoothing and class weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Criterion {
    /// Probability mass spread evenly over the classes.
    pub label_smoothing: f32,
    /// A weight a class; all 1 when empty.
    pub class_weights: Vec<f32>,
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
    /// When targets and logits disagree in number.
    pub fn forward(&self, logits: &Tensor, targets: &Targets<'_>, normalizer: f32) -> Result<Tensor> {
        let (_, classes) = logits.dims2()?;
        let coefficients = self.coefficients(targets, classes);
        if coefficients.len() != logits.elem_count() {
            candle_core::bail!("{} targets for logits of shape {:?}", coefficients.len(), logits.shape());
        }
        if fused(logits) {
            return logits.contiguous()?.apply_op1(CrossEntropy { coefficients, normalizer });
        }
        let weights = Tensor::from_vec(coefficients, logits.shape(), logits.device())?.to_dtype(logits.dtype())?;
        let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
        let log_probabilities = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
        (log_probabilities * weights)?.sum_all()? * (-1.0 / f64::from(normalizer))
    }
}

/// -Σ c log softmax(logits) / normalizer, in f64 inside.
struct CrossEntropy {
    coefficients: Vec<f32>,
    normalizer: f32,
}

/// Log-probabilities of one row of logits.
fn log_softmax(row: &[f32]) -> impl Iterator<Item = f64> + '_ {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let log_sum = row.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln();
    row.iter().map(move |&x| f64::from(x) - max - log_sum)
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = contiguous(storage, layout)?;
        let (_, classes) = layout.shape().dims2()?;
        let rows = logits.chunks_exact(classes).zip(self.coefficients.chunks_exact(classes));
        let total: f64 = rows
            .flat_map(|(row, coefficients)| log_softmax(row).zip(coefficients).map(|(log_p, &c)| -log_p * f64::from(c)))
            .sum();
        Ok((CpuStorage::F32(vec![(total / f64::from(self.normalizer)) as f32]), Shape::from(())))
    }

    /// d = (p Σc - c) / normalizer, for each row.
    fn bwd(&self, logits: &Tensor, _res: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, classes) = logits.dims2()?;
        let scale = f64::from(dy.to_scalar::<f32>()?) / f64::from(self.normalizer);
        let gradient = read(logits, |logits| {
            let rows = logits.chunks_exact(classes).zip(self.coefficients.chunks_exact(classes));
            Ok(rows
                .flat_map(|(row, coefficients)| {
                    let mass: f64 = coefficients.iter().map(|&c| f64::from(c)).sum();
                    log_softmax(row)
                        .zip(coefficients)
                        .map(move |(log_p, &c)| (scale * (log_p.exp() * mass - f64::from(c))) as f32)
                })
                .collect::<Vec<f32>>())
        })?;
        Tensor::from_vec(gradient, logits.shape(), logits.device()).map(Some)
    }
}
