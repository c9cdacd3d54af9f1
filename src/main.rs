//! The binary: parse, run, print the cause chain and the hint, exit with the code.
fn main() {}
