//! Numeric operations of Seedcorn: one folder per op, each with its reference, CPU code and gradient.
pub mod adamw;
pub mod add;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
#[cfg(feature = "cuda-source")]
pub mod cuda_source;
pub mod device;
pub mod embedding;
mod flex;
pub mod frozen;
pub mod gated_act;
pub mod gated_mlp;
pub mod ggml;
#[cfg(feature = "cube")]
mod gpu;
pub mod heap;
pub mod int8;
pub mod isa;
pub mod linear_cross_entropy;
pub mod lora_linear;
pub mod matmul;
pub mod nf4;
pub mod peak;
pub mod qk_norm;
pub mod rms_norm;
pub mod rope;
pub mod section;
pub mod seed_gradient;
#[cfg(feature = "tensor-cores")]
pub mod tensor_core;
#[cfg(test)]
mod testing;
mod vector;
