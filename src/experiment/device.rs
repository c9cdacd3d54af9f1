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
        DeviceChoice::Auto => Ok(open_cuda(0).unwrap_or(Device::Cpu)),
        DeviceChoice::Cuda(ordinal) if !cfg!(feature = "cuda") => Err(Error::usage_hint(
            format!("run.device = \"cuda:{ordinal}\", but this vitadapt was built without CUDA"),
            "build with `cargo install --path . --features cuda`, or set run.device = \"cpu\"",
        )),
        DeviceChoice::Cuda(ordinal) => open_cuda(ordinal).map_err(|error| {
            Error::usage_hint(
                format!("run.device = \"cuda:{ordinal}\" cannot be opened: {}", reason(&error)),
                "`nvidia-smi -L` lists the GPUs; run.device = \"auto\" falls back to the CPU",
            )
        }),
    }
}

/// Why `auto` takes no GPU; none where it takes one.
pub fn without_gpu() -> Option<String> {
    if cfg!(feature = "cuda") {
        open_cuda(0).err().map(|error| reason(&error))
    } else {
        Some("this vitadapt was built without CUDA".into())
    }
}

/// The driver's code where there is one, as `CUDA_ERROR_NO_DEVICE`, else the first line.
fn reason(error: &candle_core::Error) -> String {
    let text = error.to_string();
    let code = text.find("CUDA_ERROR_").map(|start| {
        let code = &text[start..];
        &code[..code.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(code.len())]
    });
    match code {
        Some("CUDA_ERROR_NO_DEVICE") => "the driver finds no GPU (CUDA_ERROR_NO_DEVICE)".into(),
        Some(code) => format!("the driver says {code}"),
        None => text.lines().next().unwrap_or_default().to_owned(),
    }
}

/// Opens a GPU whose work goes through one stream, whichever thread asks for it. (By default candle takes CUDA's per-thread
/// stream, which is another one in every thread.)
fn open_cuda(ordinal: usize) -> candle_core::Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    #[cfg(feature = "cuda")]
    cuda::tune(device.as_cuda_device()?);
    Ok(device)
}

/// Free memory of the device; none where it is not known.
pub fn free_bytes(device: &Device) -> Option<u64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::free_bytes(device),
        _ => free_memory_bytes(),
    }
}

#[cfg(feature = "cuda")]
#[allow(unsafe_code)] // the driver's memory pool, and how streams wait for each other
mod cuda {
    use candle_core::CudaDevice;
    use candle_core::cuda_backend::cudarc::driver::result::{device::get_mem_pool, mem_pool};
    use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute as Attribute;

    /// Makes a fresh device fast. Where the driver refuses, it stays as it is.
    pub(super) fn tune(device: &CudaDevice) {
        // Every step frees and takes the same sizes again; by default the pool gives all that is free back to the driver
        // whenever the program waits for the device.
        set(device, Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX);
        // SAFETY: two events a tensor, to let streams wait for each other, cost more than a small kernel. Here all tensors
        // are made, used and freed on the one stream of the device, in the order of the calls, so nothing has to wait. The
        // only other stream is that of `train::upload`, which waits and is waited for by events of its own.
        unsafe { device.disable_event_tracking() };
    }

    /// What the driver has, and what the pool keeps unused.
    pub(super) fn free_bytes(device: &CudaDevice) -> Option<u64> {
        let (free, _) = device.cuda_stream().context().mem_get_info().ok()?;
        let pooled = |attribute| get(device, attribute).unwrap_or(0);
        let kept = pooled(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
            .saturating_sub(pooled(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT));
        Some(free as u64 + kept)
    }

    fn set(device: &CudaDevice, attribute: Attribute, mut value: u64) {
        let device = device.cuda_stream().context().cu_device();
        // SAFETY: the device is open, so its pool is there; the attributes used here are 64-bit numbers, which the driver
        // only reads.
        let _ = unsafe {
            get_mem_pool(device).and_then(|pool| mem_pool::set_attribute(pool, attribute, (&raw mut value).cast()))
        };
    }

    fn get(device: &CudaDevice, attribute: Attribute) -> Option<u64> {
        let device = device.cuda_stream().context().cu_device();
        let mut value = 0u64;
        // SAFETY: as above; the driver writes one 64-bit number.
        let read = unsafe {
            get_mem_pool(device).and_then(|pool| mem_pool::get_attribute(pool, attribute, (&raw mut value).cast()))
        };
        read.ok().map(|()| value)
    }
}

/// A GPU and its driver.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gpu {
    /// What its maker calls it.
    pub name: String,
    /// The driver's version, where it is known.
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
    let failed = |error| Error::Tensor(Box::new(error));
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

/// The driver's own words, as in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15 …`.
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
