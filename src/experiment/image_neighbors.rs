//! Which images are near each other for a backbone, beside those that are alike by their pixels.

use super::features::FeatureSet;
use super::session::Session;
use crate::backbone::Readout;
use crate::config::Settings;
use crate::data::Sample;
use crate::data::audit::{Examination, Twins};
use crate::data::transform::{Pipeline, Preprocess};
use crate::error::Result;
use crate::hub::Wanted;
use crate::linalg::neighbors::{Metric, Neighbors, nearest};
use crate::report::Console;
use std::sync::Arc;

/// Neighbours of an image by features: the backbone, too, calls two images alike when one is among these. The rank counts and
/// not the cosine, because how near to 1 the cosines of different images are depends on the backbone.
pub const NEIGHBORS: usize = 10;

/// The backbone's view of images.
pub struct ImageNeighbors {
    set: FeatureSet,
    neighbors: Neighbors,
}

impl ImageNeighbors {
    /// Computes the features of all usable images, or finds them in the cache.
    ///
    /// # Errors
    /// Those of the weights and of the device.
    pub fn compute(
        settings: &Settings,
        preprocess: Preprocess,
        found: &Examination,
        console: &Console,
    ) -> Result<Self> {
        let session = Session::open(settings.clone(), Wanted::Backbone, console)?;
        let keys = Arc::new(found.findings.iter().map(|finding| finding.sha).collect::<Vec<_>>());
        let pipeline = Arc::new(Pipeline::evaluation(preprocess, session.decode()));
        let images = session.images(&Arc::new(found.dataset.clone()), &keys, &pipeline);
        let set = FeatureSet::compute(&session, session.pretrained(), Readout::POOL, &images, console)?;
        let all = set.matrix();
        let neighbors = session.workers.install(|| nearest(all, all, NEIGHBORS, Metric::Cosine, true))?;
        Ok(Self { set, neighbors })
    }

    /// Whether one of two images is among the other's nearest.
    pub fn agree(&self, pair: &Twins) -> bool {
        let near = |of: usize, other: usize| self.neighbors.of(of).contains(&(other as u32));
        near(pair.first, pair.second) || near(pair.second, pair.first)
    }

    /// The cosine of the features of two images; 0 where one has none.
    pub fn cosine(&self, first: usize, second: usize) -> f64 {
        let (a, b) = (self.set.matrix().row(first), self.set.matrix().row(second));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        let lengths = (dot(a, a) * dot(b, b)).sqrt();
        if lengths == 0.0 { 0.0 } else { dot(a, b) / lengths }
    }

    /// Neighbours in different splits, the most alike first, each pair once.
    pub fn across_splits(&self, samples: &[Sample]) -> Vec<(usize, usize, f64)> {
        let mut pairs: Vec<(usize, usize, f64)> = (0..samples.len())
            .flat_map(|i| self.neighbors.of(i).iter().zip(self.neighbors.distances_of(i)).map(move |(j, s)| (i, j, s)))
            .map(|(i, &j, &similarity)| (i.min(j as usize), i.max(j as usize), f64::from(similarity)))
            .filter(|&(i, j, _)| samples[i].split != samples[j].split)
            .collect();
        pairs.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
        pairs.dedup_by_key(|pair| (pair.0, pair.1));
        pairs
    }
}
