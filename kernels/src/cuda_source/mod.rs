//! The CUDA C++ of the tensor-core kernels, made without a device, a driver or LLVM.
//!
//! CubeCL turns a kernel into CUDA C++ (its `cuda-cpp` route), which NVRTC compiles. What a device would tell CubeCL
//! is stated here: warps of 32, shared memory, bf16 matrix units.

mod list;
mod properties;

use cubecl_core::prelude::*;
use cubecl_core::{Compiler, prelude::CubeKernel};
use cubecl_cpp::shared::{CompilationOptions, CppCompiler};
use cubecl_cpp::target::Cuda;

pub use list::all;

use crate::attention::tensor_core::delta::attention_delta;
use crate::attention::tensor_core::forward::attention_forward;
use crate::attention::tensor_core::keys::attention_keys;
use crate::attention::tensor_core::mask::NumbersCompilationArg;
use crate::attention::tensor_core::queries::attention_queries;
use crate::linear_cross_entropy::tensor_core::rows::{loss_gather, loss_gradient, loss_rows, loss_sum};
use crate::lora_linear::tensor_core::finish::sum_parts;
use crate::lora_linear::tensor_core::number::MaskCompilationArg;
use crate::lora_linear::tensor_core::product::{PlacesCompilationArg, tensor_product};
use crate::tensor_core::Body;
pub use crate::tensor_core::{Device, Kernel, Launch};

/// The CUDA C++ of a kernel.
#[derive(Clone, Debug)]
pub struct Source {
    /// The text; it includes `mma.h` and `cuda_bf16.h`.
    pub text: String,
    /// Name of the kernel in it.
    pub entry: String,
    /// Units (threads) of a cube.
    pub units: usize,
    /// Dynamic shared memory of a cube.
    pub shared_bytes: usize,
    /// Room for scalars: of f32, of u32, and of words about buffers that our kernels do not read.
    info: [usize; 3],
}

impl Kernel {
    /// Writes the kernel in CUDA C++.
    ///
    /// # Panics
    /// When CubeCL cannot compile the kernel: it is the same for every input, so tests see it.
    pub fn source(self) -> Source {
        let settings = KernelSettings::new(
            *CubeDim::new_1d(self.units() as u32),
            ExecutionMode::Unchecked,
            AddressType::U32,
        );
        let (device, target) = (properties::device(), properties::target());
        let buffer = || BufferCompilationArg { inplace: None };
        match self.0 {
            Body::Product(plan) => self.compile(&tensor_product::TensorProduct::new(
                settings,
                device,
                target,
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                places(),
                MaskCompilationArg { key_low: (), key_high: (), probability: (), kept: () },
                plan,
            )),
            Body::SumParts => {
                self.compile(&sum_parts::SumParts::new(settings, device, target, buffer(), buffer(), (), ()))
            }
            Body::AttentionForward(plan) => self.compile(&attention_forward::AttentionForward::new(
                settings,
                device,
                target,
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                numbers(),
                plan,
            )),
            Body::AttentionDelta => self.compile(&attention_delta::AttentionDelta::new(
                settings,
                device,
                target,
                buffer(),
                buffer(),
                buffer(),
                (),
                (),
            )),
            Body::AttentionQueries(plan) => self.compile(&attention_queries::AttentionQueries::new(
                settings,
                device,
                target,
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                numbers(),
                plan,
            )),
            Body::LossGather => self.compile(&loss_gather::LossGather::new(
                settings,
                device,
                target,
                buffer(),
                buffer(),
                buffer(),
                (),
                (),
            )),
            Body::LossRows => self.compile(&loss_rows::LossRows::new(
                settings,
                device,
                target,
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                (),
                (),
                (),
            )),
            Body::LossSum => {
                self.compile(&loss_sum::LossSum::new(settings, device, target, buffer(), buffer(), ()))
            }
            Body::LossGradient(kind) => self.compile(&loss_gradient::LossGradient::new(
                settings,
                device,
                target,
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                (),
                (),
                (),
                kind,
            )),
            Body::AttentionKeys(plan) => self.compile(&attention_keys::AttentionKeys::new(
                settings,
                device,
                target,
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                numbers(),
                plan,
            )),
        }
    }

    fn compile(self, kernel: &impl CubeKernel) -> Source {
        let definition = cubecl_core::define_kernel(kernel).expect("a kernel that CubeCL takes");
        let mut compiler = CppCompiler::<Cuda>::default();
        let options = CompilationOptions::default();
        let compiled = compiler.compile(definition, &options).expect("a kernel that CubeCL compiles");
        let (text, shared_bytes) = (compiled.to_string(), compiled.shared_memory_size);
        let entry = entry(&text).expect("a kernel in the text");
        let info = ["scalars_f32", "scalars_u32", "static_meta"].map(|name| array_len(&text, name));
        Source { entry, units: self.units(), shared_bytes, info, text }
    }
}

impl Source {
    /// Returns the bytes of the kernel's last parameter: all scalars, as the text's `info_st` lies.
    ///
    /// # Panics
    /// When there are more scalars than the kernel takes.
    pub fn info(&self, floats: &[f32], words: &[u32]) -> Vec<u8> {
        let [room_floats, room_words, rest] = self.info;
        assert!(
            floats.len() <= room_floats && words.len() <= room_words,
            "more scalars than the kernel takes"
        );
        let mut bytes: Vec<u8> = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes.resize(4 * room_floats, 0);
        bytes.extend(words.iter().flat_map(|value| value.to_le_bytes()));
        bytes.resize(4 * (room_floats + room_words + rest), 0);
        bytes
    }
}

/// The name of the kernel: what stands before its parameters.
fn entry(text: &str) -> Option<String> {
    let after = &text[text.find("__global__")?..];
    let word = |end: usize| after[..end].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
    let mut words = after.match_indices('(').filter_map(|(at, _)| word(at));
    words.find(|word| !word.is_empty() && *word != "__launch_bounds__").map(str::to_owned)
}

/// The length of an array of `info_st`, 0 if it is not there.
fn array_len(text: &str, name: &str) -> usize {
    let start = format!(" {name}[");
    let found = text.find(&start).map(|at| &text[at + start.len()..]);
    found.and_then(|rest| rest.split(']').next()?.parse().ok()).unwrap_or(0)
}

fn numbers() -> NumbersCompilationArg {
    NumbersCompilationArg { width: (), num_heads: (), num_kv_heads: (), window: (), scale: (), cap: () }
}

fn places() -> PlacesCompilationArg {
    PlacesCompilationArg {
        m: (),
        n: (),
        k: (),
        part: (),
        left_at: (),
        left_stride: (),
        right_at: (),
        right_row: (),
        right_width: (),
        scale_codes_at: (),
        k2: (),
        left2_at: (),
        left2_stride: (),
        right2_width: (),
        out_at: (),
        out_stride: (),
        out_part: (),
        scale: (),
    }
}
