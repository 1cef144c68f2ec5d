//! A listener of HTTP/1.1, with the limits that all of ours have.
//!
//! `actix_web::HttpServer` builds the same, but leaves no place between accepting a connection and its TLS
//! handshake, which is where the number of connections is bounded, and none between the server and the
//! connection, which is where a request that cannot be read gets its answer.

use super::connections::{Connection, ConnectionLimiter, Limits, guard};
use super::refusal::Stream;
use crate::telemetry::connections::{ConnectionEnd, Connections, Listener};
use actix_http::HttpService;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactoryExt, apply_fn_factory, fn_service, map_config,
};
use actix_web::App;
use actix_web::dev::{AppConfig, Server};
use actix_web::http::header;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::web::ServiceConfig;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// How long a client may take for its part of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a client may take to send the head of its first request, and to close a connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many seconds open requests get at shutdown.
const SHUTDOWN_SECONDS: u64 = 2;
/// The server stops accepting at so many connections. It is above our own limits: those beyond them are about
/// to be closed. For all ports together it is below 1024, the open files that a process has where nobody
/// allows it more.
const ACCEPTED: usize = 256;
/// Connections that the system completes before they are accepted: a burst of others must not make a probe
/// wait.
const BACKLOG: u32 = 1024;

/// Binds a listener with room for a burst. To be called inside a runtime.
///
/// # Errors
/// If the address cannot be had.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As the standard library does: a port whose last connections are still ending can be had again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Serves what `configure` adds, on a listener that is bound already, until the server is stopped by its
/// handle.
///
/// Signals are left to the process. One worker, a thread of its own, is enough for probes, scrapers and
/// people.
///
/// # Errors
/// If the listener cannot be used.
pub(crate) fn listen<F>(
    listener: TcpListener,
    name: Listener,
    limits: Limits,
    tls: Option<rustls::ServerConfig>,
    counted: Connections,
    configure: F,
) -> std::io::Result<Server>
where
    F: Fn(&mut ServiceConfig) + Clone + Send + 'static,
{
    let builder = Server::build()
        .workers(1)
        .max_concurrent_connections(ACCEPTED)
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .disable_signals();
    let (signal, gate) = (builder.graceful_shutdown_signal(), ConnectionLimiter::new(name, limits, counted));
    let tls = tls.map(acceptor);
    let serve = move || {
        let (configure, signal) = (configure.clone(), signal.clone());
        let headers = DefaultHeaders::new()
            .add((header::CACHE_CONTROL, "no-store"))
            .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
        let app = App::new().wrap(headers).wrap(from_fn(guard)).configure(configure);
        let app = app.into_factory().map_err(|error: actix_web::Error| error.error_response());
        // The client learns of an error by its answer.
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let signal = signal.clone();
                async move { signal.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(REQUEST_TIMEOUT)
            .client_disconnect_timeout(REQUEST_TIMEOUT)
            // Who closes is gone: what was begun for them ends, a stream of events above all.
            .h1_allow_half_closed(false)
            .h1(map_config(app, |()| AppConfig::default()))
            .map_err(drop);
        let tls = tls.clone();
        let http = fn_service(move |accepted| open(tls.clone(), accepted)).and_then(http);
        apply_fn_factory(http, hold(gate.clone()))
    };
    Ok(builder.listen("http", listener, serve)?.run())
}

fn acceptor(mut tls: rustls::ServerConfig) -> TlsAcceptor {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(tls).into()
}

/// What the server of HTTP speaks to: the connection itself, or what is in its TLS.
async fn open(
    tls: Option<TlsAcceptor>,
    (tcp, connection): (TcpStream, Arc<Connection>),
) -> Result<(Stream, Option<SocketAddr>), ()> {
    let peer = tcp.peer_addr().ok();
    let Some(tls) = tls else { return Ok((Stream::new(tcp, connection), peer)) };
    match timeout(HANDSHAKE_TIMEOUT, tls.accept(tcp)).await {
        Ok(Ok(encrypted)) => return Ok((Stream::new(encrypted, connection), peer)),
        // What came is no TLS, or not one that we speak. There is no way to say so by HTTP.
        Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => {
            connection.refuse(ConnectionEnd::Unreadable);
        }
        // It has gone.
        Ok(Err(_)) => {}
        Err(_) => connection.refuse(ConnectionEnd::TooSlow),
    }
    Err(())
}

/// Serves connections at the gate's leave.
fn hold<S>(
    gate: Arc<ConnectionLimiter>,
) -> impl Fn(TcpStream, &S) -> LocalBoxFuture<'static, Result<(), ()>> + Clone
where
    S: Service<(TcpStream, Arc<Connection>)>,
    S::Future: 'static,
{
    move |tcp, http| match tcp.peer_addr() {
        Ok(peer) => {
            let connection = gate.enter(peer.ip());
            let serving = http.call((tcp, connection.clone()));
            connection.hold(serving).map(Ok).boxed_local()
        }
        // It is gone already.
        Err(_) => std::future::ready(Ok(())).boxed_local(),
    }
}
