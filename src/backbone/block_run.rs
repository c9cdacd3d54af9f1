//! A block forward and back on plain values: no graph, each activation kept once, nothing copied that is added anyway.
//!
//! A graph of operations starts every gradient at zeros and adds to it, and keeps what both sides of an operation hold. A
//! pre-norm block is always the same sequence, so its way back is written down here (the layers' own parts are theirs).
//! It serves f32 on the CPU; elsewhere, and with adapters, the graph does. Both are held against each other in tests.

use super::block::Block;
use crate::kernels::buffer::Buffer;
use crate::kernels::{fused, keep, read, simd};
use crate::nn::{Activation, AttentionKernel, LayerScale, Linear, Mode, drop_path_factors};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

/// All rows of a batch at once.
const ALL: usize = usize::MAX;

/// What a block keeps for its way back, for B images of T tokens, of which the first R go on.
pub struct Kept {
    /// What entered (B, T, d).
    input: Tensor,
    attention: AttentionKernel,
    qkv: Buffer,
    /// Before the projection (B, R, d).
    attended: Buffer,
    first: Branch,
    /// After attention (B, R, d).
    middle: Buffer,
    /// Before the activation, without the bias (B, R, h).
    hidden: Buffer,
    second: Branch,
}

/// How a residual branch was added.
struct Branch {
    /// Its values (B, R, d), where they were scaled.
    values: Option<Buffer>,
    /// Drop path's factor of each sample.
    factors: Option<Vec<f32>>,
}

/// The layers of a block that can run so.
struct Plain<'a> {
    qkv: &'a Linear,
    proj: &'a Linear,
    fc1: &'a Linear,
    activation: Activation,
    fc2: &'a Linear,
}

impl Block {
    fn plain(&self) -> Option<Plain<'_>> {
        let (qkv, proj) = self.attention.plain()?;
        Some(Plain { qkv, proj, fc1: self.fc1.plain()?, activation: self.activation?, fc2: self.fc2.plain()? })
    }

    /// Whether [`Block::run`] can take x.
    pub fn is_plain(&self, x: &Tensor) -> bool {
        let Some(Plain { qkv, proj, fc1, fc2, .. }) = self.plain() else { return false };
        fused(x) && [qkv, proj, fc1, fc2].iter().all(|linear| linear.dtype() == x.dtype())
    }

    /// Whether a parameter learns.
    pub fn learns(&self) -> bool {
        let linears = [self.fc1.plain(), self.fc2.plain(), self.attention.plain().map(|(qkv, _)| qkv)];
        let scales = [&self.scale1, &self.scale2];
        self.norm1.learns()
            || self.norm2.learns()
            || self.attention.plain().is_none_or(|(_, proj)| proj.learns())
            || linears.iter().any(|linear| linear.is_none_or(Linear::learns))
            || scales.iter().any(|scale| scale.as_ref().is_some_and(|scale| scale.gamma().track_op()))
    }

    /// x (B, T, d) to the first `rows` of its tokens (B, rows, d), and what the way back needs.
    ///
    /// # Errors
    /// When the block is not plain or x has another width.
    pub fn run(&self, x: &Tensor, rows: usize, mode: Mode<'_>) -> Result<(Tensor, Kept)> {
        let Some(plain) = self.plain() else { candle_core::bail!("block {} is not plain", self.index) };
        let (batch, tokens, width) = x.dims3()?;
        let x = x.contiguous()?;
        if plain.qkv.inputs()? != width {
            candle_core::bail!("block {} is {} wide, its input {width}", self.index, plain.qkv.inputs()?);
        }
        let heads = self.attention.heads();
        let attention = AttentionKernel { batch, tokens, queries: rows, heads, head_dim: width / heads };
        let few = attention.query_values();
        let at_once = if attention.is_whole() { ALL } else { rows };

        let mut normed = Buffer::new(batch * tokens * width);
        read(&x, |x| self.norm1.apply(x, &mut normed))?;
        let mut qkv = Buffer::new(attention.values());
        if attention.is_whole() {
            plain.qkv.apply(0..3 * width, &normed, ALL, &mut qkv)?;
        } else {
            let (q, kv) = qkv.split_at_mut(few);
            plain.qkv.apply(0..width, &first_rows(&normed, &attention), rows, q)?;
            plain.qkv.apply(width..3 * width, &normed, ALL, kv)?;
        }
        let mut attended = Buffer::new(few);
        attention.forward(&qkv, &mut attended)?;
        let mut middle = Buffer::new(few);
        read(&x, |x| {
            copy_first_rows(x, &attention, &mut middle);
            Ok(())
        })?;
        let first = self.add_branch((plain.proj, &attended), (0, at_once), &mut middle, mode, batch)?;

        let normed = &mut normed[..few];
        self.norm2.apply(&middle, normed)?;
        let hidden_width = plain.fc1.outputs()?;
        let mut hidden = Buffer::new(few / width * hidden_width);
        plain.fc1.multiply(0..hidden_width, normed, at_once, 0.0, &mut hidden)?;
        let mut activated = Buffer::new(hidden.len());
        plain.fc1.with_bias(|bias| {
            plain.activation.apply(&hidden, bias, &mut activated);
            Ok(())
        })?;
        let mut output = middle.to_vec();
        let second = self.add_branch((plain.fc2, &activated), (1, at_once), &mut output, mode, batch)?;
        let output = Tensor::from_vec(output, (batch, rows, width), x.device())?;
        Ok((output, Kept { input: x, attention, qkv, attended, first, middle, hidden, second }))
    }

    /// The way back from the gradient of the output (B, rows, d): to that of the input (B, T, d), when it is wanted, with
    /// those of the parameters that learn left in `store`.
    ///
    /// # Errors
    /// When the gradient has another shape than the output.
    pub fn back(&self, kept: Kept, dy: &Tensor, wanted: bool, store: &mut GradStore) -> Result<Option<Tensor>> {
        let Some(plain) = self.plain() else { candle_core::bail!("block {} is not plain", self.index) };
        let Kept { input, attention, qkv, attended, first, middle, hidden, second } = kept;
        let (few, width) = (attention.query_values(), attention.width());
        let mut dmiddle = Buffer::new(few);
        read(dy, |dy| {
            dmiddle.copy_from_slice(dy);
            Ok(())
        })?;

        let dbranch = self.branch_gradient(1, &second, &dmiddle, store)?;
        let dbranch = dbranch.as_deref().unwrap_or(&dmiddle);
        let (mut activated, mut dhidden) = (Buffer::new(hidden.len()), Buffer::new(hidden.len()));
        plain.fc2.back_to_input(0..width, dbranch, 0.0, &mut dhidden)?;
        plain.fc1.with_bias(|bias| {
            plain.activation.apply_backward(&hidden, bias, &mut activated, &mut dhidden);
            Ok(())
        })?;
        plain.fc2.back_to_weights(&[(&activated, dbranch)], store)?;
        drop((activated, hidden));
        let mut normed = Buffer::new(input.elem_count());
        self.norm2.apply(&middle, &mut normed[..few])?;
        plain.fc1.back_to_weights(&[(&normed[..few], &dhidden)], store)?;
        let mut dnormed = Buffer::new(input.elem_count());
        plain.fc1.back_to_input(0..plain.fc1.outputs()?, &dhidden, 0.0, &mut dnormed[..few])?;
        drop(dhidden);
        self.norm2.apply_backward(&middle, &dnormed[..few], &mut dmiddle, store)?;
        drop(middle);

        let dbranch = self.branch_gradient(0, &first, &dmiddle, store)?;
        let dbranch = dbranch.as_deref().unwrap_or(&dmiddle);
        plain.proj.back_to_weights(&[(&attended, dbranch)], store)?;
        let below = wanted || self.norm1.learns();
        if !below && !plain.qkv.learns() {
            return Ok(None);
        }
        let mut dattended = attended;
        plain.proj.back_to_input(0..width, dbranch, 0.0, &mut dattended)?;
        let mut dqkv = Buffer::new(qkv.len());
        attention.backward(&qkv, &dattended, &mut dqkv)?;
        drop((qkv, dattended));
        read(&input, |x| self.norm1.apply(x, &mut normed))?;
        if attention.is_whole() {
            plain.qkv.back_to_weights(&[(&normed, &dqkv)], store)?;
            if below {
                plain.qkv.back_to_input(0..3 * width, &dqkv, 0.0, &mut dnormed)?;
            }
        } else {
            let (dq, dkv) = dqkv.split_at(few);
            let mut rows = first_rows(&normed, &attention);
            plain.qkv.back_to_weights(&[(&rows, dq), (&normed, dkv)], store)?;
            if below {
                plain.qkv.back_to_input(width..3 * width, dkv, 0.0, &mut dnormed)?;
                plain.qkv.back_to_input(0..width, dq, 0.0, &mut rows)?;
                add_to_first_rows(&rows, &attention, &mut dnormed);
            }
        }
        if !below {
            return Ok(None);
        }
        let mut dx = vec![0.0; input.elem_count()];
        add_to_first_rows(&dmiddle, &attention, &mut dx);
        read(&input, |x| self.norm1.apply_backward(x, &dnormed, &mut dx, store))?;
        Tensor::from_vec(dx, input.shape(), input.device()).map(Some)
    }

    fn scale(&self, which: u64) -> Option<&LayerScale> {
        if which == 0 { self.scale1.as_ref() } else { self.scale2.as_ref() }
    }

    /// Adds a residual branch, a linear layer of x, to `sum` (B, R, d): the first of a block (0) or the second (1).
    fn add_branch(
        &self,
        (linear, x): (&Linear, &[f32]),
        (which, at_once): (u64, usize),
        sum: &mut [f32],
        mode: Mode<'_>,
        batch: usize,
    ) -> Result<Branch> {
        let width = linear.outputs()?;
        let factors = drop_path_factors(batch, self.drop_path, 2 * self.index + which, mode)?;
        let scale = self.scale(which);
        if scale.is_none() && factors.is_none() {
            // The product adds to the residual and the bias in place.
            linear.with_bias(|bias| {
                let Some(bias) = bias else { return Ok(()) };
                add_to_rows(sum, bias);
                Ok(())
            })?;
            linear.multiply(0..width, x, at_once, 1.0, sum)?;
            return Ok(Branch { values: None, factors });
        }
        let mut values = Buffer::new(sum.len());
        linear.apply(0..width, x, at_once, &mut values)?;
        let sample = sum.len() / batch.max(1);
        let factor = |image: usize| factors.as_ref().map_or(1.0, |factors| factors[image]);
        match scale {
            Some(scale) => read(scale.gamma(), |gamma| {
                for (image, (sum, values)) in sum.chunks_exact_mut(sample).zip(values.chunks_exact(sample)).enumerate()
                {
                    add_scaled_rows(sum, values, gamma, factor(image));
                }
                Ok(())
            })?,
            None => {
                for (image, (sum, values)) in sum.chunks_exact_mut(sample).zip(values.chunks_exact(sample)).enumerate()
                {
                    let factor = factor(image);
                    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
                }
            }
        }
        Ok(Branch { values: scale.map(|_| values), factors })
    }

    /// The gradient of a branch's own output from that of the sum; none when they are the same.
    fn branch_gradient(
        &self,
        which: u64,
        branch: &Branch,
        dy: &[f32],
        store: &mut GradStore,
    ) -> Result<Option<Buffer>> {
        let scale = self.scale(which);
        if scale.is_none() && branch.factors.is_none() {
            return Ok(None);
        }
        let mut gradient = Buffer::new(dy.len());
        gradient.copy_from_slice(dy);
        if let Some(factors) = &branch.factors {
            let sample = (dy.len() / factors.len().max(1)).max(1);
            for (values, factor) in gradient.chunks_exact_mut(sample).zip(factors) {
                values.iter_mut().for_each(|value| *value *= factor);
            }
        }
        let Some(scale) = scale else { return Ok(Some(gradient)) };
        let gamma = scale.gamma();
        if let Some(values) = &branch.values {
            keep(store, gamma, || Ok(column_dots(&gradient, values, gamma.elem_count())))?;
        }
        read(gamma, |gamma| {
            for row in gradient.chunks_exact_mut(gamma.len()) {
                row.iter_mut().zip(gamma).for_each(|(value, gamma)| *value *= gamma);
            }
            Ok(())
        })?;
        Ok(Some(gradient))
    }
}

/// The first rows of every image, those that ask, one image after another.
fn first_rows(values: &[f32], attention: &AttentionKernel) -> Buffer {
    let mut rows = Buffer::new(attention.query_values());
    copy_first_rows(values, attention, &mut rows);
    rows
}

fn copy_first_rows(values: &[f32], attention: &AttentionKernel, rows: &mut [f32]) {
    let (image, few) = (attention.tokens * attention.width(), attention.queries * attention.width());
    for (image, rows) in values.chunks_exact(image).zip(rows.chunks_exact_mut(few)) {
        rows.copy_from_slice(&image[..few]);
    }
}

fn add_to_first_rows(rows: &[f32], attention: &AttentionKernel, values: &mut [f32]) {
    let (image, few) = (attention.tokens * attention.width(), attention.queries * attention.width());
    for (image, rows) in values.chunks_exact_mut(image).zip(rows.chunks_exact(few)) {
        image[..few].iter_mut().zip(rows).for_each(|(value, row)| *value += row);
    }
}

fn add_to_rows(rows: &mut [f32], bias: &[f32]) {
    simd(
        #[inline(always)]
        || {
            for row in rows.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        },
    );
}

/// sum += factor · gamma · values, row by row.
fn add_scaled_rows(sum: &mut [f32], values: &[f32], gamma: &[f32], factor: f32) {
    for (sum, values) in sum.chunks_exact_mut(gamma.len()).zip(values.chunks_exact(gamma.len())) {
        for ((sum, value), gamma) in sum.iter_mut().zip(values).zip(gamma) {
            *sum += factor * (gamma * value);
        }
    }
}

/// Σ a b over the rows, for each of `width` columns.
fn column_dots(a: &[f32], b: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0; width];
    for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::block::BlockOptions;
    use super::super::params::Params;
    use super::*;
    use crate::nn::Noise;
    use crate::rng::{Purpose, Stream};
    use candle_core::Device;

    const WIDTH: usize = 24;
    const HIDDEN: usize = 40;
    const SHAPE: (usize, usize, usize) = (3, 7, WIDTH);

    fn random(shape: &[usize], key: u64) -> Tensor {
        let mut stream = Stream::new(0, Purpose::Init, &[key]);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| 0.3 * stream.normal() as f32).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn params(scaled: bool, learns: &dyn Fn(&str) -> bool) -> Params {
        let mut shapes = vec![
            ("norm1.weight", vec![WIDTH]),
            ("norm1.bias", vec![WIDTH]),
            ("attn.qkv.weight", vec![3 * WIDTH, WIDTH]),
            ("attn.qkv.bias", vec![3 * WIDTH]),
            ("attn.proj.weight", vec![WIDTH, WIDTH]),
            ("attn.proj.bias", vec![WIDTH]),
            ("norm2.weight", vec![WIDTH]),
            ("norm2.bias", vec![WIDTH]),
            ("mlp.fc1.weight", vec![HIDDEN, WIDTH]),
            ("mlp.fc1.bias", vec![HIDDEN]),
            ("mlp.fc2.weight", vec![WIDTH, HIDDEN]),
        ];
        if scaled {
            shapes.extend([("ls1.gamma", vec![WIDTH]), ("ls2.gamma", vec![WIDTH])]);
        }
        let mut params = Params::default();
        for (key, (name, shape)) in shapes.into_iter().enumerate() {
            params.insert(format!("blocks.0.{name}"), random(&shape, key as u64 + 1));
        }
        params.train_where(|name| learns(name)).unwrap()
    }

    fn assert_close(what: &str, a: &Tensor, b: &Tensor) {
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (a, b) = (flat(a), flat(b));
        let largest = b.iter().fold(1e-3f32, |largest, x| largest.max(x.abs()));
        let worst = a.iter().zip(&b).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(a.len() == b.len() && worst <= 1e-5 * largest, "{what}: {worst} of {largest}");
    }

    /// Outputs and gradients equal those of the graph, whatever is scaled, dropped, frozen or left out.
    fn check(scaled: bool, drop_path: f64, rows: usize, learns: &dyn Fn(&str) -> bool) {
        let params = params(scaled, learns);
        let options = BlockOptions { heads: 3, activation: Some(Activation::Gelu), eps: 1e-6, causal: false };
        let block = Block::new(&options, &params, 0, drop_path).unwrap();
        let noise = Noise { seed: 1, step: 2, samples: vec![0, 1, 2] };
        let mode = Mode::Train(&noise);
        let x = candle_core::Var::from_tensor(&random(&[SHAPE.0, SHAPE.1, SHAPE.2], 99)).unwrap();
        let dy = random(&[SHAPE.0, rows, SHAPE.2], 100);

        let composed = block.compose(x.as_tensor(), rows, mode).unwrap();
        let mut expected = (&composed * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        let (output, kept) = block.run(&x.as_detached_tensor(), rows, mode).unwrap();
        assert_close("output", &output, &composed);
        let mut store = GradStore::default();
        let dx = block.back(kept, &dy, true, &mut store).unwrap().unwrap();
        assert_close("dx", &dx, &expected.remove(x.as_tensor()).unwrap());
        for (name, var) in params.trained() {
            assert_close(name, store.get(var.as_tensor()).unwrap(), expected.get(var.as_tensor()).unwrap());
        }
        let learning = params.trained().count();
        assert_eq!(params.iter().filter(|(_, param)| store.get(param.tensor()).is_some()).count(), learning);

        let (_, kept) = block.run(&x.as_detached_tensor(), rows, mode).unwrap();
        let mut alone = GradStore::default();
        let unwanted = block.back(kept, &dy, false, &mut alone).unwrap();
        assert!(unwanted.is_none() || block.norm1.learns());
        for (name, var) in params.trained() {
            assert_close(name, alone.get(var.as_tensor()).unwrap(), store.get(var.as_tensor()).unwrap());
        }
    }

    #[test]
    fn outputs_and_gradients_are_those_of_the_graph() {
        for rows in [SHAPE.1, 1, 2] {
            for scaled in [false, true] {
                for drop_path in [0.0, 0.5] {
                    check(scaled, drop_path, rows, &|_| true);
                }
            }
        }
    }

    #[test]
    fn frozen_parameters_get_no_gradient() {
        for rows in [SHAPE.1, 1] {
            check(true, 0.0, rows, &|_| false);
            check(false, 0.0, rows, &|name| name.contains("mlp"));
            check(true, 0.0, rows, &|name| name.contains("qkv"));
            check(true, 0.0, rows, &|name| name.contains("norm1") || name.contains("bias"));
        }
    }
}
