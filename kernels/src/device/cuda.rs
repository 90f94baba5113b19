//! NVIDIA's GPUs. What they are used through is looked for before CubeCL does, which panics where it is missing.

use std::path::PathBuf;

use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::cuda::CudaDevice;
use cudarc::driver::{result, sys};

use super::{Device, DeviceChoice, DeviceError, Found, Lack};

/// Fails where the driver, the compiler or its headers are missing. CubeCL looks for them in the same places.
#[expect(unsafe_code, reason = "a library runs code when it is loaded")]
fn probe(asked: DeviceChoice) -> Result<(), DeviceError> {
    let lacks = |lacks| Err(DeviceError::Lacks { asked, lacks });
    // SAFETY: libraries are looked for under the names of the CUDA driver and of NVRTC only.
    let (driver, compiler) = unsafe { (sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
    match (driver, compiler) {
        (false, _) => lacks(Lack::Driver),
        (_, false) => lacks(Lack::Compiler),
        _ if !headers().is_some_and(|folder| folder.join("mma.h").exists()) => lacks(Lack::Headers),
        _ => Ok(()),
    }
}

/// Where CubeCL has the compiler look for headers.
fn headers() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("CUDA_PATH") {
        return Some(PathBuf::from(folder).join("include"));
    }
    let there = |path: &str| std::fs::exists(path).is_ok_and(|exists| exists);
    if let Some(folder) = ["/usr/local/cuda", "/opt/cuda"].into_iter().find(|folder| there(folder)) {
        return Some(PathBuf::from(folder).join("include"));
    }
    there("/usr/bin/nvcc").then(|| PathBuf::from("/usr/include"))
}

/// Returns how many GPUs the driver shows this process.
fn count(asked: DeviceChoice) -> Result<usize, DeviceError> {
    probe(asked)?;
    // A driver without a GPU says so when it starts.
    match result::init() {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => return Ok(0),
        Err(error) => return Err(DeviceError::Start { asked, why: error.to_string() }),
        Ok(()) => {}
    }
    let count = result::device::get_count();
    count.map(|count| count as usize).map_err(|error| DeviceError::Start { asked, why: error.to_string() })
}

pub(super) fn open(asked: DeviceChoice, index: usize) -> Result<Device, DeviceError> {
    let found = count(asked)?;
    if index >= found {
        return Err(DeviceError::Missing { asked, found });
    }
    Ok(Device::new(CubeDevice::Cuda(CudaDevice::new(index))))
}

pub(super) fn list() -> Vec<Result<Found, DeviceError>> {
    let asked = DeviceChoice::Cuda(None);
    let found = |index| {
        let choice = DeviceChoice::Cuda(Some(index));
        let name = result::device::get(index as i32).and_then(result::device::get_name);
        let name = name.map_err(|error| DeviceError::Start { asked: choice, why: error.to_string() })?;
        Ok(Found { choice, name, is_software: false })
    };
    match count(asked) {
        Ok(0) => vec![Err(DeviceError::Missing { asked, found: 0 })],
        Ok(count) => (0..count).map(found).collect(),
        Err(error) => vec![Err(error)],
    }
}
