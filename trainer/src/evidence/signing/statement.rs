//! The signed statement: which files there are, with which digests, and how they were listed.
//!
//! An in-toto statement of one subject, whose digest is the root digest: the SHA-256 of the digests of all resources
//! in their order. Unknown fields are ignored, as the format demands: later versions may add some.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::bundle::constant;
use super::digest::Digest;
use super::error::FormatFault;
use super::shards;

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";

/// What was signed.
#[derive(Debug)]
pub(super) struct Manifest {
    /// Name of the folder when it was signed; it may have another one now.
    pub model: String,
    /// Digest over all files.
    pub root: Digest,
    /// Whether symbolic links to files were followed.
    pub links: bool,
    /// Paths that were left out, as they were written.
    pub ignored: Vec<String>,
    /// Whether files were cut into shards; then empty files are not listed.
    pub sharded: bool,
    /// The parts of each file in their order; one without a range if the file is whole.
    pub files: BTreeMap<String, Vec<Part>>,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Which bytes; all if none.
    pub range: Option<Range<u64>>,
    /// Their SHA-256.
    pub digest: Digest,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

#[derive(Deserialize, Serialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Deserialize, Serialize)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Deserialize, Serialize)]
struct SubjectDigest {
    sha256: String,
}

#[derive(Deserialize, Serialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize, Serialize)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ignore_paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shard_size: Option<serde_json::Value>,
}

#[derive(Deserialize, Serialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// Reads a statement and checks that it agrees with itself.
pub(super) fn read(payload: &[u8]) -> Result<Manifest, FormatFault> {
    let json = |source| FormatFault::Json { part: "statement", source };
    // What kind of statement it is comes first: only then can its fields be named.
    let head: Head = serde_json::from_slice(payload).map_err(json)?;
    constant("_type", &head.kind, STATEMENT_TYPE)?;
    constant("predicateType", &head.predicate_type, PREDICATE_TYPE)?;
    let statement: Statement = serde_json::from_slice(payload).map_err(json)?;
    let [subject] = statement.subject.as_slice() else {
        return Err(FormatFault::One { what: "subjects", count: statement.subject.len() });
    };
    let Predicate { serialization, resources } = statement.predicate;
    let shard_bytes = method(&serialization)?;
    let digests = resources.iter().map(|resource| digest("digest", &resource.digest));
    let digests = digests.collect::<Result<Vec<_>, _>>()?;
    let (root, said) =
        (Digest::root(digests.iter()), digest("subject.digest.sha256", &subject.digest.sha256)?);
    if root != said {
        return Err(FormatFault::Root { found: root.to_string(), said: said.to_string() });
    }
    Ok(Manifest {
        model: subject.name.clone(),
        root,
        links: serialization.allow_symlinks,
        ignored: serialization.ignore_paths.unwrap_or_default(),
        sharded: shard_bytes.is_some(),
        files: files(resources, digests, shard_bytes)?,
    })
}

/// Returns the size of shards, none if files are whole, if this is a way of listing files that is known here.
fn method(serialization: &Serialization) -> Result<Option<u64>, FormatFault> {
    let unsupported = |field, found: &str, expected| {
        Err(FormatFault::Unsupported { field, found: found.to_owned(), expected })
    };
    if serialization.hash_type != "sha256" {
        return unsupported("hash_type", &serialization.hash_type, "`sha256`");
    }
    match serialization.method.as_str() {
        "files" => Ok(None),
        "shards" => shards::size(serialization.shard_size.as_ref()).map(Some),
        other => unsupported("method", other, "`files` and `shards`"),
    }
}

fn digest(field: &'static str, text: &str) -> Result<Digest, FormatFault> {
    Digest::from_hex(text).ok_or_else(|| FormatFault::Digest { field, found: text.to_owned() })
}

fn files(
    resources: Vec<Resource>,
    digests: Vec<Digest>,
    shard_bytes: Option<u64>,
) -> Result<BTreeMap<String, Vec<Part>>, FormatFault> {
    if resources.is_empty() {
        return Err(FormatFault::NoFile);
    }
    let mut files = BTreeMap::<String, Vec<Part>>::new();
    for (resource, digest) in resources.into_iter().zip(digests) {
        let algorithm = shard_bytes.map_or("sha256".to_owned(), |bytes| format!("sha256-sharded-{bytes}"));
        if resource.algorithm != algorithm {
            let (field, expected) = ("algorithm", "the `hash_type`");
            return Err(FormatFault::Unsupported { field, found: resource.algorithm, expected });
        }
        let (name, range) = match shard_bytes {
            None => (resource.name, None),
            Some(_) => shards::name(&resource.name).map(|(name, range)| (name, Some(range)))?,
        };
        if !is_inner(&name) {
            return Err(FormatFault::Name { name });
        }
        let parts = files.entry(name).or_default();
        parts.push(Part { range, digest });
    }
    for (name, parts) in &mut files {
        match shard_bytes {
            None if parts.len() > 1 => return Err(FormatFault::Twice { name: name.clone() }),
            None => {}
            Some(shard_bytes) => shards::order(name, parts, shard_bytes)?,
        }
    }
    Ok(files)
}

/// Whether a name stays below the folder: relative, and each part of it a name.
fn is_inner(name: &str) -> bool {
    !name.contains('\0') && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Writes the statement of whole files, in the order of their names.
pub(super) fn write(manifest: &Manifest) -> Result<Vec<u8>, serde_json::Error> {
    let resources = manifest.files.iter().flat_map(|(name, parts)| {
        parts.iter().map(|part| Resource {
            name: name.clone(),
            algorithm: "sha256".to_owned(),
            digest: part.digest.to_string(),
        })
    });
    serde_json::to_vec(&Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject {
            name: manifest.model.clone(),
            digest: SubjectDigest { sha256: manifest.root.to_string() },
        }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Predicate {
            serialization: Serialization {
                method: "files".to_owned(),
                hash_type: "sha256".to_owned(),
                allow_symlinks: manifest.links,
                ignore_paths: Some(manifest.ignored.clone()),
                shard_size: None,
            },
            resources: resources.collect(),
        },
    })
}
