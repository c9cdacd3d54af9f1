//! Where tokens lie, as attention reads it: what turns queries and keys, and what is added to the scores.

use super::block::Block;
use super::name::Layer;
use super::params::Params;
use super::positions::{AxialRotary, LearntAngles, Positions, relative_distances, relative_index};
use super::spec::VitSpec;
use super::visual_prompts::VisualPrompts;
use crate::nn::{CoordinateMlp, Pairs, RelativeBias, Rotary};
use crate::size::Size;
use candle_core::{Device, Result, Tensor};
use std::sync::Arc;

/// The places of a backbone's tokens, with the learnt prompts among them.
pub(super) struct AttentionPlaces {
    rotary: Option<RotaryPlaces>,
    relative: Option<RelativePlaces>,
}

/// What turns queries and keys.
enum RotaryPlaces {
    /// By the same angles in all blocks.
    Fixed(Rotary),
    /// By frequencies of each block, times these coordinates (T, axes), beside fixed angles.
    Learnt { pairs: Pairs, coordinates: Arc<[f32]>, fixed: Option<Tensor> },
}

/// Where tokens lie to each other, as tables of relative positions count it.
struct RelativePlaces {
    index: Arc<[u32]>,
    tokens: usize,
    /// What a network makes the table of (entries, 2), if one does.
    coordinates: Option<Tensor>,
}

impl AttentionPlaces {
    /// Those of a backbone.
    ///
    /// # Errors
    /// When four does not divide the channels of a head that is turned.
    pub fn new(spec: &VitSpec, prompts: &VisualPrompts) -> Result<Self> {
        let (before, learnt) = prompts.span()?;
        let (grid, before) = (spec.grid(), before + learnt);
        let rotary = |axial: AxialRotary| -> Result<RotaryPlaces> {
            let (pairs, head_dim) = (axial.pairs, spec.width / spec.attention.heads);
            Ok(match axial.learnt {
                LearntAngles::Nothing => {
                    RotaryPlaces::Fixed(Rotary::new(&axial.angles(grid, before, head_dim)?, pairs)?)
                }
                LearntAngles::Frequencies => {
                    let coordinates = axial.places(grid, before).as_flattened().into();
                    RotaryPlaces::Learnt { pairs, coordinates, fixed: None }
                }
                LearntAngles::ClassToken => {
                    let coordinates = (0..before + grid.area()).map(|token| f32::from(token == 0)).collect();
                    let fixed = Some(axial.angles(grid, before, head_dim)?);
                    RotaryPlaces::Learnt { pairs, coordinates, fixed }
                }
            })
        };
        let rotary = spec.positions.rotary().copied().map(rotary).transpose()?;
        Ok(Self { rotary, relative: relative(spec, learnt)? })
    }

    /// Block `index` with them.
    ///
    /// # Errors
    /// When a parameter of the block is absent.
    pub fn place(&self, mut block: Block, params: &Params, index: usize) -> Result<Block> {
        block.attention.rotary = self.rotary(params, index)?;
        block.attention.relative = self.relative(params, index)?;
        Ok(block)
    }

    fn rotary(&self, params: &Params, index: usize) -> Result<Option<Rotary>> {
        Ok(match &self.rotary {
            None => None,
            Some(RotaryPlaces::Fixed(rotary)) => Some(rotary.clone()),
            Some(RotaryPlaces::Learnt { pairs, coordinates, fixed }) => {
                let frequencies = params.tensor(Layer::RopeFreqs.whole().in_block(index))?;
                Some(Rotary::learnt(frequencies, coordinates.clone(), fixed.clone(), *pairs)?)
            }
        })
    }

    fn relative(&self, params: &Params, index: usize) -> Result<Option<RelativeBias>> {
        let Some(places) = &self.relative else { return Ok(None) };
        let at = |layer: Layer| layer.weight().in_block(index);
        let (index_of, tokens) = (places.index.clone(), places.tokens);
        let bias = match &places.coordinates {
            None => RelativeBias::new(params.tensor(Layer::RelPos.whole().in_block(index))?, index_of, tokens),
            Some(coordinates) => {
                let (fc1, fc2) = (params.linear(at(Layer::RelFc1))?, params.linear(at(Layer::RelFc2))?);
                let device = params.tensor(at(Layer::RelFc1))?.device().clone();
                let mlp = CoordinateMlp { coordinates: coordinates.to_device(&device)?, fc1, fc2 };
                RelativeBias::of_mlp(mlp, index_of, tokens)
            }
        };
        bias.map(Some)
    }
}

/// What block `index` adds to the scores of attention (heads, T, T), if positions are relative.
///
/// # Errors
/// When a parameter of the block is absent.
pub fn relative_bias(spec: &VitSpec, params: &Params, index: usize) -> Result<Option<Tensor>> {
    let places = AttentionPlaces::new(spec, &VisualPrompts::of(spec, params))?;
    places.relative(params, index)?.map(|bias| bias.tensor()).transpose()
}

/// What block `index` turns queries and keys by: the cosine and the sine of the angles, each (1 or heads, T, `head_dim` / 2).
///
/// # Errors
/// When a parameter of the block is absent.
pub fn rotary_turn(spec: &VitSpec, params: &Params, index: usize) -> Result<Option<[Tensor; 2]>> {
    let places = AttentionPlaces::new(spec, &VisualPrompts::of(spec, params))?;
    places.rotary(params, index)?.map(|rotary| rotary.tensors(&Device::Cpu)).transpose()
}

/// The places, with `learnt` prompts among the tokens, if positions are relative.
fn relative(spec: &VitSpec, learnt: usize) -> Result<Option<RelativePlaces>> {
    let (grid, prefix, tokens) = (spec.grid(), spec.prefix_tokens(), spec.tokens() + learnt);
    Ok(match spec.positions {
        Positions::Relative(_) => {
            Some(RelativePlaces { index: relative_index(grid, prefix, learnt).into(), tokens, coordinates: None })
        }
        // Tokens before the patches have no place.
        Positions::RelativeMlp { .. } => Some(RelativePlaces {
            index: relative_index(grid, 0, prefix + learnt).into(),
            tokens,
            coordinates: Some(distances(grid)?),
        }),
        Positions::Table(_) | Positions::Rotary(_) | Positions::TableAndRotary(..) => None,
    })
}

/// The distances (entries, 2) of two patches along both axes, y first: their logarithms, with their signs.
fn distances(grid: Size) -> Result<Tensor> {
    let along = |entry: usize, count: usize| {
        let apart = entry as f32 - (count - 1) as f32;
        apart.signum() * apart.abs().ln_1p()
    };
    let entries = relative_distances(grid);
    let values: Vec<f32> = entries.places().flat_map(|(y, x)| [along(y, grid.height), along(x, grid.width)]).collect();
    Tensor::from_vec(values, (entries.area(), 2), &Device::Cpu)
}
