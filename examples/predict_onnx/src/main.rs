//! Answers of an ONNX export for image files, as `vitadapt predict` gives them: with tract, in Rust alone.
//!
//! The JSON file beside the export says what must be known of it: which size an image gets or which tiles it becomes, how colours are
//! standardised, what classes are called. Prints one line of JSON for each image.

use image::{DynamicImage, ImageDecoder, ImageReader, Rgb, RgbImage, imageops, metadata::Orientation};
use libjpeg_turbo_rs::{PixelFormat, decompress_to};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use tract_onnx::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let file = arguments.next().ok_or("usage: predict_onnx FILE.onnx IMAGE...")?;
    let facts: Value = serde_json::from_slice(&std::fs::read(file.with_extension("json"))?)?;
    let input = Input::of(&facts["input"]).ok_or("the JSON file is not of an export")?;
    let classes: Vec<String> = serde_json::from_value(facts["classes"].clone())?;
    let (width, height) = (input.size.0 as usize, input.size.1 as usize);
    // One for each number of tiles.
    let mut models = HashMap::new();
    for path in arguments {
        let squares = input.squares(&input.upright(&path)?);
        let shape = [squares.len(), 3, height, width];
        let model = match models.entry(squares.len()) {
            Entry::Occupied(model) => model.into_mut(),
            Entry::Vacant(place) => place.insert(
                tract_onnx::onnx()
                    .model_for_path(&file)?
                    .with_input_fact(0, f32::fact(shape).into())?
                    .with_outputs_by_name(["probabilities"])?
                    .into_optimized()?
                    .into_runnable()?,
            ),
        };
        let pixels: Vec<f32> = squares.iter().flat_map(|square| input.pixels(square)).collect();
        let outputs = model.run(tvec!(Tensor::from_shape(&shape, &pixels)?.into()))?;
        let probabilities: Vec<f32> = outputs[0].view().as_slice::<f32>()?.to_vec();
        let best = (0..classes.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
        let everything: Map<_, _> = classes.iter().cloned().zip(probabilities.iter().map(|&p| json!(p))).collect();
        println!("{}", json!({ "path": path, "label": best.map(|best| &classes[best]), "probabilities": everything }));
    }
    Ok(())
}

/// What an image becomes.
struct Input {
    /// Width and height of the input.
    size: (u32, u32),
    white: u32,
    resize: String,
    bicubic: bool,
    crop_pct: f64,
    mean: [f32; 3],
    std: [f32; 3],
    /// Side and overlap of the tiles that images are cut into, and whether one more lies in the middle of every four.
    tiles: Option<(u32, u32, bool)>,
}

impl Input {
    fn of(facts: &Value) -> Option<Self> {
        let colours = |key: &str| serde_json::from_value(facts[key].clone()).ok();
        Some(Self {
            size: {
                // The side of a square, or height and width.
                let size = &facts["image_size"];
                let side = |at: usize| size.as_u64().or_else(|| size[at].as_u64())?.try_into().ok();
                (side(1)?, side(0)?)
            },
            white: (1 << facts["bit_depth"].as_u64()?) - 1,
            resize: facts["resize"].as_str()?.to_owned(),
            bicubic: facts["interpolation"] == "bicubic",
            crop_pct: facts["crop_pct"].as_f64()?,
            mean: colours("mean")?,
            std: colours("std")?,
            tiles: match &facts["tiles"] {
                Value::Null => None,
                tiles => {
                    let pixels = |key: &str| tiles[key].as_u64().and_then(|value| u32::try_from(value).ok());
                    Some((pixels("side")?, pixels("overlap")?, tiles["staggered"].as_bool()?))
                }
            },
        })
    }

    /// What the model sees of the image: all of it, or its tiles in rows from the upper left, the last of each ending
    /// at the border; then the staggered ones.
    fn squares(&self, image: &RgbImage) -> Vec<RgbImage> {
        let Some((side, overlap, staggered)) = self.tiles else { return vec![self.whole(image)] };
        let stride = side - overlap;
        let spans = |length: u32| -> Vec<(u32, u32)> {
            let (own, last) = (side.min(length), length.saturating_sub(side).div_ceil(stride));
            (0..=last).map(|tile| ((tile * stride).min(length - own), own)).collect()
        };
        let between = |spans: &[(u32, u32)]| -> Vec<(u32, u32)> {
            spans.windows(2).map(|pair| (u32::midpoint(pair[0].0, pair[1].0), pair[0].1)).collect()
        };
        let tile = |x, y, width, height| self.whole(&imageops::crop_imm(image, x, y, width, height).to_image());
        let (across, down) = (spans(image.width()), spans(image.height()));
        let mut grids = vec![(across.clone(), down.clone())];
        if staggered {
            grids.push((between(&across), between(&down)));
        }
        let rows = |(across, down): &(Vec<(u32, u32)>, Vec<(u32, u32)>)| -> Vec<RgbImage> {
            down.iter().flat_map(|&(y, h)| across.iter().map(move |&(x, w)| tile(x, y, w, h))).collect()
        };
        grids.iter().flat_map(rows).collect()
    }

    /// The image as the model sees it.
    fn whole(&self, image: &RgbImage) -> RgbImage {
        let ((w, h), (width, height)) = (self.size, image.dimensions());
        let ratios = |(w, h): (u32, u32)| (f64::from(width) / f64::from(w), f64::from(height) / f64::from(h));
        match self.resize.as_str() {
            "squash" => self.resized(image, w, h),
            "letterbox" => {
                let (across, down) = ratios((w, h));
                let ratio = across.max(down);
                let scaled = |length: u32| ((f64::from(length) / ratio).round_ties_even() as u32).max(1);
                let content = self.resized(image, scaled(width), scaled(height));
                let fill = Rgb(self.mean.map(|mean| (mean * 255.0).round() as u8));
                let mut padded = RgbImage::from_pixel(w, h, fill);
                let (left, upper) = ((w - content.width()) / 2, (h - content.height()) / 2);
                imageops::replace(&mut padded, &content, left.into(), upper.into());
                padded
            }
            _ => {
                let before = |side: u32| (f64::from(side) / self.crop_pct) as u32;
                let (width, height) = if w == h {
                    let short = before(w);
                    let long = (u64::from(short) * u64::from(width.max(height)) / u64::from(width.min(height))) as u32;
                    if width <= height { (short, long) } else { (long, short) }
                } else {
                    let (across, down) = ratios((before(w), before(h)));
                    let scaled = |length: u32| (f64::from(length) / across.min(down)).round_ties_even() as u32;
                    (scaled(width), scaled(height))
                };
                let start = |length: u32, side: u32| (f64::from(length - side) / 2.0).round_ties_even() as u32;
                let content = self.resized(image, width, height);
                imageops::crop_imm(&content, start(width, w), start(height, h), w, h).to_image()
            }
        }
    }

    /// Pillow's `resize`: one direction after the other, each rounded to 8 bits; from top to bottom first where that
    /// leaves much less to do.
    fn resized(&self, image: &RgbImage, width: u32, height: u32) -> RgbImage {
        let across = self.weights(image.width(), width);
        let down = self.weights(image.height(), height);
        let horizontal = |image: &RgbImage| {
            RgbImage::from_fn(width, image.height(), |x, y| mean(&across[x as usize], |at| image[(at, y)]))
        };
        let vertical = |image: &RgbImage| {
            RgbImage::from_fn(image.width(), height, |x, y| mean(&down[y as usize], |at| image[(x, at)]))
        };
        let fewer = |from: u32, to: u32| i64::from(from) - i64::from(to);
        let (rows, columns) = (fewer(image.height(), height), fewer(image.width(), width));
        if rows > 0 && rows > 2 * columns { horizontal(&vertical(image)) } else { vertical(&horizontal(image)) }
    }

    /// For each pixel of the result the first that it is the mean of, and their weights with 22 bits after the point.
    fn weights(&self, from: u32, to: u32) -> Vec<(u32, Vec<i32>)> {
        let scale = f64::from(from) / f64::from(to);
        let stretch = scale.max(1.0);
        let reach = if self.bicubic { 2.0 * stretch } else { stretch };
        let of_pixel = |pixel: u32| {
            let centre = (f64::from(pixel) + 0.5) * scale;
            let (first, end) = ((centre - reach + 0.5).max(0.0) as u32, ((centre + reach + 0.5) as u32).min(from));
            let exact = (first..end).map(|at| self.weight((f64::from(at) - centre + 0.5) / stretch));
            let exact: Vec<f64> = exact.collect();
            let sum: f64 = exact.iter().sum();
            (first, exact.iter().map(|weight| (weight / sum * f64::from(1 << 22)).round() as i32).collect())
        };
        (0..to).map(of_pixel).collect()
    }

    fn weight(&self, distance: f64) -> f64 {
        let x = distance.abs();
        match self.bicubic {
            false => (1.0 - x).max(0.0),
            true if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            true if x < 2.0 => -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0),
            true => 0.0,
        }
    }

    /// Standardised values, colour after colour.
    fn pixels(&self, square: &RgbImage) -> Vec<f32> {
        let value = |(channel, pixel): (usize, &Rgb<u8>)| {
            (f32::from(pixel[channel]) / 255.0 - self.mean[channel]) / self.std[channel]
        };
        (0..3).flat_map(|channel| square.pixels().map(move |pixel| value((channel, pixel)))).collect()
    }

    /// An image as a camera held it, in 8-bit RGB.
    fn upright(&self, path: &Path) -> Result<RgbImage> {
        let bytes = std::fs::read(path)?;
        let (mut image, orientation) = if bytes.starts_with(&[0xFF, 0xD8]) {
            let jpeg = decompress_to(&bytes, PixelFormat::Rgb)?;
            let image = RgbImage::from_raw(jpeg.width as u32, jpeg.height as u32, jpeg.data);
            let orientation = jpeg.exif_data.and_then(|exif| Orientation::from_exif_chunk(&exif));
            (DynamicImage::ImageRgb8(image.ok_or("an image without pixels")?), orientation)
        } else {
            let mut decoder = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.into_decoder()?;
            let orientation = decoder.orientation().ok();
            (DynamicImage::from_decoder(decoder)?, orientation)
        };
        image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
        if image.color().bytes_per_pixel() / image.color().channel_count() == 1 {
            return Ok(image.into_rgb8());
        }
        let scaled = |value: &u16| ((u32::from(*value) * 255 + self.white / 2) / self.white).min(255) as u8;
        let (width, height, wide) = (image.width(), image.height(), image.into_rgb16());
        Ok(RgbImage::from_raw(width, height, wide.iter().map(scaled).collect()).ok_or("an image without pixels")?)
    }
}

fn mean((first, weights): &(u32, Vec<i32>), pixel: impl Fn(u32) -> Rgb<u8>) -> Rgb<u8> {
    let mut sums = [1 << 21; 3];
    for (at, weight) in (*first..).zip(weights) {
        sums.iter_mut().zip(pixel(at).0).for_each(|(sum, level)| *sum += weight * i32::from(level));
    }
    Rgb(sums.map(|sum| (sum >> 22).clamp(0, 255) as u8))
}
