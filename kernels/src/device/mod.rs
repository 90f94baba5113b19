//! Where tensors live: the CPU, or a device that kernels run on. Looked for before the first tensor is made, since
//! Burn panics where a driver is missing.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "wgpu")]
mod wgpu;

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

/// A device as it is asked for: `cpu`, `wgpu`, `wgpu:1`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The processor, through this crate's own loops.
    #[default]
    Cpu,
    /// The n-th device that wgpu finds, graphics processors before software; none means the first.
    Wgpu(Option<usize>),
    /// The n-th of NVIDIA's GPUs, as the driver counts them; none means the first.
    Cuda(Option<usize>),
}

impl DeviceChoice {
    /// What can be asked for, in words.
    pub const EXPECTED: &str = if cfg!(feature = "cuda") {
        "`cpu`, `wgpu`, `wgpu:<number>`, `cuda` or `cuda:<number>`"
    } else {
        "`cpu`, `wgpu` or `wgpu:<number>` (and `cuda` in a build with `--features cuda`, scripts/gpu/cuda.sh)"
    };
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu(None) => f.write_str("wgpu"),
            Self::Wgpu(Some(index)) => write!(f, "wgpu:{index}"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { got: text.to_owned() };
        let (kind, index) = match text.split_once(':') {
            None => (text, None),
            Some((kind, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                (kind, Some(index.parse().map_err(|_| unknown())?))
            }
            Some(_) => return Err(unknown()),
        };
        match (kind, index) {
            ("cpu", None) => Ok(Self::Cpu),
            ("wgpu", _) => Ok(Self::Wgpu(index)),
            ("cuda", _) if cfg!(feature = "cuda") => Ok(Self::Cuda(index)),
            ("cuda", _) => Err(DeviceError::NotBuilt { asked: Self::Cuda(index) }),
            _ => Err(unknown()),
        }
    }
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No name of a device.
    #[error("`{got}` is no device, expected {}", DeviceChoice::EXPECTED)]
    Unknown {
        /// What was typed.
        got: String,
    },
    /// The program was built without it.
    #[error("device `{asked}` is not in this build: it needs `--features {}`", asked.kind())]
    NotBuilt {
        /// What was asked for.
        asked: DeviceChoice,
    },
    /// Something that it is used through is not on this machine.
    #[error("device `{asked}` cannot be used: {lacks}")]
    Lacks {
        /// What was asked for.
        asked: DeviceChoice,
        /// What there is not.
        lacks: Lack,
    },
    /// There is none on this machine.
    #[error("device `{asked}` is not there: {} finds {found} device(s)", asked.finder())]
    Missing {
        /// What was asked for.
        asked: DeviceChoice,
        /// Devices that are there.
        found: usize,
    },
    /// It is there and does not start.
    #[error("device `{asked}` does not start: {why}")]
    Start {
        /// What was asked for.
        asked: DeviceChoice,
        /// What the driver says.
        why: String,
    },
}

/// What NVIDIA's GPUs are used through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The driver.
    #[error("no CUDA driver (`libcuda.so`) is on this machine")]
    Driver,
    /// The compiler.
    #[error("no CUDA compiler (`libnvrtc.so`) is on this machine")]
    Compiler,
    /// What the compiler includes.
    #[error("no CUDA headers (`include/mma.h` in `CUDA_PATH` or `/usr/local/cuda`) are on this machine")]
    Headers,
}

impl Lack {
    fn hint(self) -> &'static str {
        match self {
            Self::Driver => "install NVIDIA's driver, or use `cpu`; `seedcorn doctor` lists what is there",
            Self::Compiler => {
                "install CUDA 12.8 or later (or `pip install nvidia-cuda-nvrtc` and put its `lib` into `LD_LIBRARY_PATH`), or use `cpu`"
            }
            Self::Headers => "install CUDA 12.8 or later, or set `CUDA_PATH` to where it is; or use `cpu`",
        }
    }
}

impl DeviceChoice {
    /// The name without a number, which is that of the feature, too.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Wgpu(_) => "wgpu",
            Self::Cuda(_) => "cuda",
        }
    }

    /// What counts devices of this kind.
    fn finder(self) -> &'static str {
        match self {
            Self::Cuda(_) => "the CUDA driver",
            _ => "wgpu",
        }
    }
}

impl DeviceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotBuilt { asked: DeviceChoice::Cuda(_) } => {
                "build with `--features cuda` (scripts/gpu/cuda.sh has what that needs), or use `cpu`"
            }
            Self::NotBuilt { .. } => "build with `--features wgpu`, or leave the device at `cpu`",
            Self::Lacks { lacks, .. } => lacks.hint(),
            Self::Missing { asked: DeviceChoice::Cuda(_), .. } => {
                "`nvidia-smi` lists what the driver sees; `CUDA_VISIBLE_DEVICES` may hide devices from it"
            }
            Self::Missing { found: 0, .. } => {
                "install a Vulkan driver (Debian: `mesa-vulkan-drivers`, or the maker's), or use `cpu`"
            }
            Self::Unknown { .. } | Self::Missing { .. } => {
                "`seedcorn doctor` lists the devices of this machine"
            }
            Self::Start { .. } => "`seedcorn doctor` says what the other devices are; `cpu` always works",
        }
    }
}

/// A buffer that a device does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a buffer of {bytes} bytes, and the device takes {largest} at most")]
pub struct TooLarge {
    /// Bytes that were asked for.
    pub bytes: u64,
    /// Bytes of the device's largest buffer.
    pub largest: u64,
}

/// A device that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What to ask for.
    pub choice: DeviceChoice,
    /// What it calls itself.
    pub name: String,
    /// Whether it is a program on the processor, made to test drivers and slower than `cpu`.
    pub is_software: bool,
}

/// Makes the device ready for tensors.
///
/// # Errors
/// [`DeviceError`] where it is not in this build or on this machine, or does not start.
pub fn open(choice: DeviceChoice) -> Result<Device, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::flex()),
        DeviceChoice::Wgpu(index) => wgpu::open(choice, index.unwrap_or(0)),
        DeviceChoice::Cuda(index) => cuda::open(choice, index.unwrap_or(0)),
    }
}

/// Lists the devices beside the CPU that are in this build and on this machine, each with why it is not usable, if so.
pub fn list() -> Vec<Result<Found, DeviceError>> {
    wgpu::list().into_iter().chain(cuda::list()).collect()
}

/// Returns what a device calls itself; none where it cannot be used.
pub fn name(choice: DeviceChoice) -> Option<String> {
    match choice {
        DeviceChoice::Cpu => None,
        DeviceChoice::Wgpu(index) => {
            wgpu::list().into_iter().nth(index.unwrap_or(0))?.ok().map(|found| found.name)
        }
        DeviceChoice::Cuda(index) => {
            cuda::list().into_iter().nth(index.unwrap_or(0))?.ok().map(|found| found.name)
        }
    }
}

/// Returns the CubeCL device behind a device; none for the CPU.
#[cfg(feature = "cube")]
pub(crate) fn cube(device: &Device) -> Option<burn_cubecl::CubeDevice> {
    match device.clone().inner().as_dispatch() {
        burn::backend::DispatchDevice::Cube(device) => Some(device.clone()),
        _ => None,
    }
}

/// Whether a device is a program on the processor.
#[cfg(feature = "cube")]
pub(crate) fn is_software(device: &burn_cubecl::CubeDevice) -> bool {
    match device {
        #[cfg(feature = "wgpu")]
        burn_cubecl::CubeDevice::Wgpu(device) => {
            device.kind == burn_cubecl::cubecl::wgpu::WgpuDeviceKind::Cpu
        }
        #[allow(unreachable_patterns, reason = "where wgpu is the only kind")]
        _ => false,
    }
}

/// Returns the memory that this process has reserved on a device, in bytes: its tensors, what was freed and is kept for
/// others, and the room of transfers. None for the CPU. Waits for what the device has been told to do.
pub fn reserved_bytes(device: &Device) -> Option<u64> {
    #[cfg(feature = "cube")]
    if let Some(device) = cube(device) {
        use burn_cubecl::cubecl::MemoryScope;
        return Some(device.client().memory_report(MemoryScope::Device).usage().bytes_reserved);
    }
    let _ = device;
    None
}

/// Whether tensors on `device` are the CPU's.
pub fn is_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::{Device, DeviceChoice, DeviceError, Found};

    pub(super) fn open(asked: DeviceChoice, _: usize) -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt { asked })
    }

    pub(super) fn list() -> Vec<Result<Found, DeviceError>> {
        vec![Err(DeviceError::NotBuilt { asked: DeviceChoice::Cuda(None) })]
    }
}

#[cfg(not(feature = "wgpu"))]
mod wgpu {
    use super::{Device, DeviceChoice, DeviceError, Found};

    pub(super) fn open(asked: DeviceChoice, _: usize) -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt { asked })
    }

    pub(super) fn list() -> Vec<Result<Found, DeviceError>> {
        vec![Err(DeviceError::NotBuilt { asked: DeviceChoice::Wgpu(None) })]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written() {
        for choice in [DeviceChoice::Cpu, DeviceChoice::Wgpu(None), DeviceChoice::Wgpu(Some(12))] {
            assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
        }
        for text in
            ["", "gpu", "cpu:0", "wgpu:", "wgpu:+1", "wgpu:-1", "wgpu:1:2", "wgpu:99999999999999999999"]
        {
            assert!(matches!(text.parse::<DeviceChoice>(), Err(DeviceError::Unknown { .. })), "{text}");
        }
    }

    #[test]
    fn cuda_is_read_where_it_is_built() {
        let read = "cuda:1".parse::<DeviceChoice>();
        if cfg!(feature = "cuda") {
            assert_eq!(read.unwrap(), DeviceChoice::Cuda(Some(1)));
        } else {
            let error = read.unwrap_err();
            assert_eq!(error.to_string(), "device `cuda:1` is not in this build: it needs `--features cuda`");
            assert!(error.hint().contains("scripts/gpu/cuda.sh"), "{}", error.hint());
        }
        assert!(matches!("cuda:".parse::<DeviceChoice>(), Err(DeviceError::Unknown { .. })));
    }

    #[test]
    fn the_cpu_is_always_there() {
        assert!(is_cpu(&open(DeviceChoice::Cpu).unwrap()));
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let error = open(DeviceChoice::Wgpu(Some(999))).unwrap_err();
        assert!(matches!(error, DeviceError::NotBuilt { .. } | DeviceError::Missing { .. }), "{error}");
    }
}
