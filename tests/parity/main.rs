//! Numbers from PyTorch, PEFT and bitsandbytes.

mod decode;
mod differences;
mod gradients;
mod logits;
mod reference;
mod training;
