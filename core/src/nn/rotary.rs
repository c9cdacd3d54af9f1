//! Rotary positions (Su et al. 2021): queries and keys are turned, pair by pair of their channels, by angles that depend on
//! where their token lies, so that their products depend on where tokens lie to each other.

use super::attention_kernel::AttentionKernel;
use crate::kernels::{Operation, keep, run, simd};
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Result, Tensor};
use std::sync::Arc;

/// Which channels of a head are turned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// One of the first half with its counterpart in the second half (transformers' `rotate_half`).
    Halves,
    /// Neighbours (timm's `rot`).
    Neighbours,
}

/// The angles of all tokens.
#[derive(Debug, Clone)]
pub struct Rotary {
    angles: RotaryAngles,
    tokens: usize,
    half: usize,
    pairs: Pairs,
}

#[derive(Debug, Clone)]
enum RotaryAngles {
    Fixed(TurnTables),
    /// Frequencies (axes, 1 or heads, d / 2), each times a coordinate of the token (T, axes), their sum, and fixed angles
    /// (1, T, d / 2).
    Learnt {
        frequencies: Tensor,
        coordinates: Arc<[f32]>,
        fixed: Option<Tensor>,
    },
}

/// Cosine and sine, each (heads, tokens, d / 2); with one head for all.
#[derive(Debug, Clone)]
struct TurnTables {
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

impl TurnTables {
    fn of(angles: &Tensor) -> Result<Self> {
        let values = |of: Tensor| of.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        Ok(Self { cos: values(angles.cos()?)?.into(), sin: values(angles.sin()?)?.into() })
    }
}

impl Rotary {
    /// By the angles (1 or heads, T, d / 2) of the pairs of channels in each token; tokens that have no place have angle 0.
    ///
    /// # Errors
    /// When the angles have another shape.
    pub fn new(angles: &Tensor, pairs: Pairs) -> Result<Self> {
        let (_, tokens, half) = angles.dims3()?;
        Ok(Self { angles: RotaryAngles::Fixed(TurnTables::of(angles)?), tokens, half, pairs })
    }

    /// By learnt frequencies (axes, 1 or heads, d / 2) and as many coordinates of each token (T, axes), such as both of its
    /// place (Heo et al. 2024), beside `fixed` angles (1, T, d / 2).
    ///
    /// # Errors
    /// When the frequencies have another shape.
    pub fn learnt(frequencies: Tensor, coordinates: Arc<[f32]>, fixed: Option<Tensor>, pairs: Pairs) -> Result<Self> {
        let (axes, _, half) = frequencies.dims3()?;
        let tokens = coordinates.len() / axes.max(1);
        Ok(Self { angles: RotaryAngles::Learnt { frequencies, coordinates, fixed }, tokens, half, pairs })
    }

    /// The cosines and sines now: learnt frequencies change.
    fn tables(&self) -> Result<TurnTables> {
        match &self.angles {
            RotaryAngles::Fixed(tables) => Ok(tables.clone()),
            RotaryAngles::Learnt { frequencies, coordinates, fixed } => {
                TurnTables::of(&learnt_angles(&frequencies.detach(), coordinates, fixed.as_ref())?)
            }
        }
    }

    /// Cosine and sine as graphs on a device, each (1 or heads, T, d / 2), in f32 unless the frequencies are in f64.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn tensors(&self, device: &Device) -> Result<[Tensor; 2]> {
        match &self.angles {
            RotaryAngles::Fixed(TurnTables { cos, sin }) => {
                let shape = ((), self.tokens, self.half);
                Ok([Tensor::from_slice(cos, shape, device)?, Tensor::from_slice(sin, shape, device)?])
            }
            RotaryAngles::Learnt { frequencies, coordinates, fixed } => {
                let angles = learnt_angles(frequencies, coordinates, fixed.as_ref())?.to_device(device)?;
                Ok([angles.cos()?, angles.sin()?])
            }
        }
    }

    /// Packed q, k, v (B, T, 3 · heads · d) with q and k turned.
    ///
    /// # Errors
    /// When there are other numbers of tokens or channels than angles.
    pub fn forward(&self, qkv: &Tensor, heads: usize) -> Result<Tensor> {
        let turn = Turn { rotary: self.clone(), sizes: AttentionKernel::of(qkv, heads, false)? };
        // The kernel knows no gradient of the angles.
        if self.trainable() { turn.composed([qkv]) } else { run(&turn, [qkv]) }
    }

    /// Turns q and k, laid out as `sizes` tells; `back` by the opposite angles, which is the gradient's way.
    ///
    /// # Errors
    /// When there are other numbers of tokens or channels than angles.
    pub fn turn(&self, sizes: &AttentionKernel, qkv: &mut [f32], back: bool) -> Result<()> {
        self.check(sizes)?;
        let (sign, width) = (if back { -1.0 } else { 1.0 }, sizes.head_dim);
        let TurnTables { cos, sin } = self.tables()?;
        for (image, head) in (0..sizes.batch).flat_map(|image| (0..sizes.heads).map(move |head| (image, head))) {
            let [q, k, _] = sizes.places(image, head);
            for (place, rows) in [(q, sizes.queries), (k, sizes.tokens)] {
                let first = if cos.len() == self.tokens * self.half { 0 } else { head * self.tokens * self.half };
                let angles = first..first + rows * self.half;
                let angles = cos[angles.clone()].chunks_exact(self.half).zip(sin[angles].chunks_exact(self.half));
                simd!({
                    for (row, (cos, sin)) in angles.enumerate() {
                        let first = place.offset + row * place.stride;
                        turn_row(&mut qkv[first..first + width], cos, sin, sign, self.pairs);
                    }
                });
            }
        }
        Ok(())
    }

    /// Leaves the gradient of trained frequencies in `store`, from the turned q and k and their gradients, laid out as `sizes`
    /// tells. A pair (a, b) moves by (-b, a) when its angle grows.
    ///
    /// # Errors
    /// When there are other numbers of tokens or channels than angles.
    pub fn backward(&self, sizes: &AttentionKernel, qkv: &[f32], dqkv: &[f32], store: &mut GradStore) -> Result<()> {
        let RotaryAngles::Learnt { frequencies, coordinates, .. } = &self.angles else { return Ok(()) };
        self.check(sizes)?;
        keep(store, frequencies, || {
            let half = self.half;
            let (axes, tables, _) = frequencies.dims3()?;
            let mut gradient = vec![0.0; axes * tables * half];
            for (image, head) in (0..sizes.batch).flat_map(|image| (0..sizes.heads).map(move |head| (image, head))) {
                let [q, k, _] = sizes.places(image, head);
                for (place, rows) in [(q, sizes.queries), (k, sizes.tokens)] {
                    for (row, at) in coordinates.chunks_exact(axes).enumerate().take(rows) {
                        if at.iter().all(|at| *at == 0.0) {
                            continue;
                        }
                        let row = place.offset + row * place.stride;
                        let (x, dx) = (&qkv[row..][..2 * half], &dqkv[row..][..2 * half]);
                        for pair in 0..half {
                            let [a, b] = match self.pairs {
                                Pairs::Halves => [pair, half + pair],
                                Pairs::Neighbours => [2 * pair, 2 * pair + 1],
                            };
                            let angle = dx[b] * x[a] - dx[a] * x[b];
                            for (axis, at) in at.iter().enumerate() {
                                gradient[(axis * tables + head % tables) * half + pair] += angle * at;
                            }
                        }
                    }
                }
            }
            Ok(gradient)
        })
    }

    /// Whether its frequencies are trained.
    pub fn trainable(&self) -> bool {
        match &self.angles {
            RotaryAngles::Fixed(_) => false,
            RotaryAngles::Learnt { frequencies, .. } => frequencies.track_op(),
        }
    }

    fn check(&self, sizes: &AttentionKernel) -> Result<()> {
        let tables = match &self.angles {
            RotaryAngles::Fixed(tables) => tables.cos.len() / (self.tokens * self.half).max(1),
            RotaryAngles::Learnt { frequencies, .. } => frequencies.dim(1)?,
        };
        if sizes.tokens != self.tokens || sizes.head_dim != 2 * self.half || (tables != 1 && tables != sizes.heads) {
            candle_core::bail!("{tables} tables of {} angles for {} tokens got {sizes:?}", self.half, self.tokens);
        }
        Ok(())
    }
}

/// Frequencies (axes, 1 or heads, d / 2) times coordinates (T, axes), beside fixed angles, to angles (1 or heads, T, d / 2).
fn learnt_angles(frequencies: &Tensor, coordinates: &[f32], fixed: Option<&Tensor>) -> Result<Tensor> {
    let dtype = if frequencies.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let frequencies = frequencies.to_dtype(dtype)?;
    let axes = frequencies.dim(0)?;
    let along = |axis: usize| {
        let at: Vec<f32> = coordinates.iter().skip(axis).step_by(axes).copied().collect();
        let at = Tensor::from_vec(at, (1, (), 1), frequencies.device())?.to_dtype(dtype)?;
        at.broadcast_mul(&frequencies.get(axis)?.unsqueeze(1)?)
    };
    let mut angles = along(0)?;
    for axis in 1..axes {
        angles = (angles + along(axis)?)?;
    }
    match fixed {
        Some(fixed) => angles.broadcast_add(&fixed.to_device(angles.device())?.to_dtype(dtype)?),
        None => Ok(angles),
    }
}

#[inline(always)]
fn turn_row(row: &mut [f32], cos: &[f32], sin: &[f32], sign: f32, pairs: Pairs) {
    match pairs {
        Pairs::Halves => {
            let (first, second) = row.split_at_mut(cos.len());
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = turned(*a, *b, *cos, sign * sin);
            }
        }
        Pairs::Neighbours => {
            for ((pair, cos), sin) in row.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                (pair[0], pair[1]) = turned(pair[0], pair[1], *cos, sign * sin);
            }
        }
    }
}

#[inline(always)]
fn turned(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a * cos - b * sin, b * cos + a * sin)
}

/// [`Rotary::forward`] as an operation of packed q, k and v of all tokens.
#[derive(Clone)]
struct Turn {
    rotary: Rotary,
    sizes: AttentionKernel,
}

impl Operation<1> for Turn {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn forward(&self, [qkv]: [&[f32]; 1], y: &mut [f32]) -> Result<()> {
        y.copy_from_slice(qkv);
        self.rotary.turn(&self.sizes, y, false)
    }

    fn backward(&self, _: [&[f32]; 1], _y: &[f32], dy: &[f32], _: [bool; 1]) -> Result<[Option<Vec<f32>>; 1]> {
        let mut dqkv = dy.to_vec();
        self.rotary.turn(&self.sizes, &mut dqkv, true)?;
        Ok([Some(dqkv)])
    }

    fn on_gpu(&self) -> bool {
        false
    }

    fn composed(&self, [qkv]: [&Tensor; 1]) -> Result<Tensor> {
        self.rotary.check(&self.sizes)?;
        let AttentionKernel { batch, tokens, heads, head_dim, .. } = self.sizes;
        let half = head_dim / 2;
        // Angles in f32, whatever the type of q and k.
        let table = |table: &Tensor| -> Result<Tensor> {
            let table = table.transpose(0, 1)?; // (T, 1 or H, d/2)
            let dtype = if qkv.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            table.unsqueeze(1)?.unsqueeze(D::Minus1)?.to_dtype(dtype) // (T, 1, 1 or H, d/2, 1)
        };
        let [cos, sin] = self.rotary.tensors(qkv.device())?;
        let (cos, sin) = (table(&cos)?, table(&sin)?);
        let qkv = qkv.reshape((batch, tokens, 3, heads, head_dim))?;
        let qk = qkv.narrow(2, 0, 2)?.to_dtype(cos.dtype())?;
        let pairs = match self.rotary.pairs {
            Pairs::Halves => qk.reshape((batch, tokens, 2, heads, 2, half))?.transpose(4, 5)?,
            Pairs::Neighbours => qk.reshape((batch, tokens, 2, heads, half, 2))?,
        }; // (B, T, 2, H, d/2, 2)
        let (a, b) = (pairs.narrow(D::Minus1, 0, 1)?, pairs.narrow(D::Minus1, 1, 1)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let turned = match self.rotary.pairs {
            Pairs::Halves => Tensor::cat(&[first, second], 4)?,
            Pairs::Neighbours => Tensor::cat(&[first, second], 5)?,
        };
        let turned = turned.reshape((batch, tokens, 2, heads, head_dim))?.to_dtype(qkv.dtype())?;
        Tensor::cat(&[turned, qkv.narrow(2, 2, 1)?], 2)?.reshape((batch, tokens, 3 * heads * head_dim))
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        let (batch, tokens, heads, head_dim) = (2, 5, 3, 4);
        let sizes = AttentionKernel { batch, tokens, queries: tokens, heads, head_dim, causal: false };
        let angles: Vec<f32> = (0..heads * tokens * head_dim / 2).map(|i| i as f32 * 0.7).collect();
        let values = |f: fn(f32) -> f32| angles.iter().copied().map(f).collect();
        let (cos, sin) = (values(f32::cos), values(f32::sin));
        let angles = RotaryAngles::Fixed(TurnTables { cos, sin });
        let rotary = Rotary { angles, tokens, half: head_dim / 2, pairs: self.rotary.pairs };
        (Self { rotary, sizes }, [vec![batch, tokens, 3 * heads * head_dim]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::trials;

    #[test]
    fn the_kernel_is_the_composition() {
        for pairs in [Pairs::Halves, Pairs::Neighbours] {
            let rotary = Rotary::new(&Tensor::zeros((1, 1, 1), DType::F32, &Device::Cpu).unwrap(), pairs).unwrap();
            let sizes = AttentionKernel { batch: 1, tokens: 1, queries: 1, heads: 1, head_dim: 2, causal: false };
            trials::pass(Turn { rotary, sizes }, |dtype| [dtype]);
        }
    }

    #[test]
    fn products_depend_on_where_tokens_lie_to_each_other() {
        // Two pairs of channels in five tokens, each one angle further on.
        let angles: Vec<f32> = (0..10).map(|i| (i / 2) as f32 * if i % 2 == 0 { 0.5 } else { 0.1 }).collect();
        let angles = Tensor::from_vec(angles, (1, 5, 2), &Device::Cpu).unwrap();
        for pairs in [Pairs::Halves, Pairs::Neighbours] {
            let rotary = Rotary::new(&angles, pairs).unwrap();
            let token = [0.3f32, -0.2, 0.7, 0.1, 0.5, 0.4, -0.6, 0.2, 1.0, 2.0, 3.0, 4.0]; // q, k, v
            let qkv = Tensor::from_vec(token.repeat(5), (1, 5, 12), &Device::Cpu).unwrap();
            let rows = rotary.forward(&qkv, 1).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
            let score = |q: usize, k: usize| -> f32 { (0..4).map(|i| rows[q][i] * rows[k][4 + i]).sum() };
            for [q, k] in [[0, 0], [1, 0], [0, 2]] {
                assert!((score(q, k) - score(q + 2, k + 2)).abs() < 1e-6);
            }
            assert!((score(0, 0) - score(2, 0)).abs() > 1e-2);
            assert_eq!(rows[3][8..], token[8..]);
            assert!(rotary.forward(&qkv.narrow(1, 0, 4).unwrap(), 1).is_err());
        }
    }
}
