//! The simulated cloud on loopback, for processes of their own and for a real Kubernetes control plane.

use super::handle::Cloud;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// Seconds that open connections get when a server stops.
const SHUTDOWN_SECONDS: u64 = 1;

type Answer = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;

/// A running server; it lives until it is stopped.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    handle: ServerHandle,
}

impl Served {
    /// The base URL, for example for `AWS_ENDPOINT_URL_AUTO_SCALING`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops it and closes its connections.
    pub async fn stop(self) {
        // A forced stop does not wait for the workers, which may answer once more.
        self.handle.stop(true).await;
    }
}

impl Cloud {
    /// Serves the Auto Scaling Query API, for example on `127.0.0.1:0`.
    pub fn serve_autoscaling(&self, listener: TcpListener) -> io::Result<Served> {
        let cloud = self.clone();
        serve(
            listener,
            Arc::new(move |request| {
                let cloud = cloud.clone();
                Box::pin(async move { cloud.handle_autoscaling(request).await })
            }),
        )
    }

    /// Serves the queue in the JSON protocol of SQS.
    pub fn serve_queue(&self, listener: TcpListener) -> io::Result<Served> {
        let cloud = self.clone();
        serve(
            listener,
            Arc::new(move |request| {
                let cloud = cloud.clone();
                Box::pin(async move { cloud.handle_sqs(request).await })
            }),
        )
    }

    /// Serves the instance metadata of one instance.
    pub fn serve_imds(&self, instance_id: &str, listener: TcpListener) -> io::Result<Served> {
        let (cloud, id) = (self.clone(), instance_id.to_owned());
        serve(
            listener,
            Arc::new(move |request| {
                let (cloud, id) = (cloud.clone(), id.clone());
                Box::pin(async move { cloud.handle_imds(&id, request).await })
            }),
        )
    }
}

fn serve(listener: TcpListener, answer: Answer) -> io::Result<Served> {
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || {
        let answer = answer.clone();
        App::new().default_service(web::to(move |head: HttpRequest, body: Bytes| {
            let answer = answer.clone();
            async move {
                match incoming(&head, body) {
                    Ok(request) => outgoing(answer(request).await),
                    Err(error) => HttpResponse::BadRequest().body(error.to_string()),
                }
            }
        }))
    })
    .workers(1)
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(Served { address, handle })
}

/// actix-web still speaks the `http` crate of the 0.2 line.
fn incoming(head: &HttpRequest, body: Bytes) -> Result<Request<Bytes>, http::Error> {
    let builder = Request::builder().method(head.method().as_str()).uri(head.uri().to_string());
    let headers = head.headers().iter();
    headers.fold(builder, |builder, (name, value)| builder.header(name.as_str(), value.as_bytes())).body(body)
}

fn outgoing(response: Response<Bytes>) -> HttpResponse {
    let (parts, body) = response.into_parts();
    let status = actix_web::http::StatusCode::from_u16(parts.status.as_u16());
    let mut builder =
        HttpResponse::build(status.unwrap_or(actix_web::http::StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &parts.headers {
        builder.insert_header((name.as_str(), value.as_bytes()));
    }
    builder.body(body)
}
