//! What this process has used: the most memory it has had at once, and processor time.

/// Returns the peak resident memory of this process in bytes, or `None` where the system does not say.
///
/// # Source
/// Linux: `VmHWM` of `/proc/self/status`. Other Unix: `getrusage`, which counts in bytes on macOS and in
/// KiB elsewhere.
pub fn peak_memory_bytes() -> Option<u64> {
    if cfg!(target_os = "linux") { peak_from_status() } else { peak_from_rusage() }
}

/// Returns the processor time that this process has used so far, in seconds: all threads, user and system.
/// `None` where the system does not say.
///
/// # Source
/// Unix: `getrusage`.
#[cfg(unix)]
pub fn cpu_seconds() -> Option<f64> {
    let usage = rusage()?;
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    Some(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

/// Returns the processor time of this process, which this system does not say.
#[cfg(not(unix))]
pub fn cpu_seconds() -> Option<f64> {
    None
}

fn peak_from_status() -> Option<u64> {
    parse_status(&fs_err::read_to_string("/proc/self/status").ok()?)
}

fn parse_status(status: &str) -> Option<u64> {
    kib_line(status, "VmHWM:")
}

/// Returns the memory that a process can take without making the system swap, in bytes, or `None` where it does not
/// say.
///
/// # Source
/// Linux: `MemAvailable` of `/proc/meminfo`. It does not know of a container's own limit.
pub fn available_memory_bytes() -> Option<u64> {
    kib_line(&fs_err::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Finds a line like `name  12 kB` and returns its bytes.
fn kib_line(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(unix)]
fn peak_from_rusage() -> Option<u64> {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(rusage()?.ru_maxrss).ok()?.checked_mul(unit)
}

#[cfg(not(unix))]
fn peak_from_rusage() -> Option<u64> {
    None
}

#[cfg(unix)]
fn rusage() -> Option<libc::rusage> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[expect(unsafe_code, reason = "the system call has no safe wrapper in std")]
    // SAFETY: the pointer is to a whole `rusage`, which the call fills; all zeros is a valid value of it, so it
    // is initialised even if the call fails.
    let (status, usage) = unsafe {
        let status = libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        (status, usage.assume_init())
    };
    (status == 0).then_some(usage)
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
    fn reads_the_free_memory() {
        let text = "MemTotal:  9 kB\nMemAvailable:   24 kB\n";
        assert_eq!(kib_line(text, "MemAvailable:"), Some(24 * 1024));
        assert_eq!(kib_line("MemTotal:  9 kB\n", "MemAvailable:"), None);
        assert!(!cfg!(target_os = "linux") || available_memory_bytes().expect("this system says") > 0);
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

    #[cfg(unix)]
    #[test]
    fn processor_time_grows_with_work() {
        let before = cpu_seconds().expect("this system says");
        let started = std::time::Instant::now();
        let mut sum = 0u64;
        let mut grown = 0.0;
        while grown < 0.01 && started.elapsed().as_secs() < 30 {
            sum = (0..1_000_000u64).fold(std::hint::black_box(sum), u64::wrapping_add);
            grown = cpu_seconds().expect("this system says") - before;
        }
        assert!(grown >= 0.01, "{grown} s of processor time in {:?}", started.elapsed());
    }
}
