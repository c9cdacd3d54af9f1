//! What vitadapt computes with, below everything that knows of images, models or settings: errors, random streams, the
//! system, kernels, matrices and layers.
//!
//! A crate of its own so that a build for tests optimises this code alone; [vitadapt](https://docs.rs/vitadapt) passes
//! its modules on under the same names.

pub mod bitmap;
pub mod error;
pub mod rng;
pub mod system;

pub mod kernels;

pub mod linalg;
pub mod nn;
pub mod pixels;

pub mod optim;
