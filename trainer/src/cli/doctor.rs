//! `seedcorn doctor`: what this machine offers.

use std::path::Path;
use std::process::{Command, Stdio};

use seedcorn_data::source::Resolver;
use seedcorn_kernels::device::{self, DeviceError, Found};
use seedcorn_kernels::isa::{self, Tier};

use super::args::Global;
use crate::log::{MachineMemory, data_line};

/// Memory below which even a small model may not fit, bytes.
const LITTLE_MEMORY: u64 = 2 << 30;

/// One thing that was looked at.
struct Finding {
    ok: bool,
    text: String,
}

impl Finding {
    fn ok(text: impl Into<String>) -> Self {
        Self { ok: true, text: text.into() }
    }

    fn warn(text: impl Into<String>) -> Self {
        Self { ok: false, text: text.into() }
    }
}

pub(super) fn run(global: &Global) -> std::io::Result<()> {
    let resolver = super::resolver(global);
    let findings =
        [version(), processor(), threads(), instructions(), mpi(), memory(), cache(&resolver.cache_dir)];
    let engines = nccl().into_iter().chain(devices());
    for finding in findings.into_iter().chain(engines).chain(python(&resolver.python)).chain([hub(&resolver)])
    {
        let mark = if finding.ok { "ok  " } else { "warn" };
        data_line(&format!("{mark}  {}", finding.text))?;
    }
    Ok(())
}

fn version() -> Finding {
    let name = concat!("seedcorn ", env!("CARGO_PKG_VERSION"));
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    if cfg!(debug_assertions) {
        Finding::warn(format!("version: {name}, {system}, built without `--release`: training is slow"))
    } else {
        Finding::ok(format!("version: {name}, {system}, release build"))
    }
}

fn processor() -> Finding {
    let info = fs_err::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = field(&info, "model name").unwrap_or(std::env::consts::ARCH);
    Finding::ok(format!("processor: {name}"))
}

fn threads() -> Finding {
    let used = rayon::current_num_threads();
    match std::thread::available_parallelism() {
        Ok(cores) if used > cores.get() => {
            Finding::warn(format!("threads: {used} on {cores} cores; `--threads {cores}` is faster"))
        }
        Ok(cores) => Finding::ok(format!("threads: {used} on {cores} cores")),
        Err(_) => Finding::ok(format!("threads: {used}")),
    }
}

fn instructions() -> Finding {
    let tiers: Vec<&str> = Tier::available().into_iter().map(Tier::name).collect();
    let text = format!("instructions: {} (this processor has {})", isa::tier().name(), tiers.join(", "));
    if tiers.first() == Some(&isa::tier().name()) {
        Finding::ok(text)
    } else {
        Finding::warn(format!("{text}; `{}` asks for it", isa::ENV))
    }
}

#[cfg(feature = "mpi")]
fn mpi() -> Finding {
    match crate::parallel::mpi::version() {
        Some(version) => Finding::ok(format!("ranks: threads, and processes under `mpirun` ({version})")),
        None => Finding::warn("ranks: threads; MPI does not say its version"),
    }
}

#[cfg(not(feature = "mpi"))]
fn mpi() -> Finding {
    Finding::ok("ranks: threads (a build with `--features mpi` also has processes)")
}

#[cfg(feature = "nccl")]
fn nccl() -> Vec<Finding> {
    use crate::parallel::nccl;
    vec![match (nccl::version(), nccl::gpus()) {
        (Ok(version), Ok(count @ 1..)) => Finding::ok(format!("NCCL: {version}, for {count} GPUs")),
        (Ok(version), Ok(0)) => Finding::warn(format!("NCCL: {version}, but no GPU is seen")),
        (Ok(version), Err(error)) => Finding::warn(format!("NCCL: {version}, but {error}")),
        (Err(error), _) => Finding::warn(format!("NCCL: {error}")),
    }]
}

#[cfg(not(feature = "nccl"))]
fn nccl() -> Vec<Finding> {
    Vec::new()
}

/// The devices that `--device` takes beside `cpu`, and last the kinds that this build has not.
fn devices() -> Vec<Finding> {
    let (mut findings, mut features) = (Vec::new(), Vec::new());
    for found in device::list() {
        findings.push(match found {
            Ok(Found { choice, name, is_software: false }) => {
                Finding::ok(format!("device: `{choice}` is {name}"))
            }
            Ok(Found { choice, name, .. }) => {
                Finding::ok(format!("device: `{choice}` is {name}, a program on the processor: for tests"))
            }
            Err(DeviceError::NotBuilt { asked }) => {
                features.push(format!("`--features {}`", asked.kind()));
                continue;
            }
            Err(error) => Finding::warn(format!("device: {error}; {}", error.hint())),
        });
    }
    // A build without devices is how most are made.
    if !features.is_empty() {
        let more = features.join(" or ");
        findings.push(Finding::ok(format!("devices: cpu (a build with {more} has more)")));
    }
    findings
}

fn memory() -> Finding {
    let Some(MachineMemory { total, available, .. }) = MachineMemory::here() else {
        return Finding::ok("memory: this system does not say");
    };
    let text = format!("memory: {} free of {}", size(available), size(total));
    if available < LITTLE_MEMORY { Finding::warn(format!("{text}: little")) } else { Finding::ok(text) }
}

fn cache(folder: &Path) -> Finding {
    let place = folder.display();
    if !folder.exists() {
        return Finding::ok(format!("cache: {place}, empty"));
    }
    match folder_bytes(folder) {
        Ok(bytes) => Finding::ok(format!("cache: {place}, {}", size(bytes))),
        Err(error) => Finding::warn(format!("cache: {place} cannot be read: {error}")),
    }
}

/// Adds up the files below a folder; links are not followed.
fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let (mut bytes, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                bytes += entry.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}

fn python(python: &Path) -> [Finding; 2] {
    let name = python.display();
    let version = |args: &[&str]| -> Option<String> {
        let output = Command::new(python).args(args).stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let need = "`pypi:` sources need it";
    [
        match version(&["--version"]) {
            Some(found) => Finding::ok(format!("python: `{name}` is {found}")),
            None => Finding::warn(format!("python: `{name}` not found; {need}")),
        },
        match version(&["-m", "pip", "--version"]) {
            Some(found) => Finding::ok(format!("pip: {}", found.split(" from ").next().unwrap_or(&found))),
            None => Finding::warn(format!("pip: `{name} -m pip` does not run; {need}")),
        },
    ]
}

fn hub(resolver: &Resolver) -> Finding {
    let hub = &resolver.hub;
    let token = if hub.token.is_some() { "a token" } else { "no token" };
    let offline = if resolver.offline || hub.offline { ", offline" } else { "" };
    let place = hub.cache_dir.display();
    Finding::ok(format!("hub: {}, {token}{offline}, cache {place}", hub.endpoint))
}

/// Returns the first value of `key : value` lines.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(found, value)| (found.trim(), value.trim()))
        .find(|(found, _)| *found == key)
        .map(|(_, value)| value)
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 30 {
        format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
    } else {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_tells() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2.1 GHz: fast\nmodel name\t: other\n";
        assert_eq!(field(text, "model name"), Some("A CPU @ 2.1 GHz: fast"));
        assert_eq!(size(3 << 29), "1.5 GiB");
    }

    #[test]
    fn adds_up_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(folder.path().join("a/b")).unwrap();
        fs_err::write(folder.path().join("a/b/c"), [0; 7]).unwrap();
        fs_err::write(folder.path().join("d"), [0; 3]).unwrap();
        assert_eq!(folder_bytes(folder.path()).unwrap(), 10);
    }

    #[test]
    fn an_interpreter_that_is_missing_is_a_warning() {
        let findings = python(Path::new("/nowhere/python3"));
        assert!(
            findings.iter().all(|finding| !finding.ok && finding.text.contains("`pypi:` sources need it"))
        );
    }
}
