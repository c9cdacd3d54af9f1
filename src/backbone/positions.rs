//! Positions of patches: learnt embeddings resampled to another grid, and the angles of rotary ones. On the host, once at
//! loading.
//!
//! Resampling is equal to `torch.nn.functional.interpolate(align_corners=False)` in the mode that each library asks for.

use crate::nn::Pairs;
use crate::size::Size;
use candle_core::{Device, Result, Tensor};
use std::f64::consts::TAU;
use std::fmt;

/// How tokens know where they lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// By learnt embeddings that are added to them before the first block.
    Table(PositionTable),
    /// By turning queries and keys in every block (Su et al. 2021).
    Rotary(AxialRotary),
    /// By what every block adds to the attention score of each pair of places (`BEiT`), from a table; for another grid it is
    /// resampled this way.
    Relative(Resampling),
    /// The same, computed by a small network from how far two places are apart (Liu et al. 2022).
    RelativeMlp {
        /// Its hidden width.
        hidden: usize,
    },
    /// By both an embedding and turning.
    TableAndRotary(PositionTable, AxialRotary),
}

impl Positions {
    /// The table of embeddings, if there is one.
    pub fn table(&self) -> Option<&PositionTable> {
        match self {
            Self::Table(table) | Self::TableAndRotary(table, _) => Some(table),
            Self::Rotary(_) | Self::Relative(_) | Self::RelativeMlp { .. } => None,
        }
    }

    /// The same, to be changed.
    pub fn table_mut(&mut self) -> Option<&mut PositionTable> {
        match self {
            Self::Table(table) | Self::TableAndRotary(table, _) => Some(table),
            Self::Rotary(_) | Self::Relative(_) | Self::RelativeMlp { .. } => None,
        }
    }

    /// What turns queries and keys, if anything does.
    pub fn rotary(&self) -> Option<&AxialRotary> {
        match self {
            Self::Table(_) | Self::Relative(_) | Self::RelativeMlp { .. } => None,
            Self::Rotary(rotary) | Self::TableAndRotary(_, rotary) => Some(rotary),
        }
    }

    /// Whether blocks add to the scores of attention by where tokens lie to each other.
    pub fn are_relative(&self) -> bool {
        matches!(self, Self::Relative(_) | Self::RelativeMlp { .. })
    }

    /// How many of the tokens before the patches have an embedding in the table.
    pub fn prefix(&self) -> usize {
        self.table().map_or(0, |table| table.prefix)
    }
}

/// Learnt position embeddings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PositionTable {
    /// How many of the tokens before the patches have one, counted from the first: none, the class token alone, or all.
    pub prefix: usize,
    /// How the library resamples those of the patches.
    pub resampling: Resampling,
    /// Whether resampled embeddings are rounded to the type of the file: so in libraries that resample while loading,
    /// unlike those that resample in each forward pass.
    pub rounded: bool,
    /// Whether they are resampled to a square of the longer side, of which the upper left is taken (RADIO).
    pub of_square: bool,
}

/// Without what is not so: addresses of what is kept are made of it.
impl fmt::Debug for PositionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("PositionTable");
        fields.field("prefix", &self.prefix).field("resampling", &self.resampling).field("rounded", &self.rounded);
        if self.of_square {
            fields.field("of_square", &true);
        }
        fields.finish()
    }
}

/// How a library resamples position embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resampling {
    /// Cubic with a = -1/2, the kernel widened when shrinking, as Pillow's (timm, `open_clip`, `DINOv2` with registers).
    BicubicAntialiased,
    /// Cubic with a = -3/4 at four taps (transformers).
    Bicubic,
    /// Linear at two taps (timm's `FlexiViT`).
    Bilinear,
    /// Linear at two taps, the corners of both grids on each other (RADIO).
    BilinearAligned,
    /// Linear, the kernel widened when shrinking (`SigLIP` 2).
    BilinearAntialiased,
    /// Linear between places whose distances grow from the middle on, so that the outermost meet (`BEiT`'s tables of
    /// relative positions).
    Geometric,
}

/// Resamples positions of `width` values each, row-major, from one grid to another.
pub fn resample(positions: &[f32], width: usize, old: Size, new: Size, how: Resampling) -> Vec<f32> {
    if old == new {
        return positions.to_vec();
    }
    let taps = |old: usize, new: usize| (0..new).map(move |i| weights(i, old, new, how));
    // Along the columns first.
    let mut half = vec![0f64; old.height * new.width * width];
    for row in 0..old.height {
        for (col, taps) in taps(old.width, new.width).enumerate() {
            let out = &mut half[(row * new.width + col) * width..][..width];
            for (from, weight) in taps {
                let values = &positions[(row * old.width + from) * width..][..width];
                out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * f64::from(*value));
            }
        }
    }
    let along = new.width * width;
    let mut whole = vec![0f64; new.height * along];
    for (row, taps) in taps(old.height, new.height).enumerate() {
        let out = &mut whole[row * along..][..along];
        for (from, weight) in taps {
            let values = &half[from * along..][..along];
            out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value);
        }
    }
    whole.into_iter().map(|value| value as f32).collect()
}

/// The source positions and weights of output `i`.
pub(super) fn weights(i: usize, old: usize, new: usize, how: Resampling) -> Vec<(usize, f64)> {
    let scale = old as f64 / new as f64;
    let centre = match how {
        Resampling::BilinearAligned => 0.5 + (i * (old - 1)) as f64 / new.saturating_sub(1).max(1) as f64,
        _ => (i as f64 + 0.5) * scale,
    };
    // Taps beyond the border repeat the border.
    let tap = |at: f64, weight: f64| ((at.max(0.0) as usize).min(old - 1), weight);
    let start = (centre - 0.5).floor();
    match how {
        Resampling::BicubicAntialiased => antialiased(centre, scale.max(1.0), old, 2.0, |x| cubic(x, -0.5)),
        Resampling::BilinearAntialiased => antialiased(centre, scale.max(1.0), old, 1.0, |x| (1.0 - x.abs()).max(0.0)),
        Resampling::Bicubic => {
            (-1..=2).map(|i| start + f64::from(i)).map(|at| tap(at, cubic(centre - 0.5 - at, -0.75))).collect()
        }
        Resampling::Bilinear | Resampling::BilinearAligned => {
            let fraction = centre - 0.5 - start;
            vec![tap(start, 1.0 - fraction), tap(start + 1.0, fraction)]
        }
        Resampling::Geometric => geometric(i, old, new),
    }
}

/// Weights of the two of `old` places beside the place of output `i`. Both are odd in number and counted from the middle; of
/// the old ones, each is further from the last than that from the one before, by a ratio found by bisection.
fn geometric(i: usize, old: usize, new: usize) -> Vec<(usize, f64)> {
    let (half, reach) = (old / 2, (new / 2) as f64);
    let (mut left, mut right, mut ratio) = (1.01, 1.5, 1.01);
    while right - left > 1e-6 {
        ratio = f64::midpoint(left, right);
        let sum = (1.0 - f64::powi(ratio, half as i32)) / (1.0 - ratio);
        if sum > reach { right = ratio } else { left = ratio }
    }
    let distances: Vec<f64> = (0..half)
        .scan((1.0, 1), |(distance, power), _| {
            let here = *distance;
            *distance += ratio.powi(*power);
            *power += 1;
            Some(here)
        })
        .collect();
    let places: Vec<f64> =
        distances.iter().rev().map(|distance| -distance).chain([0.0]).chain(distances.iter().copied()).collect();
    let place = i as f64 - reach;
    let after = places.partition_point(|at| *at < place).min(old - 1);
    let before = after.saturating_sub(1);
    let (from, to) = ((place - places[before]).max(0.0), (places[after] - place).max(0.0));
    if from + to == 0.0 { vec![(after, 1.0)] } else { vec![(before, to / (from + to)), (after, from / (from + to))] }
}

/// Weights of a kernel of half width `reach`, `stretch` times as wide, over the positions inside the grid.
fn antialiased(centre: f64, stretch: f64, old: usize, reach: f64, kernel: impl Fn(f64) -> f64) -> Vec<(usize, f64)> {
    let support = reach * stretch;
    let first = (centre - support + 0.5).floor().max(0.0) as usize;
    let end = ((centre + support + 0.5).floor() as usize).min(old);
    let raw: Vec<(usize, f64)> = (first..end).map(|at| (at, kernel((at as f64 + 0.5 - centre) / stretch))).collect();
    let total: f64 = raw.iter().map(|(_, weight)| weight).sum();
    raw.into_iter().map(|(at, weight)| (at, weight / total)).collect()
}

/// The cubic convolution kernel (Keys 1981).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Rotary positions along both axes: a patch's channels are turned by its coordinates times frequencies, a quarter of a
/// head's width along one axis and as many along the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AxialRotary {
    /// Frequency k of n is its power -k / n.
    pub temperature: f64,
    /// Where patches lie.
    pub coordinates: Coordinates,
    /// Which channels are turned together.
    pub pairs: Pairs,
    /// What every block learns of them.
    pub learnt: LearntAngles,
}

/// Which angles of rotary positions a block learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LearntAngles {
    /// None.
    Nothing,
    /// All: every head has frequencies of its own along both axes for each pair (Heo et al. 2024); the temperature is not
    /// used then.
    Frequencies,
    /// Those of the class token, which has no place (MLCD).
    ClassToken,
}

/// The coordinates of patches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coordinates {
    /// 2π times those of their centres, from -1 to 1 over the image whatever its size; y before x (`DINOv3`).
    Centres,
    /// Their numbers in a row or column (EVA02, Perception Encoder, rope-ViT).
    Numbers {
        /// The number of the first.
        first: f64,
        /// Patches along a side of the pretraining's images, to which numbers are stretched.
        stretched_to: Option<usize>,
        /// Whether x comes before y.
        x_first: bool,
    },
}

impl AxialRotary {
    /// Those of `DINOv3`.
    pub fn dinov3(temperature: f64) -> Self {
        Self { temperature, coordinates: Coordinates::Centres, pairs: Pairs::Halves, learnt: LearntAngles::Nothing }
    }

    /// Where the tokens of a grid lie, behind `before` that have no place and lie at 0.
    pub(super) fn places(self, grid: Size, before: usize) -> Vec<[f32; 2]> {
        let patches = grid.places().map(|place| self.coordinates.of(place, grid));
        vec![[0.0; 2]; before].into_iter().chain(patches.map(|place| place.map(|at| at as f32))).collect()
    }

    /// The angles (1, before + N, `head_dim` / 2) of a grid of N patches behind `before` tokens that have no place, for heads of
    /// `head_dim` channels, where they are not learnt.
    ///
    /// # Errors
    /// When four does not divide the channels of a head.
    pub fn angles(self, grid: Size, before: usize, head_dim: usize) -> Result<Tensor> {
        if !head_dim.is_multiple_of(4) {
            candle_core::bail!("rotary positions need heads of a multiple of 4 channels, not {head_dim}");
        }
        let count = head_dim / 4;
        let frequency = |k: usize| self.temperature.powf(-(k as f64) / count as f64);
        let mut angles = vec![0f32; before * 2 * count];
        for place in grid.places() {
            let along = |at: f64| (0..count).map(move |k| (at * frequency(k)) as f32);
            let [first, second] = self.coordinates.of(place, grid);
            angles.extend(along(first).chain(along(second)));
        }
        let shape = (1, before + grid.area(), 2 * count);
        Tensor::from_vec(angles, shape, &Device::Cpu)
    }
}

impl Coordinates {
    /// The coordinates of a patch of a grid.
    fn of(self, (y, x): (usize, usize), grid: Size) -> [f64; 2] {
        let along = [(y, grid.height), (x, grid.width)];
        match self {
            Self::Centres => along.map(|(i, count)| TAU * (2.0 * (i as f64 + 0.5) / count as f64 - 1.0)),
            Self::Numbers { first, stretched_to, x_first } => {
                let stretch = |count: usize| stretched_to.map_or(1.0, |side| side as f64 / count as f64);
                let [y, x] = along.map(|(i, count)| (i as f64 + first) * stretch(count));
                if x_first { [x, y] } else { [y, x] }
            }
        }
    }
}

/// How many of the entries of a table of relative positions are for the class token: looking, looked at, and both.
pub(super) const CLASS_ENTRIES: usize = 3;

/// The distances of two patches of a grid down and across, each with an entry in a table of relative positions.
pub(super) fn relative_distances(grid: Size) -> Size {
    grid.map(|side| 2 * side - 1)
}

/// The entry of each two tokens of a table of relative positions, in rows those that look: of a class token if `class` is 1,
/// `learnt` ones that have none, and the patches of a grid. What has none gets the number behind the last entry.
pub(super) fn relative_index(grid: Size, class: usize, learnt: usize) -> Vec<u32> {
    let (distances, across) = (relative_distances(grid).area(), grid.width);
    let patch = |token: usize| (token >= class + learnt).then(|| token - class - learnt);
    let tokens = class + learnt + grid.area();
    let entry = |from: usize, to: usize| match (patch(from), patch(to)) {
        (Some(from), Some(to)) => {
            let apart = |a: usize, b: usize, count: usize| a + count - 1 - b;
            apart(from / across, to / across, grid.height) * (2 * across - 1)
                + apart(from % across, to % across, across)
        }
        (None, Some(_)) if from < class => distances,
        (Some(_), None) if to < class => distances + 1,
        (None, None) if from < class && to < class => distances + 2,
        _ => distances + CLASS_ENTRIES * class,
    };
    (0..tokens).flat_map(|from| (0..tokens).map(move |to| entry(from, to) as u32)).collect()
}
