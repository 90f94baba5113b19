//! `seedcorn sign`: a signature over the files of a folder.

use super::args::{self, Global};
use crate::evidence::signing::{PrivateKey, SignOptions, sign};
use crate::log::{Verbosity, data_line, note_line};

pub(super) fn run(args: &args::Sign, global: &Global) -> anyhow::Result<()> {
    let key = PrivateKey::read(&args.key)?;
    let options = SignOptions {
        signature: args.signature.clone(),
        ignore: args.ignore.clone(),
        allow_symlinks: args.allow_symlinks,
    };
    let signed = sign(&args.folder, &key, &options)?;
    for name in &signed.outside {
        note_line(&format!(
            "warning: `{}` links to a file outside of the folder: only its content is signed",
            name.escape_debug()
        ));
    }
    if global.verbosity() != Verbosity::Quiet {
        let public = key.public();
        let files = if signed.files == 1 { "file" } else { "files" };
        data_line(&format!("signed: {} {files}, {} bytes", signed.files, signed.bytes))?;
        if !signed.ignored.is_empty() {
            data_line(&format!("not signed: {}", signed.ignored.join(", ").escape_debug()))?;
        }
        data_line(&format!("root digest: {}", signed.root))?;
        data_line(&format!("key: {}, {}", public.curve(), public.fingerprint()))?;
        data_line(&format!("signature: {}", signed.signature.display()))?;
    }
    Ok(())
}
