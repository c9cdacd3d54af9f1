//! Repulsion by convolution on a grid, for many points: O(N + grid).
//!
//! The idea of FIt-SNE (Linderman et al. 2019): spread the points over a grid, convolve with the kernel by FFT, read
//! the result back at the points. Here the grid is a cubic B-spline's, with the spline's own response divided out of
//! the kernel (as in smooth particle mesh Ewald, Essmann et al. 1995): with the same four nodes an axis the error is a
//! tenth of that of Lagrange's polynomials, so the grid may be coarser. The force Σ w² (yᵢ − yⱼ) is one convolution of
//! the density with a complex kernel, its x and y components as real and imaginary part, and Z follows from the
//! density's spectrum: one forward and one inverse FFT, where FIt-SNE takes four of each.

use super::gradient::Repulsion;
use crate::linalg::fft::{Complex32, Fft, plan};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::f64::consts::TAU;
use std::sync::Arc;

/// Distance of grid nodes in units of the kernel's width; the kernel 1 / (1 + d²) is then interpolated within 0.3 %.
const SPACING: f64 = 0.4;
/// Nodes an axis of the largest grid: wider embeddings get a coarser one.
const MOST_NODES: usize = 2048;
/// Nodes beyond the outermost points: the support of the spline.
const MARGIN: usize = 4;
/// Columns or rows handled together, so that transposing moves whole cache lines.
const STRIP: usize = 8;
/// Points of one task: a constant, so that the work is cut up alike for any number of threads.
const BLOCK: usize = 256;

/// The grid with its buffers. They are kept between iterations; the kernel's spectrum, too, while the size stays.
#[derive(Default)]
pub struct GridRepulsion {
    plan: Option<GridPlan>,
    rows: Vec<Complex32>,
    columns: Vec<Complex32>,
    field: Vec<Complex32>,
}

impl Repulsion for GridRepulsion {
    fn forces(&mut self, points: &[[f32; 2]], forces: &mut [[f32; 2]]) -> f64 {
        let Some(frame) = Frame::around(points) else {
            return f64::NAN;
        };
        let plan = match self.plan.take() {
            Some(plan) if plan.suits(&frame) => plan,
            _ => GridPlan::new(&frame),
        };
        self.spread(&plan, &frame, points);
        let energy = self.convolve(&plan);
        self.read(&plan, &frame, points, forces);
        self.plan = Some(plan);
        // Each point met itself, at distance 0.
        energy - points.len() as f64
    }
}

impl GridRepulsion {
    /// Adds each point to its 16 nodes. Rows 2r and 2r + 1 of the density are the real and imaginary part of row r:
    /// one FFT transforms both. Serial, because the order of additions must not depend on threads; it is the smallest
    /// part of the work.
    fn spread(&mut self, plan: &GridPlan, frame: &Frame, points: &[[f32; 2]]) {
        self.rows.clear();
        self.rows.resize(plan.y.nodes / 2 * plan.x.size, Complex32::ZERO);
        for &point in points {
            let (column, wx) = frame.weights(point, 0);
            let (row, wy) = frame.weights(point, 1);
            for (a, wy) in wy.into_iter().enumerate() {
                let (pair, odd) = ((row + a) >> 1, (row + a) & 1 == 1);
                let start = pair * plan.x.size + column;
                for (node, wx) in self.rows[start..start + 4].iter_mut().zip(wx) {
                    *(if odd { &mut node.im } else { &mut node.re }) += wx * wy;
                }
            }
        }
    }

    /// Density to field, by way of the spectrum; returns Σ w over all pairs, a point with itself included.
    fn convolve(&mut self, plan: &GridPlan) -> f64 {
        let GridPlan { x, y, .. } = plan;
        self.rows.par_chunks_mut(STRIP * x.size).for_each_init(
            || plan.scratch(),
            |scratch, rows| {
                x.forward.process_with_scratch(rows, scratch);
            },
        );
        let frequencies = x.nodes + 1;
        self.columns.resize(frequencies * 2 * y.nodes, Complex32::ZERO);
        let mut energies = vec![0f64; frequencies];
        let rows = &self.rows;
        let strips = self.columns.par_chunks_mut(STRIP * 2 * y.nodes).zip(energies.par_chunks_mut(STRIP));
        strips.enumerate().for_each_init(
            || ColumnBuffers::new(plan),
            |buffers, (strip, (columns, energies))| plan.columns(rows, strip * STRIP, buffers, columns, energies),
        );
        self.field.resize(y.nodes * x.nodes, Complex32::ZERO);
        let columns = &self.columns;
        self.field.par_chunks_mut(STRIP * x.nodes).enumerate().for_each_init(
            || (vec![Complex32::ZERO; STRIP * x.size], plan.scratch()),
            |(rows, scratch), (strip, field)| {
                plan.gather_rows(columns, strip * STRIP, rows);
                x.inverse.process_with_scratch(rows, scratch);
                for (out, row) in field.chunks_exact_mut(x.nodes).zip(rows.chunks_exact(x.size)) {
                    out.copy_from_slice(&row[..x.nodes]);
                }
            },
        );
        energies.iter().sum()
    }

    /// The field at each point.
    fn read(&self, plan: &GridPlan, frame: &Frame, points: &[[f32; 2]], forces: &mut [[f32; 2]]) {
        let field = &self.field;
        points.par_chunks(BLOCK).zip(forces.par_chunks_mut(BLOCK)).for_each(|(points, forces)| {
            for (&point, force) in points.iter().zip(forces) {
                let (column, wx) = frame.weights(point, 0);
                let (row, wy) = frame.weights(point, 1);
                let mut sum = Complex32::ZERO;
                for (a, wy) in wy.into_iter().enumerate() {
                    let start = (row + a) * plan.x.nodes + column;
                    let line: Complex32 = field[start..start + 4].iter().zip(wx).map(|(node, wx)| node * wx).sum();
                    sum += line * wy;
                }
                *force = [sum.re, sum.im];
            }
        });
    }
}

/// Where the grid lies.
struct Frame {
    origin: [f32; 2],
    spacing: f64,
    /// Nodes that the points need on each axis.
    nodes: [usize; 2],
}

impl Frame {
    /// The smallest grid around the points; none when a coordinate is not finite.
    fn around(points: &[[f32; 2]]) -> Option<Self> {
        let (mut low, mut high) = ([f32::INFINITY; 2], [f32::NEG_INFINITY; 2]);
        for point in points {
            for axis in 0..2 {
                low[axis] = low[axis].min(point[axis]);
                high[axis] = high[axis].max(point[axis]);
            }
        }
        let span = [0, 1].map(|axis| f64::from(high[axis] - low[axis]));
        if !span.iter().all(|span| span.is_finite()) || points.iter().flatten().any(|value| value.is_nan()) {
            return None;
        }
        let nodes = |spacing: f64| span.map(|span| (span / spacing) as usize + MARGIN + 1);
        let mut spacing = SPACING;
        while nodes(spacing).into_iter().any(|nodes| nodes > MOST_NODES) {
            spacing *= 2.0;
        }
        Some(Self { origin: low, spacing, nodes: nodes(spacing) })
    }

    /// The first of the four nodes of a point on one axis, and their weights (cubic B-spline).
    #[inline(always)]
    fn weights(&self, point: [f32; 2], axis: usize) -> (usize, [f32; 4]) {
        let position = (point[axis] - self.origin[axis]) * (1.0 / self.spacing) as f32;
        let cell = (position as usize).min(self.nodes[axis] - MARGIN);
        let t = position - cell as f32;
        let s = 1.0 - t;
        let near = |t: f32| (2.0 / 3.0) - t * t * (1.0 - 0.5 * t);
        (cell, [s * s * s / 6.0, near(t), near(s), t * t * t / 6.0])
    }
}

/// One axis of the grid.
struct Axis {
    /// Length of the transforms: twice the nodes, so that the circular convolution does not wrap.
    size: usize,
    nodes: usize,
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
}

impl Axis {
    fn new(least: usize) -> Self {
        let size = fast_size(2 * least);
        let [forward, inverse] = plan(size);
        Self { size, nodes: size / 2, forward, inverse }
    }

    /// Whether `needed` nodes fit, and there are not far too many.
    fn suits(&self, needed: usize) -> bool {
        (needed..=2 * needed.max(2 * STRIP)).contains(&self.nodes)
    }

    /// Offset of node `i` from node 0, the short way round. Half-way round an odd kernel is 0, as 0 is.
    fn offset(&self, i: usize) -> f64 {
        match i.cmp(&self.nodes) {
            Ordering::Less => i as f64,
            Ordering::Equal => 0.0,
            Ordering::Greater => i as f64 - self.size as f64,
        }
    }

    /// The spectrum of the cubic B-spline's values at the nodes, 1/6, 2/3, 1/6.
    fn response(&self, k: usize) -> f64 {
        (2.0 + (TAU * k as f64 / self.size as f64).cos()) / 3.0
    }
}

/// What depends on the grid's size only.
struct GridPlan {
    spacing: f64,
    x: Axis,
    y: Axis,
    /// Spectra of the force kernel w² (dx + i dy) and of w, column after column, columns 0 to x.nodes. The spline's
    /// response and the transforms' normalisation are divided out.
    force: Vec<Complex32>,
    weight: Vec<f32>,
}

impl GridPlan {
    fn new(frame: &Frame) -> Self {
        let [x, y] = frame.nodes.map(Axis::new);
        let force = spectrum(&x, &y, frame.spacing, |dx, dy| {
            let w = 1.0 / (1.0 + dx * dx + dy * dy);
            Complex32::new((w * w * dx) as f32, (w * w * dy) as f32)
        });
        let weight =
            spectrum(&x, &y, frame.spacing, |dx, dy| (1.0 / (1.0 + dx * dx + dy * dy)) as f32 * Complex32::ONE);
        Self { spacing: frame.spacing, x, y, force, weight: weight.iter().map(|value| value.re).collect() }
    }

    fn suits(&self, frame: &Frame) -> bool {
        self.spacing == frame.spacing && self.x.suits(frame.nodes[0]) && self.y.suits(frame.nodes[1])
    }

    fn scratch(&self) -> Vec<Complex32> {
        let transforms = [&self.x.forward, &self.x.inverse, &self.y.forward, &self.y.inverse];
        let length = transforms.iter().map(|fft| fft.get_inplace_scratch_len()).fold(0, usize::max);
        vec![Complex32::ZERO; length]
    }

    /// Columns `first`.. of the density's spectrum, times the kernel, transformed back. Column k and its mirror image
    /// size − k share a transform, the density being real; they go to `out` one after the other, the rows that have
    /// points only.
    fn columns(
        &self,
        rows: &[Complex32],
        first: usize,
        buffers: &mut ColumnBuffers,
        out: &mut [Complex32],
        energies: &mut [f64],
    ) {
        let Self { x, y, .. } = self;
        let (size, nodes) = (y.size, y.nodes);
        let ColumnBuffers { density, mirrored, scratch } = buffers;
        let count = energies.len();
        for (r, row) in rows.chunks_exact(x.size).enumerate() {
            for lane in 0..count {
                // Of z = even + i odd, both real: even = (z(k) + z*(-k)) / 2, odd = (z(k) − z*(-k)) / 2i.
                let k = first + lane;
                let (z, mirror) = (row[k], row[(x.size - k) % x.size].conj());
                let (even, odd) = ((z + mirror) * 0.5, (z - mirror) * 0.5);
                density[lane * size + 2 * r] = even;
                density[lane * size + 2 * r + 1] = Complex32::new(odd.im, -odd.re);
            }
        }
        for (lane, (out, energy)) in out.chunks_exact_mut(2 * nodes).zip(energies).enumerate() {
            let k = first + lane;
            let column = &mut density[lane * size..(lane + 1) * size];
            column[nodes..].fill(Complex32::ZERO);
            y.forward.process_with_scratch(column, scratch);
            let (force, weight) = (&self.force[k * size..(k + 1) * size], &self.weight[k * size..(k + 1) * size]);
            let alone = k == 0 || k == x.nodes;
            let sum: f64 = column.iter().zip(weight).map(|(value, w)| f64::from(value.norm_sqr() * w)).sum();
            *energy = if alone { sum } else { 2.0 * sum };
            if !alone {
                for (m, out) in mirrored.iter_mut().enumerate() {
                    *out = (column[(size - m) % size] * force[m]).conj();
                }
                y.inverse.process_with_scratch(mirrored, scratch);
                out[nodes..].copy_from_slice(&mirrored[..nodes]);
            }
            column.iter_mut().zip(force).for_each(|(value, force)| *value *= force);
            y.inverse.process_with_scratch(column, scratch);
            out[..nodes].copy_from_slice(&column[..nodes]);
        }
    }

    /// Rows `first`.. of the field's half-transformed columns.
    fn gather_rows(&self, columns: &[Complex32], first: usize, rows: &mut [Complex32]) {
        let (size, nodes) = (self.x.size, self.y.nodes);
        for k in 0..size {
            let start = if k <= self.x.nodes { k * 2 * nodes } else { (size - k) * 2 * nodes + nodes };
            for (lane, &value) in columns[start + first..start + (first + STRIP).min(nodes)].iter().enumerate() {
                rows[lane * size + k] = value;
            }
        }
    }
}

struct ColumnBuffers {
    density: Vec<Complex32>,
    mirrored: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl ColumnBuffers {
    fn new(plan: &GridPlan) -> Self {
        Self {
            density: vec![Complex32::ZERO; STRIP * plan.y.size],
            mirrored: vec![Complex32::ZERO; plan.y.size],
            scratch: plan.scratch(),
        }
    }
}

/// Columns 0 to x.nodes of a kernel's spectrum, ready to multiply the spectrum of a B-spline density with.
fn spectrum(x: &Axis, y: &Axis, spacing: f64, kernel: fn(f64, f64) -> Complex32) -> Vec<Complex32> {
    let mut rows = vec![Complex32::ZERO; y.size * x.size];
    rows.par_chunks_mut(x.size).enumerate().for_each(|(r, row)| {
        let dy = y.offset(r) * spacing;
        row.iter_mut().enumerate().for_each(|(c, value)| *value = kernel(x.offset(c) * spacing, dy));
        x.forward.process(row);
    });
    let mut columns = vec![Complex32::ZERO; (x.nodes + 1) * y.size];
    columns.par_chunks_mut(y.size).enumerate().for_each(|(k, column)| {
        column.iter_mut().enumerate().for_each(|(r, value)| *value = rows[r * x.size + k]);
        y.forward.process(column);
        for (m, value) in column.iter_mut().enumerate() {
            // Twice: the spline spreads the density, and reads the field.
            let scale = (x.response(k) * y.response(m)).powi(-2) / (x.size * y.size) as f64;
            *value *= scale as f32;
        }
    });
    columns
}

/// The smallest multiple of 2 `STRIP` from `least` on without prime factors above 5.
fn fast_size(least: usize) -> usize {
    let smooth = |mut n: usize| {
        for factor in [2, 3, 5] {
            while n.is_multiple_of(factor) {
                n /= factor;
            }
        }
        n == 1
    };
    let mut strips = least.div_ceil(2 * STRIP).max(1);
    while !smooth(strips) {
        strips += 1;
    }
    strips * 2 * STRIP
}
