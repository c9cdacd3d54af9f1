//! What a family's file is written in: how files and their options are read, and the parts of an architecture.

pub(super) use super::family::{Description, Family, Header, outputs};
pub(super) use super::mapping::WeightMapping;
pub(super) use super::name::{Layer, ParamName, Part};
pub(super) use super::options::{CLIP, Config, IMAGENET, SYMMETRIC};
pub(super) use super::positions::{AxialRotary, Coordinates, LearntAngles, PositionTable, Positions, Resampling};
pub(super) use super::spec::{
    AttentionSpec, MlpKind, MlpSpec, NormSpec, OutputSpec, PatchSpec, Pool, PoolQuery, PoolingSpec, PrefixSpec, VitSpec,
};
pub(super) use crate::config::ResizeMode;
pub(super) use crate::data::transform::{BackboneDefaults, Interpolation};
pub(super) use crate::nn::{Activation, Pairs};
pub(super) use crate::size::Size;
pub(super) use serde_json::Value;
