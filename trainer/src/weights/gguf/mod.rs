//! GGUF files: weights, configuration and tokenizer of a model in one file.
//!
//! Tensors are given Hugging Face names, and the rows of Llama's q and k weights, which GGUF keeps in pairs for its
//! rotary embedding, are put back into Hugging Face order. [`GgufSource::config`] and [`GgufSource::tokenizer`]
//! rebuild what a Hugging Face folder has beside the weights.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> and gguf-py 0.19.0 (MIT).

mod config;
mod error;
mod metadata;
mod names;
mod reader;
#[cfg(test)]
mod tests;
mod tokenizer;
mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use seedcorn_data::TokenizerParts;

pub use error::GgufError;
pub use reader::{Header, MAGIC, Tensor};

use self::names::Family;
use super::plain::{Encoding, Plain, Rows};
use super::{Dtype, Quantized, TensorInfo, TensorSource, WeightsError};

/// A GGUF file of a supported architecture.
pub struct GgufSource {
    path: PathBuf,
    map: Mmap,
    header: Header,
    family: Family,
    /// Index of a tensor and the order of its rows, by Hugging Face name.
    names: BTreeMap<String, (usize, Rows)>,
}

/// What a file says about the model in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GgufAbout {
    /// `general.name`, else `general.basename`.
    pub name: Option<String>,
    /// `general.license`: an SPDX expression or a word of the Hugging Face hub.
    pub license: Option<String>,
    /// `general.license.name`.
    pub license_name: Option<String>,
    /// `general.license.link`.
    pub license_link: Option<String>,
}

impl GgufSource {
    /// Opens a file; its header and every tensor's place and name are checked here.
    ///
    /// # Errors
    /// If the file is damaged, or of an architecture or with tensors that are not supported.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let map = super::map(path)?;
        let at = |source| WeightsError::Gguf { file: path.to_owned(), source: Box::new(source) };
        let header = Header::parse(&map).map_err(at)?;
        let family = Family::of(&header, &map).map_err(at)?;
        let names = names::hugging_face(&header, &map, family).map_err(at)?;
        Ok(Self { path: path.to_owned(), map, header, family, names })
    }

    /// The model's configuration in the form of `config.json`.
    ///
    /// # Errors
    /// If a value is missing or of the wrong type, or asks for something that is not supported.
    pub fn config(&self) -> Result<serde_json::Value, WeightsError> {
        config::build(&self.header, &self.map, self.family).map_err(|source| self.error(source))
    }

    /// The tokenizer and chat template.
    ///
    /// # Errors
    /// If the tokenizer is of a kind that is not supported, or its parts do not fit.
    pub fn tokenizer(&self) -> Result<TokenizerParts, WeightsError> {
        tokenizer::build(&self.header, &self.map).map_err(|source| self.error(source))
    }

    /// What the file says about itself; nothing in it changes the arithmetic.
    pub fn about(&self) -> GgufAbout {
        let metadata = metadata::Metadata::new(&self.header, &self.map);
        // A value of another type says nothing.
        let text = |key: &str| metadata.text(key).ok().flatten().map(str::to_owned);
        GgufAbout {
            name: text("general.name").or_else(|| text("general.basename")),
            license: text("general.license"),
            license_name: text("general.license.name"),
            license_link: text("general.license.link"),
        }
    }

    fn error(&self, source: GgufError) -> WeightsError {
        WeightsError::Gguf { file: self.path.clone(), source: Box::new(source) }
    }

    fn find(&self, name: &str) -> Result<(&Tensor, Rows), WeightsError> {
        let missing = || WeightsError::MissingTensor { tensor: name.to_owned(), count: self.names.len() };
        let (index, rows) = *self.names.get(name).ok_or_else(missing)?;
        Ok((&self.header.tensors[index], rows))
    }
}

impl TensorSource for GgufSource {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let (tensor, _) = self.find(name).ok()?;
        Some(TensorInfo {
            shape: tensor.shape.clone(),
            dtype: Dtype::Ggml(tensor.ty),
            file: self.path.clone(),
        })
    }

    fn plain(&self, name: &str) -> Result<Plain<'_>, WeightsError> {
        let (tensor, rows) = self.find(name)?;
        plain(tensor, rows, &self.map).ok_or_else(|| WeightsError::NotFloat {
            file: self.path.clone(),
            tensor: name.to_owned(),
            dtype: tensor.ty.name(),
        })
    }

    fn read_quantized(&self, name: &str) -> Result<Option<Quantized>, WeightsError> {
        self.find(name).map(|_| None)
    }

    fn release(&self, name: &str) {
        if let Ok((tensor, _)) = self.find(name) {
            super::release(&self.map, &tensor.range);
        }
    }
}

/// Describes a tensor of `file`; `None` for a vector whose elements change places and lie in blocks.
fn plain<'a>(tensor: &Tensor, rows: Rows, file: &'a [u8]) -> Option<Plain<'a>> {
    let len = tensor.len();
    // Only a matrix has rows of blocks; the elements of a vector stand alone.
    let cols = if tensor.shape.len() > 1 { len / tensor.shape[0].max(1) } else { 1 };
    if rows != Rows::Same && !cols.is_multiple_of(tensor.ty.block_len()) {
        return None;
    }
    let bytes = &file[tensor.range.clone()];
    Some(Plain { bytes, encoding: Encoding::Ggml(tensor.ty), rows, cols, len })
}
