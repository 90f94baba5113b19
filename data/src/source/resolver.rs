//! Where things are kept and fetched from: settings, read from the environment once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Settings of [`resolve`](super::resolve).
#[derive(Clone, Debug)]
pub struct Resolver {
    /// The content-addressed cache.
    pub cache_dir: PathBuf,
    /// Refuses whatever the cache does not hold.
    pub offline: bool,
    /// Shows progress on stderr when that is a terminal.
    pub progress: bool,
    /// Hashes files of the cache again instead of trusting size and modification time.
    pub verify: bool,
    /// Expected sha256 of the files of the one source to resolve, by [name](super::ResolvedFile::name).
    pub pins: BTreeMap<String, String>,
    /// The interpreter that runs pip.
    pub python: PathBuf,
    /// The Hugging Face hub.
    pub hub: HubSettings,
}

/// How to reach the Hugging Face hub.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Address without a final slash.
    pub endpoint: String,
    /// Sent as bearer token.
    pub token: Option<Token>,
    /// Asks the hub for nothing, while other sources may be fetched.
    pub offline: bool,
    /// Folder of repositories, shared with Hugging Face's own tools.
    pub cache_dir: PathBuf,
}

/// A secret; its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token without the white space around it, `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl HubSettings {
    /// The hub that is meant when nothing else is said.
    pub const PUBLIC_ENDPOINT: &str = "https://huggingface.co";
}

impl Resolver {
    /// Reads `SEEDCORN_CACHE`, `XDG_CACHE_HOME`, `HOME` and the hub's `HF_ENDPOINT`, `HF_HOME`,
    /// `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_HUB_OFFLINE`.
    ///
    /// Progress is on, `offline` and verification are off, and there are no pins.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Like [`from_env`](Self::from_env) with another environment. Empty values count as unset.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let value = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path = |name: &str| value(name).map(PathBuf::from);
        let text = |name: &str| value(name).and_then(|value| value.into_string().ok());
        let user_cache = path("XDG_CACHE_HOME")
            .or_else(|| path("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(std::env::temp_dir);
        let hub_home = path("HF_HOME").unwrap_or_else(|| user_cache.join("huggingface"));
        let token_path = path("HF_TOKEN_PATH").unwrap_or_else(|| hub_home.join("token"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| HubSettings::PUBLIC_ENDPOINT.to_owned());
        let offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        Self {
            cache_dir: path("SEEDCORN_CACHE").unwrap_or_else(|| user_cache.join("seedcorn")),
            offline: false,
            progress: true,
            verify: false,
            pins: BTreeMap::new(),
            python: PathBuf::from("python3"),
            hub: HubSettings {
                endpoint: endpoint.trim_end_matches('/').to_owned(),
                offline,
                token: text("HF_TOKEN").as_deref().and_then(Token::new).or_else(|| stored(&token_path)),
                cache_dir: path("HF_HUB_CACHE").unwrap_or_else(|| hub_home.join("hub")),
            },
        }
    }

    /// The same settings with the pins of another source.
    #[must_use]
    pub fn with_pins(&self, pins: BTreeMap<String, String>) -> Self {
        Self { pins, ..self.clone() }
    }

    /// Shows that something of unknown length is going on.
    pub(super) fn spinner(&self, text: &str) -> ProgressBar {
        if !self.shows_progress() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        let bar = ProgressBar::new_spinner();
        bar.set_style(style.expect("a constant template parses"));
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    /// Shows progress in bytes.
    pub(super) fn bar(&self, bytes: u64, text: &str) -> ProgressBar {
        if !self.shows_progress() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} ({eta})");
        let bar = ProgressBar::new(bytes);
        bar.set_style(style.expect("a constant template parses"));
        bar.set_message(text.to_owned());
        bar
    }

    fn shows_progress(&self) -> bool {
        self.progress && std::io::stderr().is_terminal()
    }
}

/// Reads the token that `hf auth login` keeps. A token is short; a larger file is not one.
fn stored(path: &Path) -> Option<Token> {
    let small = fs_err::metadata(path).ok().filter(|metadata| metadata.is_file() && metadata.len() < 4096);
    small.and_then(|_| fs_err::read_to_string(path).ok()).as_deref().and_then(Token::new)
}
