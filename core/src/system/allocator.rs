//! What the allocator does with freed memory.

use libmimalloc_sys::{mi_option_get, mi_option_set, mi_option_t};
use std::ffi::c_long;

/// mimalloc's `mi_option_purge_delay`, which its bindings leave unnamed.
const PURGE_DELAY: mi_option_t = 15;
/// Its default, in milliseconds.
const DEFAULT_DELAY: c_long = 1000;
/// Free memory is never returned to the system.
const NEVER: c_long = -1;

/// Keeps freed memory for the next step, which needs the same sizes again: pages returned to the system would have to be
/// zeroed again, which costs about 2 % of a training step. A user's own `MIMALLOC_PURGE_DELAY` is respected.
///
/// To be called at the very start of the process.
pub fn keep_freed_memory() {
    // SAFETY: the two functions take any number of an option; no other thread, which might read it meanwhile, has started.
    #[allow(unsafe_code)] // the bindings have no safe entry point
    unsafe {
        // Another default: another version with other numbers, or the user's own setting.
        if mi_option_get(PURGE_DELAY) == DEFAULT_DELAY {
            mi_option_set(PURGE_DELAY, NEVER);
        }
    }
}
