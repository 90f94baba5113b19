//! A small hub: the routes and headers of the real one that a client reads.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tiny_http::{Header, Request, Response, Server};

use crate::source::hash::HashingWriter;

/// The only commit of the only repository.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The only repository, as model and as data set.
pub(super) const REPO: &str = "org/name";

/// What the hub serves and which of its answers are wrong.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) token: Option<String>,
    pub(super) commit: String,
    pub(super) etag: Option<String>,
}

/// A running hub; it ends when dropped.
pub(super) struct Hub {
    pub(super) endpoint: String,
    server: Arc<Server>,
    requests: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Content {
    pub(super) fn new(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        Self { files, token: None, commit: COMMIT.to_owned(), etag: None }
    }

    pub(super) fn serve(self) -> Hub {
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let endpoint = format!("http://{}", server.server_addr().to_ip().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let (server, requests, endpoint) = (server.clone(), requests.clone(), endpoint.clone());
            move || {
                for request in server.incoming_requests() {
                    requests.lock().unwrap().push(request.url().to_owned());
                    self.answer(&endpoint, request);
                }
            }
        });
        Hub { endpoint, server, requests, thread: Some(thread) }
    }

    fn answer(&self, endpoint: &str, request: Request) {
        let url = request.url().to_owned();
        let wanted = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if wanted.is_some() && wanted.as_deref() != field(&request, "Authorization") {
            return respond(request, Response::from_string("no").with_status_code(401));
        }
        let info_of = |kind: &&str| {
            let revision = url.strip_prefix(&format!("/api/{kind}/{REPO}/revision/"));
            revision.is_some_and(|revision| revision == "main" || revision == self.commit)
        };
        if ["models", "datasets"].iter().any(info_of) {
            let names = self.files.keys().map(|name| serde_json::json!({ "rfilename": name }));
            let info =
                serde_json::json!({ "id": REPO, "sha": self.commit, "siblings": names.collect::<Vec<_>>() });
            return respond(request, Response::from_string(info.to_string()));
        }
        let plain = url.trim_start_matches("/datasets");
        let resolved = plain.strip_prefix(&format!("/{REPO}/resolve/{}/", self.commit));
        let Some((name, bytes)) = resolved
            .or_else(|| url.strip_prefix("/cdn/"))
            .and_then(|name| self.files.get(name).map(|bytes| (name.to_owned(), bytes)))
        else {
            return respond(request, Response::from_string("no").with_status_code(404));
        };
        // Large files live elsewhere: their address redirects, and carries their sha256.
        let large = ["safetensors", "gguf"]
            .map(OsStr::new)
            .contains(&Path::new(&name).extension().unwrap_or_default());
        let sha256 = sha256(bytes);
        let etag = self.etag.clone().unwrap_or(if large { sha256 } else { sha256[..40].to_owned() });
        if large && resolved.is_some() {
            let response = Response::empty(302)
                .with_header(header("Location", &format!("{endpoint}/cdn/{name}")))
                .with_header(header("X-Linked-ETag", &format!("\"{etag}\"")))
                .with_header(header("X-Linked-Size", &bytes.len().to_string()))
                .with_header(header("X-Repo-Commit", &self.commit));
            return respond(request, response);
        }
        let (start, end) = range(field(&request, "Range"), bytes.len());
        let response = Response::from_data(&bytes[start..end])
            .with_status_code(206)
            .with_header(header("Content-Range", &format!("bytes {start}-{}/{}", end - 1, bytes.len())))
            .with_header(header("ETag", &format!("\"{etag}\"")))
            .with_header(header("X-Repo-Commit", &self.commit));
        respond(request, response);
    }
}

impl Hub {
    /// Paths asked for so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn respond<R: std::io::Read>(request: Request, response: Response<R>) {
    // A client may hang up first; the test sees that on its side.
    let _ = request.respond(response);
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name.as_bytes(), value.as_bytes()).unwrap()
}

fn field<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
}

/// Reads `bytes=a-b` or `bytes=a-`.
fn range(text: Option<&str>, len: usize) -> (usize, usize) {
    let Some((start, end)) = text.and_then(|text| text.strip_prefix("bytes=")?.split_once('-')) else {
        return (0, len);
    };
    let end = end.parse().map_or(len, |last: usize| (last + 1).min(len));
    (start.parse().unwrap(), end)
}

fn sha256(bytes: &[u8]) -> String {
    let mut writer = HashingWriter::new(std::io::sink());
    writer.write_all(bytes).unwrap();
    writer.finish().0
}
