//! Models from the Hugging Face Hub, in the cache that `huggingface_hub` uses too.
//!
//! id (names) and environment (settings) → fetch (the steps) → files (what is needed), client (requests),
//! download (one file), cache (the layout on disk).
//!
//! What arrives is compared with the size and the sum that the hub announced before it is published in the cache.

mod cache;
mod checksum;
mod client;
mod download;
mod environment;
mod fetch;
mod files;
mod id;
mod retry;

pub use download::{DownloadProgress, OnProgress};
pub use fetch::{Hub, Snapshot};
pub use files::{LAYOUTS, PREPROCESSORS, Wanted, is_index, read_index};
pub use id::RepoId;
pub use retry::RetryLimits;
