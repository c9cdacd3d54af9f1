//! The images: counts, files, sizes, and what the preprocessing does to them.

use super::{CheckArgs, Report, Section, twins};
use crate::backbone::VitSpec;
use crate::config::{OnError, ResizeMode, Settings};
use crate::data::audit::{AuditOptions, Examination, examine};
use crate::data::transform::{BackboneDefaults, Geometry, Interpolation, Normalization, Preprocess, Tiles};
use crate::data::{Dataset, Split};
use crate::error::{DataError, Result};
use crate::experiment::balance;
use crate::experiment::image_neighbors::ImageNeighbors;
use crate::experiment::resolution::{self, Resolution};
use crate::experiment::session::decode_threads;
use crate::experiment::sheets;
use crate::report::{Console, key_value_table, listing_table, percent};
use crate::size::Size;
use crate::system::shown::{are, counted, part_of};
use crate::train::forecast::TileCounts;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is assumed of a backbone that cannot be had, so that the images can be looked at all the same.
const USUAL_SIZE: Size = Size { height: 224, width: 224 };
const USUAL_INPUT: BackboneDefaults = BackboneDefaults {
    mean: [0.5; 3],
    std: [0.5; 3],
    resize: ResizeMode::Squash,
    interpolation: Interpolation::Bilinear,
    crop_pct: 1.0,
};

/// Looks at every image once; draws the sheets that were asked for. Counts the tiles, if images are cut.
///
/// # Errors
/// When a sheet cannot be written; everything else is noted in the report.
pub fn check(
    settings: &Settings,
    spec: Option<&VitSpec>,
    dataset: &Dataset,
    args: &CheckArgs,
    report: &mut Report,
    console: &Console,
) -> Result<(Vec<Section>, Option<TileCounts>)> {
    dataset.notes.iter().for_each(|note| console.info(note));
    report.warnings.extend(dataset.warnings.iter().cloned());
    let usual = (settings.model.image_size.unwrap_or(USUAL_SIZE), USUAL_INPUT);
    let (image_size, defaults) = spec.map_or(usual, |spec| (spec.image_size, spec.input));
    let geometry = Geometry::resolve(&settings.preprocess, image_size, &defaults);
    let tiles = settings.preprocess.tiles.as_ref().map(|tiles| Tiles::resolve(tiles, image_size)).transpose();
    let tiles = report.note(tiles).flatten();
    let options = AuditOptions::new(&settings.data, geometry, tiles, decode_threads(settings));
    let progress = console.progress(dataset.samples.len() as u64, "checking images");
    let found = examine(dataset, &options, &|done| progress.set(done as u64))?;
    progress.finish();
    let alike = found.resemblances(options.threads);
    // The table has the pairs, which a quiet console does not get.
    let listed = console.is_quiet();
    report.warnings.extend(found.warnings(&alike.twins, options.decode, listed));
    report.look_alikes.extend(found.look_alikes(&alike.twins, listed));
    // The usual size stands for that of a backbone that cannot be read: nothing follows from it.
    if spec.is_some() || settings.model.image_size.is_some() {
        report.warnings.extend(Spread::of(&found, &geometry).warnings(image_size));
    }
    report.warnings.extend(balance::warnings(&found.dataset, settings));
    if settings.data.on_error == OnError::Skip && !found.bad.is_empty() {
        report.warnings.push(DataError::BadFiles { files: found.bad.clone() }.to_string());
    }
    report.problems.extend(found.problems(settings.data.on_error).into_iter().map(Into::into));
    let preprocess = Preprocess::resolve(&settings.preprocess, image_size, &defaults, Some(&found.statistics));
    let preprocess = report.note(preprocess);

    let mut sections = vec![section(&found, &geometry)];
    if let Some(Resolution { text, json, warnings }) = resolution::describe(&found, geometry, tiles, options.decode) {
        report.warnings.extend(warnings);
        sections.push(Section { name: "resolution", text, json });
    }
    let features = match preprocess {
        Some(Preprocess { normalization: Normalization::Batch, .. }) if args.embeddings => {
            report
                .warnings
                .push("no embeddings: with preprocess.normalize = \"batch\" they depend on the batch".into());
            None
        }
        Some(preprocess) if args.embeddings && spec.is_some() => {
            let features = ImageNeighbors::compute(settings, preprocess, &found, console);
            report.note(features)
        }
        _ => None,
    };
    sections.extend(twins::sections(&found, &alike, features.as_ref(), console));
    if let Some(file) = &args.sheet {
        sheets::twins(file, &found, &alike.twins, options.decode, console)?;
    }
    if let (Some(file), Some(preprocess)) = (&args.augment_sheet, preprocess) {
        sheets::augmented(file, settings, preprocess, &found.dataset, (args.copies, args.per_class as usize))?;
    }
    let sizes: Vec<_> = found.findings.iter().map(|finding| finding.size).collect();
    Ok((sections, tiles.map(|tiles| TileCounts::of(&tiles, &sizes, options.threads))))
}

/// What the sizes of the images have to do with the input.
struct Spread {
    /// Images that are enlarged.
    small: usize,
    /// Mean and largest share of the area that the centre crop leaves out.
    discarded: (f64, f64),
    images: usize,
}

impl Spread {
    fn of(found: &Examination, geometry: &Geometry) -> Self {
        let sizes = || found.findings.iter().map(|finding| finding.size);
        let images = found.findings.len();
        // Of a long image squashed into the input one side may grow while detail is lost along the other.
        let enlarged = |&(width, height): &(u32, u32)| {
            let (across, down) =
                ((width as usize) < geometry.image_size.width, (height as usize) < geometry.image_size.height);
            if geometry.resize == ResizeMode::Crop { across || down } else { across && down }
        };
        let discarded: Vec<f64> = sizes().map(|size| geometry.discarded(size)).collect();
        Self {
            small: sizes().filter(enlarged).count(),
            discarded: (
                discarded.iter().sum::<f64>() / images.max(1) as f64,
                discarded.iter().copied().fold(0.0, f64::max),
            ),
            images,
        }
    }

    fn warnings(&self, image_size: Size) -> Vec<String> {
        let mut warnings = Vec::new();
        if 2 * self.small > self.images {
            warnings.push(format!(
                "{} {} smaller than the input of {image_size} pixels and {} enlarged, which shows no more of \
                 the picture: a smaller model.image_size trains faster, but backbones often do best at the size they were \
                 pretrained at; compare both",
                part_of(self.small, self.images, "image"),
                are(self.small),
                are(self.small)
            ));
        }
        if self.discarded.0 > 0.05 {
            warnings.push(format!(
                "preprocess.resize = \"crop\" leaves out {} of the average image, and a defect there with it: squash and \
                 letterbox show the whole image",
                percent(self.discarded.0)
            ));
        }
        warnings
    }
}

/// Training, validation and test images of each class.
fn counts(dataset: &Dataset) -> Vec<[usize; 3]> {
    let by_split = Split::ALL.map(|split| dataset.class_counts(split));
    (0..dataset.classes.len()).map(|label| [0, 1, 2].map(|split| by_split[split][label])).collect()
}

fn section(found: &Examination, geometry: &Geometry) -> Section {
    let counts = counts(&found.dataset);
    let text = format!("{}\n\n{}", overall(found, geometry, &counts), class_table(&found.dataset, &counts));
    Section { name: "images", text, json: json(found, geometry, &counts) }
}

fn overall(found: &Examination, geometry: &Geometry, counts: &[[usize; 3]]) -> String {
    let dataset = &found.dataset;
    let spread = Spread::of(found, geometry);
    let pixels = |range: Option<(u32, u32)>| match range {
        None => "none".into(),
        Some((low, high)) if low == high => counted(low as usize, "pixel"),
        Some((low, high)) => format!("{low} to {high} pixels"),
    };
    let stored: Vec<String> = stored(found).iter().map(|(kind, n)| format!("{kind}: {n}")).collect();
    let aspect = aspect(found).map_or_else(|| "none".into(), |(low, high)| format!("{low:.2} to {high:.2}"));
    let (mean, most) = spread.discarded;
    key_value_table(&[
        ("usable images", format!("{} in {}", dataset.samples.len(), counted(dataset.classes.len(), "class"))),
        ("unusable files", found.bad.len().to_string()),
        ("files passed over", dataset.ignored_files.to_string()),
        ("stored as", stored.join("; ")),
        ("width", pixels(range(found, |size| size.0))),
        ("height", pixels(range(found, |size| size.1))),
        ("width / height", aspect),
        ("below the input", format!("{} (a side under {} pixels)", spread.small, geometry.image_size)),
        ("left out by a crop", format!("{} on average, {} at most", percent(mean), percent(most))),
        ("imbalance", imbalance(counts).map_or_else(|| "-".into(), |ratio| format!("{ratio:.1} to 1 in training"))),
    ])
}

fn class_table(dataset: &Dataset, counts: &[[usize; 3]]) -> String {
    let row = |(class, counts): (&String, &[usize; 3])| {
        let total = counts.iter().sum();
        std::iter::once(class.clone()).chain(counts.iter().chain([&total]).map(usize::to_string)).collect::<Vec<_>>()
    };
    listing_table(1, &["class", "train", "val", "test", "all"], dataset.classes.iter().zip(counts).map(row))
}

fn json(found: &Examination, geometry: &Geometry, counts: &[[usize; 3]]) -> Value {
    let dataset = &found.dataset;
    let spread = Spread::of(found, geometry);
    let classes = dataset.classes.iter().zip(counts);
    let classes =
        classes.map(|(class, [train, val, test])| json!({"class": class, "train": train, "val": val, "test": test}));
    let bad = found.bad.iter().map(|bad| json!({"path": bad.path, "reason": bad.reason}));
    let unread = dataset.unread.iter();
    let unread = unread.map(|((class, extension), n)| json!({"class": class, "extension": extension, "files": n}));
    json!({
        "images": dataset.samples.len(),
        "classes": classes.collect::<Value>(),
        "imbalance": imbalance(counts),
        "unusable": bad.collect::<Value>(),
        "ignored_files": dataset.ignored_files,
        "unread_files": unread.collect::<Value>(),
        "stored": stored(found),
        "width": range(found, |size| size.0),
        "height": range(found, |size| size.1),
        "aspect": aspect(found),
        "image_size": geometry.image_size,
        "smaller_than_input": spread.small,
        "crop_discards": {"mean": spread.discarded.0, "max": spread.discarded.1},
    })
}

/// Smallest and largest width / height.
fn aspect(found: &Examination) -> Option<(f64, f64)> {
    let aspects = found.findings.iter().map(|finding| f64::from(finding.size.0) / f64::from(finding.size.1.max(1)));
    aspects.fold(None, |range, x| Some(range.map_or((x, x), |(low, high): (f64, f64)| (low.min(x), high.max(x)))))
}

/// How many files are stored in each way.
fn stored(found: &Examination) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for finding in &found.findings {
        *counts.entry(finding.storage.to_string()).or_insert(0) += 1;
    }
    counts
}

fn range(found: &Examination, side: impl Fn((u32, u32)) -> u32) -> Option<(u32, u32)> {
    let sides = || found.findings.iter().map(|finding| side(finding.size));
    sides().min().zip(sides().max())
}

/// Training images of the largest class for each one of the smallest.
fn imbalance(counts: &[[usize; 3]]) -> Option<f64> {
    let train = || counts.iter().map(|[train, ..]| *train);
    let (least, most) = train().min().zip(train().max())?;
    (least > 0).then(|| most as f64 / least as f64)
}
