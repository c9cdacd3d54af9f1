//! How much memory the process took.

/// The largest resident memory of this process so far, in bytes: `VmHWM` of Linux. None on other systems.
pub fn peak_memory_bytes() -> Option<u64> {
    parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Finds the line `VmHWM:   1234 kB`; the kernel's kB are 1024 bytes.
fn parse_peak(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_s_line() {
        assert_eq!(parse_peak("VmPeak:\t  99 kB\nVmHWM:\t   1234 kB\nVmRSS:\t 1 kB\n"), Some(1234 * 1024));
        assert_eq!(parse_peak("VmRSS: 1 kB\n"), None);
        assert_eq!(parse_peak("VmHWM: many kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn grows_with_use() {
        let block = vec![1_u8; 32 << 20];
        assert!(peak_memory_bytes().unwrap() >= block.len() as u64);
    }
}
