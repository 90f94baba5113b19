//! Errors of reading weights.

use std::path::PathBuf;

use seedcorn_kernels::int8::Int8Error;
use seedcorn_kernels::nf4::Nf4Error;

use super::gguf::GgufError;
use super::safetensors::SafetensorsError;

/// Why weights could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system refused; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A folder without weights.
    #[error("no weights in `{}`: expected `model.safetensors`, `model.safetensors.index.json` or one `.gguf` file", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// A safetensors file is not as it must be.
    #[error("could not read `{}`", file.display())]
    Safetensors {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Box<SafetensorsError>,
    },
    /// A GGUF file is not as it must be.
    #[error("could not read `{}`", file.display())]
    Gguf {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Box<GgufError>,
    },
    /// The index of a sharded model is not JSON of the right form.
    #[error("index `{}` is not valid", file.display())]
    Index {
        /// The index.
        file: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The index names a file outside the model's folder.
    #[error("index `{}` puts tensor `{tensor}` into `{shard}`, which is not a file name in the same folder", file.display())]
    IndexPath {
        /// The index.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The path that was given.
        shard: String,
    },
    /// The index names a file that does not exist.
    #[error("index `{}` names shard `{shard}`, which is missing", file.display())]
    MissingShard {
        /// The index.
        file: PathBuf,
        /// The shard.
        shard: String,
    },
    /// The index puts a tensor into a shard that does not hold it.
    #[error("index `{}` puts tensor `{tensor}` into `{shard}`, which does not hold it", file.display())]
    NotInShard {
        /// The index.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: String,
    },
    /// A tensor was asked for that does not exist.
    #[error("no tensor `{tensor}` among the {count} tensors of the model")]
    MissingTensor {
        /// The name that was asked for.
        tensor: String,
        /// How many tensors there are.
        count: usize,
    },
    /// A tensor does not hold floating-point numbers.
    #[error("tensor `{tensor}` in `{}` is of type {dtype}, expected F32, F16, BF16 or F64", file.display())]
    NotFloat {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: &'static str,
    },
    /// A bitsandbytes tensor in a format that is not read.
    #[error("tensor `{tensor}` is quantized as {format}, which is not supported")]
    QuantFormat {
        /// The tensor.
        tensor: String,
        /// Name of the format.
        format: String,
    },
    /// A part of a bitsandbytes tensor is missing.
    #[error("quantized tensor `{tensor}` lacks its part `{part}`")]
    MissingPart {
        /// The tensor.
        tensor: String,
        /// Full name of the part.
        part: String,
    },
    /// A part of a bitsandbytes tensor has the wrong type or size.
    #[error("part `{part}` of a quantized tensor is {got}, expected {expected}")]
    Part {
        /// Full name of the part.
        part: String,
        /// What was expected.
        expected: String,
        /// What is there.
        got: String,
    },
    /// The JSON description of a bitsandbytes tensor cannot be read.
    #[error("`{part}` is not a valid description of a quantized tensor")]
    QuantState {
        /// Full name of the part.
        part: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Parts of an NF4 tensor do not fit each other.
    #[error("tensor `{tensor}` cannot be put together")]
    Nf4 {
        /// The tensor.
        tensor: String,
        /// Which part.
        source: Nf4Error,
    },
    /// Parts of an int8 tensor do not fit each other.
    #[error("tensor `{tensor}` cannot be put together")]
    Int8 {
        /// The tensor.
        tensor: String,
        /// Which part.
        source: Int8Error,
    },
}

impl WeightsError {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoWeights { .. } => Some("point `model.source` at the folder that holds the weights"),
            Self::Safetensors { .. } | Self::Gguf { .. } | Self::NotInShard { .. } => Some(
                "the file may be incomplete or damaged: compare its size and sha256 with the source, or fetch it again",
            ),
            Self::MissingShard { .. } => Some("fetch the missing shard into the same folder"),
            Self::MissingTensor { .. } => {
                Some("the weights and their `config.json` may be of different models")
            }
            Self::NotFloat { .. } => Some("use a checkpoint in one of these number formats"),
            Self::QuantFormat { .. } => Some("use the unquantized model and set `model.quantize = \"nf4\"`"),
            Self::Io(_) => None,
            _ => Some("the files may be incomplete or damaged: fetch the model again"),
        }
    }
}
