//! Options of a model as the libraries write them to JSON, and the statistics they name.

use crate::data::transform::Interpolation;
use crate::size::Size;
use serde_json::{Value, json};

pub(super) use crate::data::transform::{IMAGENET, SYMMETRIC};

/// Mean and standard deviation of `OpenAI`'s CLIP.
pub(super) const CLIP: ([f32; 3], [f32; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);

/// No size, count or token number is larger; so products of two of them cannot overflow.
const LARGEST: u64 = 1 << 24;

/// A configuration in which an absent key has the default of the library's class.
pub(super) struct Config<'a>(pub &'a Value);

impl Config<'_> {
    /// A whole number, or a pair of equal ones, as sizes may be written.
    pub fn integer(&self, key: &str, default: usize) -> Result<usize, String> {
        let value = match &self.0[key] {
            Value::Null => return Ok(default),
            Value::Array(sides) if sides.len() == 2 && sides[0] == sides[1] => &sides[0],
            Value::Array(sides) => return Err(format!("{key} = {sides:?} is not supported; supported: squares")),
            value => value,
        };
        let whole = value.as_u64().filter(|value| *value <= LARGEST).map(|value| value as usize);
        whole.ok_or_else(|| format!("{key} = {value} in the config is not a whole number up to {LARGEST}"))
    }

    /// A height and a width, or one number for both.
    pub fn size(&self, key: &str, default: usize) -> Result<Size, String> {
        let side = |value: &Value| Config(&json!({ key: value })).integer(key, default);
        match self.0[key].as_array().map(Vec::as_slice) {
            Some([height, width]) => Ok([side(height)?, side(width)?].into()),
            _ => self.integer(key, default).map(Size::from),
        }
    }

    /// A number.
    pub fn number(&self, key: &str, default: f64) -> f64 {
        self.0[key].as_f64().unwrap_or(default)
    }

    /// True or false.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.0[key].as_bool().unwrap_or(default)
    }

    /// One value per colour channel, or one for all.
    pub fn triple(&self, key: &str, default: [f32; 3]) -> [f32; 3] {
        let given = &self.0[key];
        let channel = |i: usize| given.as_f64().or_else(|| given[i].as_f64()).map(|value| value as f32);
        match (channel(0), channel(1), channel(2)) {
            (Some(r), Some(g), Some(b)) => [r, g, b],
            _ => default,
        }
    }

    /// A filter of resizing by its name in timm and `open_clip`. What is neither of ours becomes the cubic one.
    pub fn interpolation(&self) -> Interpolation {
        match self.0["interpolation"].as_str() {
            Some("bilinear") => Interpolation::Bilinear,
            _ => Interpolation::Bicubic,
        }
    }
}
