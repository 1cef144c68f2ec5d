//! The dashboard in a real browser: a fallback is watched through the page from its notice to its clean-up.
//!
//! Pictures are kept in `target/browser`.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::unwrap_used, reason = "a test may fail")]

mod chromium;

use chromium::{Chromium, Page};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// All files of the page together may not be larger, in bytes.
const MOST_BYTES: u64 = 150 * 1024;

/// Remembers from the beginning at which boxes stories were seen.
const WATCH: &str = r##"
  window.seen = [];
  new MutationObserver(() => {
    for (const link of document.querySelectorAll("#flow [data-box] a")) {
      const box = link.closest("[data-box]").dataset.box;
      if (window.seen.at(-1) !== box) window.seen.push(box);
    }
  }).observe(document, { childList: true, subtree: true });
"##;

/// The demo, its dashboard on a free port of loopback.
struct Demo {
    process: Child,
    url: String,
    /// Where a token is wanted.
    main_url: String,
}

impl Demo {
    fn start(scenario: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_spot-guard"))
            .args(["demo", "--speed", "20", "--scenario", scenario])
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the demo starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let first = lines.next().expect("a first line").expect("it can be read");
        let url = first.rsplit_once("Dashboard at ").expect("an address").1.to_owned();
        let second = lines.next().expect("a second line").expect("it can be read");
        let (_, rest) = second.split_once("buttons at ").expect("another address");
        let main_url = rest.split_once(',').expect("a comma").0.to_owned();
        // What else it tells is read, so that it is never held up.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { process, url, main_url }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("browser");
    std::fs::create_dir_all(&folder).expect("a folder for the pictures");
    folder
}

fn texts(page: &mut Page<'_>, selector: &str) -> Vec<String> {
    let script = format!("[...document.querySelectorAll({selector:?})].map((found) => found.textContent)");
    serde_json::from_value(page.evaluate(&script)).expect("texts")
}

#[test]
fn a_fallback_is_watched_from_its_notice_to_its_clean_up() {
    let Some(browser) = chromium::find() else { return };
    let pictures = pictures();
    let mut chromium = Chromium::start(&browser);
    let mut page = chromium.page();
    page.size(1280, 900, false);
    page.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WATCH }));
    let demo = Demo::start("dry-spot");
    page.open(&demo.url);

    page.wait("document.querySelector('#stories details')");
    page.wait("document.querySelector('#fallbacks [data-fallback]')");
    let fallback = texts(&mut page, "#fallbacks [data-fallback]").concat();
    assert!(fallback.contains("ip-10-0-0-4.ec2.internal"), "{fallback}");
    page.wait("document.querySelector('#fallbacks .why')");
    page.screenshot(&pictures.join("fallback.png"));
    it_works_by_keyboard(&mut page);
    page.wait("document.querySelector('#stories svg.timeline rect')");
    page.wait("document.querySelector('#stories').textContent.includes('Box 9:')");
    assert!(texts(&mut page, "#flow a title").concat().contains(" at box "), "a dot says what it is");
    page.evaluate("document.activeElement.blur()");
    page.screenshot(&pictures.join("dashboard.png"));
    what_is_chosen_stands_in_the_address(&mut page);
    it_has_names_for_screen_readers(&mut page);
    it_fits_a_phone(&mut page, &pictures.join("phone.png"));
    it_is_dark_in_the_dark(&mut page, &pictures);

    // The story is over: it leaves the flow, and is found among those that are.
    page.wait("document.querySelectorAll('#flow .at').length === 0");
    page.evaluate("document.getElementById('finished').click()");
    page.wait("document.querySelector('#stories summary')?.textContent.includes('over')");
    page.evaluate("document.querySelector('#stories summary').click()");
    page.wait("document.querySelector('#stories details').open");
    page.screenshot(&pictures.join("over.png"));
    let seen: Vec<String> = serde_json::from_value(page.evaluate("window.seen")).expect("boxes");
    assert!(
        seen.iter().any(|seen| ["6", "7", "8", "9"].contains(&seen.as_str())),
        "it waits for Spot: {seen:?}"
    );
    let told = texts(&mut page, "#stories details li .number");
    for wanted in ["1", "2", "3", "3.2", "4", "5", "6", "7", "8", "9", "10", "11"] {
        assert!(told.contains(&format!("box {wanted}")), "box {wanted} is not told of: {told:?}");
    }
    let live = texts(&mut page, "#steps li");
    assert!(live.iter().any(|step| step.contains("box 11")), "the clean-up is told as it happens: {live:?}");
    assert_eq!(texts(&mut page, "#fallbacks [data-fallback]"), [""; 0], "no fallback is left");
    assert_eq!(texts(&mut page, "button[data-action]"), [""; 0], "who only reads is offered nothing else");
    it_broke_no_rule(&mut page, &demo.url);

    // Who opens the page only now sees how it was before.
    page.open(&demo.url);
    page.wait("document.querySelector('#pools svg polyline.on-demand')?.points.numberOfItems > 2");
    let heights =
        "new Set([...document.querySelector('#pools svg polyline.on-demand').points].map((at) => at.y)).size";
    assert_eq!(page.evaluate(heights), 2, "none stood in, then one, then none");
    page.screenshot(&pictures.join("history.png"));
}

#[test]
fn the_api_can_be_read_in_a_browser() {
    let Some(browser) = chromium::find() else { return };
    let pictures = pictures();
    let mut chromium = Chromium::start(&browser);
    let mut page = chromium.page();
    page.size(1280, 900, false);
    let demo = Demo::start("dry-spot");
    page.open(&format!("{}docs", demo.main_url));
    page.wait("document.querySelector('#requests details')");
    let description: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).expect("JSON");
    let paths = description["paths"].as_object().expect("paths").values();
    let requests: usize = paths.map(|methods| methods.as_object().expect("methods").len()).sum();
    let told = texts(&mut page, "#requests summary strong");
    assert_eq!(told.len(), requests, "{told:?}");
    assert!(told.contains(&"POST /api/v1/fallbacks/{name}/return".to_owned()), "{told:?}");
    // A type is a link away, and unfolds.
    page.evaluate("document.querySelector('#requests a[href=\"#type-Fallback\"]').click()");
    page.wait("document.getElementById('type-Fallback').open");
    it_has_names_for_screen_readers(&mut page);
    it_fits_a_phone(&mut page, &pictures.join("docs-phone.png"));
    page.screenshot(&pictures.join("docs.png"));
    it_broke_no_rule(&mut page, &demo.main_url);
}

#[test]
fn who_may_request_something_is_offered_it_and_it_happens() {
    let Some(browser) = chromium::find() else { return };
    let pictures = pictures();
    let mut chromium = Chromium::start(&browser);
    let mut page = chromium.page();
    page.size(1280, 900, false);
    let demo = Demo::start("dry-spot");
    page.open(&demo.main_url);

    // Without a token nothing is told; with a wrong one neither.
    page.wait("!document.getElementById('login').hidden");
    assert_eq!(texts(&mut page, "#pools [data-pool]"), [""; 0]);
    enter_token(&mut page, "wrong");
    page.wait("document.getElementById('summary').textContent.includes('the token is not valid')");
    enter_token(&mut page, "demo");
    page.wait("document.getElementById('login').hidden && document.querySelector('#pools [data-pool]')");
    page.screenshot(&pictures.join("buttons.png"));

    // The pause stands until it is taken back, and is requested once.
    page.wait("document.querySelector('#all button[data-action=Pause]')");
    page.evaluate("document.querySelector('#all button[data-action=Pause]').click()");
    page.wait("document.getElementById('ask').open");
    page.evaluate("document.getElementById('no').click()");
    page.wait("!document.getElementById('ask').open");
    assert_eq!(texts(&mut page, "#said"), [""], "what is left is not requested");
    request(&mut page, "#all button[data-action=Pause]", "we look into it");
    page.wait("document.getElementById('said').textContent.includes('requested (SpotAction ')");
    page.wait("document.getElementById('summary').textContent.includes('everything is paused')");
    page.wait("document.querySelector('#all button[data-action=Resume]')");
    request(&mut page, "#all button[data-action=Resume]", "");
    page.wait("!document.getElementById('summary').textContent.includes('everything is paused')");
    let actions = page.evaluate(
        "fetch('/api/v1/spotactions', { headers: { authorization: 'Bearer demo' } })\
           .then((answer) => answer.json()).then((list) => list.items.map((held) => held.reason || '').sort())",
    );
    assert_eq!(actions, json!(["", "we look into it"]), "each with its reason");

    // A fallback is offered its return.
    page.wait("document.querySelector('#fallbacks button[data-action=Return]')");
    request(&mut page, "#fallbacks button[data-action=Return]", "tonight");
    page.wait("document.getElementById('said').textContent.startsWith('Return now: requested')");
}

/// Requests something by its button, with a reason.
fn request(page: &mut Page<'_>, button: &str, reason: &str) {
    page.evaluate(&format!("document.querySelector({button:?}).click()"));
    page.wait("document.getElementById('ask').open");
    page.evaluate(&format!("document.getElementById('reason').value = {reason:?}"));
    page.evaluate("document.getElementById('yes').click()");
    page.wait("!document.getElementById('ask').open");
}

fn enter_token(page: &mut Page<'_>, token: &str) {
    page.evaluate(&format!(
        "document.getElementById('token').value = {token:?}, document.querySelector('#login button').click()"
    ));
}

/// The first thing that the keyboard reaches leads to the flow; a story opens by it.
fn it_works_by_keyboard(page: &mut Page<'_>) {
    page.evaluate("document.activeElement.blur(), getSelection().empty(), scrollTo(0, 0)");
    page.press("Tab", 9);
    assert_eq!(page.evaluate("document.activeElement.className"), "skip");
    page.press("Enter", 13);
    page.wait("location.hash === '#flow-title'");
    page.evaluate("document.querySelector('#stories summary').focus()");
    page.press("Enter", 13);
    page.wait("document.querySelector('#stories details').open");
    // It stays open, and where the keyboard is, when the page is drawn anew.
    page.evaluate("new Promise((done) => new MutationObserver(done).observe(document.getElementById('stories'), { childList: true }))");
    assert_eq!(page.evaluate("document.querySelector('#stories details').open"), true);
    assert_eq!(page.evaluate("document.activeElement.tagName"), "SUMMARY");
}

/// The order and the choice of pools can be sent to somebody else.
fn what_is_chosen_stands_in_the_address(page: &mut Page<'_>) {
    page.evaluate("document.querySelector('#pools-head th:nth-child(3) button').click()");
    assert_eq!(page.evaluate("location.search"), "?sort=Spot");
    assert_eq!(page.evaluate("document.querySelector('#pools-head th:nth-child(3)').ariaSort"), "ascending");
    page.evaluate("document.getElementById('filter').value = 'other'");
    page.evaluate("document.getElementById('filter').dispatchEvent(new Event('input'))");
    assert_eq!(page.evaluate("location.search"), "?sort=Spot&pools=other");
    assert_eq!(texts(page, "#pools [data-pool]"), [""; 0]);
    page.evaluate("document.getElementById('filter').value = ''");
    page.evaluate("document.getElementById('filter').dispatchEvent(new Event('input'))");
    assert_eq!(texts(page, "#pools [data-pool]").len(), 1);
}

/// Whatever can be used or is a part of the page has a name in the accessibility tree.
fn it_has_names_for_screen_readers(page: &mut Page<'_>) {
    let tree = page.call("Accessibility.getFullAXTree", json!({}));
    let nodes: Vec<&Value> = tree["nodes"].as_array().expect("nodes").iter().collect();
    let is = |node: &Value, roles: &[&str]| roles.iter().any(|role| node["role"]["value"] == *role);
    let interactive = [
        "link",
        "button",
        "checkbox",
        "DisclosureTriangle",
        "region",
        "image",
        "textbox",
        "searchbox",
        "dialog",
    ];
    let named: Vec<&&Value> =
        nodes.iter().filter(|node| node["ignored"] != true && is(node, &interactive)).collect();
    assert!(named.len() > 8, "{tree}");
    for node in named {
        assert!(
            node["name"]["value"].as_str().is_some_and(|name| !name.trim().is_empty()),
            "no name: {node}"
        );
    }
    assert!(nodes.iter().any(|node| is(node, &["main"])), "a main part");
    assert!(nodes.iter().any(|node| is(node, &["status"])), "a status that is read aloud");
}

fn it_fits_a_phone(page: &mut Page<'_>, picture: &Path) {
    page.size(360, 740, true);
    page.wait("innerWidth === 360");
    assert_eq!(page.evaluate("document.documentElement.scrollWidth"), 360, "nothing is cut off at the side");
    page.screenshot(picture);
    page.size(1280, 900, false);
}

fn it_is_dark_in_the_dark(page: &mut Page<'_>, pictures: &Path) {
    let ground = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0]";
    page.dark(false);
    assert!(page.evaluate(ground).as_u64().expect("a number") > 200);
    page.dark(true);
    assert!(page.evaluate(ground).as_u64().expect("a number") < 50);
    page.screenshot(&pictures.join("dark.png"));
    page.dark(false);
}

/// Nothing came from elsewhere, nothing failed, nothing was refused by the policy, and it is small.
fn it_broke_no_rule(page: &mut Page<'_>, url: &str) {
    for request in page.told("Network.requestWillBeSent") {
        let asked = request["request"]["url"].as_str().expect("a URL");
        assert!(asked.starts_with(url), "{asked} is not this server's");
    }
    assert_eq!(page.told("Runtime.exceptionThrown"), [Value::Null; 0]);
    let complaints: Vec<Value> = page
        .told("Log.entryAdded")
        .into_iter()
        .filter(|told| ["warning", "error"].contains(&told["entry"]["level"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(complaints, [Value::Null; 0]);
    let files: Vec<Value> = page
        .told("Network.responseReceived")
        .into_iter()
        .filter(|told| {
            ["Document", "Script", "Stylesheet", "Image"].contains(&told["type"].as_str().unwrap_or(""))
        })
        .map(|told| told["requestId"].clone())
        .collect();
    let sizes = page.told("Network.loadingFinished");
    let of_page = sizes.iter().filter(|told| files.contains(&told["requestId"]));
    let bytes: u64 =
        of_page.filter_map(|told| told["encodedDataLength"].as_f64()).map(|size| size as u64).sum();
    println!("the page has {bytes} bytes");
    assert!(bytes > 1000 && bytes < MOST_BYTES, "{bytes}");
}
