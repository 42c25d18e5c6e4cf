//! A real browser: Debian's Chromium, told what to do by its own driver, over WebDriver's JSON.
//!
//! No browser outlives the tests: the driver dies with us, and the browser, which talks to it over a pipe, with the driver.
//! Source: W3C WebDriver; the `goog` commands are those of ChromeDriver.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    eventually,
    rabbit::{mortal, spawn},
};

/// How long a browser on a loaded machine may take for anything.
const PATIENCE: Duration = Duration::from_mins(2);

/// The key of an element's id. Source: W3C WebDriver, "Elements".
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Two keys. Source: W3C WebDriver, "Keyboard actions".
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eye {
    pub(crate) name: &'static str,
    width: u32,
    height: u32,
    scheme: &'static str,
}

/// On a desk by day and by night, on a tablet, and on phones.
pub(crate) const EYES: [Eye; 5] = [
    Eye { name: "light", width: 1_280, height: 800, scheme: "light" },
    Eye { name: "dark", width: 1_280, height: 800, scheme: "dark" },
    Eye { name: "tablet", width: 768, height: 1_024, scheme: "light" },
    Eye { name: "phone", width: 390, height: 844, scheme: "light" },
    Eye { name: "small-phone", width: 320, height: 640, scheme: "dark" },
];

/// A browser with one window.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    shots: PathBuf,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one, with scripts or without. Its screenshots go into a folder of this name, which is printed.
    pub(crate) async fn start(name: &str, scripts: bool) -> Self {
        let mut command = mortal("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped());
        let mut driver = spawn(command);
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            line.ok()?.split("started successfully on port ").nth(1)?.trim_end_matches('.').parse().ok()
        });
        let port =
            port.expect("these tests need chromedriver: `apt-get install chromium chromium-driver`, or tests/run");
        // What it goes on to say is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots").join(name);
        fs::create_dir_all(&shots).unwrap();
        println!("screenshots: {}", shots.display());
        let mut browser = Self { driver, port, session: String::new(), shots, profile };
        let profile = format!("--user-data-dir={}", browser.profile.path().display());
        let scripts =
            if scripts { json!({}) } else { json!({"profile.managed_default_content_settings.javascript": 2}) };
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--remote-debugging-pipe", "--hide-scrollbars", profile],
            "prefs": scripts,
        });
        let capabilities = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let session = browser.tell("POST", "/session", &capabilities).await;
        session["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        browser
    }

    /// Goes to a page.
    pub(crate) async fn go(&self, url: &str) {
        self.order("/url", &json!({"url": url})).await;
    }

    /// Where it is.
    pub(crate) async fn url(&self) -> String {
        self.tell("GET", &self.path("/url"), &Value::Null).await.as_str().unwrap().to_owned()
    }

    /// Waits until the page has this text, and gives all of its text.
    pub(crate) async fn until(&self, text: &str) -> String {
        eventually(&format!("the page says `{text}`"), PATIENCE, async || {
            let page = self.text().await;
            page.contains(text).then_some(page)
        })
        .await
    }

    /// Waits until the page has this text no more.
    pub(crate) async fn until_gone(&self, text: &str) {
        eventually(&format!("the page says `{text}` no more"), PATIENCE, async || {
            let page = self.text().await;
            (!page.is_empty() && !page.contains(text)).then_some(())
        })
        .await;
    }

    /// The text of the page as a person sees it.
    pub(crate) async fn text(&self) -> String {
        self.run("return document.body ? document.body.innerText : ''").await.as_str().unwrap_or_default().to_owned()
    }

    /// What this script returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.order("/execute/sync", &json!({"script": script, "args": []})).await
    }

    /// Clicks what this CSS selector means.
    pub(crate) async fn click(&self, selector: &str) {
        self.act(selector, "click", &json!({})).await;
    }

    /// Types into what this CSS selector means.
    pub(crate) async fn type_into(&self, selector: &str, text: &str) {
        self.act(selector, "value", &json!({"text": text})).await;
    }

    /// Empties what this CSS selector means.
    pub(crate) async fn clear(&self, selector: &str) {
        self.act(selector, "clear", &json!({})).await;
    }

    /// Presses keys, one after the other, wherever the focus is: a text, or one of the keys that WebDriver names by a private
    /// character, such as [`TAB`].
    pub(crate) async fn press(&self, keys: &str) {
        let presses = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|deed| json!({"type": deed, "value": key.to_string()})));
        let actions = json!([{"type": "key", "id": "keyboard", "actions": presses.collect::<Vec<_>>()}]);
        let done = self.order("/actions", &json!({ "actions": actions })).await;
        assert!(done["error"].is_null(), "{done}");
    }

    /// Puts the mouse on what this CSS selector means, and its button down.
    pub(crate) async fn mouse_down(&self, selector: &str) {
        let middle = format!(
            "const box = document.querySelector('{selector}').getBoundingClientRect();
             return [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)]"
        );
        let middle = self.run(&middle).await;
        let there = json!({"type": "pointerMove", "x": middle[0], "y": middle[1]});
        self.mouse(json!([there, {"type": "pointerDown", "button": 0}])).await;
    }

    /// Lets the mouse's button come up again.
    pub(crate) async fn mouse_up(&self) {
        self.mouse(json!([{"type": "pointerUp", "button": 0}])).await;
    }

    async fn mouse(&self, deeds: Value) {
        let actions = json!([{"type": "pointer", "id": "mouse", "actions": deeds}]);
        let done = self.order("/actions", &json!({ "actions": actions })).await;
        assert!(done["error"].is_null(), "{done}");
    }

    /// Presses a key down, or lets it come up again.
    pub(crate) async fn key(&self, deed: &str, key: &str) {
        let actions = json!([{"type": "key", "id": "keyboard", "actions": [{"type": deed, "value": key}]}]);
        let done = self.order("/actions", &json!({ "actions": actions })).await;
        assert!(done["error"].is_null(), "{done}");
    }

    /// The id of what has the focus, or where it leads; empty where that has neither.
    pub(crate) async fn focus(&self) -> String {
        let told = "const one = document.activeElement; return one?.id || one?.getAttribute('href') || ''";
        self.run(told).await.as_str().unwrap_or_default().to_owned()
    }

    /// Goes on from one thing to the next, as somebody without a mouse does, until it comes to the one with this id, or that leads
    /// there.
    pub(crate) async fn tab_to(&self, id: &str) {
        let mut passed = Vec::new();
        while self.focus().await != id {
            assert!(passed.len() < 60, "`{id}` is not come to by the keyboard, but {passed:?} are");
            self.press(TAB).await;
            passed.push(self.focus().await);
        }
    }

    /// Does something with what this CSS selector means, as soon as it is there. A page that lives may put another in its place between
    /// the look and the deed; a person would try again.
    async fn act(&self, selector: &str, deed: &str, body: &Value) {
        const AGAIN: [&str; 3] = ["no such element", "stale element reference", "element click intercepted"];
        let query = json!({"using": "css selector", "value": selector});
        eventually(&format!("`{selector}` takes a {deed}"), PATIENCE, async || {
            let found = self.order("/element", &query).await;
            let done = match found[ELEMENT].as_str() {
                Some(element) => self.order(&format!("/element/{element}/{deed}"), body).await,
                None => found,
            };
            let Some(error) = done["error"].as_str() else { return Some(()) };
            assert!(AGAIN.contains(&error), "{selector}: {done}");
            None
        })
        .await;
    }

    /// Takes pictures of the page in every way to look at it.
    pub(crate) async fn picture(&self, name: &str) {
        for eye in EYES {
            let scheme = json!([{"name": "prefers-color-scheme", "value": eye.scheme}]);
            self.devtools("Emulation.setEmulatedMedia", json!({"features": scheme})).await;
            let phone = eye.width < 500;
            let metrics = json!({"width": eye.width, "height": eye.height, "deviceScaleFactor": 1, "mobile": phone});
            self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
            let over = self.run("return document.documentElement.scrollWidth - window.innerWidth").await;
            assert!(over.as_i64().unwrap() <= 0, "{name} is too wide for {}: by {over}", eye.name);
            let image = self.tell("GET", &self.path("/screenshot"), &Value::Null).await;
            let image = base64::prelude::BASE64_STANDARD.decode(image.as_str().unwrap()).unwrap();
            fs::write(self.shots.join(format!("{name}-{}.png", eye.name)), image).unwrap();
        }
        self.devtools("Emulation.clearDeviceMetricsOverride", json!({})).await;
    }

    pub(crate) async fn devtools(&self, command: &str, parameters: Value) {
        self.order("/goog/cdp/execute", &json!({"cmd": command, "params": parameters})).await;
    }

    /// What the page complained about in the browser's console: a policy that was broken, a script that failed.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.order("/se/log", &json!({"type": "browser"})).await;
        let lines = log.as_array().into_iter().flatten();
        lines.filter(|line| line["level"] == "SEVERE").map(|line| line["message"].to_string()).collect()
    }

    fn path(&self, command: &str) -> String {
        format!("/session/{}{command}", self.session)
    }

    async fn order(&self, command: &str, body: &Value) -> Value {
        self.tell("POST", &self.path(command), body).await
    }

    /// One command to the driver, and the value that it answers; an error is `{"error": ..., "message": ...}`.
    async fn tell(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut reply = Vec::new();
            // It may keep the connection open: the head says how much there is.
            loop {
                if let Some(whole) = body_of(&reply) {
                    break serde_json::from_slice::<Value>(whole).unwrap();
                }
                assert!(stream.read_buf(&mut reply).await.unwrap() > 0, "the driver hung up: {reply:?}");
            }
        };
        let mut reply = tokio::time::timeout(PATIENCE, exchange).await.expect("the browser answers");
        reply["value"].take()
    }
}

/// The body of an answer that is there whole.
fn body_of(reply: &[u8]) -> Option<&[u8]> {
    let end = reply.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&reply[..end]).unwrap().to_ascii_lowercase();
    let length: usize = head.split("content-length:").nth(1)?.split("\r\n").next()?.trim().parse().unwrap();
    reply.get(end..end + length)
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of the pipe is the end of the browser.
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
