//! How spans leave the process: by OTLP, over HTTP or gRPC, as the standard OTEL_ variables say.
//!
//! Who ends a span puts it into a bounded queue. A thread of its own empties that, so no actor waits for a
//! collector; what the queue cannot take is lost, and the SDK logs it.

use crate::crd::NodeReplacement;
use crate::telemetry::held_calls::HeldCalls;
use crate::telemetry::replacement_trace::{Part, Sampling, is_kept, root, spans_of};
use crate::telemetry::trace_tls::{TraceTls, UnusableFile};
use opentelemetry::Context;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// The variable that says where spans are sent.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The same, for traces alone.
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// The variable that chooses the protocol.
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
/// The same, for traces alone.
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
/// An export over gRPC takes no longer in all, with its repetitions and its connection.
const LONGEST_EXPORT: Duration = Duration::from_secs(60);
/// The variable that bounds the queue.
const QUEUE_SIZE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
/// Spans that may wait unless that variable is set: a new leader tells the recent steps of all replacements
/// at once.
const QUEUE: usize = 8192;
/// The variable that says how long spans wait for others, to be sent with them.
const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
/// How long they do unless that variable is set. Spans that wait are lost when the process is killed.
const SENT_WITHIN: Duration = Duration::from_secs(1);

/// Where the spans of replacements go, if spans are exported.
static EXPORT: OnceLock<Arc<Export>> = OnceLock::new();

/// The queue that the tracer shares with [`tell`].
#[derive(Debug)]
struct Export {
    batches: BatchSpanProcessor,
    sampling: Sampling,
    held: HeldCalls,
}

/// Tells this part of a replacement's record, if spans are exported.
pub fn tell(record: &NodeReplacement, part: Part<'_>) {
    let Some(export) = EXPORT.get() else { return };
    let whole = root(record).span_id();
    let mut spans = spans_of(record, part, export.sampling);
    if is_kept(record, export.sampling) {
        spans.extend(export.held.release(whole));
    } else if !record.is_open() {
        export.held.forget(whole);
    }
    spans.into_iter().for_each(|span| export.batches.on_end(span));
}

/// Holds the spans of calls for a replacement that is not traced, until it is.
pub(super) fn hold_calls(record: &NodeReplacement) {
    if let Some(export) = EXPORT.get() {
        export.held.begin(root(record).span_id());
    }
}

/// Whether a replacement is traced, as its record stands now.
#[must_use]
pub fn is_traced(record: &NodeReplacement) -> bool {
    EXPORT.get().is_some_and(|export| is_kept(record, export.sampling))
}

/// Why spans are not exported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// An unknown protocol.
    #[error("{PROTOCOL}: {0:?} is neither \"grpc\" nor \"http/protobuf\"")]
    Protocol(String),
    /// A variable that cannot be used.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
    /// A certificate or a key that cannot be used.
    #[error(transparent)]
    Tls(#[from] UnusableFile),
    /// No thread for gRPC.
    #[error("gRPC has no thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Whether the standard variables ask for traces.
pub(super) fn is_wanted(lookup: impl Fn(&str) -> Option<String>) -> bool {
    let says = |name, word: &str| lookup(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    !says("OTEL_SDK_DISABLED", "true")
        && !says("OTEL_TRACES_EXPORTER", "none")
        && [ENDPOINT, TRACES_ENDPOINT].into_iter().any(|name| lookup(name).is_some())
}

/// The protocol that the standard variables choose: HTTP unless they say otherwise.
fn protocol(lookup: impl Fn(&str) -> Option<String>) -> Result<Protocol, ExportError> {
    match lookup(TRACES_PROTOCOL).or_else(|| lookup(PROTOCOL)).as_deref() {
        Some("grpc") => Ok(Protocol::Grpc),
        Some("http/protobuf") | None => Ok(Protocol::HttpBinary),
        Some(other) => Err(ExportError::Protocol(other.to_owned())),
    }
}

/// Whether the connection has no TLS: gRPC loads the trusted certificates only for one that has.
fn is_plain(lookup: impl Fn(&str) -> Option<String>) -> bool {
    let endpoint = lookup(TRACES_ENDPOINT).or_else(|| lookup(ENDPOINT));
    endpoint.is_some_and(|endpoint| endpoint.trim().to_ascii_lowercase().starts_with("http://"))
}

/// Begins to export. Endpoint, headers, timeout and compression are read by the exporter itself.
pub(super) fn start(lookup: impl Fn(&str) -> Option<String>) -> Result<SdkTracerProvider, ExportError> {
    let resource = Resource::builder();
    // The builder has read OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES already.
    let named = lookup("OTEL_SERVICE_NAME").is_some()
        || lookup("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|value| value.contains("service.name="));
    let resource = if named { resource } else { resource.with_service_name("spot-guard") }.build();
    let tls = TraceTls::of(&lookup)?;
    let mut batches = match protocol(&lookup)? {
        Protocol::Grpc => {
            let tls = (!is_plain(&lookup)).then(|| tls.over_grpc());
            batches(OverGrpc::new(tls)?, &lookup)
        }
        over_http => {
            let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_protocol(over_http);
            let exporter = match tls.over_http()? {
                Some(client) => exporter.with_http_client(client),
                None => exporter,
            };
            batches(exporter.build()?, &lookup)
        }
    };
    batches.set_resource(&resource);
    let sampling = Sampling::of(lookup);
    let export = Arc::new(Export { batches, sampling, held: HeldCalls::default() });
    // A process exports once: who comes second fails, as its logs are set up already.
    let _ = EXPORT.set(export.clone());
    let provider = SdkTracerProvider::builder().with_sampler(sampler(sampling));
    Ok(provider.with_span_processor(Shared(export)).with_resource(resource).build())
}

/// What decides on spans that are made at once. Those of calls are below a replacement, which decides for
/// them: by its ratio alone the SDK would drop calls of one that is traced since it failed.
fn sampler(sampling: Sampling) -> Sampler {
    match sampling {
        Sampling::Off => Sampler::AlwaysOff,
        Sampling::Ratio(ratio) => Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))),
    }
}

fn batches(
    exporter: impl SpanExporter + 'static,
    lookup: impl Fn(&str) -> Option<String>,
) -> BatchSpanProcessor {
    let mut config = BatchConfigBuilder::default();
    if lookup(QUEUE_SIZE).is_none() {
        config = config.with_max_queue_size(QUEUE);
    }
    if lookup(DELAY).is_none() {
        config = config.with_scheduled_delay(SENT_WITHIN);
    }
    BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build()
}

/// What the tracer has of it.
#[derive(Debug)]
struct Shared(Arc<Export>);

impl SpanProcessor for Shared {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if let Some(span) = self.0.held.hold(span) {
            self.0.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.batches.shutdown_with_timeout(timeout)
    }
}

/// An exporter over gRPC. Its connection needs a runtime, and gets one of its own: that of the actors is not
/// to wait for it.
#[derive(Debug)]
struct OverGrpc {
    exporter: Arc<opentelemetry_otlp::SpanExporter>,
    runtime: Background,
}

/// A runtime that may end anywhere, within another one too.
#[derive(Debug)]
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl OverGrpc {
    fn new(tls: Option<ClientTlsConfig>) -> Result<Self, ExportError> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("otlp").enable_all().build()?;
        let runtime = Background(Some(runtime));
        let entered = runtime.0.as_ref().map(Runtime::enter);
        let builder = opentelemetry_otlp::SpanExporter::builder().with_tonic();
        let exporter = match tls {
            Some(tls) => builder.with_tls_config(tls).build(),
            None => builder.build(),
        };
        drop(entered);
        Ok(Self { exporter: Arc::new(exporter?), runtime })
    }
}

impl SpanExporter for OverGrpc {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let Some(runtime) = &self.runtime.0 else { return Err(OTelSdkError::AlreadyShutdown) };
        let exporter = self.exporter.clone();
        // The exporter's own timeout does not hold while it connects.
        let sent = runtime.spawn(async move { timeout(LONGEST_EXPORT, exporter.export(batch)).await });
        match sent.await {
            Ok(Ok(exported)) => exported,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(LONGEST_EXPORT)),
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Nothing is being sent yet, so nobody else has it.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn spans_are_exported_if_and_only_if_the_variables_say_so() {
        const SET: (&str, &str) = (ENDPOINT, "http://collector:4318");
        assert!(!is_wanted(env(&[])));
        assert!(is_wanted(env(&[SET])));
        assert!(is_wanted(env(&[(TRACES_ENDPOINT, "http://collector:4318")])));
        assert!(!is_wanted(env(&[SET, ("OTEL_SDK_DISABLED", "TRUE")])));
        assert!(is_wanted(env(&[SET, ("OTEL_SDK_DISABLED", "false")])));
        assert!(!is_wanted(env(&[SET, ("OTEL_TRACES_EXPORTER", "none")])));
    }

    #[test]
    fn certificates_are_loaded_only_for_tls() {
        assert!(is_plain(env(&[(ENDPOINT, "http://collector:4317")])));
        assert!(!is_plain(env(&[(ENDPOINT, "https://collector:4317")])));
        assert!(!is_plain(env(&[(ENDPOINT, "http://a:4317"), (TRACES_ENDPOINT, "https://b:4317")])));
    }

    #[test]
    fn the_protocol_is_the_one_of_the_variables_and_an_unknown_one_is_named() {
        assert_eq!(protocol(env(&[])).unwrap(), Protocol::HttpBinary);
        assert_eq!(protocol(env(&[(PROTOCOL, "http/protobuf")])).unwrap(), Protocol::HttpBinary);
        assert_eq!(protocol(env(&[(PROTOCOL, "grpc")])).unwrap(), Protocol::Grpc);
        let for_traces = env(&[(PROTOCOL, "http/json"), (TRACES_PROTOCOL, "grpc")]);
        assert_eq!(protocol(for_traces).unwrap(), Protocol::Grpc);
        let error = protocol(env(&[(PROTOCOL, "http/json")])).unwrap_err().to_string();
        let expected = r#"OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" is neither "grpc" nor "http/protobuf""#;
        assert_eq!(error, expected);
    }

    #[test]
    fn an_exporter_over_grpc_ends_within_another_runtime() {
        let outer = Builder::new_current_thread().build().unwrap();
        outer.block_on(async { drop(OverGrpc::new(None).unwrap()) });
    }
}
