//! Devices of wgpu, those with a Vulkan driver (on macOS with Metal).

use std::sync::{Mutex, OnceLock, PoisonError};

use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::wgpu::{
    AutoGraphicsApi, RuntimeOptions, WgpuBackend, WgpuDevice, WgpuDeviceKind, try_init_setup,
};

use super::{Device, DeviceChoice, DeviceError, Found};

/// The graphics interface: the system's own. Others are not looked at, since OpenGL's libraries write to stderr.
const API: WgpuBackend = if cfg!(target_os = "macos") { WgpuBackend::Metal } else { WgpuBackend::Vulkan };

/// Buffers that a kernel reads and writes, at most.
const BINDINGS: u32 = 9;

/// Devices whose runtime was started, which works once.
static STARTED: Mutex<Vec<WgpuDevice>> = Mutex::new(Vec::new());

/// The devices in the order of their numbers: graphics processors before software. Looked for once.
fn devices() -> &'static [WgpuDevice] {
    static DEVICES: OnceLock<Vec<WgpuDevice>> = OnceLock::new();
    DEVICES.get_or_init(find)
}

fn find() -> Vec<WgpuDevice> {
    let kinds = [
        WgpuDeviceKind::DiscreteGpu(0),
        WgpuDeviceKind::IntegratedGpu(0),
        WgpuDeviceKind::VirtualGpu(0),
        WgpuDeviceKind::Other(0),
        WgpuDeviceKind::Cpu,
    ];
    let of_kind = |kind| CubeDevice::enumerate(CubeDevice::Wgpu(WgpuDevice::new(kind).on(API)).to_id());
    let of_wgpu = |id| match CubeDevice::from_id(id) {
        CubeDevice::Wgpu(device) => Some(device),
        _ => None,
    };
    kinds.into_iter().flat_map(of_kind).filter_map(of_wgpu).collect()
}

fn start(asked: DeviceChoice, device: &WgpuDevice) -> Result<(), DeviceError> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = |why: String| DeviceError::Start { asked, why };
    if !started.contains(device) {
        try_init_setup::<AutoGraphicsApi>(device, RuntimeOptions::default())
            .map_err(|error| refused(error.to_string()))?;
        started.push(device.clone());
    }
    let bindings = CubeDevice::Wgpu(device.clone()).client().properties().hardware.max_bindings;
    if bindings < BINDINGS {
        return Err(refused(format!("its kernels take {bindings} buffers, and ours need {BINDINGS}")));
    }
    Ok(())
}

pub(super) fn open(asked: DeviceChoice, index: usize) -> Result<Device, DeviceError> {
    let devices = devices();
    let device = devices.get(index).ok_or(DeviceError::Missing { asked, found: devices.len() })?;
    start(asked, device)?;
    Ok(Device::new(CubeDevice::Wgpu(device.clone())))
}

pub(super) fn list() -> Vec<Result<Found, DeviceError>> {
    let devices = devices();
    if devices.is_empty() {
        return vec![Err(DeviceError::Missing { asked: DeviceChoice::Wgpu(None), found: 0 })];
    }
    let found = |(index, device): (usize, &WgpuDevice)| {
        let choice = DeviceChoice::Wgpu(Some(index));
        start(choice, device)?;
        let name = CubeDevice::Wgpu(device.clone()).client().properties().identity.name.clone();
        Ok(Found { choice, name, is_software: device.kind == WgpuDeviceKind::Cpu })
    };
    devices.iter().enumerate().map(found).collect()
}
