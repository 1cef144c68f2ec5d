//! A listener of HTTP/1.1, with the limits that all of ours have.
//!
//! `actix_web::HttpServer` builds the same, but leaves no place between accepting a connection and its TLS
//! handshake, which is where the number of connections is bounded.

use super::connections::{ConnectionLimiter, Limits, guard};
use crate::telemetry::connections::{Connections, Listener};
use actix_http::{HttpService, TlsAcceptorConfig};
use actix_service::{IntoServiceFactory, Service, ServiceFactoryExt, apply_fn_factory, map_config};
use actix_web::App;
use actix_web::dev::{AppConfig, Server};
use actix_web::http::header;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::web::ServiceConfig;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpSocket;

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
    // Their types cannot be written down, and differ by what is under them.
    macro_rules! http {
        () => {{
            let (configure, signal) = (configure.clone(), signal.clone());
            let headers = DefaultHeaders::new()
                .add((header::CACHE_CONTROL, "no-store"))
                .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
            let app = App::new().wrap(headers).wrap(from_fn(guard)).configure(configure);
            let app = app.into_factory().map_err(|error: actix_web::Error| error.error_response());
            HttpService::build()
                .graceful_shutdown_signal(move || {
                    let signal = signal.clone();
                    async move { signal.notified().await }
                })
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout(REQUEST_TIMEOUT)
                .client_disconnect_timeout(REQUEST_TIMEOUT)
                // Who closes is gone: what was begun for them ends, a stream of events above all.
                .h1_allow_half_closed(false)
                .finish(map_config(app, |()| AppConfig::default()))
        }};
    }
    let builder = match tls {
        None => {
            builder.listen("http", listener, move || apply_fn_factory(http!().tcp(), hold(gate.clone())))?
        }
        Some(tls) => builder.listen("https", listener, move || {
            let handshake = TlsAcceptorConfig::default().handshake_timeout(HANDSHAKE_TIMEOUT);
            let https = http!().rustls_0_23_with_config(tls.clone(), handshake);
            apply_fn_factory(https, hold(gate.clone()))
        })?,
    };
    Ok(builder.run())
}

/// Serves connections at the gate's leave.
fn hold<S>(
    gate: Arc<ConnectionLimiter>,
) -> impl Fn(TcpStream, &S) -> LocalBoxFuture<'static, Result<(), S::Error>> + Clone
where
    S: Service<TcpStream>,
    S::Future: 'static,
    S::Error: 'static,
{
    move |stream, http| match stream.peer_addr() {
        Ok(peer) => {
            let connection = gate.enter(peer.ip());
            let serving = http.call(stream);
            async move {
                connection.hold(serving).await;
                Ok(())
            }
            .boxed_local()
        }
        // It is gone already.
        Err(_) => std::future::ready(Ok(())).boxed_local(),
    }
}
