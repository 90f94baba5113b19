//! What this process is told, passed on to the ranks.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::parallel::launch;

/// What the ranks are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Finish the step, save, and end.
    Stop,
    /// End at once.
    End,
}

/// The signals that this process gets from now on.
pub(super) struct Wishes {
    signals: Signals,
    asked: bool,
}

impl Wishes {
    /// Listens to the signals that a rank listens to.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { signals: Signals::new([SIGINT, SIGTERM, SIGUSR1])?, asked: false })
    }

    /// Returns what was asked since the last time, as a rank takes it: the first signal stops, a second one other than
    /// SIGUSR1 ends.
    pub(super) fn next(&mut self) -> Option<Wish> {
        let mut wish = None;
        for signal in self.signals.pending() {
            match (self.asked, signal) {
                (true, SIGUSR1) => {}
                (true, _) => wish = Some(Wish::End),
                (false, _) => wish = Some(Wish::Stop),
            }
            self.asked = true;
        }
        wish
    }
}

/// Sends a signal to a child that has not been waited for, so that its number is still its own.
pub(super) fn send(child: &Child, signal: i32) {
    #[expect(unsafe_code, reason = "std sends SIGKILL only")]
    // SAFETY: the call takes two numbers and touches no memory of this process.
    let _ = unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

/// Prepares a child that a terminal's signals do not reach, that sees no other launcher, and that gets SIGTERM when this
/// process is gone, where the system can.
pub(super) fn alone(command: &mut Command) -> &mut Command {
    for name in launch::VARIABLES {
        command.env_remove(name);
    }
    #[cfg(target_os = "linux")]
    {
        #[expect(unsafe_code, reason = "only the child itself can ask for it")]
        // SAFETY: between fork and exec the closure makes one system call, which takes numbers only.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
    }
    command.process_group(0)
}
