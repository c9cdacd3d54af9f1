//! From `run.device` to a device, with a clear answer when it is not there.

use crate::config::DeviceChoice;
use crate::error::{Error, Result};
use crate::system::memory::free_memory_bytes;
use candle_core::Device;
use serde::Serialize;

/// Opens the device asked for.
///
/// # Errors
/// A usage error when a GPU is asked for and this build or machine has none.
pub fn open(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto if !cfg!(feature = "cuda") => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(Device::new_cuda(0).unwrap_or(Device::Cpu)),
        DeviceChoice::Cuda(ordinal) if !cfg!(feature = "cuda") => Err(Error::usage_hint(
            format!("run.device = \"cuda:{ordinal}\", but this vitadapt was built without CUDA"),
            "build with `cargo install --path . --features cuda`, or set run.device = \"cpu\"",
        )),
        DeviceChoice::Cuda(ordinal) => Device::new_cuda(ordinal).map_err(|error| {
            let reason = error.to_string();
            Error::usage_hint(
                format!("run.device = \"cuda:{ordinal}\" cannot be opened: {}", reason.lines().next().unwrap_or("")),
                "`nvidia-smi -L` lists the GPUs; run.device = \"auto\" falls back to the CPU",
            )
        }),
    }
}

/// Memory that may still be taken where tensors live; none where nobody tells.
pub fn free_bytes(device: &Device) -> Option<u64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => device.cuda_stream().context().mem_get_info().ok().map(|(free, _)| free as u64),
        _ => free_memory_bytes(),
    }
}

/// A GPU and its driver.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gpu {
    /// What its maker calls it.
    pub name: String,
    /// The driver's version, where the system tells.
    pub driver: Option<String>,
    /// As in 9.0.
    pub compute_capability: String,
    /// Free memory in bytes.
    pub free_bytes: u64,
    /// All of it.
    pub memory_bytes: u64,
    /// Whether it computes in bf16.
    pub bf16: bool,
}

/// What is known of a device when it is a GPU.
///
/// # Errors
/// When its driver does not answer.
#[cfg(feature = "cuda")]
pub fn gpu(device: &Device) -> Result<Option<Gpu>> {
    if !device.is_cuda() {
        return Ok(None);
    }
    let context = device.as_cuda_device()?.cuda_stream().context().clone();
    let failed = |error| Error::Tensor(candle_core::Error::wrap(error));
    let (major, minor) = context.compute_capability().map_err(failed)?;
    let (free, all) = context.mem_get_info().map_err(failed)?;
    Ok(Some(Gpu {
        name: context.name().map_err(failed)?,
        driver: driver(),
        compute_capability: format!("{major}.{minor}"),
        free_bytes: free as u64,
        memory_bytes: all as u64,
        bf16: major >= 8, // Ampere and later
    }))
}

/// What is known of a device when it is a GPU: in this build it never is.
///
/// # Errors
/// None.
#[cfg(not(feature = "cuda"))]
#[allow(clippy::unnecessary_wraps)] // the same signature as with CUDA
pub fn gpu(_: &Device) -> Result<Option<Gpu>> {
    Ok(None)
}

/// The driver's own words, as in "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15 …".
#[cfg(feature = "cuda")]
fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.split_whitespace().find(version).map(str::to_owned)
}

/// Its name in `run.json` and tables.
pub fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
