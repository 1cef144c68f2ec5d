//! A proxy before SQS that holds calls, or refuses them, as the test says.

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

/// How calls are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// By SQS.
    Passes,
    /// This operation has no answer, and never reaches SQS.
    Holds(&'static str),
    /// Each call is refused with this status and code.
    Refuses(u16, &'static str),
}

struct State {
    endpoint: String,
    client: reqwest::Client,
    manner: watch::Sender<Manner>,
    held: AtomicUsize,
}

pub struct Proxy {
    address: SocketAddr,
    state: Data<State>,
    server: ServerHandle,
}

impl Proxy {
    /// Stands before the queue of that URL.
    pub fn before(url: &str) -> Self {
        let endpoint = url.split('/').take(3).collect::<Vec<_>>().join("/");
        // The machine may have a proxy of its own, which knows nothing of loopback.
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let manner = watch::Sender::new(Manner::Passes);
        let state = Data::new(State { endpoint, client, manner, held: AtomicUsize::new(0) });
        let shared = state.clone();
        let app = move || App::new().app_data(shared.clone()).default_service(web::to(relay));
        let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").expect("a port");
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix::spawn(server);
        Self { address, state, server: handle }
    }

    /// The URL of the queue as the controller gets it.
    pub fn url(&self, url: &str) -> String {
        let path: Vec<&str> = url.split('/').skip(3).collect();
        format!("http://{}/{}", self.address, path.join("/"))
    }

    /// Calls are answered like this from now on.
    pub fn set(&self, manner: Manner) {
        self.state.manner.send_replace(manner);
    }

    /// How many calls were held so far.
    pub fn held(&self) -> usize {
        self.state.held.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}

async fn relay(head: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    let target = head.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix("AmazonSQS.")).unwrap_or_default();
    let mut manner = state.manner.subscribe();
    let now = *manner.borrow_and_update();
    match now {
        Manner::Holds(held) if held == operation => {
            state.held.fetch_add(1, Ordering::Relaxed);
            let _ = manner.wait_for(|manner| *manner != now).await;
            refused(503, "ServiceUnavailable")
        }
        Manner::Refuses(status, code) => refused(status, code),
        Manner::Passes | Manner::Holds(_) => forward(&head, body, &state).await,
    }
}

/// The AWS JSON protocol's form of an error.
fn refused(status: u16, code: &str) -> HttpResponse {
    let status = StatusCode::from_u16(status).expect("a status");
    let body = json!({ "__type": format!("com.amazon.coral.service#{code}"), "message": "as the test says" });
    HttpResponse::build(status).content_type("application/x-amz-json-1.0").body(body.to_string())
}

async fn forward(head: &HttpRequest, body: Bytes, state: &State) -> HttpResponse {
    let mut body: Value = serde_json::from_slice(&body).expect("the JSON protocol");
    if body["WaitTimeSeconds"].is_u64() {
        // A read that waits would not notice for long that the manner has changed.
        body["WaitTimeSeconds"] = json!(1);
    }
    let mut request = state.client.post(format!("{}{}", state.endpoint, head.uri()));
    for (name, value) in head.headers() {
        if !["host", "content-length", "connection"].contains(&name.as_str()) {
            request = request.header(name.as_str(), value.as_bytes());
        }
    }
    let Ok(answer) = request.body(body.to_string()).send().await else {
        return refused(503, "ServiceUnavailable");
    };
    let status = StatusCode::from_u16(answer.status().as_u16()).expect("a status");
    let content_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("application/x-amz-json-1.0").to_owned();
    HttpResponse::build(status).content_type(content_type).body(answer.bytes().await.unwrap_or_default())
}
