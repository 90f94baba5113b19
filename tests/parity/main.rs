//! Numbers from PyTorch, PEFT and bitsandbytes.
