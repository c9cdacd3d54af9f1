//! The settings of a run. These structs are the configuration: a field is a key, its documentation is what editors and
//! `docs/config.md` show, its attributes are the range and default that reading goes by, and serde writes it back.

use super::column_names::ColumnNames;
use super::feature_settings::{CacheSettings, PoolChoice, ProbeSettings, TsneSettings};
use super::fold::Fold;
use super::inspection_settings::{InspectionSettings, UnknownSettings};
use super::prompt_settings::{ClassNames, PromptSettings, read_names};
use super::report_settings::ReportSettings;
use super::strategy_settings::StrategySettings;
use super::tile_settings::{TilePool, TileSettings};
use super::train_settings::{EarlyStopSettings, TrainSettings};
use crate::augment::AugmentSettings;
use crate::forms;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The key of `[strategy]` that means the same for every kind, and so is beside it here.
pub(super) const UNFREEZE: &str = "strategy.unfreeze";

/// Configuration of vitadapt. Paths are relative to this file; in `--set` overrides, to the current folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "vitadapt configuration")]
pub struct Settings {
    /// Name, place and machine of the run.
    pub run: RunSettings,
    /// The images, their labels and how they are split.
    pub data: DataSettings,
    /// The pretrained backbone.
    pub model: ModelSettings,
    /// How an image becomes the backbone's input.
    pub preprocess: PreprocessSettings,
    /// Random changes of the training images.
    pub augment: AugmentSettings,
    /// Which parameters are trained.
    pub strategy: StrategySettings,
    /// Gradual unfreezing: the head is trained from the start, and the strategy's blocks are unfrozen one by one from the
    /// top, one every so many epochs. 0 = all are trained from the start.
    #[serde(rename = "strategy.unfreeze")]
    #[schemars(
        range(min = 0, max = 1_000_000),
        extend("default" = 0, "x-only" = [{ "key": "kind", "values": ["partial", "full", "lora"] }])
    )]
    pub unfreeze: usize,
    /// Length, learning rates and regularisation of the training.
    pub train: TrainSettings,
    /// When to stop before the end, and which epoch is kept as the best.
    pub early_stop: EarlyStopSettings,
    /// Features and activations of frozen blocks, computed once and shared by all commands.
    pub cache: CacheSettings,
    /// The classifier of `vitadapt probe`.
    pub probe: ProbeSettings,
    /// The picture of `vitadapt tsne`.
    pub tsne: TsneSettings,
    /// Classes in words, for `vitadapt zeroshot`.
    pub prompts: PromptSettings,
    /// The page about a run.
    pub report: ReportSettings,
    /// Which classes are good parts, and what mistakes are worth.
    pub inspection: InspectionSettings,
    /// How images unlike those of training are recognised.
    pub unknown: UnknownSettings,
}

/// `[run]`: name, place and machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunSettings {
    /// Folder of the run below `out`. Default: the name of this file without its ending.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Seed of every random draw of the training; the split has its own.
    #[schemars(range(min = 0, max = i64::MAX), extend("default" = 42))]
    pub seed: u64,
    /// Folder that holds the runs. Written here, it is relative to this file; the default, `runs`, is relative to
    /// the folder in which the command is started.
    #[schemars(length(min = 1), extend("x-path" = true))]
    pub out: PathBuf,
    /// `auto` (the first GPU if there is one, else the CPU), `cpu`, `cuda` or `cuda:N`.
    #[schemars(with = "String", regex(pattern = r"^(auto|cpu|cuda(:[0-9]+)?)$"), extend("default" = "auto"))]
    pub device: DeviceChoice,
    /// Type of the products in training and, on a GPU, of all others; parameters, norms, softmax and loss stay in f32.
    #[schemars(extend("default" = "f32"))]
    pub precision: Precision,
    /// Worker threads for compute; 0 = one per core.
    #[schemars(range(max = 1024), extend("default" = 0))]
    pub threads: usize,
    /// Threads that decode images; 0 = one per core.
    #[schemars(range(max = 1024), extend("default" = 0))]
    pub decode_threads: usize,
}

/// `run.precision`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// Products in bfloat16: the range of f32 with fewer digits. For GPUs from Ampere on.
    Bf16,
    /// Products in half precision, with a loss scale that follows the gradients. For GPUs without bfloat16.
    F16,
}

/// `run.device`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DeviceChoice {
    /// The first GPU when this binary has CUDA and one is present, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// One GPU by its number; an error when it is absent.
    Cuda(usize),
}

/// `[data]`: one of `root` and `manifest`; with `allow_outside`, `root` beside a manifest is its `base`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DataSettings {
    /// Where the images are listed.
    #[serde(flatten)]
    pub source: DataSource,
    /// Folder that the manifest's paths are relative to. Default: its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1), extend("x-path" = true))]
    pub base: Option<PathBuf>,
    /// What the columns of the manifest are called, where that is not path, label, split and group.
    #[serde(default, skip_serializing_if = "forms::is_default")]
    pub columns: ColumnNames,
    /// Classes that go by another name or are merged: under the new name, the names that the data has for it. Others stay
    /// as they are.
    #[serde(default, deserialize_with = "read_names", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, ClassNames>", transform = forms::each_one_or_many)]
    pub classes: BTreeMap<String, Vec<String>>,
    /// Classes that are left out, by the names that the data has for them.
    #[serde(default, deserialize_with = "forms::ascending", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1)), transform = forms::one_or_many)]
    pub ignore: Vec<String>,
    /// The most images of a class, for a first look at a huge set: drawn by `split_seed`, of each split that the data names
    /// the same share. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_per_class: Option<usize>,
    /// What keeps images together in one split.
    #[schemars(extend("default" = "listed"))]
    pub group_by: GroupBy,
    /// The manifest's paths may be absolute, have `..` parts and lead elsewhere by links, for data on a read-only share;
    /// with `root`, they are relative to that folder.
    #[schemars(extend("default" = false))]
    pub allow_outside: bool,
    /// Fraction of the images drawn for validation when the data has no such split.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.15))]
    pub val: f64,
    /// Fraction of the images drawn for testing when the data has no such split.
    // 0 with a fold.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.15))]
    pub test: f64,
    /// Cross-validation: `"2/5"` deals all images to five folds, whatever splits the data names, and tests on the
    /// second. Excludes `test`; `val` is drawn from the other folds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = r"^[0-9]+/[0-9]+$"))]
    pub fold: Option<Fold>,
    /// Seed of the split and of the folds, apart from `run.seed` so that seeds can vary on one split.
    #[schemars(range(min = 0, max = i64::MAX), extend("default" = 0))]
    pub split_seed: u64,
    /// Draw the same fraction from every class.
    #[schemars(extend("default" = true))]
    pub stratified: bool,
    /// What to do with images that cannot be decoded.
    #[schemars(extend("default" = "fail"))]
    pub on_error: OnError,
    /// Significant bits of 16-bit images: 12 for a 12-bit sensor makes 4095 white.
    #[schemars(range(min = 9, max = 16), extend("default" = 16))]
    pub bit_depth: u8,
}

impl DataSettings {
    /// The folder that the names of images are relative to.
    pub fn folder(&self) -> &Path {
        match (&self.source, &self.base) {
            (DataSource::Root(root), _) | (_, Some(root)) => root,
            (DataSource::Manifest(file), None) => {
                file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
        }
    }
}

/// Folder or manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = forms::side_by_side)]
pub enum DataSource {
    /// Folder of class folders, or of train/ val/ test/ with class folders in each.
    Root(#[schemars(length(min = 1), extend("x-path" = true))] PathBuf),
    /// CSV with the columns path,label and optionally split and group.
    Manifest(#[schemars(length(min = 1), extend("x-path" = true))] PathBuf),
}

/// `data.group_by`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// What the manifest's column `group` says, if it has one.
    Listed,
    /// The patient's ID in DICOM files, of which only a hash is written down.
    Patient,
}

/// `data.on_error`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// List every bad file and stop before training.
    Fail,
    /// Leave bad files out and list them in `skipped.csv`.
    Skip,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelSettings {
    /// A built-in backbone, a local folder, or a hub id: `owner/name[@revision]`, with `model.revision` in it.
    #[serde(flatten, deserialize_with = "read_backbone", serialize_with = "write_backbone")]
    #[schemars(with = "BackboneKeys")]
    pub backbone: String,
    /// Size of the input in pixels: the side of a square, or height and width of strips. Default: the backbone's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 16, max = 4096), transform = forms::size)]
    pub image_size: Option<crate::size::Size>,
    /// Side of a patch in pixels. The pretrained kernels are resampled to it; smaller patches show smaller things. `FlexiViT`
    /// was trained for patches of 8 to 48 pixels; other models lose accuracy. Default: the backbone's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub patch_size: Option<usize>,
    /// How tokens become one feature vector.
    #[schemars(extend("default" = "backbone"))]
    pub pool: PoolChoice,
    /// The block whose patches `mahalanobis` measures, counted from the input. Default: that at two thirds of the depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("x-only" = [{ "key": "pool", "values": ["mahalanobis", "auto"] }]))]
    pub pool_block: Option<usize>,
    /// How the features of an image's tiles become those of the image, where `preprocess.tiles` cuts it.
    #[schemars(extend("default" = "max"))]
    pub tile_pool: TilePool,
    /// Highest stochastic depth rate, reached in the last block.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.0))]
    pub drop_path: f64,
    /// Dropout before the head.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.0))]
    pub head_dropout: f64,
    /// What the head starts from: small random weights, the linear probe of the training images, or (for models with a
    /// text tower) the texts about the classes.
    #[schemars(extend("default" = "random"))]
    pub head_init: HeadInit,
}

/// The two keys that name a backbone. Once they are read, what is loaded has one name.
#[derive(Serialize, Deserialize, JsonSchema)]
struct BackboneKeys {
    /// `builtin:NAME`, a folder with config.json and model.safetensors, or a model of the Hugging Face Hub as
    /// `owner/name` or `owner/name@revision`. A folder of that name comes first; `./owner/name` is always a folder. A
    /// command without a file takes the backbone of the quick start, `builtin:vit-flaw` at 248 pixels.
    #[schemars(length(min = 1), extend("default" = "builtin:vit-mini"))]
    backbone: String,
    /// Branch, tag or full commit of a model of the hub, instead of `@revision`. Default: main.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    revision: Option<String>,
}

fn read_backbone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    BackboneKeys::deserialize(deserializer).map(|named| named.backbone)
}

fn write_backbone<S: Serializer>(backbone: &str, serializer: S) -> Result<S::Ok, S::Error> {
    BackboneKeys { backbone: backbone.to_owned(), revision: None }.serialize(serializer)
}

/// `model.head_init`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadInit {
    /// Small random weights.
    Random,
    /// The linear probe of the training images (LP-FT, Kumar et al. 2022), with the keys of `[probe]`.
    Probe,
    /// The embeddings of texts about the classes, with the keys of `[prompts]`: zero-shot, trained on.
    Text,
}

/// `[preprocess]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PreprocessSettings {
    /// How an image of any shape gets the size of the input.
    #[schemars(extend("default" = "squash"))]
    pub resize: ResizeMode,
    /// Cuts each image into tiles at its own resolution instead, as many as it needs: `true` or `"auto"` (side and
    /// overlap follow from the model), `false` or `"none"` (off), or a table.
    #[serde(default, deserialize_with = "forms::off_or", serialize_with = "forms::write_off_or")]
    #[schemars(extend("default" = false, "x-number" = []), transform = forms::switch_or_auto)]
    pub tiles: Option<TileSettings>,
    /// Filter of the resize.
    #[schemars(extend("default" = "backbone"))]
    pub interpolation: InterpolationChoice,
    /// Which statistics standardise the pixels. `explicit` is implied by `mean` and `std`.
    #[schemars(extend("default" = "backbone"))]
    pub normalize: NormalizeChoice,
    /// Mean of red, green and blue, for pixels in 0..1; needs `std`.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "forms::write_short")]
    #[schemars(
        inner(range(min = -100.0, max = 100.0)),
        extend("x-only" = [{ "key": "normalize", "values": ["explicit"] }])
    )]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue, for pixels in 0..1; needs `mean`.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "forms::write_short")]
    #[schemars(
        inner(range(min = 1e-6, max = 100.0)),
        extend("x-only" = [{ "key": "normalize", "values": ["explicit"] }])
    )]
    pub std: Option<[f32; 3]>,
}

/// `preprocess.resize`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// The whole image, aspect ratio given up.
    Squash,
    /// The whole image, aspect ratio kept, borders filled.
    Letterbox,
    /// Short side to size / `crop_pct`, centre crop: may delete a defect at the border.
    Crop,
}

/// `preprocess.interpolation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterpolationChoice {
    /// What the backbone was trained with.
    Backbone,
    /// Triangle filter, antialiased.
    Bilinear,
    /// Cubic filter with a = -1/2, antialiased.
    Bicubic,
}

/// `preprocess.normalize`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NormalizeChoice {
    /// The backbone's own mean and std.
    Backbone,
    /// `ImageNet` mean and std.
    Imagenet,
    /// Mean and std 0.5.
    Symmetric,
    /// Mean and std of the training images.
    Dataset,
    /// Mean and std of each batch.
    Batch,
    /// Median and scaled interquartile range of the training images.
    Robust,
    /// The `mean` and `std` given beside it.
    Explicit,
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected auto, cpu, cuda or cuda:N";
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let ordinal = text.strip_prefix("cuda:").ok_or(EXPECTED)?;
                // `parse` alone would take a sign.
                let digits = ordinal.bytes().all(|byte| byte.is_ascii_digit());
                ordinal.parse().ok().filter(|_| digits).map(Self::Cuda).ok_or(EXPECTED)
            }
        }
    }
}

crate::forms::as_text!(DeviceChoice);
