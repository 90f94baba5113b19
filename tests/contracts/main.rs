//! What a run promises, broken on purpose to see that it notices.

mod bits;
mod faults;
mod frozen;
mod kills;
mod losses;
mod memory;
mod parts;
mod plan;
mod ranks;
mod repository;
mod tensor;
