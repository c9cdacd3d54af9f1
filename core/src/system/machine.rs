//! The processor and memory of this machine.

use super::memory::{free_memory_bytes, proc_bytes};
use serde::Serialize;

/// A processor and its memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// As in `x86_64`.
    pub architecture: &'static str,
    /// The SIMD instruction sets of this processor that the kernels use.
    pub instructions: Vec<&'static str>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes, or what a container is limited to; none where the system does not tell (outside Linux).
    pub memory_bytes: Option<u64>,
    /// Memory that is free or could be, in bytes.
    pub available_bytes: Option<u64>,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let limit = container_limit();
        let within = |bytes: u64| limit.map_or(bytes, |limit| limit.min(bytes));
        Self {
            architecture: std::env::consts::ARCH,
            instructions: instructions(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: proc_bytes("/proc/meminfo", "MemTotal:").map(within),
            available_bytes: free_memory_bytes(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<&'static str> {
    let known = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-512", is_x86_feature_detected!("avx512f")),
        ("AVX-512 BF16", is_x86_feature_detected!("avx512bf16")),
    ];
    known.into_iter().filter_map(|(name, present)| present.then_some(name)).collect()
}

#[cfg(target_arch = "aarch64")]
fn instructions() -> Vec<&'static str> {
    if std::arch::is_aarch64_feature_detected!("neon") { vec!["NEON"] } else { Vec::new() }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instructions() -> Vec<&'static str> {
    Vec::new()
}

/// The memory that this process's control group may take, when there is a limit.
fn container_limit() -> Option<u64> {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    // Without a limit the first says "max", which is not a number, and the second one a number larger than any memory.
    files.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_figures_fit_together() {
        let machine = Machine::this();
        assert!(machine.cores >= 1);
        let (all, free) = (machine.memory_bytes.unwrap(), machine.available_bytes.unwrap());
        assert!(free > 1 << 20 && free <= all, "{machine:?}");
    }
}
