//! The adapter folder of Hugging Face PEFT: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! What is written loads in peft and vLLM unchanged; what peft 0.21 writes for plain LoRA loads here. A
//! setting that would change the arithmetic in a way not implemented here is an error that names it.

mod config;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use config::PeftConfig;
pub use read::{PeftAdapter, read};
pub use write::write;

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the tensor file.
pub const MODEL_FILE: &str = "adapter_model.safetensors";
/// What PEFT puts before a module path.
const PREFIX: &str = "base_model.model.";

/// Returns the tensor name of a layer's factor; `factor` is `A` or `B`.
fn tensor_name(module: &str, factor: char) -> String {
    format!("{PREFIX}{module}.lora_{factor}.weight")
}
