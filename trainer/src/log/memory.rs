//! The most memory this process has had at once.

/// Returns the peak resident memory of this process in bytes, or `None` where the system does not say.
///
/// # Source
/// Linux: `VmHWM` of `/proc/self/status`. Other Unix: `getrusage`, which counts in bytes on macOS and in
/// KiB elsewhere.
pub fn peak_memory_bytes() -> Option<u64> {
    if cfg!(target_os = "linux") { peak_from_status() } else { peak_from_rusage() }
}

fn peak_from_status() -> Option<u64> {
    parse_status(&fs_err::read_to_string("/proc/self/status").ok()?)
}

fn parse_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(unix)]
fn peak_from_rusage() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[expect(unsafe_code, reason = "the system call has no safe wrapper in std")]
    // SAFETY: the pointer is to a whole `rusage`, which the call fills; all zeros is a valid value of it, so it
    // is initialised even if the call fails.
    let (status, usage) = unsafe {
        let status = libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        (status, usage.assume_init())
    };
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    (status == 0).then(|| u64::try_from(usage.ru_maxrss).ok()?.checked_mul(unit)).flatten()
}

#[cfg(not(unix))]
fn peak_from_rusage() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_peak_of_a_status() {
        assert_eq!(parse_status("VmPeak:\t 9 kB\nVmHWM:\t    1234 kB\nVmRSS: 1 kB\n"), Some(1234 * 1024));
        assert_eq!(parse_status("VmRSS: 1 kB\n"), None);
        assert_eq!(parse_status("VmHWM: 99999999999999999999 kB\n"), None);
    }

    #[test]
    fn grows_with_what_is_touched() {
        let before = peak_memory_bytes().expect("this system says");
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = peak_memory_bytes().expect("this system says");
        assert!(after >= block.len() as u64 && after >= before, "{before} {after}");
        #[cfg(unix)]
        assert!(peak_from_rusage().expect("this system says") >= block.len() as u64);
    }
}
