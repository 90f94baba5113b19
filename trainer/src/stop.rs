//! A request to stop, from a signal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether someone has asked this process to stop: the training loop finishes its step, saves and ends.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens to SIGINT (Ctrl-C), SIGTERM and, where there is one, SIGUSR1, which schedulers send ahead of the
    /// end. The first signal is a request; the second ends the process at once, as if no one listened.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn on_signals() -> io::Result<Stop> {
        let stop = Stop::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal must not see the flag that it sets itself.
            flag::register_conditional_default(signal, stop.0.clone())?;
            flag::register(signal, stop.0.clone())?;
        }
        #[cfg(unix)]
        flag::register(signal_hook::consts::SIGUSR1, stop.0.clone())?;
        Ok(stop)
    }

    /// Asks to stop.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether someone has asked.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
