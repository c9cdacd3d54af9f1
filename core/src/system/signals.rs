//! SIGINT and SIGTERM as requests: the first one asks the loop to save and stop, a second one stops at once.

use crate::error::{Error, ExitCode, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A request to stop that may have arrived.
#[derive(Debug, Clone, Default)]
pub struct StopRequest(Arc<AtomicUsize>);

/// The signal that asks for a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Signal {
    /// Control-C.
    Interrupt = SIGINT,
    /// What schedulers and containers send first.
    Terminate = SIGTERM,
}

impl Signal {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The exit code that reports it to the caller.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Interrupt => ExitCode::Interrupted,
            Self::Terminate => ExitCode::Terminated,
        }
    }
}

/// Makes a file that grows beyond the limit of the process (`ulimit -f`) a write that fails, as on a full disk: without this
/// the system ends the process at once, in the middle of whatever it does.
pub fn outlive_file_limits() {
    #[cfg(unix)]
    // Where a handler cannot be set, the default stays.
    drop(flag::register(signal_hook::consts::SIGXFSZ, Arc::default()));
}

impl StopRequest {
    /// Listens to both signals from now on.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen() -> Result<Self> {
        let request = Self::default();
        for signal in [Signal::Interrupt, Signal::Terminate] {
            let (number, code) = (signal as i32, signal.exit_code() as i32);
            let armed = Arc::new(AtomicBool::new(false));
            // Order matters: the shutdown sees the flag as the previous signal left it.
            flag::register_conditional_shutdown(number, code, Arc::clone(&armed))
                .and_then(|_| flag::register(number, armed))
                .and_then(|_| flag::register_usize(number, Arc::clone(&request.0), number as usize))
                .map_err(Error::io("install a handler for signals of", "this process"))?;
        }
        Ok(request)
    }

    /// Asks for a stop as if the signal had arrived.
    pub fn request(&self, signal: Signal) {
        self.0.store(signal as usize, Ordering::SeqCst);
    }

    /// The signal that arrived, if any.
    pub fn received(&self) -> Option<Signal> {
        let number = self.0.load(Ordering::SeqCst);
        [Signal::Interrupt, Signal::Terminate].into_iter().find(|signal| *signal as usize == number)
    }
}
