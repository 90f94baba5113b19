//! A base model as files: its configuration, tokenizer and tensors, before any weight is read.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use seedcorn_adapters::target::{LinearModule, OUTPUT_HEAD};
use seedcorn_data::Tokenizer;
use seedcorn_data::source::{self, Resolved, Resolver, Source, SourceError};
use serde_json::Value;

use crate::model::{ConfigError, Cut, Decoder, LoadError, ModelSpec, Precision, Slice, check, load_part};
use crate::weights::{self, GgufAbout, GgufSource, TensorSource, WeightsError};

/// A base model whose weights have not been read yet.
pub struct Base {
    /// The source as it was typed.
    pub name: String,
    /// Its files and their hashes.
    pub resolved: Resolved,
    /// `config.json`, or what stands for it.
    pub config: Value,
    /// What the configuration means.
    pub spec: ModelSpec,
    /// The tokenizer with its chat template; a folder without `tokenizer.json` has none, which is enough for
    /// data that is tokenized already.
    pub tokenizer: Option<Tokenizer>,
    /// Named tensors.
    pub weights: Box<dyn TensorSource>,
    /// What a GGUF file says about itself.
    pub about: Option<GgufAbout>,
}

/// Why a base model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The source could not be found or fetched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The weights' files could not be opened.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The configuration is not one of a supported model.
    #[error("could not use the configuration of `{}`", path.display())]
    Config {
        /// The model.
        path: PathBuf,
        /// Why.
        source: ConfigError,
    },
    /// The tokenizer could not be read.
    #[error("could not use the tokenizer of `{}`", path.display())]
    Tokenizer {
        /// The model.
        path: PathBuf,
        /// Why.
        source: seedcorn_data::Error,
    },
    /// The weights could not be loaded.
    #[error("could not load the model `{}`", path.display())]
    Load {
        /// The model.
        path: PathBuf,
        /// Why.
        source: LoadError,
    },
    /// A file of the model is missing or is not JSON.
    #[error("could not read `{}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The tokenizer has ids that the embedding has no row for.
    #[error(
        "the tokenizer of `{}` has ids up to {highest}, but the embedding has {rows} rows",
        path.display()
    )]
    Vocabulary {
        /// The model.
        path: PathBuf,
        /// The tokenizer's highest id.
        highest: usize,
        /// Rows of the embedding.
        rows: usize,
    },
}

/// Finds or fetches a model and opens everything but its weights.
///
/// # Errors
/// [`BaseError`]
pub fn open(text: &str, folder: &Path, resolver: &Resolver) -> Result<Base, BaseError> {
    let source = Source::parse(text, folder)?;
    let (resolved, opened) = source::resolve_while(&source, resolver, Opened::new)?;
    opened?.checked(text.to_owned(), resolved)
}

/// Opens everything but the weights of a model whose files are there.
///
/// # Errors
/// As [`open`].
pub fn read(name: String, resolved: Resolved) -> Result<Base, BaseError> {
    Opened::new(&resolved.root)?.checked(name, resolved)
}

/// The files of a model, opened.
struct Opened {
    config: Value,
    tokenizer: Option<Tokenizer>,
    weights: Box<dyn TensorSource>,
    about: Option<GgufAbout>,
}

impl Opened {
    fn new(root: &Path) -> Result<Self, BaseError> {
        let fault = |source| BaseError::Tokenizer { path: root.to_owned(), source };
        if root.is_dir() {
            let weights = weights::open(root)?;
            let config = read_json(&root.join("config.json"))?;
            let has_tokenizer = root.join("tokenizer.json").exists();
            let tokenizer = has_tokenizer.then(|| Tokenizer::from_folder(root)).transpose().map_err(fault)?;
            return Ok(Self { config, tokenizer, weights, about: None });
        }
        let gguf = GgufSource::open(root)?;
        let tokenizer = Some(Tokenizer::from_parts(gguf.tokenizer()?).map_err(fault)?);
        let (config, about) = (gguf.config()?, Some(gguf.about()));
        Ok(Self { config, tokenizer, weights: Box::new(gguf), about })
    }

    /// Reads the configuration and compares the vocabularies.
    fn checked(self, name: String, resolved: Resolved) -> Result<Base, BaseError> {
        let Self { config, tokenizer, weights, about } = self;
        let spec = ModelSpec::from_json(&config)
            .map_err(|source| BaseError::Config { path: resolved.root.clone(), source })?;
        let (ids, rows) = (tokenizer.as_ref().map_or(0, Tokenizer::vocab_size), spec.vocab_size);
        if ids > rows {
            return Err(BaseError::Vocabulary { path: resolved.root, highest: ids - 1, rows });
        }
        Ok(Base { name, resolved, config, spec, tokenizer, weights, about })
    }
}

impl Base {
    /// Checks names, shapes and types of all tensors, and that the model can be cut into so many slices; reads no weight.
    ///
    /// # Errors
    /// [`BaseError::Load`]
    pub fn check(&self, precision: Precision, tensor: usize) -> Result<(), BaseError> {
        check(&self.spec, self.weights.as_ref(), precision, tensor)
            .map_err(|source| BaseError::Load { path: self.resolved.root.clone(), source })
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// [`BaseError::Load`]
    pub fn load(&self, precision: Precision, device: &Device) -> Result<Decoder, BaseError> {
        self.load_part(precision, device, Slice::WHOLE, None)
    }

    /// Reads the weights of one slice of the model; where ranks share each matrix of it, this one's part.
    ///
    /// # Errors
    /// [`BaseError::Load`]
    pub fn load_part(
        &self,
        precision: Precision,
        device: &Device,
        slice: Slice,
        cut: Option<Cut>,
    ) -> Result<Decoder, BaseError> {
        load_part(self.spec.clone(), self.weights.as_ref(), precision, device, slice, cut)
            .map_err(|source| BaseError::Load { path: self.resolved.root.clone(), source })
    }

    /// Lists the linear layers that an adapter can sit on: all but the output head.
    pub fn linear_modules(&self) -> Vec<LinearModule> {
        let modules = self.spec.linear_modules().into_iter();
        modules.filter(|module| module.name != OUTPUT_HEAD).collect()
    }

    /// Lists the ids that end a text: the configuration's and the tokenizer's.
    pub fn stop_ids(&self) -> Vec<u32> {
        let mut ids = self.spec.eos_token_ids.clone();
        ids.extend(self.tokenizer.as_ref().and_then(Tokenizer::eos_id));
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

fn read_json(path: &Path) -> Result<Value, BaseError> {
    let fault = |source| BaseError::Json { path: path.to_owned(), source };
    let text = fs_err::read(path).map_err(fault)?;
    serde_json::from_slice(&text).map_err(|error| fault(error.into()))
}
