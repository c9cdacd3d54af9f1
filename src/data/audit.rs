//! One look at every file before training: bad files, duplicates across splits, statistics, and a fingerprint.

use super::decode::{self, DecodeOptions, Decoded, ImageError, Storage};
use super::kinds::{ImageKinds, Look};
use super::listing::{check_classes, indented};
use super::similar::{Likeness, NearPair, NearPairs, Signature, near_pairs};
use super::transform::{ChannelStatistics, Geometry, Histograms, Tiles};
use super::{Dataset, Sample, Split};
use crate::config::{DataSettings, OnError};
use crate::error::{BadFile, DataError, Error, Result};
use crate::system::digest::hex;
use crate::system::shown::{Shown, printable};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// SHA-256 of a file's bytes.
type Sha = [u8; 32];

/// Pairs that a message lists.
const LISTED: usize = 10;

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
    /// Those of the settings, for images that become squares by a geometry unless they are cut.
    pub fn new(settings: &DataSettings, geometry: Geometry, tiles: Option<Tiles>, threads: usize) -> Self {
        let decode = DecodeOptions { bit_depth: settings.bit_depth };
        Self { decode, geometry, tiles, on_error: settings.on_error, threads }
    }
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
    /// Width and height of every image left, likewise.
    pub sizes: Vec<(u32, u32)>,
    /// Files left out under [`OnError::Skip`], by name.
    pub skipped: Vec<BadFile>,
    /// Warnings, one sentence each.
    pub warnings: Vec<String>,
    /// Images that look like others; a person has to judge.
    pub look_alikes: Vec<String>,
    /// What kind of images the training images are.
    pub kinds: ImageKinds,
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// SHA-256 of its bytes.
    pub sha: Sha,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// How its pixels are stored.
    pub storage: Storage,
    /// What kind of image it is.
    pub look: Look,
    /// Compared to find images like it.
    pub signature: Signature,
}

/// The files of a data set, each read once, before any judgement.
pub struct Examination {
    /// The usable samples.
    pub dataset: Dataset,
    /// What is known of each sample, in their order.
    pub findings: Vec<Finding>,
    /// The files that cannot be used.
    pub bad: Vec<BadFile>,
    /// Statistics of the resized training images, the border of a letterbox not counted.
    pub statistics: ChannelStatistics,
}

/// Two samples that are alike, by their positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Twins {
    /// The earlier one.
    pub first: usize,
    /// The later one.
    pub second: usize,
    /// How alike they are; none = the same bytes.
    pub likeness: Option<Likeness>,
}

/// Samples that are alike.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resemblances {
    /// Each copy with the first of its kind, then the pairs that are nearly the same: those in two splits first, the
    /// surest first among them.
    pub twins: Vec<Twins>,
    /// Pairs that look alike, but no more than different images of this set do.
    pub look_alikes: usize,
}

/// Reads and decodes every image of the data set.
///
/// `progress` is called with the number of files done, on the calling thread.
///
/// # Errors
/// Only when a worker failed unexpectedly.
pub fn examine(dataset: &Dataset, options: &AuditOptions, progress: &dyn Fn(usize)) -> Result<Examination> {
    let (results, histograms) = inspect_all(&dataset.samples, options, progress)?;
    let mut usable = Dataset { samples: Vec::new(), ..dataset.clone() };
    let mut findings = Vec::new();
    let mut bad = Vec::new();
    for (sample, result) in dataset.samples.iter().zip(results) {
        match result {
            Ok(finding) => {
                usable.samples.push(sample.clone());
                findings.push(finding);
            }
            Err(error) => bad.push(BadFile { path: sample.path.clone(), reason: error.to_string() }),
        }
    }
    Ok(Examination { dataset: usable, findings, bad, statistics: histograms.statistics() })
}

impl Examination {
    /// What would stop training, one error each.
    pub fn problems(&self, on_error: OnError) -> Vec<DataError> {
        let mut problems = Vec::new();
        if !self.bad.is_empty() && on_error == OnError::Fail {
            problems.push(DataError::BadFiles { files: self.bad.clone() });
        }
        problems.extend(check_classes(&self.dataset).err());
        problems.extend(self.leak());
        problems
    }

    /// What kind of images those of a split are.
    pub fn kinds(&self, split: Split) -> ImageKinds {
        let findings = self.findings.iter().zip(&self.dataset.samples);
        findings.filter(|(_, sample)| sample.split == split).map(|(finding, _)| finding.look).collect()
    }

    /// When images of 16 bits do not use the depth that they are scaled by.
    fn depth_warning(&self, decode: DecodeOptions) -> Option<String> {
        let all: ImageKinds = self.findings.iter().map(|finding| finding.look).collect();
        let (peak, used) = (all.peak?, all.depth().unwrap_or(16));
        let set = decode.bit_depth;
        let white = |bits: u8| (1u32 << bits.min(16)) - 1;
        if u32::from(peak) > white(set) {
            return Some(format!(
                "images of 16 bits have values up to {peak}: with data.bit_depth = {set} all above {} are white; data.bit_depth = {used} fits",
                white(set)
            ));
        }
        (used < set).then(|| {
            let (most, share) = (white(used), 100.0 * f64::from(white(used)) / f64::from(white(set)));
            format!(
                "no value of the {} images of 16 bits is above {most}: they hold {used}-bit data and reach {share:.1} % of \
                 white; data.bit_depth = {used} makes {most} white",
                all.deep
            )
        })
    }

    /// Warnings of depth and copies, one sentence each.
    pub fn warnings(&self, twins: &[Twins], decode: DecodeOptions) -> Vec<String> {
        let copies = || twins.iter().filter(|pair| pair.likeness.is_none());
        let repeated: Vec<_> = copies().filter(|pair| !self.is_across(pair)).collect();
        let contradicting: Vec<_> = copies().filter(|pair| self.is_contradicting(pair)).collect();
        let copies = [
            (format!("{} repeated within a split", images(repeated.len())), repeated),
            (format!("{} labelled differently, although the same", images(contradicting.len())), contradicting),
        ];
        let copies = copies.into_iter().filter_map(|(what, pairs)| self.message(&what, &pairs, &|of| self.class(of)));
        self.depth_warning(decode).into_iter().chain(copies).collect()
    }

    /// What a person should look at among images that are nearly the same, one sentence each.
    pub fn look_alikes(&self, twins: &[Twins]) -> Vec<String> {
        let near = || twins.iter().filter(|pair| pair.likeness.is_some());
        let leaks: Vec<_> = near().filter(|pair| self.is_across(pair)).collect();
        let contradicting: Vec<_> = near().filter(|pair| self.is_contradicting(pair)).collect();
        let leaking = format!("{} in two splits, nearly identical", images(leaks.len()));
        let labelled = format!("{} labelled differently, although nearly identical", images(contradicting.len()));
        let leaking = self.message(&leaking, &leaks, &|sample| sample.split.to_string());
        leaking.into_iter().chain(self.message(&labelled, &contradicting, &|sample| self.class(sample))).collect()
    }

    /// All pairs of images that are the same or nearly so, found on so many threads.
    pub fn resemblances(&self, threads: usize) -> Resemblances {
        let different = |pair: &NearPair| self.findings[pair.first].sha != self.findings[pair.second].sha;
        let signatures: Vec<&Signature> = self.findings.iter().map(|finding| &finding.signature).collect();
        let NearPairs { pairs, look_alikes } = near_pairs(&signatures, threads);
        let near = pairs.into_iter().filter(different);
        let near = near.map(|NearPair { first, second, likeness }| Twins { first, second, likeness: Some(likeness) });
        let mut twins: Vec<Twins> = self.copies().into_iter().chain(near).collect();
        // Stable: the surest stay first.
        twins.sort_by_key(|pair| (pair.likeness.is_some(), !self.is_across(pair)));
        Resemblances { twins, look_alikes }
    }

    /// Each image whose bytes came before, with the first of its kind.
    fn copies(&self) -> Vec<Twins> {
        let mut first_of: BTreeMap<Sha, usize> = BTreeMap::new();
        let shas = self.findings.iter().enumerate().map(|(second, finding)| (second, finding.sha));
        let pairs = shas.map(|(second, sha)| (*first_of.entry(sha).or_insert(second), second));
        let copies = pairs.filter(|(first, second)| first != second);
        copies.map(|(first, second)| Twins { first, second, likeness: None }).collect()
    }

    /// The error of images whose bytes are in two splits.
    fn leak(&self) -> Option<DataError> {
        let twins = self.copies();
        let across: Vec<&Twins> = twins.iter().filter(|pair| self.is_across(pair)).collect();
        if across.is_empty() {
            return None;
        }
        let listed = self.listed(&across, &|sample| sample.split.to_string());
        Some(DataError::invalid(
            format!("{} in two splits, so a score would partly measure memory:{listed}", images(across.len())),
            "remove one of each pair, or keep copies together with the group column of a manifest",
        ))
    }

    /// The split of a sample.
    pub fn split(&self, index: usize) -> Split {
        self.dataset.samples[index].split
    }

    fn is_across(&self, pair: &Twins) -> bool {
        self.split(pair.first) != self.split(pair.second)
    }

    fn is_contradicting(&self, pair: &Twins) -> bool {
        self.dataset.samples[pair.first].label != self.dataset.samples[pair.second].label
    }

    fn class(&self, sample: &Sample) -> String {
        printable(&self.dataset.classes[sample.label])
    }

    /// A sentence with its pairs; none without any.
    fn message(&self, what: &str, twins: &[&Twins], describe: &dyn Fn(&Sample) -> String) -> Option<String> {
        (!twins.is_empty()).then(|| format!("{what}:{}", self.listed(twins, describe)))
    }

    /// One line per pair, [`LISTED`] at most.
    fn listed(&self, twins: &[&Twins], describe: &dyn Fn(&Sample) -> String) -> String {
        let name = |index: usize| {
            let sample = &self.dataset.samples[index];
            format!("{:?} ({})", sample.name, describe(sample))
        };
        let sign = |pair: &Twins| if pair.likeness.is_none() { '=' } else { '~' };
        let line = |pair: &&Twins| format!("{} {} {}", name(pair.first), sign(pair), name(pair.second));
        let mut lines: Vec<String> = twins.iter().take(LISTED).map(line).collect();
        if twins.len() > LISTED {
            lines.push(format!("and {} more, which `vitadapt check --json` lists", twins.len() - LISTED));
        }
        indented(lines)
    }
}

/// Reads every image and refuses what cannot be trained on. Under [`OnError::Skip`] bad files leave the data set.
///
/// `progress` is called with the number of files done, on the calling thread.
///
/// # Errors
/// A data error: bad files, all of them, under [`OnError::Fail`]; a class that loses all its training images; images
/// that are in two splits at once.
pub fn audit(dataset: &mut Dataset, options: &AuditOptions, progress: &dyn Fn(usize)) -> Result<Audit> {
    let found = examine(dataset, options, progress)?;
    if let Some(problem) = found.problems(options.on_error).into_iter().next() {
        return Err(problem.into());
    }
    let twins = found.resemblances(options.threads).twins;
    let (warnings, look_alikes) = (found.warnings(&twins, options.decode), found.look_alikes(&twins));
    let kinds = found.kinds(Split::Train);
    *dataset = found.dataset;
    Ok(Audit {
        statistics: found.statistics,
        data_hash: data_hash(dataset, &found.findings),
        keys: found.findings.iter().map(|finding| finding.sha).collect(),
        sizes: found.findings.iter().map(|finding| finding.size).collect(),
        skipped: found.bad,
        warnings,
        look_alikes,
        kinds,
    })
}

/// Inspects on worker threads; results are in the order of the samples whatever the number of threads.
fn inspect_all(
    samples: &[Sample],
    options: &AuditOptions,
    progress: &dyn Fn(usize),
) -> Result<(Vec<Result<Finding, ImageError>>, Histograms)> {
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
        size: image.dimensions(),
        look: Look::of(&image, &storage),
        storage,
        signature: Signature::of(&image)?,
    })
}

fn images(n: usize) -> String {
    if n == 1 { "1 image is".into() } else { format!("{n} images are") }
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

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
