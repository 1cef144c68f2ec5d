//! A headless Chromium, driven by the DevTools protocol over its pipe: no port, no driver.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No answer takes longer, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// The browser of this machine, if it has one or may install it; one test looks for all. A test without one
/// is left out, and that is told; in continuous integration it fails.
pub fn find() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(ask_for_browser).clone();
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "there is no Chromium, and CI is set");
        // What is printed by macros is shown of failed tests alone, and who reads a green run has to know.
        let thread = std::thread::current();
        let told = format!("SKIPPED: {}: there is no Chromium\n", thread.name().unwrap_or("a test"));
        let _ = std::io::stderr().write_all(told.as_bytes());
    }
    found
}

fn ask_for_browser() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed/browser");
    let output = Command::new(&script).stderr(Stdio::inherit()).output().expect("testbed/browser runs");
    assert!(output.status.success(), "testbed/browser ended with {}", output.status);
    let path = String::from_utf8(output.stdout).expect("testbed/browser prints a path");
    path.lines().last().map(PathBuf::from)
}

pub struct Chromium {
    process: Child,
    commands: ChildStdin,
    answers: Receiver<Value>,
    last: u64,
    /// What the browser told unasked.
    told: Vec<Value>,
    _profile: TempDir,
}

impl Chromium {
    pub fn start(browser: &Path) -> Self {
        let profile = TempDir::new().expect("a folder");
        // It reads commands from descriptor 3 and answers on 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .arg(browser)
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the browser starts");
        let commands = process.stdin.take().expect("a pipe");
        let output = process.stdout.take().expect("a pipe");
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0) {
                let Ok(message) = message else { return };
                let value = serde_json::from_slice(&message).expect("the browser speaks JSON");
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Self { process, commands, answers, last: 0, told: Vec::new(), _profile: profile }
    }

    /// Sends a command to the browser, or to a page by its session, and gives what it returns.
    fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": &params });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("the browser listens");
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message =
                self.answers.recv_timeout(left).unwrap_or_else(|error| panic!("{method} {params}: {error}"));
            if message["id"] == self.last {
                assert!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.told.push(message);
        }
    }

    /// Opens an empty page.
    pub fn page(&mut self) -> Page<'_> {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", attach);
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let mut page = Page { browser: self, session };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its helpers end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A page of the browser.
pub struct Page<'a> {
    browser: &'a mut Chromium,
    session: String,
}

impl Page<'_> {
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let session = self.session.clone();
        self.browser.call(Some(&session), method, params)
    }

    pub fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        self.wait("document.readyState === 'complete'");
    }

    /// What a script gives in the end.
    pub fn evaluate(&mut self, script: &str) -> Value {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{script}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until a condition holds; a minute at most.
    pub fn wait(&mut self, condition: &str) {
        self.evaluate(&format!(
            "new Promise((done) => {{ const look = () => ({condition}) ? done(true) : setTimeout(look, 30); look(); }})"
        ));
    }

    /// Presses and releases a key, by its name in the UI Events specification.
    pub fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
                "text": if kind == "keyDown" { text } else { "" },
            });
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Writes a picture of the whole page.
    pub fn screenshot(&mut self, file: &Path) {
        use base64::Engine;
        let answer =
            self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        let data = answer["data"].as_str().expect("a picture");
        let picture = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        std::fs::write(file, picture).expect("the picture is written");
    }

    pub fn size(&mut self, width: u32, height: u32, is_phone: bool) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    pub fn dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let feature = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": feature }));
    }

    /// What the browser told of this page by this method, so far.
    pub fn told(&mut self, method: &str) -> Vec<Value> {
        // An answer comes after what was told before it.
        self.evaluate("0");
        let of_page = self.browser.told.iter().filter(|told| told["method"] == method);
        of_page.map(|told| told["params"].clone()).collect()
    }
}
