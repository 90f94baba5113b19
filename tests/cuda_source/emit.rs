//! Writes the CUDA C++ of every kernel (or of those whose name has a word in it) into a folder, with an index of what
//! they need.

use std::path::PathBuf;

use seedcorn_kernels::cuda_source;
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| anyhow::anyhow!("usage: cuda-source FOLDER [WORD]"))?;
    let word = std::env::args().nth(2).unwrap_or_default();
    let mut index = Vec::new();
    let kernels = cuda_source::all().into_iter().filter(|(name, _)| name.contains(&word));
    for (number, (name, kernel)) in kernels.enumerate() {
        let source = kernel.source();
        let file = format!("{number:02}.cu");
        fs_err::write(folder.join(&file), &source.text)?;
        index.push(json!({
            "name": name,
            "file": file,
            "entry": source.entry,
            "units": source.units,
            "shared_bytes": source.shared_bytes,
            "multiplies": kernel.multiplies(),
        }));
    }
    fs_err::write(folder.join("index.json"), serde_json::to_vec_pretty(&index)?)?;
    Ok(())
}
