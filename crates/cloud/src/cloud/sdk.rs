//! The AWS SDK against the simulated cloud, in process: its HTTP client, sleep and time.

use super::faults::{CallFate, CallGate, ErrorAnswer, GateCall};
use super::handle::Cloud;
use super::query::{self, Query};
use super::state::region_of;
use crate::clock::CloudClock;
use aws_config::{BehaviorVersion, Region, SdkConfig, imds, provider_config::ProviderConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::{AsyncSleep, Sleep};
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Region of a cloud without groups.
const DEFAULT_REGION: &str = "us-east-1";

impl Cloud {
    /// An SDK configuration whose clients talk to this cloud. `gate` sees each of their calls.
    ///
    /// Retries and timeouts are the SDK's defaults, on tokio's clock. The jitter of its backoff comes from
    /// `fastrand`'s thread-local generator: a run that must repeat itself seeds that as well
    /// (`fastrand::seed`).
    #[must_use]
    pub fn sdk_config(&self, gate: Option<Arc<dyn CallGate>>) -> SdkConfig {
        // Keys that sign, and open nothing.
        let credentials = Credentials::new("AKIDSIMULATED", "simulated", None, None, "simulated cloud");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region()))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url("http://autoscaling.sim")
            .http_client(InProcess { cloud: self.clone(), service: Service::AutoScaling, gate })
            .sleep_impl(TokioSleep)
            .time_source(SimTime(self.inner.clock))
            .build()
    }

    /// The real IMDS client of one instance. To `gate`, an operation is `PUT /latest/api/token` or `GET
    /// /path`.
    #[must_use]
    pub fn imds_client(&self, instance_id: &str, gate: Option<Arc<dyn CallGate>>) -> imds::Client {
        imds::Client::builder().configure(&self.imds_provider(instance_id, gate)).build()
    }

    /// The same for a client that is built with other settings.
    #[must_use]
    pub fn imds_provider(&self, instance_id: &str, gate: Option<Arc<dyn CallGate>>) -> ProviderConfig {
        let service = Service::Imds(instance_id.to_owned());
        ProviderConfig::without_region()
            .with_behavior_version(Some(BehaviorVersion::latest()))
            .with_http_client(InProcess { cloud: self.clone(), service, gate })
            .with_sleep_impl(TokioSleep)
            .with_time_source(SimTime(self.inner.clock))
    }

    fn region(&self) -> String {
        let state = self.lock();
        let zone = state.groups.values().find_map(|group| group.spec.zones.first());
        zone.map_or(DEFAULT_REGION, |zone| region_of(zone)).to_owned()
    }
}

#[derive(Clone)]
enum Service {
    AutoScaling,
    Imds(String),
}

#[derive(Clone)]
struct InProcess {
    cloud: Cloud,
    service: Service,
    gate: Option<Arc<dyn CallGate>>,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl HttpClient for InProcess {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector { client: self.clone(), read_timeout: settings.read_timeout() })
    }
}

#[derive(Debug)]
struct Connector {
    client: InProcess,
    read_timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, read_timeout) = (self.client.clone(), self.read_timeout);
        HttpConnectorFuture::new(async move {
            let request = incoming(request).await?;
            let exchange = client.exchange(request);
            let response = match read_timeout {
                Some(limit) => tokio::time::timeout(limit, exchange)
                    .await
                    .map_err(|elapsed| ConnectorError::timeout(elapsed.into()))??,
                None => exchange.await?,
            };
            outgoing(response)
        })
    }
}

impl InProcess {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ConnectorError> {
        if request.headers().get("x-amz-target").is_some() {
            return Ok(self.cloud.handle_sqs(request).await);
        }
        let Some(gate) = &self.gate else { return Ok(self.serve(request).await) };
        let call = self.describe(&request);
        if let Some(refusal) = pass(gate.before_call(&call)).await? {
            return Ok(self.refuse(&refusal));
        }
        let response = self.serve(request).await;
        if let Some(refusal) = pass(gate.after_call(&call)).await? {
            return Ok(self.refuse(&refusal));
        }
        Ok(response)
    }

    async fn serve(&self, request: Request<Bytes>) -> Response<Bytes> {
        match &self.service {
            Service::AutoScaling => self.cloud.handle_autoscaling(request).await,
            Service::Imds(instance) => self.cloud.handle_imds(instance, request).await,
        }
    }

    fn describe(&self, request: &Request<Bytes>) -> GateCall {
        match self.service {
            Service::AutoScaling => {
                let query = Query::parse(request.body());
                let group = self.cloud.lock().group_meant(&query);
                GateCall {
                    operation: query.get("Action").unwrap_or_default().to_owned(),
                    group,
                    instance: query.get("InstanceId").map(str::to_owned),
                    desired: query.number("DesiredCapacity").ok().flatten(),
                    decrement: query.flag("ShouldDecrementDesiredCapacity").ok().flatten().unwrap_or(false),
                }
            }
            Service::Imds(_) => GateCall {
                operation: format!("{} {}", request.method(), request.uri().path()),
                ..GateCall::default()
            },
        }
    }

    fn refuse(&self, refusal: &ErrorAnswer) -> Response<Bytes> {
        match self.service {
            Service::AutoScaling => query::refusal(refusal, "00000000-0000-4000-8000-000000000000"),
            Service::Imds(_) => {
                let mut response = Response::new(Bytes::from(refusal.message.clone()));
                *response.status_mut() = refusal.status;
                response
            }
        }
    }
}

/// Lets a verdict work: nothing, a pause, an error answer, or a broken connection.
async fn pass(verdict: CallFate) -> Result<Option<ErrorAnswer>, ConnectorError> {
    match verdict {
        CallFate::Pass => Ok(None),
        CallFate::Delay(pause) => {
            tokio::time::sleep(pause).await;
            Ok(None)
        }
        CallFate::Refuse { status, code, message } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ok(Some(ErrorAnswer { status, code, message }))
        }
        CallFate::Hang => std::future::pending().await,
        CallFate::Drop => Err(ConnectorError::io("the connection was reset".into())),
    }
}

/// Reads the body to its end, as a socket would: the SDK watches the throughput of uploads.
async fn incoming(request: HttpRequest) -> Result<Request<Bytes>, ConnectorError> {
    let builder = Request::builder().method(request.method()).uri(request.uri());
    let builder =
        request.headers().iter().fold(builder, |builder, (name, value)| builder.header(name, value));
    let body = request.into_body().collect().await.map_err(ConnectorError::user)?;
    builder.body(body.to_bytes()).map_err(|error| ConnectorError::user(error.into()))
}

fn outgoing(response: Response<Bytes>) -> Result<HttpResponse, ConnectorError> {
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16().try_into();
    let status = status.map_err(|_| ConnectorError::other("no HTTP status".into(), None))?;
    let mut answer = HttpResponse::new(status, SdkBody::from(body));
    for (name, value) in &parts.headers {
        if let Ok(value) = value.to_str() {
            answer.headers_mut().insert(name.as_str().to_owned(), value.to_owned());
        }
    }
    Ok(answer)
}

/// The SDK's timeouts and backoff on tokio's clock.
#[derive(Debug)]
struct TokioSleep;

impl AsyncSleep for TokioSleep {
    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(tokio::time::sleep(duration))
    }
}

/// The SDK's signatures and token expiry on the simulation's clock.
#[derive(Debug)]
struct SimTime(CloudClock);

impl TimeSource for SimTime {
    fn now(&self) -> SystemTime {
        self.0.now().into()
    }
}
