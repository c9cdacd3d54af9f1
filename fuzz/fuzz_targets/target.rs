//! What all targets share.

use std::collections::BTreeSet;
use std::panic::set_hook;
use std::sync::Mutex;

/// Lets panics unwind, where libfuzzer-sys would abort in its hook: those of third-party decoders are caught and become
/// errors. One that nobody catches ends the process all the same, as a crash. Each place is printed once.
pub fn let_panics_unwind() {
    let seen = Mutex::new(BTreeSet::new());
    set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        if seen.lock().is_ok_and(|mut seen| seen.insert(place)) {
            eprintln!("{panic}");
        }
    }));
}

/// The libFuzzer target of a function of `vitadapt_fuzz`.
macro_rules! target {
    ($name:ident) => {
        libfuzzer_sys::fuzz_target!(init: crate::target::let_panics_unwind(), |bytes: &[u8]| vitadapt_fuzz::$name(bytes));
    };
}
