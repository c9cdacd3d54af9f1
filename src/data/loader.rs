//! Delivers batches in a fixed order while threads decode ahead.
//!
//! Thread t of T makes the views at positions t, t + T, t + 2T, … of the order and hands them over through a bounded
//! channel of its own; the consumer takes them in turn. The order of the batches therefore depends on nothing but
//! the order asked for, and memory is bounded.

use super::decode::ImageError;
use super::delivery::{Destination, ResizedBytes};
use super::transform::{Bags, Pipeline, View};
use super::{Dataset, Sample};
use crate::error::{DataError, Error, Result};
use candle_core::{Device, Tensor};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Whole batches that are made ahead of the consumer.
const BATCHES_AHEAD: usize = 2;

/// Some samples, ready for the backbone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Standardised pixels of shape (n, 3, height, width), or what frozen blocks have computed from them.
    pub inputs: Vec<f32>,
    /// In place of the inputs, images as bytes.
    pub resized: Option<ResizedBytes>,
    /// Class of each sample; of a mixed one the class that it shows most of.
    pub labels: Vec<usize>,
    /// Index of each sample in the data set.
    pub indices: Vec<usize>,
    /// A distribution over the classes for each sample, row-major (n, classes), where samples were mixed; else empty.
    pub soft_labels: Vec<f32>,
    /// In place of the inputs, images that are cut into tiles and go through layers that are trained.
    pub bags: Option<Bags>,
}

impl Batch {
    /// The inputs of some samples on a device: pixels, standardised now if they are bytes, or rows of the given shape.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn tensor(&self, samples: Range<usize>, row: &[usize], device: &Device) -> candle_core::Result<Tensor> {
        if let Some(resized) = &self.resized {
            return resized.tensor(samples, device);
        }
        let (n, values) = (samples.len(), row.iter().product::<usize>());
        let shape: Vec<usize> = std::iter::once(n).chain(row.iter().copied()).collect();
        Tensor::from_slice(&self.inputs[samples.start * values..samples.end * values], shape, device)
    }
}

/// How a [`Loader`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Samples in each batch but the last, which has what is left.
    pub batch_size: usize,
    /// Decoding threads; 0 counts as 1.
    pub threads: usize,
    /// Batches to skip at the start, to continue an interrupted epoch.
    pub first_batch: usize,
    /// Where the batches go.
    pub destination: Destination,
}

/// One view in the form in which it is delivered.
enum Pixels {
    Standardized(Vec<f32>),
    Bytes(Vec<u8>),
}

/// An iterator over batches. It ends after the first error. Dropping it stops its threads after their current image.
pub struct Loader {
    dataset: Arc<Dataset>,
    pipeline: Arc<Pipeline>,
    /// Views still to deliver, in order.
    order: std::vec::IntoIter<View>,
    options: LoaderOptions,
    /// Mean and standard deviation of what is delivered as bytes.
    left: Option<([f32; 3], [f32; 3])>,
    /// One per thread, in the order of their turns.
    channels: Vec<Receiver<Result<Pixels>>>,
    turn: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts loading the views of `order`, in that order.
    ///
    /// # Errors
    /// When an index is not in the data set or the system starts no thread.
    pub fn new(dataset: Arc<Dataset>, order: &[View], pipeline: Arc<Pipeline>, options: LoaderOptions) -> Result<Self> {
        let options =
            LoaderOptions { batch_size: options.batch_size.max(1), threads: options.threads.max(1), ..options };
        let skipped = options.first_batch.saturating_mul(options.batch_size).min(order.len());
        let order = order[skipped..].to_vec();
        if let Some(view) = order.iter().find(|view| view.sample >= dataset.samples.len() as u64) {
            let message =
                format!("sample {} was requested, but the data set has {}", view.sample, dataset.samples.len());
            return Err(DataError::Invalid { message, hint: None }.into());
        }
        let threads = options.threads.min(order.len());
        let ahead = (BATCHES_AHEAD * options.batch_size).div_ceil(threads.max(1));
        let mut loader = Self {
            left: pipeline.left_to(options.destination),
            dataset,
            pipeline,
            order: Vec::new().into_iter(),
            options,
            channels: Vec::with_capacity(threads),
            turn: 0,
            threads: Vec::with_capacity(threads),
        };
        for thread in 0..threads {
            let (sender, receiver) = sync_channel(ahead);
            loader.channels.push(receiver);
            loader.threads.push(loader.spawn(order.iter().copied().skip(thread).step_by(threads).collect(), sender)?);
        }
        loader.order = order.into_iter();
        Ok(loader)
    }

    fn spawn(&self, views: Vec<View>, sender: SyncSender<Result<Pixels>>) -> Result<JoinHandle<()>> {
        let (dataset, pipeline, as_bytes) =
            (Arc::clone(&self.dataset), Arc::clone(&self.pipeline), self.left.is_some());
        let load = move |path: &Path, view: View| {
            if as_bytes {
                pipeline.load_resized(path, view).map(|image| Pixels::Bytes(image.into_raw()))
            } else {
                pipeline.load(path, view).map(Pixels::Standardized)
            }
        };
        let work = move || {
            for view in views {
                let sample = &dataset.samples[view.sample as usize];
                let result = catch_unwind(AssertUnwindSafe(|| load(&sample.path, view)));
                let result =
                    result.unwrap_or_else(|_| Err(ImageError::Damaged("preparing it failed unexpectedly".into())));
                // The receiver is gone when the loader was dropped: nobody wants the rest.
                if sender.send(result.map_err(|error| DataError::bad_file(&sample.path, error).into())).is_err() {
                    return;
                }
            }
        };
        let named = std::thread::Builder::new().name("decode".into());
        named.spawn(work).map_err(Error::io("start a thread to read", &self.dataset.samples[0].path))
    }

    /// The next view, in order.
    fn next_pixels(&mut self, sample: &Sample) -> Result<Pixels> {
        let turn = self.turn;
        self.turn = (turn + 1) % self.channels.len().max(1);
        let received = self.channels.get(turn).and_then(|channel| channel.recv().ok());
        received.unwrap_or_else(|| {
            let error = ImageError::Damaged("its thread stopped unexpectedly".into());
            Err(DataError::bad_file(&sample.path, error).into())
        })
    }

    fn next_batch(&mut self) -> Result<Batch> {
        let dataset = Arc::clone(&self.dataset);
        let views: Vec<View> = self.order.by_ref().take(self.options.batch_size).collect();
        let indices: Vec<usize> = views.iter().map(|view| view.sample as usize).collect();
        let (mut inputs, mut bytes) = (Vec::new(), Vec::new());
        for &index in &indices {
            match self.next_pixels(&dataset.samples[index])? {
                Pixels::Standardized(view) => append(&mut inputs, &view, indices.len()),
                Pixels::Bytes(view) => append(&mut bytes, &view, indices.len()),
            }
        }
        self.pipeline.finish(&mut inputs, &views);
        let size = self.pipeline.preprocess().geometry.image_size;
        let resized = self.left.map(|scale| ResizedBytes { bytes, size, scale });
        let labels = indices.iter().map(|&index| dataset.samples[index].label).collect();
        Ok(Batch { inputs, resized, labels, indices, ..Batch::default() })
    }

    fn stop(&mut self) {
        self.order = Vec::new().into_iter();
        self.channels.clear();
        for thread in self.threads.drain(..) {
            // A panic of a worker was already reported to the consumer as an error.
            let _ = thread.join();
        }
    }
}

/// Adds one of `views` views of the same size.
fn append<T: Copy>(all: &mut Vec<T>, view: &[T], views: usize) {
    if all.is_empty() {
        all.reserve_exact(view.len() * views);
    }
    all.extend_from_slice(view);
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.order.len() == 0 {
            return None;
        }
        let batch = self.next_batch();
        if batch.is_err() {
            self.stop();
        }
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
