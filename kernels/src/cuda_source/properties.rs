//! What a device would tell CubeCL.

use std::sync::Arc;

use cubecl_common::profile::TimingMethod;
use cubecl_core::cmma::MatrixLayout;
use cubecl_core::ir::features::{Features, MmaConfig, Plane};
use cubecl_core::ir::{
    ContiguousElements, DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties,
    MemoryDeviceProperties, MmaProperties, TargetProperties, VectorSize,
};
use cubecl_cpp::cuda::mma::manual::contiguous_elements_cuda;

/// A GPU of NVIDIA from sm_80 on. The numbers are those of the smallest: 99 KiB of shared memory a block.
pub(super) fn device() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 32,
        max_shared_memory_size: 99 * 1024,
        max_cube_count: (i32::MAX as u32, 65535, 65535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(108),
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    let identity = DeviceIdentity { name: "none".into(), fingerprint: "none".into(), physical: None };
    let memory = MemoryDeviceProperties::new(1 << 34, 512);
    let mut properties =
        DeviceProperties::new(Features::default(), memory, hardware, TimingMethod::Device, identity);
    cubecl_cpp::register_supported_types(&mut properties);
    let (bf16, f32) = (ElemType::Float(FloatKind::BF16), ElemType::Float(FloatKind::F32));
    let unit = MmaConfig { a_type: bf16, b_type: bf16, cd_type: f32, m: 16, n: 16, k: 16 };
    properties.features.matmul.cmma.insert(unit);
    properties.features.matmul.mma.insert(MmaConfig { n: 8, ..unit });
    properties.features.matmul.ldmatrix.insert(bf16);
    properties.features.plane.insert(Plane::Ops);
    Arc::new(properties)
}

/// What kernels may ask about the target while they are compiled: the layout of the matrix unit's operands, as CubeCL's
/// CUDA runtime states it.
pub(super) fn target() -> Arc<TargetProperties> {
    let mma = MmaProperties {
        register_size_bits: 32,
        const_plane_size: 32,
        register_layout_a: MatrixLayout::RowMajor,
        register_layout_b: MatrixLayout::ColMajor,
        register_layout_acc: MatrixLayout::RowMajor,
        register_duplication_a: 1,
        register_duplication_b: 1,
        register_duplication_acc: 1,
        contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
    };
    Arc::new(TargetProperties { mma })
}
