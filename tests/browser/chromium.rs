//! A headless Chromium, driven over a pipe by its `DevTools` protocol.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const LOG: &str = "stderr.log";
/// For each answer; a cold start on a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running browser with one page open; it ends with the value.
pub struct Chromium {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last_id: u64,
    /// What arrived beside the answers.
    events: Vec<Value>,
    /// Holds the profile and the log until the browser has ended.
    folder: tempfile::TempDir,
}

/// What the page is opened on.
#[derive(Clone, Copy)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
    pub touch: bool,
}

impl Chromium {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The protocol is spoken on descriptors 3 and 4; the shell puts the child's input and output there.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 1>&2"#, "sh"]).arg(executable());
        command.args([
            "--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
        ]);
        command.args(["--disable-dev-shm-usage", "--disable-background-networking", "--force-color-profile=srgb"]);
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        if is_root() {
            command.arg("--no-sandbox"); // Chromium has no sandbox for root and refuses to start with one
        }
        command
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join(LOG)).unwrap());
        let mut process = command.spawn().unwrap();
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let Ok(value) = serde_json::from_slice(&message) else { return };
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let session = String::new();
        let mut browser = Self { process, commands, messages, session, last_id: 0, events: Vec::new(), folder };
        let target = browser.command("Target.createTarget", &json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.command("Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        attached["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.command(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Opens a file and waits until it is loaded and drawn.
    pub fn open(&mut self, file: &Path, screen: Screen) {
        let Screen { width, height, dark, touch } = screen;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch});
        self.command("Emulation.setDeviceMetricsOverride", &metrics);
        self.command("Emulation.setTouchEmulationEnabled", &json!({"enabled": touch}));
        let scheme = json!([{"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }}]);
        self.command("Emulation.setEmulatedMedia", &json!({"features": scheme}));
        self.events.clear();
        self.command("Page.navigate", &json!({"url": format!("file://{}", file.display())}));
        self.wait_for("Page.loadEventFired");
        self.settle();
    }

    /// Waits until what has changed is drawn.
    pub fn settle(&mut self) {
        self.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn())))");
    }

    /// The value of a JavaScript expression, awaited if it is a promise.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.command("Runtime.evaluate", &params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    pub fn mouse(&mut self, kind: &str, x: f64, y: f64) {
        let button = if kind == "mouseMoved" { "none" } else { "left" };
        let params = json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": 1});
        self.command("Input.dispatchMouseEvent", &params);
        self.settle();
    }

    pub fn wheel(&mut self, x: f64, y: f64, delta: f64) {
        let params = json!({"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": delta});
        self.command("Input.dispatchMouseEvent", &params);
        self.settle();
    }

    /// Fingers at these places; none lifts them.
    pub fn touch(&mut self, kind: &str, fingers: &[(f64, f64)]) {
        let points: Vec<Value> =
            fingers.iter().enumerate().map(|(id, (x, y))| json!({"x": x, "y": y, "id": id})).collect();
        self.command("Input.dispatchTouchEvent", &json!({"type": kind, "touchPoints": points}));
        self.settle();
    }

    pub fn press(&mut self, key: &str) {
        // Tab moves the focus by its number; the others are read by their name.
        let code = if key == "Tab" { 9 } else { 0 };
        for kind in ["keyDown", "keyUp"] {
            self.command(
                "Input.dispatchKeyEvent",
                &json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}),
            );
        }
        self.settle();
    }

    /// Everything since [`Chromium::open`] that a faultless page does not do: errors, warnings, requests.
    pub fn complaints(&mut self) -> Vec<Value> {
        while let Ok(message) = self.messages.try_recv() {
            self.events.push(message);
        }
        let is_complaint = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" | "Log.entryAdded" => true,
            "Runtime.consoleAPICalled" => event["params"]["type"] != "log",
            "Network.requestWillBeSent" => {
                let url = event["params"]["request"]["url"].as_str().unwrap();
                event["params"]["type"] != "Document" && !url.starts_with("data:")
            }
            _ => false,
        };
        self.events.iter().filter(is_complaint).cloned().collect()
    }

    /// Saves what is seen into the folder named by `VITADAPT_PLOTS`, if there is one, to look at.
    pub fn screenshot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("VITADAPT_PLOTS").map(PathBuf::from) else { return };
        // The page decodes its own picture: the bytes come as base64, which Rust's standard library cannot read.
        let picture = self.command("Page.captureScreenshot", &json!({"format": "png"}));
        let base64 = folder.join(format!("{name}.png.base64"));
        std::fs::write(&base64, picture["data"].as_str().unwrap()).unwrap();
        let decoded = Command::new("base64").arg("-d").arg(&base64).output().unwrap();
        std::fs::write(folder.join(format!("{name}.png")), decoded.stdout).unwrap();
        std::fs::remove_file(base64).unwrap();
    }

    fn command(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut command = json!({"id": self.last_id, "method": method, "params": params});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        let id = self.last_id;
        let answer = self.next(method, |message| message["id"] == id);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    fn wait_for(&mut self, event: &str) {
        if !self.events.iter().any(|seen| seen["method"] == event) {
            let seen = self.next(event, |message| message["method"] == event);
            self.events.push(seen);
        }
    }

    /// The next message that is `wanted`; the others are kept as events.
    fn next(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left);
            let message = message.unwrap_or_else(|error| {
                let log = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
                panic!("Chromium does not answer to {what}: {error}\n{log}")
            });
            if wanted(&message) {
                return message;
            }
            self.events.push(message);
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn executable() -> PathBuf {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let found = NAMES.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.exists()));
    found.unwrap_or_else(|| panic!("none of {NAMES:?} is in PATH; on Debian: apt-get install chromium"))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
