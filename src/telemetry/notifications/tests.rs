use super::*;
use crate::crd::{NodeReplacement, SpotPool};
use crate::telemetry::readiness::Readiness;
use actix_web::{App, HttpResponse, HttpServer, web};
use spot_guard_core::record::{FlowBox, Outcome};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use tempfile::TempDir;

/// No test waits longer for anything.
const BOUND: Duration = Duration::from_secs(20);
const QUICK: Duration = Duration::from_millis(5);

/// A webhook that answers as it is told, and then 200.
#[derive(Clone)]
struct Webhook {
    answers: Arc<Mutex<VecDeque<u16>>>,
    bodies: mpsc::UnboundedSender<String>,
}

async fn hear(hook: web::Data<Webhook>, body: String) -> HttpResponse {
    let status = hook.answers.lock().expect("answers").pop_front().unwrap_or(200);
    hook.bodies.send(body).expect("somebody listens");
    let mut answer = HttpResponse::build(actix_web::http::StatusCode::from_u16(status).expect("a status"));
    if status / 100 == 3 {
        answer.insert_header(("location", "/hook"));
    }
    answer.finish()
}

/// Starts a webhook; gives its address and what it hears.
fn webhook(answers: &[u16]) -> (String, mpsc::UnboundedReceiver<String>) {
    let (bodies, heard) = mpsc::unbounded_channel();
    let hook = Webhook { answers: Arc::new(Mutex::new(answers.iter().copied().collect())), bodies };
    let server = HttpServer::new(move || {
        App::new().app_data(web::Data::new(hook.clone())).route("/hook", web::post().to(hear))
    })
    .workers(1)
    .disable_signals()
    .bind("127.0.0.1:0")
    .expect("a port");
    let url = format!("http://{}/hook", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    (url, heard)
}

fn target(dir: &Path, url: &str) -> Target {
    let url_file = dir.join("url");
    std::fs::write(&url_file, format!("{url}\n")).expect("the file is written");
    Target { url_file, on: everything(), template: for_slack() }
}

fn told(kind: NotificationKind, message: &str) -> Notification {
    let step = StepRecord {
        flow_box: FlowBox::Fallback,
        at: "2026-01-01T03:00:00Z".parse().expect("a time"),
        outcome: Outcome::Requested,
        node: "node-1".into(),
        message: message.to_owned(),
    };
    Notification { kind, replacement: "i-0abc".into(), pool: Some("workers".into()), step }
}

async fn next(heard: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(BOUND, heard.recv()).await.expect("in time").expect("a body")
}

async fn counted(metrics: &Metrics, line: &str) {
    let text = || {
        let nothing: (&[NodeReplacement], &[SpotPool]) = (&[], &[]);
        metrics.encode(false, &Readiness::default(), nothing.0, nothing.1).expect("a text")
    };
    let in_time = tokio::time::timeout(BOUND, async {
        while !text().contains(line) {
            tokio::task::yield_now().await;
        }
    });
    in_time.await.unwrap_or_else(|_| panic!("{line} is not in {}", text()));
}

#[actix_web::test]
async fn a_chat_is_told_what_it_wants_to_know_in_its_own_form() {
    let dir = TempDir::new().expect("a folder");
    let (url, mut heard) = webhook(&[]);
    let metrics = Arc::new(Metrics::new());
    let chosen = Target { on: vec![NotificationKind::Fallback], ..target(dir.path(), &url) };
    let own = Target {
        template: r#"{"event": {{ kind }}, "box": {{ box }}, "when": {{ at }}, "of": {{ replacement }}}"#
            .to_owned(),
        ..chosen.clone()
    };
    let notifications = Notifications::start(&[chosen], &metrics);
    notifications.tell(&told(NotificationKind::Notice, "nobody asked for this"));
    notifications.tell(&told(NotificationKind::Fallback, "no \"Spot\" capacity"));
    assert_eq!(
        next(&mut heard).await,
        r#"{"text": "Spot Guard, Fallback, node node-1 of pool workers: no \"Spot\" capacity"}"#
    );
    let notifications = Notifications::start(&[own], &metrics);
    notifications.tell(&told(NotificationKind::Fallback, ""));
    assert_eq!(
        next(&mut heard).await,
        r#"{"event": "Fallback", "box": "3.2", "when": "2026-01-01T03:00:00Z", "of": "i-0abc"}"#
    );
    counted(&metrics, "spot_guard_notifications_total{result=\"Published\"} 2").await;
}

#[actix_web::test]
async fn a_target_that_is_ill_for_a_while_is_told_again_and_one_that_refuses_is_not() {
    let dir = TempDir::new().expect("a folder");
    let (url, mut heard) = webhook(&[500, 429, 200, 403]);
    let metrics = Arc::new(Metrics::new());
    let notifications = Notifications::with_pauses(&[target(dir.path(), &url)], &metrics, QUICK);
    for message in ["first", "refused", "third"] {
        notifications.tell(&told(NotificationKind::Notice, message));
    }
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(next(&mut heard).await);
    }
    let of = |message: &str| all.iter().filter(|body| body.contains(message)).count();
    assert_eq!((of("first"), of("refused"), of("third")), (3, 1, 1), "{all:?}");
    counted(&metrics, "spot_guard_notifications_total{result=\"Published\"} 2").await;
    counted(&metrics, "spot_guard_notifications_total{result=\"Failed\"} 1").await;
}

#[actix_web::test]
async fn a_target_that_leads_elsewhere_is_not_followed_and_the_notification_counts_as_failed() {
    let dir = TempDir::new().expect("a folder");
    let (url, mut heard) = webhook(&[302, 307, 308]);
    let metrics = Arc::new(Metrics::new());
    let notifications = Notifications::with_pauses(&[target(dir.path(), &url)], &metrics, QUICK);
    for message in ["first", "second", "third", "fourth"] {
        notifications.tell(&told(NotificationKind::Notice, message));
    }
    // Each is heard once: the first three are answered with the way to the same place.
    for message in ["first", "second", "third", "fourth"] {
        let body = next(&mut heard).await;
        assert!(body.contains(message), "{message}: {body}");
    }
    counted(&metrics, "spot_guard_notifications_total{result=\"Failed\"} 3").await;
    counted(&metrics, "spot_guard_notifications_total{result=\"Published\"} 1").await;
}

#[actix_web::test]
async fn who_never_answers_holds_nobody_up_and_the_queue_is_bounded() {
    let dir = TempDir::new().expect("a folder");
    // Connections are taken by the system, and nobody ever reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let metrics = Arc::new(Metrics::new());
    let (url, mut heard) = webhook(&[]);
    let other = TempDir::new().expect("a folder");
    let targets = [target(dir.path(), &format!("http://{address}/hook")), target(other.path(), &url)];
    let notifications = Notifications::start(&targets[..1], &metrics);
    for _ in 0..=QUEUE {
        notifications.tell(&told(NotificationKind::Notice, "into the void"));
    }
    counted(&metrics, "spot_guard_notifications_total{result=\"Dropped\"} 1").await;
    let notifications = Notifications::start(&targets, &metrics);
    notifications.tell(&told(NotificationKind::Notice, "heard"));
    assert!(next(&mut heard).await.contains("heard"), "one target waits for another");
}

#[test]
fn what_cannot_be_used_is_refused_by_its_key() {
    let dir = TempDir::new().expect("a folder");
    let good = target(dir.path(), "http://127.0.0.1/");
    assert_eq!(good.validate(), Ok(()));
    let cases = [
        (Target { on: Vec::new(), ..good.clone() }, "on", "names no kind of notification"),
        (Target { template: "{{ nobody }}".to_owned(), ..good.clone() }, "template", "undefined"),
        (Target { template: "{{ node ".to_owned(), ..good.clone() }, "template", "syntax error"),
        (Target { template: "{{ node }}, {{ kind }}".to_owned(), ..good }, "template", "JSON document"),
    ];
    for (target, key, problem) in cases {
        let (wrong, text) = target.validate().expect_err("it is refused");
        assert_eq!(wrong, key);
        assert!(text.contains(problem), "{text}");
    }
}
