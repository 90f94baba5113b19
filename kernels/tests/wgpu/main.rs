//! Every op on a wgpu device against its reference, forward and gradients. Where there is no device every test shows
//! as ignored, with the reason, and none as passed.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program of its own says what it found"
)]

mod adamw;
mod attention;
mod harness;
mod head;
mod linear;
mod rows;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use seedcorn_kernels::device::{self, DeviceChoice};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let device = device::open(DeviceChoice::Wgpu(None));
    if let Err(error) = &device {
        eprintln!("ignored: {error}; {}", error.hint());
    }
    let device = device.ok();
    let tests = [adamw::TESTS, rows::TESTS, linear::TESTS, head::TESTS, attention::TESTS].concat();
    let trials = tests.into_iter().map(|(name, test)| {
        let here = device.clone();
        let run = move || {
            test(&here.expect("tests without a device are ignored"));
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(device.is_none())
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
