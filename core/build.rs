//! Compiles the CUDA kernels to PTX, which the program carries. Without the feature there is nothing to do.

#[allow(clippy::unnecessary_wraps)] // with the feature it may fail
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    compile()?;
    Ok(())
}

#[cfg(feature = "cuda")]
fn compile() -> Result<(), Box<dyn std::error::Error>> {
    let kernels = "src/kernels/cuda";
    println!("cargo::rerun-if-changed={kernels}");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // Watched headers are part of what decides whether a kernel is compiled again.
    let mut headers = Vec::new();
    for entry in std::fs::read_dir(kernels)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cuh") {
            headers.push(path);
        }
    }
    headers.sort();
    let builder = cudaforge::KernelBuilder::new().source_dir(kernels).watch(headers).arg("-O3").arg("-std=c++20");
    builder.build_ptx()?.write(out.join("ptx.rs"))?;
    Ok(())
}
