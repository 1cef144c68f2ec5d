//! The agent, `spot-guard-agent`: runs on a Spot node, watches its metadata service, reports what it
//! announces.

use crate::actors::imds_poller::{AgentMetrics, ImdsPoller, NodeContext};
use crate::actors::supervision::{Link, LinkError, LinkEvent, Ping, Shutdown, supervise};
use crate::aws::imds::Imds;
use crate::clock::Clock;
use crate::http::{PROBE_LIMITS, bind, listen};
use crate::kube::counted::counting;
use crate::telemetry::connections::{Connections, Listener};
use crate::telemetry::log_filter::{self, LogFilter};
use crate::telemetry::metrics::{ActorName, CONTENT_TYPE, ProcessMetrics, of_parts};
use crate::telemetry::readiness::Readiness;
use actix_web::{HttpResponse, web};
use anyhow::Context;
use aws_config::imds::client::Builder;
use aws_config::provider_config::ProviderConfig;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use spot_guard_core::ids::NodeName;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What the command line gives.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The Kubernetes node that the agent runs on.
    pub node_name: NodeName,
    /// How to reach the Kubernetes API; without it as `kubectl` would, or from inside the cluster.
    pub kubeconfig: Option<PathBuf>,
    /// Where to serve `/livez`, `/readyz` and `/metrics`; without it, nowhere.
    pub listen: Option<SocketAddr>,
    /// From the beginning of one read of IMDS to that of the next.
    pub poll_every: Duration,
    /// A file with the filter of the logs, which may change; without it, they are filtered as usual.
    pub log_filter_file: Option<PathBuf>,
}

/// An agent that runs.
#[derive(Clone)]
pub struct AgentHandle {
    /// Its only actor.
    pub poller: Link<ImdsPoller>,
    /// Ends it.
    pub shutdown: Shutdown,
    /// What works and what does not.
    pub readiness: Readiness,
    /// What it counted.
    pub metrics: AgentMetrics,
    /// What its process counted.
    pub process: ProcessMetrics,
    /// Connections to its port that it ended.
    pub connections: Connections,
}

impl AgentHandle {
    /// Ends the agent, and waits until it is gone.
    pub async fn stop(&self) {
        self.shutdown.trigger();
        self.shutdown.finished().await;
    }

    /// Everything that the agent counts, as OpenMetrics text.
    ///
    /// # Errors
    /// Never for a `String`; the encoder's signature allows it.
    pub fn encode_metrics(&self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("spot_guard");
        self.process.register(&mut registry);
        self.metrics.register(&mut registry);
        self.connections.register(&[Listener::Probes], &mut registry);
        let mut text = String::new();
        encode_registry(&mut text, &registry)?;
        encode_registry(&mut text, &of_parts(&self.readiness))?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// Starts the agent of one node in the current actix system. Many can live in one process.
///
/// `imds` builds the clients of the node's metadata service; the agent sets their timeouts.
#[must_use]
pub fn start(
    node_name: impl Into<NodeName>,
    client: kube::Client,
    imds: Builder,
    clock: Clock,
    poll_every: Duration,
) -> AgentHandle {
    let process = ProcessMetrics::of_agent();
    let handle = AgentHandle {
        poller: poller(process.clone()),
        shutdown: Shutdown::new(),
        readiness: Readiness::default(),
        metrics: AgentMetrics::default(),
        process: process.clone(),
        connections: Connections::default(),
    };
    let node = NodeContext {
        node_name: node_name.into(),
        imds: Imds::new(imds),
        client: counting(&client, process),
        clock,
        poll_every,
        metrics: handle.metrics.clone(),
        readiness: handle.readiness.clone(),
    };
    supervise(&handle.poller, handle.readiness.clone(), &handle.shutdown, move |_| {
        ImdsPoller::new(node.clone())
    });
    handle
}

/// A link to the poller, whose restarts and dropped messages are counted.
fn poller(process: ProcessMetrics) -> Link<ImdsPoller> {
    let label = ActorName::ImdsPoller;
    Link::reporting("ImdsPoller", move |event| match event {
        LinkEvent::Restarted(cause) => process.actor_restarted(label, cause),
        LinkEvent::Dropped => process.message_dropped(label),
        LinkEvent::Answered(after) => process.mailbox_waited(label, after),
    })
}

/// Runs the agent until SIGTERM or ctrl-c. Must be called inside an actix system.
///
/// # Errors
/// If the Kubernetes configuration cannot be read or the address cannot be bound. Neither IMDS nor the
/// Kubernetes API has to be there.
pub async fn run(options: AgentOptions, logs: LogFilter) -> anyhow::Result<()> {
    if let Some(file) = options.log_filter_file.clone() {
        actix::spawn(logs.follow(move || log_filter::in_file(&file)));
    }
    // No request is made before there is something to report, and none is repeated: the poller has its own
    // schedule.
    let client = crate::kube::client::infer(options.kubeconfig.as_deref()).await?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let agent =
        start(options.node_name.clone(), client, metadata_client(), Clock::System, options.poll_every);
    let server = match options.listen {
        Some(address) => Some(serve(address, &agent)?),
        None => None,
    };
    tracing::info!(node = &*options.node_name, "agent started");
    tokio::select! {
        _ = terminated.recv() => {}
        result = tokio::signal::ctrl_c() => result.context("cannot listen for ctrl-c")?,
    }
    agent.stop().await;
    if let Some(server) = server {
        server.stop(true).await;
    }
    tracing::info!(node = &*options.node_name, "agent ended");
    Ok(())
}

/// IMDS is on the node itself: it is never asked through a proxy that the environment names for other calls.
fn metadata_client() -> Builder {
    let direct = aws_smithy_http_client::Builder::new().build_http();
    Builder::default().configure(&ProviderConfig::without_region().with_http_client(direct))
}

fn serve(address: SocketAddr, agent: &AgentHandle) -> anyhow::Result<actix_web::dev::ServerHandle> {
    let cannot_listen = || format!("cannot listen on {address}");
    let listener = bind(address).with_context(cannot_listen)?;
    let (agent, counted) = (agent.clone(), agent.connections.clone());
    let configure = move |config: &mut web::ServiceConfig| {
        config.app_data(web::Data::new(agent.clone()));
        routes(config);
    };
    let server = listen(listener, Listener::Probes, PROBE_LIMITS, None, counted, configure)
        .with_context(cannot_listen)?;
    let handle = server.handle();
    actix::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok(handle)
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/livez", web::get().to(livez))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics));
}

/// Asks the actor itself, so that a blocked thread is seen. One that is being restarted is cared for.
async fn livez(agent: web::Data<AgentHandle>) -> HttpResponse {
    match agent.poller.ask(Ping).await {
        Ok(()) | Err(LinkError::Down(_)) => HttpResponse::Ok().body("ok"),
        Err(error) => HttpResponse::ServiceUnavailable().body(error.to_string()),
    }
}

async fn readyz(agent: web::Data<AgentHandle>) -> HttpResponse {
    let reasons = agent.readiness.reasons();
    if agent.readiness.serves() {
        HttpResponse::Ok().json(reasons)
    } else {
        HttpResponse::ServiceUnavailable().json(reasons)
    }
}

async fn metrics(agent: web::Data<AgentHandle>) -> HttpResponse {
    match agent.encode_metrics() {
        Ok(text) => HttpResponse::Ok().content_type(CONTENT_TYPE).body(text),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::imds_poller::IMDS_PART;
    use crate::telemetry::readiness::UnreadyCode;
    use actix_web::App;
    use actix_web::http::StatusCode;
    use actix_web::test::{TestRequest, call_and_read_body, call_service, init_service};

    #[actix_web::test]
    async fn the_probes_and_the_metrics_answer() {
        let api = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>("no request is expected")
        });
        // Nothing listens there: IMDS does not answer.
        let imds = Builder::default().endpoint("http://127.0.0.1:1").expect("an address");
        let poll_every = Duration::from_secs(2);
        let agent = start("node", kube::Client::new(api, "default"), imds, Clock::System, poll_every);
        let app = init_service(App::new().app_data(web::Data::new(agent.clone())).configure(routes)).await;
        let get = |path: &str| TestRequest::get().uri(path).to_request();

        assert_eq!(call_service(&app, get("/livez")).await.status(), StatusCode::OK);
        assert_eq!(call_service(&app, get("/readyz")).await.status(), StatusCode::OK);
        agent.readiness.not_ready(IMDS_PART, UnreadyCode::ImdsUnreadable, "no answer");
        assert_eq!(call_service(&app, get("/readyz")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            call_and_read_body(&app, get("/readyz")).await,
            r#"{"imds":{"reason":"ImdsUnreadable","message":"no answer","serves":false}}"#
        );
        let text = call_and_read_body(&app, get("/metrics")).await;
        let shown = String::from_utf8_lossy(&text);
        assert!(shown.contains("spot_guard_part_ready{part=\"imds\"} 0"), "{shown}");
        assert!(text.ends_with(b"# EOF\n"), "{text:?}");

        agent.stop().await;
        assert_eq!(
            call_service(&app, get("/livez")).await.status(),
            StatusCode::OK,
            "it ends, and is not stuck"
        );
    }
}
