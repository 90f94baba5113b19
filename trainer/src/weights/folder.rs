//! safetensors weights: one file, or shards with an index.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use memmap2::Mmap;
use seedcorn_kernels::ggml::GgmlType;
use serde::Deserialize;

use super::bnb::{self, Role};
use super::plain::{Encoding, Plain, Rows};
use super::safetensors::{ElementType, Entry, Header};
use super::{Dtype, Quantized, TensorInfo, TensorSource, WeightsError};

/// Finds the weights that a path stands for: the path itself, or the one in a folder.
pub(super) fn weights_in(path: &Path) -> Result<PathBuf, WeightsError> {
    if !fs_err::metadata(path)?.is_dir() {
        return Ok(path.to_owned());
    }
    for name in ["model.safetensors.index.json", "model.safetensors"] {
        if path.join(name).is_file() {
            return Ok(path.join(name));
        }
    }
    let mut ggufs = Vec::new();
    for entry in fs_err::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "gguf") {
            ggufs.push(file);
        }
    }
    match <[PathBuf; 1]>::try_from(ggufs) {
        Ok([gguf]) => Ok(gguf),
        Err(_) => Err(WeightsError::NoWeights { folder: path.to_owned() }),
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

struct Shard {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self, WeightsError> {
        let map = super::map(&path)?;
        match Header::parse(&map) {
            Ok(header) => Ok(Self { path, map, header }),
            Err(source) => Err(WeightsError::Safetensors { file: path, source: Box::new(source) }),
        }
    }
}

/// Tensors of one safetensors file or of all shards of an index.
pub struct SafetensorsSource {
    shards: Vec<Shard>,
    /// Shard of each stored tensor.
    stored: BTreeMap<String, usize>,
    /// What each stored tensor is, for those that belong to a quantized one.
    roles: BTreeMap<String, Role>,
}

impl SafetensorsSource {
    /// Opens a `.safetensors` file or a `.safetensors.index.json`.
    ///
    /// # Errors
    /// If a file is missing or any header is invalid.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let (shards, stored) = if path.extension().is_some_and(|extension| extension == "json") {
            open_index(path)?
        } else {
            let shard = Shard::open(path.to_owned())?;
            let stored = shard.header.tensors.keys().map(|name| (name.clone(), 0)).collect();
            (vec![shard], stored)
        };
        let mut source = Self { shards, stored, roles: BTreeMap::new() };
        source.roles = bnb::roles(&source);
        Ok(source)
    }

    /// Names of all stored tensors, parts of quantized ones included.
    pub(super) fn stored_names(&self) -> impl Iterator<Item = &str> {
        self.stored.keys().map(String::as_str)
    }

    /// A stored tensor and its bytes.
    pub(super) fn stored(&self, name: &str) -> Option<(&Entry, &[u8])> {
        let shard = &self.shards[*self.stored.get(name)?];
        let entry = &shard.header.tensors[name];
        Some((entry, &shard.map[entry.range.clone()]))
    }

    fn missing(&self, name: &str) -> WeightsError {
        WeightsError::MissingTensor { tensor: name.to_owned(), count: self.stored.len() - self.hidden() }
    }

    fn hidden(&self) -> usize {
        self.roles.values().filter(|role| matches!(role, Role::Part)).count()
    }

    fn file_of(&self, name: &str) -> PathBuf {
        self.shards[self.stored[name]].path.clone()
    }
}

impl TensorSource for SafetensorsSource {
    fn names(&self) -> Vec<String> {
        let whole = |name: &&String| !matches!(self.roles.get(*name), Some(Role::Part));
        self.stored.keys().filter(whole).cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let (entry, _) = self.stored(name)?;
        let file = self.file_of(name);
        let (shape, dtype) = match self.roles.get(name) {
            None => (entry.shape.clone(), Dtype::Plain(entry.dtype)),
            Some(Role::Part) => return None,
            Some(Role::Int8) => (entry.shape.clone(), Dtype::Int8),
            Some(Role::Fp4) => (entry.shape.clone(), Dtype::Fp4),
            Some(Role::Nf4) => {
                let shape =
                    bnb::state(self, name).map_or_else(|_| entry.shape.clone(), |state| state.shape.to_vec());
                (shape, Dtype::Nf4)
            }
        };
        Some(TensorInfo { shape, dtype, file })
    }

    fn plain(&self, name: &str) -> Result<Plain<'_>, WeightsError> {
        let (entry, bytes) = self.stored(name).ok_or_else(|| self.missing(name))?;
        let encoding = encoding(entry.dtype).ok_or_else(|| WeightsError::NotFloat {
            file: self.file_of(name),
            tensor: name.to_owned(),
            dtype: entry.dtype.name(),
        })?;
        let len = entry.shape.iter().product();
        Ok(Plain { bytes, encoding, rows: Rows::Same, cols: 1, len })
    }

    fn read_quantized(&self, name: &str) -> Result<Option<Quantized>, WeightsError> {
        match self.roles.get(name) {
            _ if !self.stored.contains_key(name) => Err(self.missing(name)),
            None => Ok(None),
            Some(Role::Part) => Err(self.missing(name)),
            Some(Role::Nf4) => bnb::read_nf4(self, name).map(|matrix| Some(Quantized::Nf4(matrix))),
            Some(Role::Int8) => bnb::read_int8(self, name).map(|matrix| Some(Quantized::Int8(matrix))),
            Some(Role::Fp4) => Err(WeightsError::QuantFormat {
                tensor: name.to_owned(),
                format: "bitsandbytes fp4".to_owned(),
            }),
        }
    }

    fn release(&self, name: &str) {
        if let Some(shard) = self.stored.get(name).map(|&shard| &self.shards[shard]) {
            super::release(&shard.map, &shard.header.tensors[name].range);
        }
    }
}

/// How the elements of a float type are decoded; `None` for other types.
fn encoding(dtype: ElementType) -> Option<Encoding> {
    Some(match dtype {
        ElementType::F32 => Encoding::Ggml(GgmlType::F32),
        ElementType::F16 => Encoding::Ggml(GgmlType::F16),
        ElementType::BF16 => Encoding::Ggml(GgmlType::BF16),
        ElementType::F64 => Encoding::F64,
        _ => return None,
    })
}

type Stored = (Vec<Shard>, BTreeMap<String, usize>);

fn open_index(path: &Path) -> Result<Stored, WeightsError> {
    let file = || path.to_owned();
    let index: Index = serde_json::from_slice(&fs_err::read(path)?)
        .map_err(|source| WeightsError::Index { file: file(), source })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut shards: Vec<Shard> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut stored = BTreeMap::new();
    for (tensor, shard) in index.weight_map {
        // Only plain names: `..`, absolute paths and drive letters must not lead out of the folder.
        if !Path::new(&shard).components().all(|part| matches!(part, Component::Normal(_)))
            || shard.is_empty()
        {
            return Err(WeightsError::IndexPath { file: file(), tensor, shard });
        }
        let number = if let Some(&number) = numbers.get(&shard) {
            number
        } else {
            let shard_path = folder.join(&shard);
            if !shard_path.is_file() {
                return Err(WeightsError::MissingShard { file: file(), shard });
            }
            shards.push(Shard::open(shard_path)?);
            numbers.insert(shard.clone(), shards.len() - 1);
            shards.len() - 1
        };
        if !shards[number].header.tensors.contains_key(&tensor) {
            return Err(WeightsError::NotInShard { file: file(), tensor, shard });
        }
        stored.insert(tensor, number);
    }
    Ok((shards, stored))
}
