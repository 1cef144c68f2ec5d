//! The scale-down webhook: who is believed, once, and what it leads to.

use super::access::{Served, Users, app, request};
use super::*;
use crate::clock::Clock;
use spot_guard_cloud::cluster::OpenGate;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const PATH: &str = "/webhooks/v1/scale-down";
const FALLBACK: &str = r#"{"fallback": "i-0000000000000000b"}"#;
const SECRETS: [&str; 3] = [
    "whsec_bm90IGEgc2VjcmV0IGF0IGFsbCwgb25l",
    "whsec_bm90IGEgc2VjcmV0IGF0IGFsbCwgdHdv",
    "whsec_c29tZWJvZHkgZWxzZSBpcyBpdCByZWFsbHk=",
];

/// The secrets of this server: the first two.
fn secrets(folder: &TempDir) -> Vec<PathBuf> {
    let file = |number: usize| {
        let path = folder.path().join(format!("secret-{number}"));
        std::fs::write(&path, format!("{}\n", SECRETS[number])).unwrap();
        path
    };
    vec![file(0), file(1), folder.path().join("not-there")]
}

async fn served(users: &Users, secrets: &[PathBuf]) -> Served {
    let fixture = Fixture { webhook_secrets: Secrets::in_files(secrets), ..Fixture::with_a_fallback() };
    app(users.door(), users.client(Arc::new(OpenGate)), fixture).await
}

fn signed(secret: &str, id: &str, age: i64, body: &str) -> TestRequest {
    let time = Clock::System.now().as_second() - age;
    let signature = standardwebhooks::Webhook::new(secret).unwrap().sign(id, time, body.as_bytes()).unwrap();
    request("POST", PATH, None)
        .insert_header(("content-type", "application/json"))
        .insert_header(("webhook-id", id))
        .insert_header(("webhook-timestamp", time.to_string()))
        .insert_header(("webhook-signature", format!("v1,bm9ib2R5cw== {signature}")))
        .set_payload(body.to_owned())
}

async fn told(served: &Served, request: TestRequest) -> (u16, Value) {
    let response = served.answer(request).await;
    let status = response.status().as_u16();
    let body = read_body(response).await;
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn stored(users: &Users) -> Vec<SpotAction> {
    let spot_actions: kube::Api<SpotAction> = kube::Api::all(users.client(Arc::new(OpenGate)));
    spot_actions.list(&kube::api::ListParams::default()).await.unwrap().items
}

/// Lets the controller's account list, to see what is stored.
fn users() -> Users {
    let users = Users::new();
    users.cluster.set_policy(|_, _| true);
    users
}

#[actix_web::test]
async fn a_signed_message_is_taken_once_by_whichever_replica() {
    let folder = TempDir::new().unwrap();
    let (users, secrets) = (users(), secrets(&folder));
    let (one, other) = (served(&users, &secrets).await, served(&users, &secrets).await);
    for (number, secret) in SECRETS[..2].iter().enumerate() {
        let id = format!("msg_{number}");
        let (status, answer) = told(&one, signed(secret, &id, 0, FALLBACK)).await;
        assert_eq!(status, 202, "{answer}");
        assert_eq!(answer["requestedBy"], format!("webhook {id}"));
        for replica in [&one, &other] {
            let (status, problem) = told(replica, signed(secret, &id, 0, FALLBACK)).await;
            assert_eq!(
                (status, &problem["reason"], &problem["detail"]),
                (409, &json!("MessageTaken"), &json!("a message with this webhook-id was taken before"))
            );
            let (status, _) = told(replica, signed(secret, &id, 0, r#"{"pool": "web"}"#)).await;
            assert_eq!(status, 409, "whatever else it says");
        }
    }
    let stored = stored(&users).await;
    assert_eq!(stored.len(), 2);
    for spot_action in stored {
        assert_eq!(spot_action.spec.replacement.as_deref(), Some("i-0000000000000000b"));
        assert_eq!(spot_action.spec.action, spot_guard_core::spot_action::ActionKind::Return);
    }
}

#[actix_web::test]
async fn who_is_not_believed_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let (users, secrets) = (users(), secrets(&folder));
    let served = served(&users, &secrets).await;
    let good = || signed(SECRETS[0], "msg", 0, FALLBACK);
    let cases = [
        (signed(SECRETS[2], "msg", 0, FALLBACK), "no secret of ours has signed this message"),
        (good().set_payload(r#"{"pool": "web"}"#), "no secret of ours has signed this message"),
        (good().insert_header(("webhook-id", "other")), "no secret of ours has signed this message"),
        (signed(SECRETS[0], "msg", 301, FALLBACK), "the message is older than five minutes"),
        (signed(SECRETS[0], "msg", -310, FALLBACK), "the message is more than five minutes ahead"),
        (
            good().insert_header(("webhook-timestamp", "now")),
            "the header webhook-timestamp is no number of seconds",
        ),
        (good().insert_header(("webhook-signature", "v1,")), "no secret of ours has signed this message"),
        (good().append_header(("webhook-id", "msg")), "the header webhook-id is there twice"),
        (good().insert_header(("webhook-id", "")), "the header webhook-id is not 1 to 255 letters long"),
    ];
    for (request, detail) in cases {
        let (status, problem) = told(&served, request).await;
        assert_eq!((status, &problem["detail"]), (401, &json!(detail)));
        assert_eq!(problem["reason"], "SignatureInvalid");
    }
    let without = self::served(&users, &[]).await;
    let (status, problem) = told(&without, good()).await;
    assert_eq!(
        (status, &problem["detail"]),
        (401, &json!("no secret is configured for webhooks (setting webhookSecretFiles)"))
    );
    assert!(stored(&users).await.is_empty());
}

#[actix_web::test]
async fn the_body_names_one_thing_or_is_alertmanagers() {
    let users = users();
    let served = served(&users, &[]).await;
    let alert = |status: &str, labels: Value| json!({ "version": "4", "groupKey": "{}", "status": status, "alerts": [{}], "commonLabels": labels });
    let target = |spec: &crate::crd::SpotActionSpec| {
        let names = [spec.pool.as_deref(), spec.node.as_deref(), spec.replacement.as_deref()];
        names.map(|name| name.unwrap_or_default().to_owned())
    };
    let taken = [
        (json!({ "pool": "web", "reason": "a drill" }), ["web", "", ""]),
        (json!({ "node": "node-1" }), ["", "node-1", ""]),
        (json!({ "fallback": "i-0" }), ["", "", "i-0"]),
        (alert("firing", json!({ "pool": "web", "severity": "page" })), ["web", "", ""]),
        (alert("firing", json!({ "pool": "web", "fallback": "i-0" })), ["", "", "i-0"]),
    ];
    for (number, (body, expected)) in taken.iter().enumerate() {
        let (status, answer) =
            told(&served, request("POST", PATH, Some("token-of-operator")).set_json(body)).await;
        assert_eq!(status, 202, "{answer}");
        let found = stored(&users).await;
        assert_eq!(found.len(), number + 1);
        let spec = &found
            .iter()
            .find(|held| answer["name"] == *held.metadata.name.as_deref().unwrap())
            .unwrap()
            .spec;
        assert_eq!(target(spec), *expected);
        assert_eq!(spec.requested_by.as_deref(), Some("operator"));
    }
    let (status, _) = told(
        &served,
        request("POST", PATH, Some("token-of-operator"))
            .set_json(alert("resolved", json!({ "pool": "web" }))),
    )
    .await;
    assert_eq!(status, 204, "nothing is to be done");
    for (body, field) in [
        (json!({}), "body"),
        (json!([]), "body"),
        (json!({ "pool": "web", "node": "node-1" }), "body"),
        (json!({ "pool": 1 }), "pool"),
        (json!({ "pool": "../web" }), "pool"),
        (json!({ "pool": "web", "now": true }), "now"),
        (json!({ "pool": "web", "reason": 1 }), "reason"),
        (json!({ "pool": "web", "reason": "x".repeat(1025) }), "reason"),
        (alert("firing", json!({ "severity": "page" })), "body"),
        (json!({ "alerts": [] }), "commonLabels"),
    ] {
        let (status, problem) =
            told(&served, request("POST", PATH, Some("token-of-operator")).set_json(&body)).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!(field)), "{body}: {problem}");
    }
    let huge =
        request("POST", PATH, Some("token-of-operator")).set_json(json!({ "reason": "x".repeat(20_000) }));
    assert_eq!(told(&served, huge).await.0, 413);
    assert_eq!(stored(&users).await.len(), taken.len());
}

/// The commands of the page, each in its own block.
fn examples() -> Vec<String> {
    let page = include_str!("../../../docs/webhook.md");
    page.split("```bash\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

#[actix_web::test]
async fn the_commands_of_the_page_do_what_it_says() {
    for tool in ["bash", "curl", "openssl", "od"] {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            eprintln!("{tool} is not on this machine: the commands of docs/webhook.md are not tried");
            return;
        }
    }
    let folder = TempDir::new().unwrap();
    let (users, secrets) = (users(), secrets(&folder));
    let fixture = Fixture { webhook_secrets: Secrets::in_files(&secrets), ..Fixture::with_a_fallback() };
    let fixture = Fixture { client: Some(users.client(Arc::new(OpenGate))), ..fixture };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = serve(listener, users.door(), fixture.state().await).unwrap();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    let examples = examples();
    assert_eq!(examples.len(), 2);
    for script in examples {
        let mut command = tokio::process::Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &script]).kill_on_drop(true);
        command.envs([("URL", &*url), ("SECRET", SECRETS[1]), ("TOKEN", "token-of-operator")]);
        command.env("no_proxy", "127.0.0.1");
        let output = tokio::time::timeout(Duration::from_secs(30), command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let stored = stored(&users).await;
    let names: Vec<_> =
        stored.iter().map(|held| (held.spec.replacement.as_deref(), held.spec.pool.as_deref())).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&(Some("i-0123456789abcdef0"), None)) && names.contains(&(None, Some("workers"))));
    handle.stop(true).await;
}

#[test]
fn a_secret_that_could_be_guessed_is_refused_with_its_file() {
    use base64::Engine;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("secret");
    let of = |bytes: usize| {
        format!("whsec_{}\n", base64::engine::general_purpose::STANDARD.encode(vec![7; bytes]))
    };
    for (text, problem) in [
        (of(0), Some("the secret has 0 bytes, and needs at least 24")),
        (String::new(), Some("the secret has 0 bytes, and needs at least 24")),
        (of(1), Some("the secret has 1 bytes, and needs at least 24")),
        (of(5), Some("the secret has 5 bytes, and needs at least 24")),
        (of(23), Some("the secret has 23 bytes, and needs at least 24")),
        ("whsec_no base64".to_owned(), Some("it is not whsec_ and base64")),
        (of(24), None),
        (of(64), None),
    ] {
        std::fs::write(&path, &text).unwrap();
        let found = Secrets::in_files(std::slice::from_ref(&path)).check().map_err(|error| error.to_string());
        let expected = problem.map(|why| format!("webhookSecretFiles: {}: {why}", path.display()));
        assert_eq!(found.err(), expected, "{text}");
    }
    let missing = Secrets::in_files(&[folder.path().join("not-there")]).check().unwrap_err().to_string();
    assert!(
        missing.contains("webhookSecretFiles: cannot read") && missing.contains("not-there"),
        "{missing}"
    );
}

#[actix_web::test]
async fn a_short_secret_that_comes_later_signs_nothing() {
    let folder = TempDir::new().unwrap();
    let (users, path) = (users(), folder.path().join("secret"));
    let served = served(&users, std::slice::from_ref(&path)).await;
    const SHORT: &str = "whsec_c2hvcnQ=";
    std::fs::write(&path, SHORT).unwrap();
    assert_eq!(told(&served, signed(SHORT, "msg", 0, FALLBACK)).await.0, 401);
    std::fs::write(&path, SECRETS[0]).unwrap();
    assert_eq!(told(&served, signed(SECRETS[0], "msg", 0, FALLBACK)).await.0, 202);
}
