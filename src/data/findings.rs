//! One look at each file: what kind of image it is, and what it is known again by.

use super::decode::{self, DecodeOptions, Decoded, ImageError, Storage};
use super::kinds::Look;
use super::similar::signature;
use super::transform::{Geometry, Tiles};
use super::{PixelSum, Sample, Split};
use crate::config::{DataSettings, OnError};
use crate::error::{DataError, Error, Result};
use crate::pixels::signature::Signature;
use crate::pixels::statistics::Histograms;
use crate::system::shown::Shown;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// SHA-256 of a file's bytes.
pub type Sha = [u8; 32];

/// How the images are read.
#[derive(Debug, Clone, Copy)]
pub struct AuditOptions {
    /// How files are decoded.
    pub decode: DecodeOptions,
    /// How images are resized before their pixels are counted.
    pub geometry: Geometry,
    /// How they are cut instead, if they are: their pixels are counted as they are.
    pub tiles: Option<Tiles>,
    /// Stop at bad files, or leave them out.
    pub on_error: OnError,
    /// Decoding threads; 0 counts as 1.
    pub threads: usize,
}

impl AuditOptions {
    /// Those of the settings, for images that are resized by a geometry unless they are cut.
    pub fn new(settings: &DataSettings, geometry: Geometry, tiles: Option<Tiles>, threads: usize) -> Self {
        let decode = DecodeOptions { bit_depth: settings.bit_depth };
        Self { decode, geometry, tiles, on_error: settings.on_error, threads }
    }
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// SHA-256 of its bytes.
    pub sha: Sha,
    /// The sum of its pixels.
    pub pixels: PixelSum,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// How its pixels are stored.
    pub storage: Storage,
    /// What kind of image it is.
    pub look: Look,
    /// Compared to find images like it.
    pub signature: Signature,
}

/// Inspects on worker threads; results are in the order of the samples whatever the number of threads.
pub(super) fn inspect_all(
    samples: &[Sample],
    options: &AuditOptions,
    progress: &dyn Fn(usize),
) -> Result<(Vec<Result<Finding, ImageError>>, Histograms)> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut results: Vec<Option<Result<Finding, ImageError>>> = samples.iter().map(|_| None).collect();
    let mut histograms = Histograms::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.clamp(1, samples.len().max(1)))
            .map(|_| {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    let mut histograms = Histograms::default();
                    while let Some((index, sample)) = take(samples, next) {
                        if sender.send((index, inspect(sample, options, &mut histograms))).is_err() {
                            break;
                        }
                    }
                    histograms
                })
            })
            .collect();
        drop(sender);
        for (done, (index, result)) in receiver.iter().enumerate() {
            results[index] = Some(result);
            progress(done + 1);
        }
        for worker in workers {
            // A worker that panicked leaves its sample without a result, which is reported below.
            if let Ok(found) = worker.join() {
                histograms.merge(&found);
            }
        }
    });
    let complete = results.into_iter().zip(samples).map(|(result, sample)| {
        result.ok_or_else(|| {
            Error::from(DataError::invalid(
                format!("reading {} failed unexpectedly", sample.path.shown()),
                "remove the file, and please report it",
            ))
        })
    });
    Ok((complete.collect::<Result<_>>()?, histograms))
}

fn take<'a>(samples: &'a [Sample], next: &AtomicUsize) -> Option<(usize, &'a Sample)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    samples.get(index).map(|sample| (index, sample))
}

fn inspect(sample: &Sample, options: &AuditOptions, histograms: &mut Histograms) -> Result<Finding, ImageError> {
    let bytes = decode::read(&sample.path)?;
    let Decoded { image, storage, room: _room } = decode::decode_described(&bytes, options.decode)?;
    let train = sample.split == Split::Train;
    if let Some(tiles) = options.tiles {
        tiles.windows(image.dimensions())?;
    }
    match options.tiles {
        Some(_) if train => histograms.add(&image),
        None if train => histograms.add(&options.geometry.content(&image)?),
        _ => {}
    }
    Ok(Finding {
        sha: Sha256::digest(&bytes).into(),
        pixels: PixelSum::of(&image),
        size: image.dimensions(),
        look: Look::of(&image, &storage),
        storage,
        signature: signature(&image)?,
    })
}
