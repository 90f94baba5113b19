//! Files of a Hugging Face repository, through the `hf-hub` crate and into the hub's own cache.
//!
//! The revision is turned into a commit first and all files are taken at that commit, so a push in
//! between cannot mix two versions. Of a model only data is fetched, never code.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use rayon::prelude::*;

use super::error::SourceError;
use super::hash::{hash_file, is_sha256};
use super::layout::{CONFIG, INDEX, OPTIONAL, WEIGHTS, shards};
use super::near::nearest;
use super::resolver::Resolver;
use super::{HubKind, Resolved, ResolvedFile};

/// Retries of an interrupted download, each from where the last one ended.
const RETRIES: usize = 3;

/// What to fetch.
pub(super) struct Request<'a> {
    pub(super) kind: HubKind,
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
    pub(super) path: Option<&'a str>,
}

/// A repository at one commit.
struct Snapshot<'a> {
    resolver: &'a Resolver,
    api: Api,
    files: ApiRepo,
    folder: PathBuf,
    repo: &'a str,
    commit: String,
    names: Vec<String>,
}

/// A file in the hub's cache.
struct Download {
    name: String,
    path: PathBuf,
    /// Its sha256, where the hub says.
    announced: Option<String>,
}

/// Fetches one file, or the files of a model.
pub(super) fn fetch(request: &Request<'_>, resolver: &Resolver) -> Result<Resolved, SourceError> {
    let snapshot = Snapshot::open(request, resolver)?;
    if let Some(path) = request.path {
        snapshot.require(path)?;
        let mut file = snapshot.download(path)?.hashed()?;
        path.rsplit('/').next().unwrap_or(path).clone_into(&mut file.name);
        return Ok(Resolved { root: file.path.clone(), files: vec![file], revision: Some(snapshot.commit) });
    }
    // Hashed when all are there: what the hashes say is then what lies on disk, whatever the hub's
    // ETags made of it.
    let files = snapshot.model()?;
    let mut files = files.into_par_iter().map(Download::hashed).collect::<Result<Vec<_>, _>>()?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Resolved { root: snapshot.folder, files, revision: Some(snapshot.commit) })
}

/// Fetches one file if the repository has it, and tells the commit.
pub(super) fn fetch_card(
    request: &Request<'_>,
    resolver: &Resolver,
) -> Result<(Option<Resolved>, String), SourceError> {
    let snapshot = Snapshot::open(request, resolver)?;
    let path = request.path.filter(|path| snapshot.has(path));
    let Some(path) = path else { return Ok((None, snapshot.commit)) };
    let file = snapshot.download(path)?.hashed()?;
    let revision = Some(snapshot.commit.clone());
    Ok((Some(Resolved { root: file.path.clone(), files: vec![file], revision }), snapshot.commit))
}

impl<'a> Snapshot<'a> {
    /// Asks the hub which commit a revision is and which files it has.
    fn open(request: &Request<'a>, resolver: &'a Resolver) -> Result<Self, SourceError> {
        let Request { repo, revision, .. } = *request;
        let what = format!("`{repo}` at `{revision}`");
        let fail = |error| failed(resolver, what.clone(), error);
        let cache = Cache::new(resolver.hub.cache_dir.clone());
        let token = resolver.hub.token.as_ref().map(|token| token.secret().to_owned());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(resolver.hub.endpoint.clone())
            .with_token(token)
            .with_retries(RETRIES)
            .with_progress(false)
            .with_user_agent("seedcorn", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(fail)?;
        let kind = match request.kind {
            HubKind::Model => RepoType::Model,
            HubKind::Dataset => RepoType::Dataset,
        };
        let at = |revision: &str| Repo::with_revision(repo.to_owned(), kind, revision.to_owned());
        let spinner = resolver.spinner(&format!("asking the hub for {repo}"));
        let info = api.repo(at(revision)).info();
        spinner.finish_and_clear();
        let info = info.map_err(fail)?;
        // The commit becomes part of a path.
        if !is_commit(&info.sha) {
            return Err(unusable(resolver, "commit", &info.sha));
        }
        Ok(Self {
            resolver,
            files: api.repo(at(&info.sha)),
            api,
            folder: cache.repo(at(&info.sha)).pointer_path(&info.sha),
            repo,
            commit: info.sha,
            names: info.siblings.into_iter().map(|sibling| sibling.rfilename).collect(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|present| present == name)
    }

    fn require(&self, name: &str) -> Result<(), SourceError> {
        if self.has(name) {
            return Ok(());
        }
        let present = || self.names.iter().map(String::as_str);
        let mut similar = nearest(name, present());
        if similar.is_empty() {
            // A repository of GGUF files is the usual case of a model without safetensors.
            let gguf = |name: &&str| Path::new(name).extension().is_some_and(|ext| ext == "gguf");
            similar = present().filter(gguf).take(5).map(str::to_owned).collect();
        }
        Err(SourceError::NotInRepo { repo: self.repo.to_owned(), wanted: name.to_owned(), similar })
    }

    /// Fetches the files of a model.
    fn model(&self) -> Result<Vec<Download>, SourceError> {
        self.require(CONFIG)?;
        let mut files = vec![self.download(CONFIG)?];
        for name in OPTIONAL.into_iter().filter(|name| self.has(name)) {
            files.push(self.download(name)?);
        }
        if self.has(INDEX) && !self.has(WEIGHTS) {
            let index = self.download(INDEX)?;
            for shard in shards(&index.path)? {
                self.require(&shard)?;
                files.push(self.download(&shard)?);
            }
            files.push(index);
        } else {
            self.require(WEIGHTS)?;
            files.push(self.download(WEIGHTS)?);
        }
        Ok(files)
    }

    /// Fetches one file unless the hub's cache has it.
    fn download(&self, name: &str) -> Result<Download, SourceError> {
        let fail = |error| failed(self.resolver, format!("`{name}` of `{}`", self.repo), error);
        let metadata = self.api.metadata(&self.files.url(name)).map_err(fail)?;
        // The client makes paths of these two; the names were checked when they were read.
        let etag = metadata.etag().trim_start_matches("W/");
        if !is_etag(etag) {
            return Err(unusable(self.resolver, "ETag", metadata.etag()));
        }
        if metadata.commit_hash() != self.commit {
            return Err(unusable(self.resolver, "commit", metadata.commit_hash()));
        }
        // Large files carry their sha256 as ETag; of others only a download can tell.
        let announced = is_sha256(etag).then(|| etag.to_owned());
        let path = self.folder.join(name);
        let size = fs_err::metadata(&path).ok().map(|metadata| metadata.len());
        if size.is_none() || (announced.is_some() && size != Some(metadata.size() as u64)) {
            let bar = self.resolver.bar(metadata.size() as u64, name);
            let fetched = self.files.download_with_progress(name, bar.clone());
            bar.finish_and_clear();
            fetched.map_err(fail)?;
        }
        Ok(Download { name: name.to_owned(), path, announced })
    }
}

impl Download {
    fn hashed(self) -> Result<ResolvedFile, SourceError> {
        let Self { name, path, announced } = self;
        let (sha256, bytes) = hash_file(&path)?;
        match announced {
            Some(expected) if expected != sha256 => {
                // The link is of no use to who has to delete the file.
                let path = fs_err::canonicalize(&path)?;
                Err(SourceError::CorruptDownload { path, expected, found: sha256 })
            }
            _ => Ok(ResolvedFile { name, path, bytes, sha256 }),
        }
    }
}

fn is_commit(text: &str) -> bool {
    (40..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_etag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn unusable(resolver: &Resolver, what: &'static str, value: &str) -> SourceError {
    let value = value.chars().take(80).flat_map(char::escape_default).collect();
    SourceError::HubAnswer { endpoint: resolver.hub.endpoint.clone(), what, value }
}

/// Turns the client's error into ours: a status where the hub answered, else the client's words.
fn failed(resolver: &Resolver, what: String, error: ApiError) -> SourceError {
    let endpoint = resolver.hub.endpoint.clone();
    match status(&error) {
        Some(status) => SourceError::HubStatus { endpoint, status, what },
        None => SourceError::Hub { endpoint, what, cause: Box::new(error) },
    }
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}
