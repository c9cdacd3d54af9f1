//! Says of folders, given one a line on the standard input, what the backbone in each is or why it cannot be loaded. Only
//! what stands beside the weights and the headers of their files are read.

use std::io::{self, BufRead, Write};
use vitadapt::backbone::Backbone;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for folder in io::stdin().lock().lines() {
        match Backbone::describe(&folder?, None) {
            Ok(spec) => writeln!(
                out,
                "loads\t{}: {} blocks of width {}, {} pixels in patches of {}",
                spec.architecture, spec.depth, spec.width, spec.image_size, spec.patch.size
            )?,
            Err(error) => writeln!(out, "refused\t{}", error.to_string().replace('\n', " "))?,
        }
    }
    Ok(())
}
