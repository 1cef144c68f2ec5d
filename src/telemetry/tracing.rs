//! Logs, and the spans of what is done at once: a notice that is seen, a SpotAction that is answered.
//!
//! Logs go to standard error. Spans are exported by OTLP if, and only if, the standard OTEL_ variables name
//! an endpoint. Those of the boxes are made from the records
//! ([`replacement_trace`](crate::telemetry::replacement_trace)).

use crate::telemetry::escape::Escaping;
use crate::telemetry::log_filter::LogFilter;
use crate::telemetry::repeats::Repeats;
use crate::telemetry::trace_context::{context_of, parent_of};
use crate::telemetry::trace_export;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceId, TracerProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use spot_guard_core::ids::{NodeName, PoolName, ReplacementName};
use spot_guard_core::record::FlowBox;
use spot_guard_core::spot_action::ActionKind;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The variable that chooses the form of the logs: `text` or `json`.
pub const LOG_FORMAT_VARIABLE: &str = "SPOT_GUARD_LOG_FORMAT";

/// The form of the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured on a terminal only.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(TelemetryError::LogFormat(other.to_owned())),
        }
    }
}

/// The target of the spans that lines of the logs about steps have: they are not exported. A step's span in
/// the trace is made from its record.
const OF_STEPS: &str = "spot_guard::steps";

/// Why logs and traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// An unknown form of the logs.
    #[error("{LOG_FORMAT_VARIABLE}: {0:?} is neither \"text\" nor \"json\"")]
    LogFormat(String),
    /// The filter cannot be read.
    #[error("RUST_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logs were set up before.
    #[error("logs are set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends what is left of the traces when it is dropped: to be held until the process ends.
#[derive(Debug)]
#[must_use = "traces end when this is dropped"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
    /// The filter of the logs.
    pub logs: LogFilter,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Sets up logs and traces of the process. `format` wins over the variable [`LOG_FORMAT_VARIABLE`];
/// `RUST_LOG` filters the logs, `info` unless it is set.
///
/// An exporter that cannot be built is logged and left out: nodes are looked after without traces, too.
///
/// # Errors
/// If a variable cannot be read, or logs are set up already.
pub fn init(format: Option<LogFormat>) -> Result<TelemetryGuard, TelemetryError> {
    #[expect(clippy::disallowed_methods, reason = "logs are set up before anything else can be read")]
    let lookup = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let format = match (format, lookup(LOG_FORMAT_VARIABLE)) {
        (Some(format), _) => format,
        (None, Some(text)) => text.parse()?,
        (None, None) => LogFormat::Text,
    };
    let (filter, logs) = LogFilter::new(lookup("RUST_LOG").unwrap_or_else(|| "info".to_owned()))?;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match format {
        LogFormat::Json => log.json().with_span_list(false).flatten_event(true).boxed(),
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            log.with_ansi(ansi).fmt_fields(debug_fn(for_people).delimited(" ")).boxed()
        }
    };
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let (provider, failure) = match trace_export::is_wanted(lookup).then(|| trace_export::start(lookup)) {
        Some(Ok(provider)) => (Some(provider), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let export = provider.as_ref().map(|provider| {
        // Only our own spans: those of the exporter's HTTP client would be exported in turn, without end.
        let exported = Targets::new().with_target("spot_guard", LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
            .with_filter(exported.with_target(OF_STEPS, LevelFilter::OFF))
    });
    tracing_subscriber::registry().with(log.with_filter(log_filter(filter))).with(export).try_init()?;
    if let Some(error) = failure {
        tracing::warn!(%error, "traces are not exported");
    }
    Ok(TelemetryGuard { provider, logs })
}

/// Libraries whose lines carry what was answered to them, up to this level. kube's client logs an answer that
/// it cannot read as a whole, and its errors hold the words of the API; AWS's sources of credentials log raw
/// answers. What went wrong reaches us as an error, too, and we tell it without them.
/// actix-http logs each request that it cannot read as an error, and anybody who reaches a port can send
/// many; `spot_guard_http_connections_ended_total` counts them.
const TALKATIVE: [(&str, LevelFilter); 5] = [
    ("actix_http::h1", LevelFilter::OFF),
    ("kube_client", LevelFilter::ERROR),
    ("kube_runtime", LevelFilter::ERROR),
    ("aws_config", LevelFilter::ERROR),
    ("aws_smithy_runtime_api", LevelFilter::OFF),
];

/// What of the logs is written: what `filter` lets pass, a warning once a minute, and never an object, a
/// body, a token or a secret that a library was answered.
#[must_use]
pub fn log_filter<S: Subscriber>(filter: impl Filter<S>) -> impl Filter<S> {
    let quiet = Targets::new().with_default(LevelFilter::TRACE).with_targets(TALKATIVE);
    filter.and(quiet).and(Repeats::default())
}

/// A field of a line of the text logs. Its value may come from elsewhere, and must not look like another
/// line.
fn for_people(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(Escaping(writer), "{value:?}")
}

/// The span of a notice that is seen, in the trace of `traceparent` if that can be read, else in one of its
/// own. The span of the whole replacement is below it.
#[must_use]
pub fn notice_span(replacement: &ReplacementName, node: &NodeName, traceparent: Option<&str>) -> Span {
    let (replacement, node, number) = (replacement.as_str(), node.as_str(), FlowBox::Notice.number());
    join(info_span!("notice", "box" = number, replacement, node, trace_id = field::Empty), traceparent)
}

/// The span of a stored step for the logs: its line says what it is about, with the trace.
#[must_use]
pub fn step_span(
    flow_box: FlowBox,
    replacement: &ReplacementName,
    node: &NodeName,
    pool: Option<&PoolName>,
    trace_id: TraceId,
) -> Span {
    let (replacement, node, pool) = (replacement.as_str(), node.as_str(), pool.map(PoolName::as_str));
    // A span's name is a part of its call site: one for each box.
    macro_rules! named {
        ($name:literal) => {
            info_span!(target: OF_STEPS, $name, "box" = flow_box.number(), replacement, node, pool, %trace_id)
        };
    }
    match flow_box {
        FlowBox::Notice => named!("box 1 notice"),
        FlowBox::ScaleUp => named!("box 2 scale up"),
        FlowBox::Wait => named!("box 3 wait"),
        FlowBox::Success => named!("box 3.1 success"),
        FlowBox::Fallback => named!("box 3.2 fallback"),
        FlowBox::Taint => named!("box 4 taint"),
        FlowBox::Drain => named!("box 5 drain"),
        FlowBox::Monitor => named!("box 6 monitor"),
        FlowBox::Health => named!("box 7 health"),
        FlowBox::Stability => named!("box 8 stability"),
        FlowBox::Safety => named!("box 9 safety"),
        FlowBox::ScaleDown => named!("box 10 scale down"),
        FlowBox::CleanUp => named!("box 11 clean up"),
    }
}

/// The span of a SpotAction that is answered, in the trace of the request that made it, with links to the
/// replacements that it led to.
#[must_use]
pub fn spot_action_span(
    spot_action: &str,
    action: ActionKind,
    traceparent: Option<&str>,
    replacements: impl IntoIterator<Item = SpanContext>,
) -> Span {
    let span = join(info_span!("spotaction", spot_action, %action, trace_id = field::Empty), traceparent);
    replacements.into_iter().for_each(|replacement| span.add_link(replacement));
    span
}

/// Lets the span join the trace of `traceparent`, if that can be read.
fn join(span: Span, traceparent: Option<&str>) -> Span {
    let parent = traceparent.map(parent_of).unwrap_or_default();
    let parent_span = parent.span().span_context().clone();
    if parent_span.is_valid() {
        span.record("trace_id", field::display(parent_span.trace_id()));
        // Without an exporter there is no layer to tell; the id in the logs is enough then.
        let _ = span.set_parent(parent);
    } else {
        let own = span.context().span().span_context().trace_id();
        if own != TraceId::INVALID {
            span.record("trace_id", field::display(own));
        }
    }
    span
}

/// The W3C trace context of a span, to be stored with a notice; to be asked for once per span.
///
/// Without an exporter in this process the ids are made up, marked as not recorded: whoever reads the notice
/// can still tell its replacement as one trace, but the span itself is nowhere.
#[must_use]
pub fn traceparent_of(span: &Span) -> String {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove("traceparent").unwrap_or_else(|| {
        // Ids of zero are invalid.
        let trace_id = format!("{:032x}", fastrand::u128(1..));
        span.record("trace_id", trace_id.as_str());
        format!("00-{trace_id}-{:016x}-00", fastrand::u64(1..))
    })
}

/// The trace id of a W3C trace context, if it is a valid one.
#[must_use]
pub fn trace_id_of(traceparent: &str) -> Option<String> {
    context_of(traceparent).map(|context| context.trace_id().to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SpanData, SpanExporter};
    use std::sync::{Arc, Mutex};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Keeps the spans that are exported.
    #[derive(Clone, Debug, Default)]
    pub(in crate::telemetry) struct Collected(pub Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Collected {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    #[test]
    fn an_unknown_log_format_is_named() {
        let error = "yaml".parse::<LogFormat>().unwrap_err();
        assert_eq!(error.to_string(), r#"SPOT_GUARD_LOG_FORMAT: "yaml" is neither "text" nor "json""#);
    }

    #[test]
    fn text_logs_write_out_what_could_forge_a_line_or_move_the_cursor() {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        const HOSTILE: &str = "a drill\n2026-01-01T00:00:00Z ERROR all is lost \u{1b}[2J\u{9b}1m\u{202e}";
        let reader = Lines::default();
        let writer = reader.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(debug_fn(for_people).delimited(" "));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let error = std::io::Error::other(HOSTILE);
            let _span = info_span!("spotaction", reason = %HOSTILE, number = 7).entered();
            tracing::info!(user = %HOSTILE, %error, quoted = HOSTILE, count = 3, "asked: {HOSTILE}");
        });
        let text = String::from_utf8(reader.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(|letter: char| letter.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}'), "{text:?}");
        assert_eq!(text.matches("a drill\\n2026-01-01T00:00:00Z ERROR").count(), 5, "{text}");
        assert!(text.contains(" number=7}") && text.contains(" count=3"), "{text}");
    }

    #[test]
    fn a_later_notice_joins_the_trace_of_the_first_and_an_answer_names_what_it_led_to() {
        let exporter = Collected::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            notice_span(&"i-1".into(), &"node-1".into(), Some(PARENT)).in_scope(|| {});
            notice_span(&"i-1".into(), &"node-1".into(), Some("garbage")).in_scope(|| {});
            spot_action_span("drill", ActionKind::Replace, None, context_of(PARENT)).in_scope(|| {});
        });
        let spans = exporter.0.lock().unwrap();
        assert_eq!(spans[0].name, "notice");
        assert_eq!(spans[0].span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(spans[0].parent_span_id.to_string(), "b7ad6b7169203331");
        let value = |key: &str| {
            let held = spans[0].attributes.iter().find(|held| held.key.as_str() == key);
            held.map(|held| held.value.to_string())
        };
        assert_eq!(value("box").as_deref(), Some("1"));
        assert_eq!(value("trace_id").as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_ne!(spans[1].span_context.trace_id(), spans[0].span_context.trace_id());
        let linked: Vec<_> = spans[2].links.iter().map(|link| link.span_context.span_id()).collect();
        assert_eq!(linked, [spans[0].parent_span_id]);
    }

    #[test]
    fn a_trace_begins_with_or_without_an_exporter() {
        let made_up = traceparent_of(&Span::none());
        assert!(context_of(&made_up).is_some_and(|context| !context.is_sampled()), "{made_up}");
        assert_ne!(made_up, traceparent_of(&Span::none()));

        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = notice_span(&"i-1".into(), &"node-1".into(), None);
            let own = span.context().span().span_context().clone();
            let stored = context_of(&traceparent_of(&span)).unwrap();
            assert_eq!(
                (stored.trace_id(), stored.span_id(), stored.is_sampled()),
                (own.trace_id(), own.span_id(), true)
            );
        });
    }

    #[test]
    fn what_is_no_trace_context_has_no_trace_id() {
        for text in ["", "garbage", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            assert_eq!(trace_id_of(text), None, "{text}");
        }
        assert_eq!(trace_id_of(PARENT).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    }
}
