//! How much memory the process has taken.

/// The largest resident set of this process so far, in bytes; none where the system does not tell (outside Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_follows_an_allocation() {
        let before = super::peak_memory_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; 256 << 20]);
        let after = super::peak_memory_bytes().unwrap();
        assert!(after >= before.max(block.len() as u64));
    }
}
