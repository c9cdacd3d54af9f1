//! Low-rank adapters (`LoRA`, Hu et al. 2021) of a backbone's blocks: their parameters, and the weights with the adapters
//! folded in.
//!
//! Beside `blocks.0.attn.qkv.weight` there are `blocks.0.attn.q.lora_a` (rank, in) and `blocks.0.attn.q.lora_b` (out,
//! rank); queries, keys and values are adapted each on its own, as peft does on layers that are not packed.

use super::name::{Layer, ParamName, Part};
use super::params::Params;
use super::spec::Shapes;
use crate::config::LoraTarget;
use crate::nn::{Adapter, Factors};
use crate::rng::{Purpose, Stream};
use candle_core::{DType, Result, Tensor};

/// The adapters of a backbone.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// The adapted blocks.
    pub blocks: Vec<usize>,
    /// The adapted layers of each, in the order of their outputs.
    pub targets: Vec<LoraTarget>,
    /// Inner width.
    pub rank: usize,
    /// The product of an adapter's factors is scaled by alpha / rank.
    pub alpha: f64,
    /// Dropout rate of the adapters' inputs.
    pub dropout: f64,
}

/// The linear layers of a block, in the order of the forward pass.
const LINEARS: [Layer; 4] = [Layer::Qkv, Layer::Proj, Layer::Fc1, Layer::Fc2];

/// Which part of which layer a target is.
struct Site {
    /// What its factors are named after.
    name: Layer,
    /// The adapted layer.
    layer: Layer,
    /// It is that one …
    part: usize,
    /// … of so many equal parts of the layer's outputs.
    parts: usize,
}

fn site(target: LoraTarget) -> Site {
    let whole = |layer| Site { name: layer, layer, part: 0, parts: 1 };
    let packed = |name, part| Site { name, layer: Layer::Qkv, part, parts: 3 };
    match target {
        LoraTarget::Q => packed(Layer::Q, 0),
        LoraTarget::K => packed(Layer::K, 1),
        LoraTarget::V => packed(Layer::V, 2),
        LoraTarget::O => whole(Layer::Proj),
        LoraTarget::Fc1 => whole(Layer::Fc1),
        LoraTarget::Fc2 => whole(Layer::Fc2),
    }
}

impl Lora {
    /// The names of all factors.
    pub fn names(&self) -> Vec<ParamName> {
        self.places().flat_map(|(block, target)| factor_names(block, &site(target))).collect()
    }

    /// Every adapter by its block and target.
    fn places(&self) -> impl Iterator<Item = (usize, LoraTarget)> {
        self.blocks.iter().flat_map(|&block| self.targets.iter().map(move |&target| (block, target)))
    }

    /// The shapes of all factors beside layers of these shapes, (rank, in) and (out, rank).
    pub fn shapes(&self, layers: &Shapes) -> Shapes {
        let mut shapes = Shapes::new();
        for (block, target) in self.places() {
            let site = site(target);
            if let Some([out, inner]) = layers.get(&weight_name(block, site.layer)).map(Vec::as_slice) {
                let [name_a, name_b] = factor_names(block, &site);
                shapes.insert(name_a, vec![self.rank, *inner]);
                shapes.insert(name_b, vec![out / site.parts, self.rank]);
            }
        }
        shapes
    }

    /// Adds fresh factors to the backbone's parameters: A is uniform within ±1 / √in (Kaiming with slope √5, as in peft),
    /// B zero, so that the model starts as the pretrained one.
    ///
    /// # Errors
    /// When a layer is absent.
    pub fn insert(&self, params: &mut Params, seed: u64) -> Result<()> {
        for (block, target) in self.places() {
            let site = site(target);
            let weight = params.tensor(weight_name(block, site.layer))?;
            let (out, inner) = weight.dims2()?;
            let mut stream = Stream::new(seed, Purpose::Init, &[block as u64, target as u64]);
            let bound = (inner as f64).powf(-0.5);
            let a: Vec<f32> = (0..self.rank * inner).map(|_| stream.range(-bound, bound) as f32).collect();
            let [name_a, name_b] = factor_names(block, &site);
            params.insert(name_a, Tensor::from_vec(a, (self.rank, inner), weight.device())?);
            params.insert(name_b, Tensor::zeros((out / site.parts, self.rank), DType::F32, weight.device())?);
        }
        Ok(())
    }

    /// The parameters of the same function without adapters, W + alpha / rank · B A in each adapted layer; nothing of
    /// them is trained.
    ///
    /// # Errors
    /// When a factor is absent or does not fit its layer.
    pub fn merged(&self, params: &Params) -> Result<Params> {
        let mut merged = params.detached();
        for (block, target) in self.places() {
            let site = site(target);
            let name = weight_name(block, site.layer);
            let weight = merged.tensor(name)?;
            let rows = weight.dim(0)? / site.parts;
            let factors = factors(&merged, block, &site, rows)?;
            let change = (factors.b.matmul(&factors.a)? * self.scale())?;
            let adapted = (weight.narrow(0, factors.first, rows)? + change)?;
            let adapted = weight.slice_scatter(&adapted, 0, factors.first)?;
            merged.insert(name, adapted);
        }
        let names = self.names();
        merged.retain(|name| !name.parse().is_ok_and(|name| names.contains(&name)));
        Ok(merged)
    }

    /// The adapter of a layer of a block, if it has one.
    pub(super) fn adapter(&self, params: &Params, block: usize, layer: Layer) -> Result<Option<Adapter>> {
        let sites = self.targets.iter().map(|&target| site(target)).filter(|site| site.layer == layer);
        let factors = sites.map(|site| {
            let rows = params.tensor(weight_name(block, layer))?.dim(0)? / site.parts;
            factors(params, block, &site, rows)
        });
        let factors = factors.collect::<Result<Vec<_>>>()?;
        let index = LINEARS.iter().position(|linear| *linear == layer).unwrap_or_default();
        let place = (block * LINEARS.len() + index) as u64;
        let adapter = Adapter { factors, scale: self.scale(), dropout: self.dropout, place };
        Ok((!adapter.factors.is_empty()).then_some(adapter))
    }

    fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

/// A target's factors, whose B has that many rows.
fn factors(params: &Params, block: usize, site: &Site, rows: usize) -> Result<Factors> {
    let [a, b] = factor_names(block, site);
    Ok(Factors { a: params.tensor(a)?, b: params.tensor(b)?, first: site.part * rows })
}

fn weight_name(block: usize, layer: Layer) -> ParamName {
    layer.weight().in_block(block)
}

fn factor_names(block: usize, site: &Site) -> [ParamName; 2] {
    [Part::LoraA, Part::LoraB].map(|factor| site.name.part(factor).in_block(block))
}
