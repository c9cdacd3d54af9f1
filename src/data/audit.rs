//! One look at every file before training: bad files, duplicates across splits, statistics, and a fingerprint.

use super::decode::{self, DecodeOptions, ImageError};
use super::listing::{check_classes, indented};
use super::transform::{ChannelStatistics, Geometry, Histograms};
use super::{Dataset, Sample, Split};
use crate::config::OnError;
use crate::error::{BadFile, DataError, Error, Result};
use crate::system::digest::hex;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

type Sha = [u8; 32];

/// How to look at the images.
#[derive(Debug, Clone, Copy)]
pub struct AuditOptions {
    /// How files are decoded.
    pub decode: DecodeOptions,
    /// How images are resized before their pixels are counted.
    pub geometry: Geometry,
    /// Stop at bad files, or leave them out.
    pub on_error: OnError,
    /// Decoding threads; 0 counts as 1.
    pub threads: usize,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// Statistics of the resized training images, the border of a letterbox not counted.
    pub statistics: ChannelStatistics,
    /// SHA-256 over the name, class and bytes of every image, in hexadecimal: changes when the data does.
    pub data_hash: String,
    /// SHA-256 of the bytes of every image left, in the order of the samples.
    pub keys: Vec<Sha>,
    /// Smallest and largest width in pixels.
    pub widths: RangeInclusive<u32>,
    /// Smallest and largest height in pixels.
    pub heights: RangeInclusive<u32>,
    /// Files left out under [`OnError::Skip`], by name.
    pub skipped: Vec<BadFile>,
    /// What a person should know, one sentence each.
    pub warnings: Vec<String>,
}

/// What one file is like.
struct Finding {
    sha: Sha,
    size: (u32, u32),
}

/// Reads and decodes every image of the data set. Under [`OnError::Skip`] bad files leave the data set.
///
/// `progress` is called with the number of files done, on the calling thread.
///
/// # Errors
/// A data error: bad files, all of them, under [`OnError::Fail`]; a class that loses all its training images; images
/// that are in two splits at once.
pub fn audit(dataset: &mut Dataset, options: &AuditOptions, progress: &dyn Fn(usize)) -> Result<Audit> {
    let (results, histograms) = inspect_all(&dataset.samples, options, progress)?;
    let mut kept = Vec::new();
    let mut findings = Vec::new();
    let mut skipped = Vec::new();
    for (sample, result) in dataset.samples.iter().zip(results) {
        match result {
            Ok(finding) => {
                kept.push(sample.clone());
                findings.push(finding);
            }
            Err(error) => skipped.push(BadFile { path: sample.path.clone(), reason: error.to_string() }),
        }
    }
    if !skipped.is_empty() && options.on_error == OnError::Fail {
        return Err(DataError::BadFiles { files: skipped }.into());
    }
    dataset.samples = kept;
    check_classes(dataset)?;
    let warnings = check_duplicates(dataset, &findings)?;
    Ok(Audit {
        statistics: histograms.statistics(),
        data_hash: data_hash(dataset, &findings),
        keys: findings.iter().map(|finding| finding.sha).collect(),
        widths: range(findings.iter().map(|finding| finding.size.0)),
        heights: range(findings.iter().map(|finding| finding.size.1)),
        skipped,
        warnings,
    })
}

type Inspected = Vec<Result<Finding, ImageError>>;

/// Inspects on worker threads; results are in the order of the samples whatever the number of threads.
fn inspect_all(
    samples: &[Sample],
    options: &AuditOptions,
    progress: &dyn Fn(usize),
) -> Result<(Inspected, Histograms)> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut results: Vec<Option<Result<Finding, ImageError>>> = samples.iter().map(|_| None).collect();
    let mut histograms = Histograms::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.clamp(1, samples.len().max(1)))
            .map(|_| {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    let mut histograms = Histograms::new();
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
                format!("looking at {} failed unexpectedly", sample.path.display()),
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
    let image = decode::decode(&bytes, options.decode)?;
    if sample.split == Split::Train {
        histograms.add(&options.geometry.content(&image)?);
    }
    Ok(Finding { sha: Sha256::digest(&bytes).into(), size: image.dimensions() })
}

/// Refuses images whose bytes are in two splits; returns a warning about those that repeat within one.
fn check_duplicates(dataset: &Dataset, findings: &[Finding]) -> Result<Vec<String>> {
    let mut by_content: BTreeMap<Sha, Vec<&Sample>> = BTreeMap::new();
    for (sample, finding) in dataset.samples.iter().zip(findings) {
        by_content.entry(finding.sha).or_default().push(sample);
    }
    let mut pairs: Vec<(&Sample, &Sample)> =
        by_content.values().flat_map(|alike| alike.iter().skip(1).map(|copy| (alike[0], *copy))).collect();
    pairs.sort_by(|a, b| (&a.0.name, &a.1.name).cmp(&(&b.0.name, &b.1.name)));
    let (within, across): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(a, b)| a.split == b.split);
    if !across.is_empty() {
        let listed = listed(&across, |s| format!("{:?} ({})", s.name, s.split));
        return Err(DataError::invalid(
            format!("{} in two splits, so a score would partly measure memory:{listed}", images(across.len())),
            "remove one of each pair, or keep copies together with the group column of a manifest",
        )
        .into());
    }
    let mut warnings = Vec::new();
    if !within.is_empty() {
        let listed = listed(&within, |s| format!("{:?} ({})", s.name, dataset.classes[s.label]));
        warnings.push(format!("{} repeated within a split:{listed}", images(within.len())));
    }
    Ok(warnings)
}

fn images(n: usize) -> String {
    if n == 1 { "1 image is".into() } else { format!("{n} images are") }
}

fn listed(pairs: &[(&Sample, &Sample)], describe: impl Fn(&Sample) -> String) -> String {
    indented(pairs.iter().map(|(a, b)| format!("{} = {}", describe(a), describe(b))).collect())
}

fn data_hash(dataset: &Dataset, findings: &[Finding]) -> String {
    let mut hash = Sha256::new();
    // Lengths first, so that no name can run into the next field.
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    for (sample, finding) in dataset.samples.iter().zip(findings) {
        field(&sample.name);
        field(&dataset.classes[sample.label]);
        field(&hex(&finding.sha));
    }
    hex(&hash.finalize())
}

fn range(values: impl Iterator<Item = u32> + Clone) -> RangeInclusive<u32> {
    values.clone().min().unwrap_or(0)..=values.max().unwrap_or(0)
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
