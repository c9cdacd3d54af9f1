//! The machine: processor, memory, GPU.

use super::{Report, Section};
use crate::config::Settings;
use crate::experiment::device::{self, Gpu};
use crate::report::key_value_table;
use crate::system::machine::Machine;
use serde_json::json;

/// Describes the machine; a device that cannot be opened is a problem.
pub fn section(settings: &Settings, report: &mut Report) -> Section {
    let machine = Machine::this();
    let opened =
        device::open(settings.run.device).and_then(|device| Ok((device::name(&device), device::gpu(&device)?)));
    let (device, gpu) = report.note(opened).unzip();
    let gpu: Option<Gpu> = gpu.flatten();
    let rows = [
        ("processor", format!("{}, {}", machine.architecture, listed(&machine.instructions))),
        ("cores", machine.cores.to_string()),
        ("memory", format!("{}, {} free", size(machine.memory_bytes), size(machine.available_bytes))),
        ("GPU", gpu.as_ref().map_or_else(without_gpu, describe)),
        ("device", device.clone().unwrap_or_else(|| format!("{} cannot be opened", settings.run.device))),
    ];
    let json = json!({"processor": machine, "cuda_build": cfg!(feature = "cuda"), "gpu": gpu, "device": device});
    Section { name: "machine", text: key_value_table(&rows), json }
}

fn listed(instructions: &[&str]) -> String {
    if instructions.is_empty() { "no vector instructions known".into() } else { instructions.join(", ") }
}

fn without_gpu() -> String {
    device::without_gpu().map_or_else(|| "not in use".into(), |reason| format!("none: {reason}"))
}

fn describe(gpu: &Gpu) -> String {
    let driver = gpu.driver.as_ref().map_or_else(String::new, |driver| format!(", driver {driver}"));
    let memory = format!("{} of {} free", size(Some(gpu.free_bytes)), size(Some(gpu.memory_bytes)));
    let bf16 = if gpu.bf16 { "bf16" } else { "no bf16" };
    format!("{}, compute capability {}{driver}, {memory}, {bf16}", gpu.name, gpu.compute_capability)
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unknown".into(), |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)))
}
