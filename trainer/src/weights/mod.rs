//! Weights of a model as they lie on disk: named tensors, read one at a time from memory-mapped files.
//!
//! Whatever the file format, tensors have Hugging Face names and row order (`model.layers.0.self_attn.q_proj.weight`,
//! `[out, in]`). Nothing here knows a model; who asks for a tensor decides its place.

mod bnb;
mod error;
mod folder;
pub mod gguf;
mod plain;
pub mod safetensors;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use seedcorn_kernels::ggml::GgmlType;
use seedcorn_kernels::int8::Int8;
use seedcorn_kernels::nf4::Nf4;

pub use error::WeightsError;
pub use folder::SafetensorsSource;
pub use gguf::{GgufAbout, GgufSource};
pub use plain::{Plain, STRETCH_UNIT};

/// How a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// A plain element type of safetensors.
    Plain(safetensors::ElementType),
    /// A ggml type of a GGUF file.
    Ggml(GgmlType),
    /// bitsandbytes NF4.
    Nf4,
    /// bitsandbytes FP4: listed, but not readable.
    Fp4,
    /// bitsandbytes row-wise int8.
    Int8,
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(ty) => ty.name(),
            Self::Ggml(ty) => ty.name(),
            Self::Nf4 => "NF4",
            Self::Fp4 => "FP4",
            Self::Int8 => "INT8",
        })
    }
}

/// What is known of a tensor without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Row-major shape of the values, also where the storage is packed.
    pub shape: Vec<usize>,
    /// Storage.
    pub dtype: Dtype,
    /// File that holds it.
    pub file: PathBuf,
}

/// A tensor that is stored quantized.
#[derive(Debug, Clone, PartialEq)]
pub enum Quantized {
    /// 4-bit.
    Nf4(Nf4),
    /// 8-bit.
    Int8(Int8),
}

/// Named tensors, read one at a time; nothing but the headers stays in memory.
pub trait TensorSource: Send + Sync {
    /// Names of all tensors, sorted.
    fn names(&self) -> Vec<String>;

    /// Shape and storage of a tensor, if it exists.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// Reads a tensor that is stored as NF4 or int8, as it is; `None` for any other storage.
    ///
    /// # Errors
    /// If the tensor does not exist or its parts do not fit.
    fn read_quantized(&self, name: &str) -> Result<Option<Quantized>, WeightsError>;

    /// Finds a tensor for which [`TensorSource::read_quantized`] returns `None`, to be decoded a stretch at a time.
    ///
    /// # Errors
    /// If the tensor does not exist or is not of a float type.
    fn plain(&self, name: &str) -> Result<Plain<'_>, WeightsError>;

    /// Gives the memory that reading a tensor took in its mapped file back to the system.
    fn release(&self, name: &str);

    /// Reads a tensor as f32, row-major, on all threads; quantized tensors are dequantized.
    ///
    /// # Errors
    /// If the tensor does not exist, is not of a float type, or its parts do not fit.
    fn read_f32(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        match self.read_quantized(name)? {
            Some(Quantized::Nf4(matrix)) => return Ok(matrix.dequantize()),
            Some(Quantized::Int8(matrix)) => return Ok(matrix.dequantize()),
            None => {}
        }
        let plain = self.plain(name)?;
        let mut values = vec![0.0; plain.len()];
        let stretches = values.par_chunks_mut(TASK_VALUES).enumerate();
        stretches.for_each(|(task, out)| plain.read(task * TASK_VALUES, out));
        self.release(name);
        Ok(values)
    }
}

/// Values that one task decodes.
const TASK_VALUES: usize = 64 * STRETCH_UNIT;

/// Opens a folder in Hugging Face layout, a `.safetensors` file or its index, or a `.gguf` file.
///
/// # Errors
/// If there are no weights or a header is invalid; all headers are checked here.
pub fn open(path: &Path) -> Result<Box<dyn TensorSource>, WeightsError> {
    let path = folder::weights_in(path)?;
    Ok(if is_gguf(&path)? {
        Box::new(GgufSource::open(&path)?)
    } else {
        Box::new(SafetensorsSource::open(&path)?)
    })
}

/// Whether a file begins as GGUF files do.
fn is_gguf(path: &Path) -> Result<bool, WeightsError> {
    use std::io::Read;
    let mut magic = Vec::with_capacity(4);
    fs_err::File::open(path)?.take(4).read_to_end(&mut magic)?;
    Ok(magic == *gguf::MAGIC)
}

/// Maps a file into memory.
fn map(path: &Path) -> Result<memmap2::Mmap, WeightsError> {
    let file = fs_err::File::open(path)?;
    #[expect(unsafe_code, reason = "reading large files without copies needs a memory map")]
    // SAFETY: the map is read-only. Files of a model are not written while a run reads them; one that is
    // truncated meanwhile ends the process with a bus error instead of giving wrong weights.
    let map = unsafe { memmap2::Mmap::map(file.file()) };
    map.map_err(|source| {
        WeightsError::Io(std::io::Error::new(source.kind(), format!("{}: {source}", path.display())))
    })
}

/// Gives the pages of a stretch that has been read back to the system, so that loading a model does not take
/// the size of its file in memory on top of what is kept. Reading them again is possible, and slower.
fn release(map: &memmap2::Mmap, range: &std::ops::Range<usize>) {
    #[cfg(unix)]
    {
        #[expect(unsafe_code, reason = "the advice is unchecked in general")]
        // SAFETY: the map is read-only and of a file, so dropped pages come back with the same content.
        let _ = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
        };
    }
}
