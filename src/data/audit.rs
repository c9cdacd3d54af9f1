//! One look at every file before training: bad files, duplicates across splits, statistics, and a fingerprint.

use super::decode::DecodeOptions;
pub use super::findings::{AuditOptions, Finding};
use super::findings::{Sha, inspect_all};
use super::kinds::ImageKinds;
use super::listing::{check_classes, indented};
use super::similar::near_pairs;
pub use super::similar::{Resemblances, Twins};
use super::{Dataset, PixelSum, Split};
use crate::config::OnError;
use crate::error::{BadFile, DataError, Result};
use crate::pixels::signature::Signature;
use crate::pixels::statistics::ChannelStatistics;
use crate::system::digest::hex;
use crate::system::shown::{are, counted, printable};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pairs that a message lists.
const LISTED: usize = 10;

/// What an audit found.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// Statistics of the resized training images, the border of a letterbox not counted.
    pub statistics: ChannelStatistics,
    /// SHA-256 over the name, class and bytes of every image, in hexadecimal: changes when the data does.
    pub data_hash: String,
    /// SHA-256 of the bytes of every image left, in the order of the samples.
    pub keys: Arc<Vec<Sha>>,
    /// The sum of the pixels of every image left, likewise.
    pub pixels: Vec<PixelSum>,
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

    /// Warnings of depth and copies, one sentence each, with the pairs if they are to be `listed`.
    pub fn warnings(&self, twins: &[Twins], decode: DecodeOptions, listed: bool) -> Vec<String> {
        let copies = twins.iter().filter(|pair| pair.likeness.is_none() && !self.is_across(pair));
        let copies = self.message("the same file as another of its split", &copies.collect::<Vec<_>>(), listed);
        let all = self.pixel_copies();
        let across: Vec<&Twins> = all.iter().filter(|pair| self.is_across(pair)).collect();
        let what = "the same picture as one of another split, in another file, so a score would partly measure memory";
        let pictures = self.message(what, &across, listed);
        self.depth_warning(decode).into_iter().chain(copies).chain(pictures).collect()
    }

    /// What a person should look at among images that are nearly the same, one sentence each, likewise.
    pub fn look_alikes(&self, twins: &[Twins], listed: bool) -> Vec<String> {
        let near = || twins.iter().filter(|pair| pair.likeness.is_some());
        // Those of the same pixels are warned of.
        let leaks: Vec<_> = near().filter(|pair| self.is_across(pair) && !self.shows_the_same(pair)).collect();
        let leaks = self.message("strikingly similar to one of another split", &leaks, listed);
        // Those that are in two splits as well have been named.
        let labelled: Vec<_> = near().filter(|pair| self.is_contradicting(pair) && !self.is_across(pair)).collect();
        leaks.into_iter().chain(self.message("strikingly similar to another of its split", &labelled, listed)).collect()
    }

    /// Each copy with the first of its kind, then the pairs that are nearly the same, found on so many threads: those in two
    /// splits first, the surest first among them.
    pub fn resemblances(&self, threads: usize) -> Resemblances {
        let mut twins = self.copies();
        let copied: BTreeSet<usize> = twins.iter().map(|pair| pair.second).collect();
        // The first of its kind stands for its copies.
        let firsts: Vec<usize> = (0..self.findings.len()).filter(|index| !copied.contains(index)).collect();
        let signatures: Vec<&Signature> = firsts.iter().map(|&index| &self.findings[index].signature).collect();
        let near = near_pairs(&signatures, threads);
        let placed = |pair: Twins| Twins { first: firsts[pair.first], second: firsts[pair.second], ..pair };
        twins.extend(near.twins.into_iter().map(placed));
        // Stable: the surest stay first.
        twins.sort_by_key(|pair| (pair.likeness.is_some(), !self.is_across(pair)));
        Resemblances { twins, look_alikes: near.look_alikes }
    }

    /// Each image whose bytes came before, with the first of its kind.
    fn copies(&self) -> Vec<Twins> {
        self.repeated(|finding| finding.sha)
    }

    /// Each image that shows the pixels of an earlier one in another file, as a lossless copy does.
    fn pixel_copies(&self) -> Vec<Twins> {
        let mut copies = self.repeated(|finding| finding.pixels);
        copies.retain(|pair| self.findings[pair.first].sha != self.findings[pair.second].sha);
        copies
    }

    /// Each image that has the key of an earlier one, with the first that has it.
    fn repeated<K: Ord>(&self, key: impl Fn(&Finding) -> K) -> Vec<Twins> {
        let mut first_of: BTreeMap<K, usize> = BTreeMap::new();
        let pairs = self.findings.iter().map(key).enumerate();
        let pairs = pairs.map(|(second, key)| (*first_of.entry(key).or_insert(second), second));
        let repeated = pairs.filter(|(first, second)| first != second);
        repeated.map(|(first, second)| Twins { first, second, likeness: None }).collect()
    }

    fn shows_the_same(&self, pair: &Twins) -> bool {
        self.findings[pair.first].pixels == self.findings[pair.second].pixels
    }

    /// The error of images whose bytes are in two splits.
    fn leak(&self) -> Option<DataError> {
        let twins = self.copies();
        let across: Vec<&Twins> = twins.iter().filter(|pair| self.is_leak(pair)).collect();
        if across.is_empty() {
            return None;
        }
        let listed = self.listed(&across);
        Some(DataError::invalid(
            format!("{} in two splits, so a score would partly measure memory:{listed}", images(across.len())),
            "remove one of each pair, or keep copies together with the group column of a manifest",
        ))
    }

    /// The split of a sample.
    pub fn split(&self, index: usize) -> Split {
        self.dataset.samples[index].split
    }

    /// Whether a pair is the same file in two splits, which is an error.
    pub fn is_leak(&self, pair: &Twins) -> bool {
        pair.likeness.is_none() && self.is_across(pair)
    }

    fn is_across(&self, pair: &Twins) -> bool {
        self.split(pair.first) != self.split(pair.second)
    }

    fn is_contradicting(&self, pair: &Twins) -> bool {
        self.dataset.samples[pair.first].label != self.dataset.samples[pair.second].label
    }

    /// A sentence about images that are alike, with the pairs if they are to be `listed`; none without any.
    fn message(&self, what: &str, twins: &[&Twins], listed: bool) -> Option<String> {
        let labelled = match twins.iter().filter(|pair| self.is_contradicting(pair)).count() {
            0 => String::new(),
            all if all == twins.len() => ", but labelled differently".into(),
            some => format!(", {some} of them labelled differently"),
        };
        let list = if listed { format!(":{}", self.listed(twins)) } else { String::new() };
        (!twins.is_empty()).then(|| format!("{} {what}{labelled}{list}", images(twins.len())))
    }

    /// One line per pair with class and split of each, [`LISTED`] at most.
    fn listed(&self, twins: &[&Twins]) -> String {
        let name = |index: usize| {
            let sample = &self.dataset.samples[index];
            format!("{:?} ({}, {})", sample.name, printable(&self.dataset.classes[sample.label]), sample.split)
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
    let (warnings, look_alikes) = (found.warnings(&twins, options.decode, true), found.look_alikes(&twins, true));
    let kinds = found.kinds(Split::Train);
    *dataset = found.dataset;
    Ok(Audit {
        statistics: found.statistics,
        data_hash: data_hash(dataset, &found.findings),
        keys: Arc::new(found.findings.iter().map(|finding| finding.sha).collect()),
        pixels: found.findings.iter().map(|finding| finding.pixels).collect(),
        sizes: found.findings.iter().map(|finding| finding.size).collect(),
        skipped: found.bad,
        warnings,
        look_alikes,
        kinds,
    })
}

fn images(n: usize) -> String {
    format!("{} {}", counted(n, "image"), are(n))
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
