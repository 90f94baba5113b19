//! Errors of GGUF files.

use super::reader::MAX_DEPTH;
use super::types::READABLE;

/// What is wrong with a GGUF file, or what in it is not supported.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each field is")]
pub enum GgufError {
    // Damaged files.
    /// Not a GGUF file.
    #[error("file begins with bytes {got:02x?}, expected `GGUF`")]
    Magic { got: Vec<u8> },
    /// Written on a big-endian machine.
    #[error("file is big-endian, which is not supported")]
    BigEndian,
    /// An older or newer format.
    #[error("gguf version {got} is not supported, expected 2 or 3")]
    Version { got: u32 },
    /// The file ends inside the header.
    #[error("file ends inside {what} at byte {offset}: needs {needed} bytes, {left} are left")]
    Truncated { what: &'static str, offset: u64, needed: u64, left: u64 },
    /// A count that the file is too short for.
    #[error("{what} count {got} cannot be true: the rest of the file has room for {limit}")]
    Count { what: &'static str, got: u64, limit: u64 },
    /// Text that is not UTF-8.
    #[error("{what} at byte {offset} is not valid UTF-8")]
    Utf8 { what: &'static str, offset: u64 },
    /// An unknown kind of metadata value.
    #[error("key `{key}` has the unknown value type {got}")]
    ValueType { key: String, got: u32 },
    /// Arrays in arrays in arrays.
    #[error("key `{key}` nests arrays deeper than {MAX_DEPTH} levels")]
    Depth { key: String },
    /// A key appears twice.
    #[error("key `{key}` appears twice")]
    DuplicateKey { key: String },
    /// A tensor appears twice.
    #[error("tensor `{tensor}` appears twice")]
    DuplicateTensor { tensor: String },
    /// The alignment is not a power of two.
    #[error("alignment {got} is not a power of two")]
    Alignment { got: u64 },
    /// Too many dimensions.
    #[error("tensor `{tensor}` has {got} dimensions, expected at most 4")]
    Dimensions { tensor: String, got: u32 },
    /// The number of elements overflows.
    #[error("tensor `{tensor}` of shape {shape:?} is too large")]
    TooLarge { tensor: String, shape: Vec<u64> },
    /// A row is not whole blocks.
    #[error("tensor `{tensor}` has rows of {row} values, which are not whole {ty} blocks of {block}")]
    Row { tensor: String, row: u64, ty: &'static str, block: usize },
    /// The tensor's bytes are not all in the file.
    #[error(
        "tensor `{tensor}` takes {bytes} bytes at offset {offset}, but the file has {available} bytes of tensors"
    )]
    Range { tensor: String, offset: u64, bytes: u64, available: u64 },
    /// The offset is not aligned.
    #[error("tensor `{tensor}` begins at offset {offset}, which is not a multiple of {alignment}")]
    Misaligned { tensor: String, offset: u64, alignment: u64 },

    // Metadata.
    /// A key that must be there is not.
    #[error("key `{key}` is missing")]
    MissingKey { key: String },
    /// A value of the wrong type.
    #[error("key `{key}` is not {expected}")]
    KeyType { key: String, expected: &'static str },
    /// A value that does not fit the rest.
    #[error("key `{key}` is {got}, expected {expected}")]
    KeyValue { key: String, got: String, expected: String },
    /// A tensor that must be there is not.
    #[error("tensor `{tensor}` is missing")]
    MissingTensor { tensor: &'static str },

    // Not supported.
    /// A storage type that is not read.
    #[error("tensor `{tensor}` has the ggml type {name} ({id}), expected one of {READABLE}")]
    TensorType { tensor: String, name: &'static str, id: u32 },
    /// A model architecture that is not read.
    #[error("architecture `{got}` is not supported, expected `llama` (also Mistral), `qwen2` or `qwen3`")]
    Architecture { got: String },
    /// A tensor that has no Hugging Face name.
    #[error("tensor `{tensor}` is not known in the architecture `{architecture}`")]
    TensorName { tensor: String, architecture: &'static str },
    /// Heads do not divide the rows of a q or k weight.
    #[error("tensor `{tensor}` has {rows} rows, which are not an even number for each of {heads} heads")]
    Heads { tensor: String, rows: usize, heads: u64 },
    /// Frequency factors that no known scaling gives.
    #[error(
        "the frequencies in `rope_freqs.weight` are not those of Llama 3 scaling, the only one supported"
    )]
    RopeFrequencies,
    /// A tokenizer that is not rebuilt.
    #[error(
        "tokenizer `{model}` with pre-tokenizer `{pre}` is not supported, expected `gpt2` with one of `smollm`, `llama-bpe`, `qwen2`, `gpt-2`, `default`"
    )]
    Tokenizer { model: String, pre: String },
}
