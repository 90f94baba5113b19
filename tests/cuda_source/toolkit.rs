//! NVIDIA's compilers, which come from the Python package index.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the compilers are, or why they are not there.
pub(crate) fn find() -> Result<PathBuf, String> {
    let Some(folder) = std::env::var_os("SEEDCORN_CUDA_TOOLKIT").map(PathBuf::from) else {
        return Err("no SEEDCORN_CUDA_TOOLKIT: use `just gpu-cuda-source`".to_owned());
    };
    if !folder.join("include/mma.h").exists() {
        return Err(format!("no CUDA toolkit in `{}`", folder.display()));
    }
    Ok(folder)
}

/// Compiles CUDA C++ to PTX.
pub(crate) fn compile(toolkit: &Path, source: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/gpu/nvrtc.py");
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("kernel.cu"), folder.path().join("kernel.ptx"));
    fs_err::write(&input, source).expect("written");
    let run = Command::new("python3").arg(script).arg(toolkit).arg("80").args([&input, &output]).output();
    let run = run.expect("python3 runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    fs_err::read_to_string(output).expect("the PTX")
}
