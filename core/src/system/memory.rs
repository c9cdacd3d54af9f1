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

/// What the limits of the control groups above this process leave, of either version.
fn control_group_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    control_group_left(&groups, Path::new("/sys/fs/cgroup"))
}

/// The same for the text of `/proc/self/cgroup` and the folder where the groups are mounted.
fn control_group_left(groups: &str, mounted: &Path) -> Option<u64> {
    let number = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let left = |folder: &Path, limit: &str, used: &str| {
        // Without a limit, version 2 says "max", which is not a number, and version 1 one larger than any memory.
        Some(number(&folder.join(limit))?.saturating_sub(number(&folder.join(used))?))
    };
    let second = groups.lines().find_map(|line| line.strip_prefix("0::/")).and_then(|group| {
        mounted.join(group).ancestors().filter_map(|folder| left(folder, "memory.max", "memory.current")).min()
    });
    let of_memory = |line: &str| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        controllers
            .split(',')
            .any(|controller| controller == "memory")
            .then(|| group.trim_start_matches('/').to_owned())
    };
    let first = groups.lines().find_map(of_memory).and_then(|group| {
        let folder = mounted.join("memory").join(group);
        // In a container the group is often mounted as the root.
        let folders = folder.ancestors().chain([mounted]);
        folders.filter_map(|folder| left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes")).min()
    });
    first.into_iter().chain(second).min()
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
    fn limits_of_both_versions_count() {
        let mounted = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &str| {
            let path = mounted.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value).unwrap();
        };
        write("memory/docker/a/memory.limit_in_bytes", "1000\n");
        write("memory/docker/a/memory.usage_in_bytes", "400\n");
        write("memory/docker/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/docker/memory.usage_in_bytes", "400\n");
        write("slice/job/memory.max", "max\n");
        write("slice/memory.max", "900\n");
        write("slice/memory.current", "850\n");
        let left = |groups: &str| super::control_group_left(groups, mounted.path());
        assert_eq!(left("5:cpu:/x\n4:hugetlb,memory:/docker/a\n"), Some(600));
        assert_eq!(left("0::/slice/job\n"), Some(50));
        assert_eq!(left("4:memory:/docker/a\n0::/slice/job\n"), Some(50));
        assert_eq!(left("0::/other\n"), None);
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
