//! Repulsion by a quad tree: a far cell acts as one heavy point (Barnes and Hut 1986; van der Maaten 2014).

use super::gradient::Repulsion;
use rayon::prelude::*;

/// Points of one task: a constant, so that the work is cut up alike for any number of threads.
const BLOCK: usize = 32;
/// Halvings after which points share a leaf: they are as good as equal in f32.
const DEEPEST: u32 = 32;

/// The tree's nodes in depth-first order, rebuilt for each call.
pub struct BarnesHut {
    /// A cell is far when its side is less than `theta` times its distance.
    theta: f32,
    nodes: Vec<Node>,
    ordered: Vec<[f32; 2]>,
}

struct Node {
    middle: [f32; 2],
    count: f32,
    side: f32,
    /// The node after this one's subtree. A leaf's is the next node.
    after: u32,
}

impl BarnesHut {
    /// A tree with the accuracy `theta`: 0 is exact, 0.5 usual.
    pub fn new(theta: f64) -> Self {
        Self { theta: theta as f32, nodes: Vec::new(), ordered: Vec::new() }
    }

    fn build(&mut self, points: &[[f32; 2]]) {
        self.nodes.clear();
        self.ordered.clear();
        self.ordered.extend_from_slice(points);
        let half = points.iter().flatten().fold(0f32, |most, value| most.max(value.abs()));
        let mut ordered = std::mem::take(&mut self.ordered);
        self.add_cell(&mut ordered, [0.0; 2], half, 0);
        self.ordered = ordered;
    }

    /// Appends the subtree of `points`, which lie within `half` of `centre`, and sorts them by quadrant.
    fn add_cell(&mut self, points: &mut [[f32; 2]], centre: [f32; 2], half: f32, depth: u32) {
        if points.is_empty() {
            return;
        }
        let count = points.len() as f32;
        let sum = |axis: usize| points.iter().map(|point| f64::from(point[axis])).sum::<f64>();
        let middle = [0, 1].map(|axis| (sum(axis) / f64::from(count)) as f32);
        let at = self.nodes.len();
        self.nodes.push(Node { middle, count, side: 2.0 * half, after: 0 });
        if points.len() > 1 && depth < DEEPEST {
            let quarter = half / 2.0;
            let (below, above) = split(points, 1, centre[1]);
            for (half_plane, dy) in [(below, -quarter), (above, quarter)] {
                let (left, right) = split(half_plane, 0, centre[0]);
                self.add_cell(left, [centre[0] - quarter, centre[1] + dy], quarter, depth + 1);
                self.add_cell(right, [centre[0] + quarter, centre[1] + dy], quarter, depth + 1);
            }
        }
        self.nodes[at].after = self.nodes.len() as u32;
    }

    /// Σ w² (point − j) and Σ w over all points j.
    fn on_point(&self, point: [f32; 2]) -> ([f32; 2], f64) {
        let (mut force, mut sum) = ([0f32; 2], 0f64);
        let mut at = 0;
        while let Some(node) = self.nodes.get(at) {
            let (dx, dy) = (point[0] - node.middle[0], point[1] - node.middle[1]);
            let squared = dx * dx + dy * dy;
            let leaf = node.after as usize == at + 1;
            if leaf || node.side * node.side < self.theta * self.theta * squared {
                let w = 1.0 / (1.0 + squared);
                sum += f64::from(node.count * w);
                force[0] += node.count * w * w * dx;
                force[1] += node.count * w * w * dy;
                at = node.after as usize;
            } else {
                at += 1;
            }
        }
        (force, sum)
    }
}

/// The points below and from `middle` on, on one axis.
fn split(points: &mut [[f32; 2]], axis: usize, middle: f32) -> (&mut [[f32; 2]], &mut [[f32; 2]]) {
    let mut below = 0;
    for i in 0..points.len() {
        if points[i][axis] < middle {
            points.swap(i, below);
            below += 1;
        }
    }
    points.split_at_mut(below)
}

impl Repulsion for BarnesHut {
    fn forces(&mut self, points: &[[f32; 2]], forces: &mut [[f32; 2]]) -> f64 {
        self.build(points);
        let tree = &*self;
        let rows = points.par_iter().zip(forces.par_iter_mut()).with_min_len(BLOCK).map(|(&point, force)| {
            let (pushed, sum) = tree.on_point(point);
            *force = pushed;
            sum
        });
        let rows: Vec<f64> = rows.collect();
        // Each point met itself, at distance 0.
        rows.iter().sum::<f64>() - points.len() as f64
    }
}
