//! A hub on this machine: serves a small repository as the Hugging Face Hub does, and misbehaves on demand.

use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vitadapt::system::digest::hex;
pub use vitadapt::system::digest::sha256;

/// The commit of every repository here.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte asked for.
    pub fn start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    /// Whether it asks for the contents of a file.
    pub fn gets(&self, file: &str) -> bool {
        self.method == "GET" && self.path.ends_with(&format!("/{file}"))
    }

    /// Whether it asks for anything about a file.
    pub fn names(&self, file: &str) -> bool {
        self.path.ends_with(&format!("/{file}"))
    }
}

/// What the server does with a request.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Wait before the body, or, where it is cut, after what is sent of it.
    pub stall: Option<Duration>,
    /// Send the body a byte at a time, with this pause after each.
    pub drip: Option<Duration>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn send(&self, method: &str, mut stream: TcpStream) {
        let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", self.status);
        if !self.headers.iter().any(|(name, _)| *name == "content-length") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        // An empty length announces none.
        for (name, value) in self.headers.iter().filter(|(_, value)| !value.is_empty()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        // A client that has hung up is part of several tests.
        let _ = stream.write_all(head.as_bytes());
        let body = if method == "HEAD" { &[] } else { &self.body[..self.cut.unwrap_or(self.body.len())] };
        if self.cut.is_none() {
            self.stall.into_iter().for_each(std::thread::sleep);
        }
        if let Some(pause) = self.drip {
            for byte in body {
                std::thread::sleep(pause);
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
            }
            return;
        }
        let _ = stream.write_all(body);
        if self.cut.is_some() {
            self.stall.into_iter().for_each(std::thread::sleep);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// A repository with one commit, the head of `main`.
#[derive(Debug, Clone, Default)]
pub struct Repo {
    pub files: BTreeMap<String, (Vec<u8>, bool)>,
    /// Where large files are redirected to; none: they are served like small ones.
    pub storage: Option<String>,
}

impl Repo {
    /// Adds a file; weights count as large.
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        let large = name.ends_with(".safetensors");
        self.files.insert(name.into(), (contents.into(), large));
        self
    }

    /// What the hub would answer.
    pub fn answer(&self, request: &Request) -> Reply {
        let parts: Vec<&str> = request.path.trim_start_matches('/').splitn(5, '/').collect();
        let &[_, _, "resolve", revision, file] = parts.as_slice() else { return Reply::status(404) };
        if revision != "main" && revision != COMMIT {
            return Reply::status(404).with("x-error-code", "RevisionNotFound");
        }
        let reply = Reply::status(200).with("x-repo-commit", COMMIT);
        let Some((contents, large)) = self.files.get(file) else {
            return Reply { status: 404, ..reply }.with("x-error-code", "EntryNotFound");
        };
        if !large {
            return content(reply.with("etag", format!("\"{}\"", git_sum(contents))), contents, request);
        }
        let reply = reply
            .with("x-linked-etag", format!("\"{}\"", sha256(contents)))
            .with("x-linked-size", contents.len().to_string());
        match &self.storage {
            Some(storage) => Reply { status: 302, ..reply }
                .with("location", format!("{storage}/blob/{file}?signature=s3cret"))
                .body("moved"),
            None => content(reply, contents, request),
        }
    }

    /// What the storage behind the hub would answer.
    pub fn storage_answer(&self, request: &Request) -> Reply {
        let name = request.path.rsplit('/').next().unwrap().split('?').next().unwrap();
        content(Reply::status(200), &self.files[name].0, request)
    }

    pub fn contents(&self, file: &str) -> &[u8] {
        &self.files[file].0
    }
}

/// The whole contents, or what the request's range asks for.
pub fn content(reply: Reply, contents: &[u8], request: &Request) -> Reply {
    match request.start() {
        Some(start) if start < contents.len() => Reply { status: 206, ..reply }
            .with("content-range", format!("bytes {start}-{}/{}", contents.len() - 1, contents.len()))
            .body(&contents[start..]),
        Some(_) => Reply { status: 416, ..reply },
        None if request.method == "HEAD" => reply.with("content-length", contents.len().to_string()),
        None => reply.body(contents),
    }
}

pub fn git_sum(bytes: &[u8]) -> String {
    hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

/// A server that remembers what it was asked. It stops when dropped.
pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    /// Answers each request by `answer`, which also gets the number of earlier requests of the same method and path.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, connections) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<Mutex<usize>>::default());
        let server = Self { url, seen: Arc::clone(&seen), connections: Arc::clone(&connections) };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                *connections.lock().unwrap() += 1;
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    let earlier = {
                        let mut seen = seen.lock().unwrap();
                        let same = |other: &&Request| other.method == request.method && other.path == request.path;
                        let earlier = seen.iter().filter(same).count();
                        seen.push(request.clone());
                        earlier
                    };
                    answer(&request, earlier).send(&request.method, stream);
                });
            }
        });
        server
    }

    /// Serves a repository.
    pub fn of(repo: &Repo) -> Self {
        let repo = repo.clone();
        Self::start(move |request, _| repo.answer(request))
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How often someone connected, with or without a request.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    Some(Request { method, path, headers })
}
