//! Strict loading: every difference between file and architecture is listed, and nothing is silently initialised.

use super::families::FAMILIES;
use super::family::{Family, Header};
use super::mapping::WeightMapping;
use super::name::{Layer, ParamName};
use super::params::Params;
use super::patch_size::{Sizes, accuracy_note, resize_patches};
use super::pool::{fresh_gate, unmeasured_whitening};
use super::poolings::{OF_PATCHES, OF_TILES};
use super::positions::{Positions, Resampling, relative_distances, resample};
use super::source::Source;
use super::spec::{BlockSpec, Pool, Shapes, VitSpec};
use super::tensors::Tensors;
use crate::config::{PoolChoice, TilePool};
use crate::error::{Error, Result, WeightsError};
use crate::size::Size;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeSet;
use std::path::Path;

/// A loaded backbone: its architecture, its parameters on the host, and where it came from.
#[derive(Debug, Clone)]
pub struct Backbone {
    /// The architecture, with `image_size` as asked for.
    pub spec: VitSpec,
    /// Every parameter by canonical name, up to the features.
    pub params: Params,
    /// What the file holds behind the features: the pretrained classifier (`head.*`), that of the distillation token
    /// (`head_dist.*`), and CLIP's projection (`projection.weight`), a map from features to the space of its texts.
    pub outputs: Params,
    /// The family's name.
    pub family: &'static str,
    /// SHA-256 of the weights, all files together.
    pub sha256: String,
    /// What was done to find the tensors in the files, for the user.
    pub notes: Vec<String>,
}

impl Backbone {
    /// Loads `builtin:NAME` or a folder for inputs of a size in pixels (none: the backbone's own) and patches of a
    /// size, resampling the position embeddings as the family's library does.
    ///
    /// # Errors
    /// Weights errors list all missing, unexpected and wrongly shaped tensors; a usage error names an image size that
    /// the patches do not divide.
    pub fn load(backbone: &str, sizes: impl Into<Sizes>) -> Result<Self> {
        let sizes = sizes.into();
        let source = Source::open(backbone)?;
        let tensors = source.tensors()?;
        let header = tensors.header();
        let (family, spec) = described(&source, &header)?;
        let file = File { family, header: &header, tensors: &tensors, path: &source.path };
        file.verify(&spec)?;
        let mut loaded = Self {
            params: file.read(spec.shapes())?,
            outputs: file.read(spec.output_shapes())?,
            spec,
            family: family.name,
            sha256: source.sha256()?,
            notes: tensors.notes().to_vec(),
        };
        let usual = usual_size(family, &source, &loaded.spec);
        if let Some(size) = usual.filter(|size| sizes.image.is_none() && *size != loaded.spec.image_size) {
            loaded.notes.push(format!(
                "images of {size} pixels, as the model is usually given; its config says {} (model.image_size)",
                loaded.spec.image_size
            ));
        }
        let stored = |name: ParamName| {
            let mapping = (family.mapping)(name, &header);
            mapping.names().first().map_or(DType::F32, |name| tensors.float_type(name))
        };
        let own = loaded.spec.image_size;
        let patch = sizes.patch.filter(|size| *size != loaded.spec.patch.size);
        let size = sizes.image.or(usual).or(patch.map(|_| own));
        if let Some(size) = size {
            sizes.check(size, patch.unwrap_or(loaded.spec.patch.size))?;
        }
        if let Some(patch) = patch {
            loaded.notes.extend(accuracy_note(&loaded.spec, patch));
            resize_patches(&mut loaded.spec, &mut loaded.params, patch, stored(Layer::PatchEmbed.weight()))?;
        }
        if let Some(size) = size {
            let positions = match loaded.spec.positions {
                Positions::Relative(_) => Layer::RelPos.whole().in_block(0),
                _ => Layer::PosEmbed.whole(),
            };
            loaded.resize(size, stored(positions))?;
        }
        Ok(loaded)
    }

    /// [`Backbone::sha256`] of `builtin:NAME` or a folder, without loading it.
    ///
    /// # Errors
    /// When there are no weights or they cannot be read.
    pub fn checksum(backbone: &str) -> Result<String> {
        Source::open(backbone)?.sha256()
    }

    /// Values of an image's embedding in the space of texts: those of the features where nothing projects them.
    pub fn embedding(&self) -> usize {
        if self.spec.outputs.projection > 0 { self.spec.outputs.projection } else { self.spec.features() }
    }

    /// The architecture for inputs and patches of those sizes, from what stands beside the weights and in their
    /// header, which must agree: nothing is loaded.
    ///
    /// # Errors
    /// As [`Backbone::load`], but for damaged tensors.
    pub fn describe(backbone: &str, sizes: impl Into<Sizes>) -> Result<VitSpec> {
        let sizes = sizes.into();
        let source = Source::open(backbone)?;
        let tensors = source.tensors()?;
        let header = tensors.header();
        let (family, mut spec) = described(&source, &header)?;
        File { family, header: &header, tensors: &tensors, path: &source.path }.verify(&spec)?;
        let asked = sizes.image.or_else(|| usual_size(family, &source, &spec));
        spec.image_size = asked.unwrap_or(spec.image_size);
        spec.patch.size = sizes.patch.unwrap_or(spec.patch.size);
        if asked.is_some() || sizes.patch.is_some() {
            sizes.check(spec.image_size, spec.patch.size)?;
        }
        Ok(spec)
    }

    /// Chooses how tokens become features. `block`, counted from the input, is the one whose patches `mahalanobis` measures;
    /// no other pooling heeds it. What is learnt of a pooling starts from `seed`.
    ///
    /// # Errors
    /// A usage error when the class token is asked for and there is none, when there is no such block, and when the choice is
    /// still to be made.
    pub fn with_pool(mut self, choice: PoolChoice, block: Option<usize>, seed: u64) -> Result<Self> {
        if choice == PoolChoice::Auto {
            return Err(unmade_choice("model.pool"));
        }
        let Some(pool) = Pool::named(choice) else { return Ok(self) };
        if !self.spec.can_be_pooled_by(pool) {
            return Err(Error::usage_hint(
                format!("model.pool = \"{choice}\", but the backbone has no class token"),
                "set model.pool = \"avg\" or \"backbone\"",
            ));
        }
        self.spec.pooling.pool = pool;
        if pool == Pool::Mahalanobis {
            let depth = self.spec.depth;
            // What textures are like is clearest there, and what the backbone was trained to tell apart is not yet all.
            self.spec.depth = block.unwrap_or((2 * depth).div_ceil(3));
            if !(1..=depth).contains(&self.spec.depth) {
                return Err(Error::usage_hint(
                    format!("model.pool_block = {}, but the backbone has {depth} blocks", self.spec.depth),
                    format!("give 1 to {depth}"),
                ));
            }
            (self.spec.pooling.norm, self.spec.pooling.fc_norm) = (false, false);
            unmeasured_whitening(self.spec.width, &mut self.params)?;
        }
        // What only another pooling reads would get no gradient and fail the check that everything does.
        let needed = self.spec.shapes();
        self.params.retain(|name| name.parse::<ParamName>().is_ok_and(|name| needed.contains_key(&name)));
        if pool == Pool::Gated {
            fresh_gate(OF_PATCHES, self.spec.width, seed, &mut self.params)?;
        }
        Ok(self)
    }

    /// Chooses how the features of the tiles of an image become its own. What is learnt of it starts from `seed`.
    ///
    /// # Errors
    /// A usage error when the choice is still to be made; when the host is out of memory.
    pub fn with_tile_pool(mut self, pool: TilePool, seed: u64) -> Result<Self> {
        if pool == TilePool::Auto {
            return Err(unmade_choice("model.tile_pool"));
        }
        self.spec.pooling.tiles = pool;
        if pool == TilePool::Attention {
            fresh_gate(OF_TILES, self.spec.features(), seed, &mut self.params)?;
        }
        Ok(self)
    }

    /// Prepares the position embeddings, stored as `stored`, for another image size.
    fn resize(&mut self, size: Size, stored: DType) -> Result<()> {
        let (old, width) = (self.spec.grid(), self.spec.width);
        self.spec.image_size = size;
        let new = self.spec.grid();
        if let (Positions::Relative(how), true) = (self.spec.positions, old != new) {
            return self.resize_relative(old, new, how, stored);
        }
        let Some(table) = self.spec.positions.table().filter(|_| old != new) else { return Ok(()) };
        let positions = self.params.tensor(Layer::PosEmbed.whole())?.flatten_all()?.to_vec1::<f32>()?;
        let prefix = table.prefix;
        let (prefix_values, patch_values) = positions.split_at(prefix * width);
        let mut resampled = prefix_values.to_vec();
        let whole = if table.of_square { new.longer().into() } else { new };
        let patches = resample(patch_values, width, old, whole, table.resampling);
        patches
            .chunks_exact(whole.width * width)
            .take(new.height)
            .for_each(|row| resampled.extend(&row[..new.width * width]));
        let resampled = Tensor::from_vec(resampled, (1, prefix + new.area(), width), &Device::Cpu)?;
        let dtype = if table.rounded { stored } else { DType::F32 };
        self.params.insert(Layer::PosEmbed.whole(), resampled.to_dtype(dtype)?.to_dtype(DType::F32)?);
        Ok(())
    }

    /// Prepares the tables of relative positions for another grid. The entries of the class token stay. timm's, whose places
    /// are geometric, are resampled while loading and rounded to the type of the file.
    fn resize_relative(&mut self, old: Size, new: Size, how: Resampling, stored: DType) -> Result<()> {
        let heads = self.spec.attention.heads;
        for block in 0..self.spec.depth {
            let name = Layer::RelPos.whole().in_block(block);
            let values = self.params.tensor(name)?.flatten_all()?.to_vec1::<f32>()?;
            let [old, new] = [old, new].map(relative_distances);
            let (patches, class) = values.split_at(old.area() * heads);
            let mut resampled = resample(patches, heads, old, new, how);
            resampled.extend(class);
            let table = Tensor::from_vec(resampled, ((), heads), &Device::Cpu)?;
            let dtype = if how == Resampling::Geometric { stored } else { DType::F32 };
            self.params.insert(name, table.to_dtype(dtype)?.to_dtype(DType::F32)?);
        }
        Ok(())
    }
}

/// The size that a family prefers to that of the stored positions, if an image can have it and the patches divide it.
fn usual_size(family: &Family, source: &Source, spec: &VitSpec) -> Option<Size> {
    let usual = (family.usual_size)(&source.description);
    usual.filter(|size| {
        size.sides().into_iter().all(|side| (1..=LARGEST).contains(&side) && side.is_multiple_of(spec.patch.size))
    })
}

/// The family of a source, and the architecture it describes.
fn described(source: &Source, header: &Header) -> Result<(&'static Family, VitSpec)> {
    let family = recognise(source, header)?;
    let spec = (family.spec)(&source.description, header).map_err(|reason| WeightsError::Invalid {
        path: source.path.clone(),
        reason: format!("{} model: {reason}", family.name),
        hint: nearest(header),
    })?;
    validate(&spec, &source.path)?;
    Ok((family, spec))
}

fn recognise(source: &Source, header: &Header) -> Result<&'static Family> {
    if let Some(family) = FAMILIES.iter().find(|family| (family.recognises)(&source.description.config)) {
        return Ok(*family);
    }
    let described = ["architecture", "model_type"]
        .iter()
        .find_map(|key| source.description.config[*key].as_str().map(|value| format!("{key} {value:?}")))
        .unwrap_or_else(|| "neither \"architecture\" nor \"model_type\"".into());
    let supported: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let nearest = nearest(header).map_or_else(String::new, |nearest| format!("; {nearest}"));
    Err(WeightsError::Invalid {
        path: source.path.clone(),
        reason: format!(
            "unknown kind of model: config.json has {described}, the first of {} tensors is {:?}",
            header.len(),
            header.keys().next().map_or("", String::as_str)
        ),
        hint: Some(format!("supported: {}{nearest}", supported.join(", "))),
    }
    .into())
}

/// A backbone of each size, with its millions of parameters.
const SIZES: [(f64, &str); 5] = [
    (5.7, "timm/vit_tiny_patch16_224.augreg_in21k"),
    (21.6, "timm/vit_small_patch16_dinov3.lvd1689m"),
    (85.6, "timm/vit_base_patch16_dinov3.lvd1689m"),
    (303.1, "timm/vit_large_patch16_dinov3.lvd1689m"),
    (840.5, "timm/vit_huge_plus_patch16_dinov3.lvd1689m"),
];

/// What to take instead of a model that is not supported: of those in [`SIZES`] the one nearest in size.
fn nearest(header: &Header) -> Option<String> {
    let millions = header.values().map(|shape| shape.iter().map(|&dim| dim as f64).product::<f64>()).sum::<f64>() / 1e6;
    let distance = |(size, _): &(f64, &str)| (size / millions).ln().abs();
    let (size, name) = SIZES.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    Some(format!("nearest to its {millions:.1} million parameters is {name} with {size}"))
}

/// Refuses architectures whose numbers cannot work together before anything is computed from them.
fn validate(spec: &VitSpec, path: &Path) -> Result<()> {
    let [height, width] = spec.image_size.sides();
    let sizes = [("patch size", spec.patch.size), ("image size", height), ("image size", width)];
    let problem = if let Some(problem) = tower_problem(&spec.block(), spec.depth) {
        problem
    } else if let Some((name, value)) = sizes.iter().find(|(_, value)| !(1..=LARGEST).contains(value)) {
        format!("config.json gives a {name} of {value}")
    } else if spec.image_size.sides().into_iter().any(|side| side < spec.patch.size) {
        format!("config.json gives images of {} pixels, smaller than a patch of {}", spec.image_size, spec.patch.size)
    } else if !spec.can_be_pooled_by(spec.pooling.pool) {
        "config.json asks for the class token, but the weights have none".into()
    } else {
        return Ok(());
    };
    Err(WeightsError::invalid(path, problem).into())
}

/// No tower is larger in any of its dimensions.
const LARGEST: usize = 1 << 16;

/// What is wrong with the dimensions of an image or text tower, if anything.
pub(super) fn tower_problem(block: &BlockSpec, depth: usize) -> Option<String> {
    let (width, heads, hidden) = (block.width, block.attention.heads, block.mlp.hidden);
    let numbers = [("width", width), ("depth", depth), ("number of heads", heads), ("MLP width", hidden)];
    if let Some((name, value)) = numbers.iter().find(|(_, value)| !(1..=LARGEST).contains(value)) {
        return Some(format!("the config gives a {name} of {value}"));
    }
    let divides = width.is_multiple_of(heads);
    (!divides).then(|| format!("the config gives a width of {width}, which {heads} heads do not divide"))
}

/// A weights file and the family that knows its names.
struct File<'a> {
    family: &'static Family,
    header: &'a Header,
    tensors: &'a Tensors<'a>,
    path: &'a Path,
}

impl File<'_> {
    /// Lists everything that is missing, wrongly shaped or unexpected.
    fn verify(&self, spec: &VitSpec) -> Result<()> {
        let shapes = spec.shapes().into_iter().chain(spec.output_shapes());
        let wanted = shapes.map(|(name, shape)| ((self.family.mapping)(name, self.header), shape));
        let problems = differences(wanted, self.header, |name| (self.family.ignores)(name, self.header));
        if problems.is_empty() {
            return Ok(());
        }
        let family = format!("{} ({})", self.family.name, spec.architecture);
        Err(WeightsError::Mismatch { path: self.path.to_path_buf(), family, problems }.into())
    }

    /// The parameters of those canonical names.
    fn read(&self, shapes: Shapes) -> Result<Params> {
        let of = |name| (self.family.mapping)(name, self.header);
        let read =
            |(name, shape): (_, Vec<usize>)| Ok((name, read_parameter(&of(name), &shape, self.tensors, self.path)?));
        shapes.into_iter().map(read).collect()
    }
}

/// A line for each tensor of `wanted` that is missing or has another shape, and for each that nothing wants and that
/// may not be ignored.
pub(super) fn differences(
    wanted: impl Iterator<Item = (WeightMapping, Vec<usize>)>,
    header: &Header,
    ignores: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for (mapping, shape) in wanted {
        for (which, theirs) in mapping.names().iter().enumerate() {
            if !used.insert(theirs.clone()) {
                continue;
            }
            let expected = mapping.stored(&shape, which);
            match header.get(theirs) {
                None => problems.push(format!("missing: {theirs} {expected:?}")),
                Some(found) if *found != expected => {
                    problems.push(format!("wrong shape: {theirs} is {found:?}, expected {expected:?}"));
                }
                Some(_) => {}
            }
        }
    }
    // A tensor without values, such as no registers at all, says nothing.
    let empty = |shape: &[usize]| shape.contains(&0);
    let unexpected = header.iter().filter(|(name, shape)| !used.contains(*name) && !ignores(name) && !empty(shape));
    problems.extend(unexpected.map(|(name, shape)| format!("unexpected: {name} {shape:?}")));
    problems
}

/// One parameter in f32.
pub(super) fn read_parameter(
    mapping: &WeightMapping,
    shape: &[usize],
    tensors: &Tensors<'_>,
    path: &Path,
) -> Result<Tensor> {
    let read = |name: &String| tensors.read(name).map_err(|reason| WeightsError::invalid(path, reason));
    let parts = mapping.names().iter().map(read).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(mapping.assemble(&parts, shape)?)
}

fn unmade_choice(key: &str) -> Error {
    Error::usage_hint(
        format!("{key} = \"auto\" is chosen on validation images, which only `vitadapt probe` does"),
        format!("run `vitadapt probe`, and set {key} to what it chose"),
    )
}
