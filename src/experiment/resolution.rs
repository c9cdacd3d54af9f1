//! What the model's resolution does to the images: how small a flaw becomes, and how much of their detail is left.

use crate::config::{ResizeMode, TileSettings};
use crate::data::audit::Examination;
use crate::data::decode::{DecodeOptions, decode_file};
use crate::data::transform::{Geometry, Tiles, detail};
use crate::report::{key_value_table, percent};
use crate::size::Size;
use crate::system::shown::{counted, part_of};
use serde_json::{Value, json};
use statrs::statistics::{Data, Median};

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
/// Detail that a larger size must keep more of to be proposed, as a share.
const LEAST_GAIN: f64 = 0.01;

/// What resolution does to a set of images.
#[derive(Debug)]
pub struct Resolution {
    /// In words.
    pub text: String,
    /// In numbers.
    pub json: Value,
    /// Warnings of strong reduction and distortion.
    pub warnings: Vec<String>,
}

/// Describes it; none of no images.
pub fn describe(
    found: &Examination,
    geometry: Geometry,
    tiles: Option<Tiles>,
    decode: DecodeOptions,
) -> Option<Resolution> {
    if let Some(tiles) = tiles {
        return cut(found, geometry, tiles, decode);
    }
    let geometries =
        LARGER.map(|times| Geometry { image_size: geometry.image_size.map(|side| times * side), ..geometry });
    let scale = |size: (u32, u32)| {
        let (across, down) = geometry.scales(size);
        across.min(down)
    };
    let mut sizes: Vec<(u32, u32)> = found.findings.iter().map(|finding| finding.size).collect();
    sizes.sort_by(|&a, &b| scale(a).total_cmp(&scale(b)));
    let &size = sizes.get(sizes.len() / 2)?;
    let lost = lost(found, &geometries, decode);
    let medians: Vec<Option<f64>> = (0..LARGER.len()).map(|at| median(&lost, at)).collect();
    let scale = scale(size);
    let (flaw, way) = (FLAW * scale, way(geometry.resize));
    let input = geometry.image_size;
    let percentage = |share: Option<f64>| share.map_or("unknown".to_owned(), percent);
    let mut rows = vec![
        ("input".to_owned(), format!("{input} pixels, {way}")),
        ("typical image".into(), format!("{} x {} pixels", size.0, size.1)),
        (
            format!("a flaw of {FLAW} pixels"),
            // Where all is enlarged, no more of it is seen.
            if (size.0 as usize) < input.width && (size.1 as usize) < input.height {
                "all of its pixels, enlarged".into()
            } else {
                format!("{flaw:.1} pixels of the input")
            },
        ),
    ];
    let named = geometries.iter().zip(&medians);
    rows.extend(named.map(|(of, &share)| (format!("detail lost at {}", of.image_size), percentage(share))));
    let shown: Vec<(&str, String)> = rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let explained = format!(
        "of {}, the median, by the spectrum: edges and textures finer than the input can hold; sensor noise counts too",
        counted(lost.len(), "image")
    );
    let reduction = reduction_warning(size, (input, scale), &medians, way);
    let warnings = reduction.into_iter().chain(distortion_warning(&sizes, geometry)).collect();
    let json = json!({
        "image_size": input,
        "resize": geometry.resize,
        "typical_size": size,
        "scale": scale,
        "detail_lost": geometries.iter().zip(&medians)
            .map(|(of, lost)| json!({"image_size": of.image_size, "median": lost})).collect::<Vec<_>>(),
        "images": lost.len(),
    });
    Some(Resolution { text: format!("{}\n{explained}", key_value_table(&shown)), json, warnings })
}

/// The same of images that are cut into tiles.
fn cut(found: &Examination, geometry: Geometry, tiles: Tiles, decode: DecodeOptions) -> Option<Resolution> {
    let mut sizes: Vec<(u32, u32)> = found.findings.iter().map(|finding| finding.size).collect();
    sizes.sort_by_key(|&size| tiles.count(size));
    let (&size, &largest) = (sizes.get(sizes.len() / 2)?, sizes.last()?);
    let (count, most) = (tiles.count(size), tiles.count(largest));
    let scale = geometry.image_size.width as f64 / f64::from(tiles.side);
    // A whole image at the tiles' scale.
    let whole = (f64::from(size.0.max(size.1)) * scale.min(1.0)).round() as usize;
    let whole = Geometry { image_size: whole.into(), resize: ResizeMode::Letterbox, ..geometry };
    let lost = lost(found, &[whole], decode);
    let share = median(&lost, 0);
    let text = key_value_table(&[
        (
            "input",
            format!(
                "tiles of {} pixels resized to {}, overlap {}{}{}",
                tiles.side,
                geometry.image_size,
                tiles.overlap,
                if tiles.staggered { ", staggered" } else { "" },
                if tiles.second_look > 0 {
                    format!(", second look at {}", counted(tiles.second_look as usize, "place"))
                } else {
                    String::new()
                }
            ),
        ),
        ("typical image", format!("{} x {} pixels, {}", size.0, size.1, counted(count, "tile"))),
        ("most tiles of an image", most.to_string()),
        (&format!("a flaw of {FLAW} pixels"), format!("{:.1} pixels of the input", FLAW * scale)),
        ("detail lost", share.map_or("unknown".to_owned(), percent)),
    ]);
    let json = json!({
        "image_size": geometry.image_size,
        "tiles": tiles,
        "typical_size": size,
        "typical_tiles": count,
        "most_tiles": most,
        "scale": scale,
        "detail_lost": [{"image_size": geometry.image_size, "median": share}],
        "images": lost.len(),
    });
    Some(Resolution { text, json, warnings: Vec::new() })
}

/// The share of detail that some of the images lose at each geometry.
fn lost(found: &Examination, geometries: &[Geometry], decode: DecodeOptions) -> Vec<Vec<f64>> {
    let samples = &found.dataset.samples;
    let step = samples.len().div_ceil(LOOKED_AT).max(1);
    let looked_at = samples.iter().step_by(step);
    looked_at.filter_map(|sample| detail::lost(&decode_file(&sample.path, decode).ok()?, geometries)).collect()
}

/// How images would be cut by default.
fn proposed(side: usize) -> Option<Tiles> {
    let settings = TileSettings { side: None, scale: None, overlap: None, staggered: false, second_look: 0 };
    Tiles::resolve(&settings, side.into()).ok()
}

fn way(resize: ResizeMode) -> &'static str {
    match resize {
        ResizeMode::Squash => "squash",
        ResizeMode::Letterbox => "letterbox",
        ResizeMode::Crop => "crop",
    }
}

fn median(lost: &[Vec<f64>], of: usize) -> Option<f64> {
    let values: Vec<f64> = lost.iter().map(|lost| lost[of]).collect();
    (!values.is_empty()).then(|| Data::new(values).median())
}

fn reduction_warning(
    (width, height): (u32, u32),
    (input, scale): (Size, f64),
    lost: &[Option<f64>],
    way: &str,
) -> Option<String> {
    let [now, twice, _] = lost else { return None };
    let removed = now.map_or(String::new(), |share| format!(" and removes {} of the detail", percent(share)));
    // A larger size that removes as much is no help.
    let helps = now.zip(*twice).is_some_and(|(now, twice)| now - twice >= LEAST_GAIN);
    let larger = twice.filter(|_| helps).map_or(":".to_owned(), |share| {
        format!(
            ": a larger model.image_size ({} would remove {}) keeps more, and",
            input.map(|side| 2 * side),
            percent(share)
        )
    });
    let tiles = proposed(input.longer())
        .map_or(String::new(), |tiles| format!(", in {} an image", counted(tiles.count((width, height)), "tile")));
    let square = if input.side().is_some() { "" } else { " and a square input" };
    (scale * STRONG_REDUCTION <= 1.0).then(|| {
        format!(
            "a {way} from {width} x {height} to {input} pixels shrinks a flaw of {FLAW} pixels to {:.1}{removed}{larger} \
             preprocess.tiles = true{square} keeps all{tiles}",
            FLAW * scale
        )
    })
}

fn distortion_warning(sizes: &[(u32, u32)], geometry: Geometry) -> Option<String> {
    let aspect = |&(width, height): &(u32, u32)| {
        let shape = f64::from(width.max(1)) / f64::from(height.max(1)) / geometry.shape();
        shape.max(shape.recip())
    };
    let long: Vec<f64> = sizes.iter().map(aspect).filter(|&aspect| aspect > STRONG_ASPECT).collect();
    let most = long.iter().copied().fold(0.0, f64::max);
    (geometry.resize == ResizeMode::Squash && 10 * long.len() > sizes.len()).then(|| {
        format!(
            "a squash to {} pixels shrinks {} more than {STRONG_ASPECT} times as much along one side as along the other (up to \
             {most:.1}): model.image_size = [height, width] gives the input the shape of the images, and preprocess.resize = \
             \"letterbox\" keeps theirs, at fewer pixels",
            geometry.image_size,
            part_of(long.len(), sizes.len(), "image"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_size_is_proposed_where_it_shows_more() {
        let said = |twice| {
            reduction_warning((3000, 2000), (224.into(), 0.1), &[Some(0.997), Some(twice), None], "squash").unwrap()
        };
        assert!(said(0.6).contains("(448 would remove 60.0 %) keeps more, and preprocess.tiles = true keeps all"));
        assert!(
            said(0.99).contains("removes 99.7 % of the detail: preprocess.tiles = true keeps all"),
            "{}",
            said(0.99)
        );
    }

    #[test]
    fn a_squash_that_distorts_is_told_by_the_shapes_of_images_and_input() {
        let squash = |image_size| Geometry {
            image_size,
            resize: ResizeMode::Squash,
            interpolation: crate::data::transform::Interpolation::Bilinear,
            crop_pct: 1.0,
        };
        let said = |size, image_size| distortion_warning(&[size], squash(image_size));
        assert_eq!([said((300, 100), [32, 96].into()), said((150, 100), 64.into())], [None, None]);
        let wide = said((250, 250), [32, 96].into()).unwrap();
        assert!(
            wide.contains("shrinks the only image more than 2 times as much") && wide.contains("(up to 3.0)"),
            "{wide}"
        );
    }
}
