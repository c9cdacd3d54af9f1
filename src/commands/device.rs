//! From `run.device` to a device, with a clear answer when it is not there.

use crate::config::DeviceChoice;
use crate::error::{Error, Result};
use crate::system::memory::free_memory_bytes;
use candle_core::Device;

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

/// Its name in `run.json` and tables.
pub fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
