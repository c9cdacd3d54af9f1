//! How much memory there is, and how much the process has taken.

use std::path::Path;

/// The largest resident set of this process so far, in bytes; none where the system does not tell (outside Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Memory that programs may still take, in bytes: what the system calls available, or what the control group of this
/// process leaves when that is less (containers, Slurm); none where the system does not tell (outside Linux).
pub fn free_memory_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(control_group_bytes().unwrap_or(u64::MAX).min(kibibytes * 1024))
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
