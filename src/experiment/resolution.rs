//! What the model's resolution does to the images: how small a flaw becomes, and how much of their detail is left.

use crate::config::ResizeMode;
use crate::data::audit::Examination;
use crate::data::decode::{DecodeOptions, decode_file};
use crate::data::transform::{Geometry, detail};
use crate::report::{key_value_table, percent};
use serde_json::{Value, json};

/// Images whose spectrum is taken.
const LOOKED_AT: usize = 16;
/// Sides of the input beside the model's own, as multiples of it.
const LARGER: [usize; 3] = [1, 2, 4];
/// Side of a flaw that serves as example, in pixels.
const FLAW: f64 = 20.0;
/// Reduction from which a small flaw is in danger.
const STRONG_REDUCTION: f64 = 4.0;
/// Longer side for the shorter one from which a squash distorts strongly.
const STRONG_ASPECT: f64 = 2.0;

/// What resolution does to a set of images.
#[derive(Debug)]
pub struct Resolution {
    /// In words.
    pub text: String,
    /// In numbers.
    pub json: Value,
    /// Of strong reduction and distortion.
    pub warnings: Vec<String>,
}

/// Describes it; none of no images.
pub fn describe(found: &Examination, geometry: Geometry, decode: DecodeOptions) -> Option<Resolution> {
    let geometries = LARGER.map(|times| Geometry { image_size: times * geometry.image_size, ..geometry });
    let scale = |size: (u32, u32)| {
        let (across, down) = geometry.scales(size);
        across.min(down)
    };
    let mut sizes: Vec<(u32, u32)> = found.findings.iter().map(|finding| finding.size).collect();
    sizes.sort_by(|&a, &b| scale(a).total_cmp(&scale(b)));
    let &size = sizes.get(sizes.len() / 2)?;
    let samples = &found.dataset.samples;
    let step = samples.len().div_ceil(LOOKED_AT).max(1);
    let lost: Vec<Vec<f64>> = samples
        .iter()
        .step_by(step)
        .filter_map(|sample| detail::lost(&decode_file(&sample.path, decode).ok()?, &geometries))
        .collect();
    let medians: Vec<Option<f64>> = (0..LARGER.len()).map(|at| median(lost.iter().map(|lost| lost[at]))).collect();
    let scale = scale(size);
    let (flaw, way) = (FLAW * scale, way(geometry.resize));
    let side = geometry.image_size;
    let percentage = |share: Option<f64>| share.map_or("unknown".to_owned(), percent);
    let mut rows = vec![
        ("input".to_owned(), format!("{side} pixels, {way}")),
        ("typical image".into(), format!("{} x {} pixels", size.0, size.1)),
        (format!("a flaw of {FLAW} pixels"), format!("{flaw:.1} pixels of the input")),
    ];
    let named = geometries.iter().zip(&medians);
    rows.extend(named.map(|(of, &share)| (format!("detail lost at {}", of.image_size), percentage(share))));
    let shown: Vec<(&str, String)> = rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let explained = format!(
        "of {} images, the median, by the spectrum: edges and textures finer than the input can hold; sensor noise counts too",
        lost.len()
    );
    let reduction = reduction_warning(size, (side, scale), &medians, way);
    let warnings = reduction.into_iter().chain(distortion_warning(&sizes, geometry.resize)).collect();
    let json = json!({
        "image_size": side,
        "resize": geometry.resize,
        "typical_size": size,
        "scale": scale,
        "detail_lost": geometries.iter().zip(&medians)
            .map(|(of, lost)| json!({"image_size": of.image_size, "median": lost})).collect::<Vec<_>>(),
        "images": lost.len(),
    });
    Some(Resolution { text: format!("{}\n{explained}", key_value_table(&shown)), json, warnings })
}

fn way(resize: ResizeMode) -> &'static str {
    match resize {
        ResizeMode::Squash => "squash",
        ResizeMode::Letterbox => "letterbox",
        ResizeMode::Crop => "crop",
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn reduction_warning(
    (width, height): (u32, u32),
    (side, scale): (usize, f64),
    lost: &[Option<f64>],
    way: &str,
) -> Option<String> {
    let [now, twice, _] = lost else { return None };
    let removed = now.map_or(String::new(), |share| format!(" and removes {} of the detail", percent(share)));
    let larger = twice.map_or(String::new(), |share| format!(" ({} would remove {})", 2 * side, percent(share)));
    (scale * STRONG_REDUCTION <= 1.0).then(|| {
        format!(
            "a {way} from {width} x {height} to {side} pixels makes {:.1} pixels of a flaw of {FLAW}{removed}: a larger \
             model.image_size{larger} or cut-outs of the images keep more",
            FLAW * scale
        )
    })
}

fn distortion_warning(sizes: &[(u32, u32)], resize: ResizeMode) -> Option<String> {
    let aspect = |&(width, height): &(u32, u32)| f64::from(width.max(height)) / f64::from(width.min(height).max(1));
    let long: Vec<f64> = sizes.iter().map(aspect).filter(|&aspect| aspect > STRONG_ASPECT).collect();
    let most = long.iter().copied().fold(0.0, f64::max);
    (resize == ResizeMode::Squash && 10 * long.len() > sizes.len()).then(|| {
        format!(
            "{} of {} images are more than {STRONG_ASPECT} times as long as wide (up to {most:.1}), and a squash presses them \
             into a square: preprocess.resize = \"letterbox\" keeps their shape, at fewer pixels",
            long.len(),
            sizes.len()
        )
    })
}
