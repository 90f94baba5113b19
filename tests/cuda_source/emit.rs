//! Writes the CUDA C++ of every kernel into a folder, with an index of what they need.

use std::path::PathBuf;

use seedcorn_kernels::cuda_source;
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| anyhow::anyhow!("usage: cuda-source FOLDER"))?;
    let mut index = Vec::new();
    for (number, (name, kernel)) in cuda_source::all().into_iter().enumerate() {
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
