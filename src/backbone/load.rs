//! Strict loading: every difference between file and architecture is listed, and nothing is silently initialised.

use super::family::{FAMILIES, Family, Header, Origin};
use super::params::Params;
use super::positions::resample;
use super::source::{Source, float_type, to_f32};
use super::spec::{Pool, VitSpec};
use crate::config::PoolChoice;
use crate::error::{Error, Result, WeightsError};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use std::collections::BTreeSet;
use std::path::Path;

/// A loaded backbone: its architecture, its parameters on the host, and where it came from.
#[derive(Debug, Clone)]
pub struct Backbone {
    /// The architecture, with `image_size` as asked for.
    pub spec: VitSpec,
    /// Every parameter by canonical name, without the head.
    pub params: Params,
    /// The pretrained classification head (`head.weight`, `head.bias`), if the file has one.
    pub head: Option<(Tensor, Tensor)>,
    /// The family's name.
    pub family: &'static str,
    /// SHA-256 of the weights file.
    pub sha256: String,
}

impl Backbone {
    /// Loads `builtin:NAME` or a folder for square inputs of `image_size` pixels (none: the backbone's own), resampling
    /// the position embeddings as the family's library does.
    ///
    /// # Errors
    /// Weights errors list all missing, unexpected and wrongly shaped tensors; a usage error names an image size that
    /// the patches do not divide.
    pub fn load(backbone: &str, image_size: Option<usize>) -> Result<Self> {
        let source = Source::open(backbone)?;
        let tensors = source.tensors()?;
        let header: Header = tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
        let family = recognise(&source, &header)?;
        let spec = family
            .spec(&source.config, &header)
            .map_err(|reason| WeightsError::invalid(&source.path, format!("{} model: {reason}", family.name())))?;
        validate(&spec, &source.path)?;
        verify(family, &spec, &header, &source.path)?;
        let mut loaded = Self {
            params: read_params(family, &spec, &header, &tensors, &source.path)?,
            head: read_head(family, &spec, &header, &tensors, &source.path)?,
            spec,
            family: family.name(),
            sha256: source.sha256(),
        };
        if let Some(size) = image_size {
            let origin = family.origin("pos_embed", &header);
            let stored = origin.names().first().and_then(|name| tensors.tensor(name).ok());
            let stored = stored.and_then(|view| float_type(view.dtype())).unwrap_or(DType::F32);
            loaded.resize(size, stored)?;
        }
        Ok(loaded)
    }

    /// Chooses how tokens become features.
    ///
    /// # Errors
    /// A usage error when the class token is asked for and there is none.
    pub fn with_pool(mut self, choice: PoolChoice) -> Result<Self> {
        self.spec.pool = match choice {
            PoolChoice::Backbone => self.spec.pool,
            PoolChoice::Avg => Pool::Avg,
            PoolChoice::Cls if self.spec.class_token => Pool::Cls,
            PoolChoice::Cls => {
                return Err(Error::usage_hint(
                    "model.pool = \"cls\", but the backbone has no class token",
                    "set model.pool = \"avg\" or \"backbone\"",
                ));
            }
        };
        Ok(self)
    }

    /// Prepares the position embeddings, stored as `stored`, for another image size.
    fn resize(&mut self, size: usize, stored: DType) -> Result<()> {
        let patch = self.spec.patch;
        if size == 0 || !size.is_multiple_of(patch) {
            let below = (size / patch).max(1) * patch;
            return Err(Error::usage_hint(
                format!("model.image_size = {size} is not a multiple of the backbone's patch size {patch}"),
                format!("nearest: {below} or {}", below + patch),
            ));
        }
        let (old, new, width) = (self.spec.grid(), size / patch, self.spec.width);
        self.spec.image_size = size;
        if old == new {
            return Ok(());
        }
        let positions = self.params.tensor("pos_embed")?.flatten_all()?.to_vec1::<f32>()?;
        let prefix = positions.len() / width - old * old;
        let (prefix_values, patch_values) = positions.split_at(prefix * width);
        let mut resampled = prefix_values.to_vec();
        resampled.extend(resample(patch_values, width, old, new, self.spec.antialias_positions));
        let resampled = Tensor::from_vec(resampled, (1, prefix + new * new, width), &Device::Cpu)?;
        // timm resamples while loading and returns to the stored type; transformers resamples in the forward pass.
        let dtype = if self.spec.antialias_positions { stored } else { DType::F32 };
        self.params.insert("pos_embed", resampled.to_dtype(dtype)?.to_dtype(DType::F32)?);
        Ok(())
    }
}

fn recognise(source: &Source, header: &Header) -> Result<&'static dyn Family> {
    if let Some(family) = FAMILIES.iter().find(|family| family.recognises(&source.config, header)) {
        return Ok(*family);
    }
    let described = ["architecture", "model_type"]
        .iter()
        .find_map(|key| source.config[*key].as_str().map(|value| format!("{key} {value:?}")))
        .unwrap_or_else(|| "neither \"architecture\" nor \"model_type\"".into());
    let supported: Vec<&str> = FAMILIES.iter().map(|family| family.name()).collect();
    Err(WeightsError::Invalid {
        path: source.path.clone(),
        reason: format!(
            "unknown kind of model: config.json has {described}, the first of {} tensors is {:?}",
            header.len(),
            header.keys().next().map_or("", String::as_str)
        ),
        hint: Some(format!("supported: {}", supported.join(", "))),
    }
    .into())
}

/// Refuses architectures whose numbers cannot work together before anything is computed from them.
fn validate(spec: &VitSpec, path: &Path) -> Result<()> {
    const LARGEST: usize = 1 << 16;
    let numbers = [
        ("width", spec.width),
        ("depth", spec.depth),
        ("heads", spec.heads),
        ("MLP width", spec.hidden),
        ("patch size", spec.patch),
        ("image size", spec.image_size),
    ];
    let problem = if let Some((name, value)) = numbers.iter().find(|(_, value)| !(1..=LARGEST).contains(value)) {
        format!("config.json gives a {name} of {value}")
    } else if !spec.width.is_multiple_of(spec.heads) {
        format!("config.json gives a width of {}, which {} heads do not divide", spec.width, spec.heads)
    } else if spec.image_size < spec.patch {
        format!("config.json gives images of {} pixels, smaller than a patch of {}", spec.image_size, spec.patch)
    } else if spec.pool == Pool::Cls && !spec.class_token {
        "config.json asks for the class token, but the weights have none".into()
    } else {
        return Ok(());
    };
    Err(WeightsError::invalid(path, problem).into())
}

fn head_names(spec: &VitSpec) -> Vec<(String, Vec<usize>)> {
    if spec.num_classes == 0 {
        return Vec::new();
    }
    vec![("head.weight".into(), vec![spec.num_classes, spec.width]), ("head.bias".into(), vec![spec.num_classes])]
}

/// Lists everything that is missing, wrongly shaped or unexpected.
fn verify(family: &dyn Family, spec: &VitSpec, header: &Header, path: &Path) -> Result<()> {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for (name, shape) in spec.shapes().into_iter().chain(head_names(spec)) {
        let origin = family.origin(&name, header);
        let mut expected = shape.clone();
        if let Origin::Stack(parts) = &origin {
            expected[0] /= parts.len();
        }
        for theirs in origin.names() {
            used.insert(theirs.clone());
            match header.get(theirs) {
                None => problems.push(format!("missing: {theirs} {expected:?}")),
                Some(found) if *found != expected => {
                    problems.push(format!("wrong shape: {theirs} is {found:?}, expected {expected:?}"));
                }
                Some(_) => {}
            }
        }
    }
    let unexpected = header.iter().filter(|(name, _)| !used.contains(*name) && !family.ignores(name));
    problems.extend(unexpected.map(|(name, shape)| format!("unexpected: {name} {shape:?}")));
    if problems.is_empty() {
        return Ok(());
    }
    Err(WeightsError::Mismatch {
        path: path.to_path_buf(),
        family: format!("{} ({})", family.name(), spec.architecture),
        problems,
    }
    .into())
}

fn read_tensor(origin: &Origin, tensors: &SafeTensors<'_>, path: &Path) -> Result<Tensor> {
    let read = |name: &String| -> Result<Tensor> {
        let view = tensors.tensor(name).map_err(|error| WeightsError::invalid(path, format!("{name}: {error}")))?;
        to_f32(&view).map_err(|reason| WeightsError::invalid(path, format!("{name} {reason}")).into())
    };
    let parts = origin.names().iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

fn read_params(
    family: &dyn Family,
    spec: &VitSpec,
    header: &Header,
    tensors: &SafeTensors<'_>,
    path: &Path,
) -> Result<Params> {
    let mut params = Params::default();
    for name in spec.shapes().into_keys() {
        let tensor = read_tensor(&family.origin(&name, header), tensors, path)?;
        params.insert(name, tensor);
    }
    Ok(params)
}

fn read_head(
    family: &dyn Family,
    spec: &VitSpec,
    header: &Header,
    tensors: &SafeTensors<'_>,
    path: &Path,
) -> Result<Option<(Tensor, Tensor)>> {
    let read = |(name, _): &(String, Vec<usize>)| read_tensor(&family.origin(name, header), tensors, path);
    match head_names(spec).as_slice() {
        [weight, bias] => Ok(Some((read(weight)?, read(bias)?))),
        _ => Ok(None),
    }
}
