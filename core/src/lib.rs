//! What vitadapt computes with: errors, random streams, the system, kernels, matrices, layers, pixels, the optimiser's
//! arithmetic. Nothing here knows of data sets, models or settings.
//!
//! It is a crate of its own because this is what the tests spend their time in: of vitadapt's code, a build for tests
//! optimises only this. vitadapt passes the modules on under the same names.

pub mod bitmap;
pub mod error;
pub mod rng;
pub mod system;

pub mod kernels;

pub mod linalg;
pub mod nn;
pub mod pixels;

pub mod optim;
