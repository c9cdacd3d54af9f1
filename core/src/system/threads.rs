//! How many threads the tensor library may start.

/// Keeps the tensor library from starting its own threads for single operations: the workers of
/// `nn::workers` already share the cores, and threads that wait for each other inside every addition cost
/// more than they give. A user's own `CANDLE_NUM_THREADS` is respected.
///
/// To be called at the very start of the process.
pub fn leave_cores_to_workers() {
    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: changing the environment is unsound only while another thread may read it; none has started yet.
        #[allow(unsafe_code)] // the library reads this setting from the environment alone
        unsafe {
            std::env::set_var(VARIABLE, "1");
        }
    }
}
