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

/// The memory of a machine, or of the container that this process is in, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// All of it.
    pub total: u64,
    /// What a process can take without making the system swap.
    pub available: u64,
    /// Swap.
    pub swap: u64,
}

impl MachineMemory {
    /// Reads what this system says, or `None` where it does not.
    ///
    /// # Source
    /// Linux: `/proc/meminfo`, and a container's own limit in `/sys/fs/cgroup` (version 2).
    pub fn here() -> Option<Self> {
        let limit = |name| fs_err::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok();
        Self::parse(&fs_err::read_to_string("/proc/meminfo").ok()?, limit("max"), limit("current"))
    }

    fn parse(info: &str, limit: Option<String>, used: Option<String>) -> Option<Self> {
        let of = |name| kib_line(info, name);
        let (total, available) = (of("MemTotal:")?, of("MemAvailable:")?);
        let number = |text: Option<String>| text?.trim().parse::<u64>().ok();
        // `max` stands for no limit.
        let limit = number(limit).filter(|limit| *limit < total);
        let swap = of("SwapTotal:").unwrap_or(0);
        Some(limit.map_or(Self { total, available, swap }, |limit| {
            let left = limit.saturating_sub(number(used).unwrap_or(0));
            Self { total: limit, available: available.min(left), swap }
        }))
    }
}

/// Returns the memory that a process can take without making the system swap, in bytes, or `None` where it does not
/// say.
pub fn available_memory_bytes() -> Option<u64> {
    MachineMemory::here().map(|machine| machine.available)
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
        let text = "MemTotal:  90 kB\nMemAvailable:   24 kB\nSwapTotal: 1 kB\n";
        let of = |limit: &str, used: &str| {
            let text = MachineMemory::parse(text, Some(format!("{limit}\n")), Some(format!("{used}\n")));
            text.map(|machine| [machine.total, machine.available, machine.swap].map(|bytes| bytes / 1024))
        };
        assert_eq!(of("max", "0"), Some([90, 24, 1]));
        // A container, of which much is used; one that has more than the machine.
        assert_eq!(of("51200", "49152"), Some([50, 2, 1]));
        assert_eq!(of("51200", "0"), Some([50, 24, 1]));
        assert_eq!(of("512000", "0"), Some([90, 24, 1]));
        assert_eq!(MachineMemory::parse("MemTotal:  9 kB\n", None, None), None);
        assert_eq!(kib_line("MemTotal: 24 MB\n", "MemTotal:"), None);
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
