//! Free memory, and the peak of this process.

use std::path::Path;

/// The largest resident set of this process so far, in bytes; none where the system does not tell (outside Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    proc_bytes("/proc/self/status", "VmHWM:")
}

/// One field of a file below `/proc`, in bytes.
pub(super) fn proc_bytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Memory that programs may still take, in bytes: what the system calls available, or what the control group of this
/// process leaves when that is less (containers, Slurm); none where the system does not tell (outside Linux).
pub fn free_memory_bytes() -> Option<u64> {
    let available = proc_bytes("/proc/meminfo", "MemAvailable:")?;
    Some(control_group_bytes().unwrap_or(u64::MAX).min(available))
}

/// What the limits of the control groups (version 2) above this process leave.
fn control_group_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let number = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let left = |folder: &Path| {
        let limit = number(&folder.join("memory.max"))?;
        Some(limit.saturating_sub(number(&folder.join("memory.current"))?))
    };
    Path::new("/sys/fs/cgroup").join(group).ancestors().filter_map(left).min()
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn some_memory_is_free() {
        let free = super::free_memory_bytes().unwrap();
        assert!((1 << 20..1 << 50).contains(&free), "{free}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_follows_an_allocation() {
        let before = super::peak_memory_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; 256 << 20]);
        let after = super::peak_memory_bytes().unwrap();
        assert!(after >= before.max(block.len() as u64));
    }
}
