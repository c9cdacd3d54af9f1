//! A trained model in the formats of other libraries, with its preprocessing.
//!
//! A format writes files and reads them back; nothing is published before what was read back gives the model's own
//! logits and probabilities on real images (`publish`).

mod adapt;
mod card;
mod files;
mod hf_classes;
mod onnx;
mod publish;
mod readback;
mod timm;
mod transformers;

pub use publish::{Check, Exported, TOLERANCE, check_target, export};

use crate::backbone::{Layer, ParamName, Params, Part, Pool, Readout, Role, VisualPrompts, VitSpec};
use crate::config::FeatureChoice;
use crate::data::transform::{Normalization, Preprocess};
use crate::error::{Error, Result};
use crate::forms::decimal;
use candle_core::Tensor;
use std::path::Path;

/// The model to export.
#[derive(Debug, Clone)]
pub struct ExportModel {
    /// Its name, such as the run's.
    pub name: String,
    /// The architecture.
    pub spec: VitSpec,
    /// Every parameter by canonical name on the host, and the head as `head.weight` and `head.bias`; one that
    /// compares directions has `head.logit_scale` too, and `projection.weight` if features are not embeddings yet.
    pub params: Params,
    /// Which features feed the head; the pooling of `spec`, or those of several blocks.
    pub readout: Readout,
    /// Class names in the order of the logits.
    pub classes: Vec<String>,
    /// How images become input.
    pub preprocess: Preprocess,
    /// Significant bits of 16-bit images: `2^bit_depth - 1` becomes white.
    pub bit_depth: u8,
    /// Divides the logits to calibrate probabilities, if it was fitted; it goes into the head that is written.
    pub temperature: Option<f64>,
    /// The pretrained weights it started from.
    pub backbone: String,
}

impl ExportModel {
    /// Expresses a readout of the last block alone as the pooling that it is, since formats know poolings.
    #[must_use]
    pub fn with_plain_pooling(mut self) -> Self {
        let pool = match self.readout {
            Readout { features: FeatureChoice::Cls, blocks: 1 } => Pool::Cls,
            Readout { features: FeatureChoice::Avg, blocks: 1 } => Pool::Avg,
            Readout { features: FeatureChoice::Both, blocks: 1 } => Pool::ClsAvg,
            _ => return self,
        };
        self.spec.pooling.pool = pool;
        // A readout takes the normed tokens as they are.
        self.spec.pooling.fc_norm = false;
        self.readout = Readout::POOL;
        self.keep_needed();
        self
    }

    /// The same with a head that gives the logits divided by the temperature: a library's softmax of them are the run's
    /// calibrated probabilities. `temperature` stays, to say so.
    ///
    /// # Errors
    /// When the head has no weight, or the device is out of memory.
    fn with_temperature_in_head(&self) -> Result<Self> {
        let mut model = self.clone();
        let divisor = self.divisor();
        if divisor == 1.0 {
            return Ok(model);
        }
        let [scale, weight, bias] = [Part::LogitScale, Part::Weight, Part::Bias].map(|part| Layer::Head.part(part));
        if let Some(value) = self.params.get(scale) {
            model.params.insert(scale, (value - divisor.ln())?);
        } else {
            model.params.insert(weight, (self.params.tensor(weight)? / divisor)?);
        }
        if let Some(value) = self.params.get(bias) {
            model.params.insert(bias, (value / divisor)?);
        }
        Ok(model)
    }

    /// What logits are divided by for calibrated probabilities; 1 when nothing was fitted.
    fn divisor(&self) -> f64 {
        self.temperature.unwrap_or(1.0)
    }

    /// Drops parameters that neither the architecture has nor training added.
    fn keep_needed(&mut self) {
        let needed = self.spec.shapes();
        let added = |name: ParamName| matches!(name.role(), Role::Head | Role::Prompt);
        self.params.retain(|name| name.parse().is_ok_and(|name| needed.contains_key(&name) || added(name)));
    }

    /// Whether the head compares the direction of an embedding with one of each class, as zero-shot's does.
    fn compares_directions(&self) -> bool {
        self.params.get(Layer::Head.part(Part::LogitScale)).is_some()
    }

    /// What other libraries' models do not have: learnt prompts, tiles, and heads that are not an affine map of the pooled
    /// features.
    fn additions(&self) -> Vec<String> {
        let prompts = VisualPrompts::of(&self.spec, &self.params);
        let prompts = (!prompts.is_empty()).then(|| "learnt prompts among the tokens".to_owned());
        let tiles = self.preprocess.tiles.as_ref().map(|_| "images that are cut into tiles".to_owned());
        let directions = self.compares_directions().then(|| "a head that compares directions of embeddings".to_owned());
        let pooling = added_pooling(self.spec.pooling.pool).map(|pooling| format!("{pooling} of the patch tokens"));
        let blocks = (self.readout.features != FeatureChoice::Pool)
            .then(|| format!("a head that reads the last {} blocks", self.readout.blocks));
        [prompts, tiles, directions, pooling, blocks].into_iter().flatten().collect()
    }
}

/// A pooling that other libraries' classes do not have, in words.
fn added_pooling(pool: Pool) -> Option<&'static str> {
    match pool {
        Pool::Max => Some("the maximum"),
        Pool::Lse => Some("the log-sum-exp"),
        Pool::Topk => Some("the mean of the largest values"),
        Pool::Gem => Some("the generalised mean"),
        Pool::Stats => Some("mean, maximum and standard deviation"),
        Pool::Gated => Some("a gated attention"),
        Pool::Mahalanobis => Some("the largest Mahalanobis distance"),
        Pool::Cls | Pool::Avg | Pool::ClsAvg | Pool::Distilled | Pool::Attention => None,
    }
}

/// The error of a format that cannot express the model; it suggests those that can.
fn cannot(format: &Format, model: &ExportModel, obstacles: &[String]) -> Error {
    let others = FORMATS.iter().filter(|other| other.name != format.name && (other.obstacles)(model).is_empty());
    let others: Vec<String> = others.map(|other| format!("--format {}", other.name)).collect();
    let hint = match others.as_slice() {
        [] => "no format can: use `vitadapt predict`".to_owned(),
        others => format!("use {}, which can", others.join(" or ")),
    };
    Error::usage_hint(format!("the {} format cannot express {}", format.name, obstacles.join(", nor ")), hint)
}

/// What an export consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A folder of files with fixed names.
    Folder,
    /// One file of this extension, and a JSON file of the same name beside it.
    File(&'static str),
}

/// One library's format. A new one is one file with such a record and one word in [`FORMATS`].
#[derive(Debug)]
pub struct Format {
    /// Its name on the command line.
    pub name: &'static str,
    /// How it is opened, for the help of the command line.
    pub opened_by: &'static str,
    /// What it writes.
    pub layout: Layout,
    /// What of the model it cannot express, in words; empty when it can be written.
    pub obstacles: fn(&ExportModel) -> Vec<String>,
    /// Writes the model into a new folder, where a file is called by the name given; returns notes for the user. The error
    /// is an I/O error, or a usage error of a file that would be too large.
    pub write: fn(&ExportModel, &Path, &str) -> Result<Vec<String>>,
    /// The logits (B, classes) of what was written into a folder, under a name, for standardised pixels (B, 3, S, S), from
    /// the files alone; or a weights error.
    pub logits: fn(&Path, &str, &Tensor) -> Result<Tensor>,
    /// How [`Format::logits`] runs the files.
    pub checked_by: &'static str,
}

/// All formats.
pub const FORMATS: [&Format; 3] = [&transformers::FORMAT, &timm::FORMAT, &onnx::FORMAT];

/// Mean and standard deviation; those that change nothing when a batch is its own measure.
fn statistics(normalization: &Normalization) -> [[f64; 3]; 2] {
    let (mean, std) = normalization.scale();
    [mean, std].map(|of_channels| of_channels.map(decimal))
}

/// What no format can express about the preprocessing.
fn notes(preprocess: &Preprocess) -> Vec<String> {
    if preprocess.normalization != Normalization::Batch {
        return Vec::new();
    }
    vec![
        "the run standardised each batch by its own statistics, which no format can express: standardise the batch yourself"
            .into(),
    ]
}
