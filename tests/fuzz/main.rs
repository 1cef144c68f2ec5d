//! Parsers of what others send, fed with changed copies of what is valid: none panics, and what one accepts
//! keeps its bounds.
//!
//! Each target runs for `FUZZ_SECONDS`, a quarter of a second by default, from the seed `FUZZ_SEED`. A
//! failure names the seed, and shows the input.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::unwrap_used, reason = "a test may fail")]

mod corpus;
mod mutate;

use actix_web::web::Query;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use jiff::{SignedDuration, Timestamp};
use mutate::Mutator;
use spot_guard::aws::AutoScaling;
use spot_guard::clock::Clock;
use spot_guard::config::Config;
use spot_guard::crd::{InterruptionNotice, NodeReplacement, SpotAction, SpotPool};
use spot_guard::http::{Filter, parse_reason, parse_return};
use spot_guard::kube::splitter::{Piece, Shape, Splitter, Uncut};
use spot_guard::telemetry::metrics::Metrics;
use spot_guard::telemetry::tracing::trace_id_of;
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::Cloud;
use spot_guard_core::classify;
use spot_guard_core::ids::{GroupName, InstanceId};
use spot_guard_core::imds::{self, Announcement};
use spot_guard_core::lookback::{ActivityStatus, GroupRecord, LookbackFacts, ScalingActivity, look_back};
use spot_guard_core::notices::{Seen, deadline};
use spot_guard_core::queue::{self, QueueEvent};
use spot_guard_core::record::NoticeKind;
use spot_guard_core::spot_action::ActionKind;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// No deadline that counts is further away (EC2 gives two minutes), or longer past.
const AHEAD: SignedDuration = SignedDuration::from_secs(600);
const PAST: SignedDuration = SignedDuration::from_secs(30);
/// An AWS Health event names so many instances at most that are looked at.
const MOST_INSTANCES: usize = 100;

fn now() -> Timestamp {
    corpus::NOW.parse().expect("a time")
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Feeds a target until its time is over. `check` says whether it accepted the input.
#[track_caller]
fn fuzz(target: &str, corpus: &[String], check: impl Fn(&[u8]) -> bool) {
    let time = Duration::from_secs_f64(setting("FUZZ_SECONDS", 0.25));
    let seed = setting("FUZZ_SEED", 1);
    let mut mutator = Mutator::new(seed, corpus);
    for valid in corpus {
        assert!(check(valid.as_bytes()), "{target} does not accept what is valid: {valid}");
    }
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    let began = Instant::now();
    while began.elapsed() < time || accepted + refused < 100 {
        let input = mutator.next_input();
        match catch_unwind(AssertUnwindSafe(|| check(&input))) {
            Ok(true) => accepted += 1,
            Ok(false) => refused += 1,
            Err(panic) => {
                println!("{target}, FUZZ_SEED={seed}: {:?}", String::from_utf8_lossy(&input));
                resume_unwind(panic);
            }
        }
    }
    println!("{target}: {accepted} accepted, {refused} refused");
}

/// The input as a parser of text gets it.
fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

fn is_an_instance(id: &InstanceId) {
    let digits = id.as_str().strip_prefix("i-").expect("an instance id");
    assert!((8..=17).contains(&digits.len()), "{id}");
    assert!(digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{id}");
}

/// Of whatever was announced, only a deadline that EC2 may have given counts.
fn counts_within_bounds(announced: &Announcement) {
    let (node, instance_id) = ("node".into(), corpus::INSTANCE.into());
    let seen = Seen {
        name: "notice",
        node: &node,
        instance_id: &instance_id,
        kind: announced.kind,
        deadline: announced.deadline,
        detected: now(),
        created: now(),
    };
    if let Some(deadline) = deadline(&seen, now()) {
        let left = deadline.duration_since(now());
        assert!(left >= -PAST && left <= AHEAD, "{left:#}");
    }
    let _ = announced.given_at();
}

#[test]
fn messages_of_the_queue() {
    fuzz("queue", &corpus::messages(), |input| match queue::parse(&text(input), now()) {
        Ok(QueueEvent::Notice(announced, instances)) => {
            assert!((1..=MOST_INSTANCES).contains(&instances.len()), "{}", instances.len());
            instances.iter().for_each(is_an_instance);
            if announced.kind == NoticeKind::SpotInterruption {
                let left = announced.deadline.map(|deadline| deadline.duration_since(now()));
                assert!(left.is_none_or(|left| left >= SignedDuration::ZERO && left <= AHEAD), "{left:?}");
            }
            counts_within_bounds(&announced);
            true
        }
        Ok(QueueEvent::Ended(instance)) => {
            is_an_instance(&instance);
            true
        }
        Ok(QueueEvent::Lifecycle(action)) => {
            is_an_instance(&action.instance_id);
            for name in [action.group.as_str(), action.hook.as_str()] {
                assert!((1..=255).contains(&name.len()), "{name}");
            }
            counts_within_bounds(&action.announcement(now()));
            true
        }
        Ok(QueueEvent::Other) => true,
        Err(why) => {
            assert!(!why.to_string().is_empty());
            false
        }
    });
}

#[test]
fn answers_of_imds() {
    fuzz("rebalance", &corpus::rebalances(), |input| {
        let read = imds::parse_rebalance(&text(input));
        read.inspect(|announced| assert_eq!(announced.deadline, None)).is_ok()
    });
    fuzz("instance-action", &corpus::instance_actions(), |input| {
        let read = imds::parse_instance_action(&text(input), now());
        read.inspect(|announced| {
            assert_eq!(announced.kind, NoticeKind::SpotInterruption);
            assert!(announced.deadline.is_some());
            counts_within_bounds(announced);
        })
        .is_ok()
    });
    fuzz("target-lifecycle-state", &corpus::lifecycle_states(), |input| {
        let read = imds::parse_target_lifecycle_state(&text(input), now());
        read.inspect(|announced| announced.iter().for_each(counts_within_bounds)).is_ok()
    });
    fuzz("maintenance", &corpus::maintenances(), |input| {
        let read = imds::parse_maintenance(&text(input));
        read.inspect(|announced| announced.iter().for_each(counts_within_bounds)).is_ok()
    });
    fuzz("instance-id", &corpus::instance_ids(), |input| {
        imds::parse_instance_id(&text(input)).inspect(is_an_instance).is_ok()
    });
}

/// A record of activities that an input makes: each line is a description, a bar, and a cause.
fn activities(input: &str) -> GroupRecord {
    let began = now() - SignedDuration::from_hours(24);
    let activity = |(number, line): (usize, &str)| {
        let (description, cause) = line.split_once('|').unwrap_or((line, ""));
        let started_at = began + SignedDuration::from_mins(i64::try_from(number).expect("few"));
        ScalingActivity {
            description: description.to_owned(),
            cause: cause.to_owned(),
            started_at,
            ended_at: Some(started_at + SignedDuration::from_secs(40)),
            status: if number % 3 == 0 { ActivityStatus::Failed } else { ActivityStatus::Successful },
            message: cause.to_owned(),
        }
    };
    let activities = input.lines().enumerate().map(activity).collect();
    GroupRecord { name: "group".into(), now: None, activities, known_from: began, gaps: Vec::new() }
}

#[test]
fn scaling_activities() {
    fuzz("activities", &corpus::activities(), |input| {
        let record = activities(&text(input));
        let count = record.activities.len();
        let since = record.known_from;
        let (spot, on_demand) = (record.clone(), record);
        let report = look_back(&LookbackFacts { spot, on_demand, since, now: now(), baseline: None });
        let total = &report.total;
        assert!(total.interruptions as usize <= count, "{total:?}");
        for hours in [total.spot_unmet.hours, total.on_demand_unmet.hours] {
            assert!((0.0..=24.01).contains(&hours), "{total:?}");
        }
        let above = total.on_demand_above_baseline;
        let above = above.spot_could_serve + above.spot_failed + above.not_known;
        assert!(above >= 0.0 && above <= 24.1 * count as f64, "{total:?}");
        report.gaps.is_empty()
    });
}

#[test]
fn the_configuration() {
    fuzz("configuration", &corpus::configurations(), |input| {
        match Config::parse(&text(input), "spot-guard.yaml") {
            Ok(config) => {
                let lease = &config.lease;
                assert!((2..=300).contains(&lease.duration_seconds), "{lease:?}");
                assert!((1..=120).contains(&lease.renew_seconds), "{lease:?}");
                assert!(config.aws.call_timeout_seconds + lease.renew_seconds <= lease.duration_seconds);
                assert!(config.local_listen.is_none_or(|address| address.ip().is_loopback()));
                let settings = config.settings("fuzz");
                assert_eq!(settings.defaults, config.policy());
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("spot-guard.yaml"), "{error}");
                false
            }
        }
    });
}

/// What a stream is cut into, in chunks of this size.
fn cut(shape: Shape, bytes: &[u8], size: usize) -> Result<(Vec<Vec<u8>>, Vec<u8>), Uncut> {
    let mut splitter = Splitter::new(shape);
    let mut found = Vec::new();
    for chunk in bytes.chunks(size.max(1)) {
        splitter.feed(chunk, |piece| match piece {
            Piece::Object(object) => found.push(object.to_vec()),
            Piece::TooLarge => found.push(Vec::new()),
        })?;
    }
    Ok((found, splitter.finish()?))
}

#[test]
fn lists_and_watches_of_the_api_server() {
    for (shape, corpus) in [(Shape::Items, corpus::lists()), (Shape::Events, corpus::watches())] {
        fuzz(&format!("{shape:?}"), &corpus, |input| {
            let whole = cut(shape, input, input.len());
            for size in [1, 7] {
                assert_eq!(cut(shape, input, size), whole, "chunks of {size}");
            }
            let is_cut = whole.is_ok();
            // Brackets are counted, whatever kind closes one: the parser of the object judges that.
            for object in whole.map(|(found, _)| found).unwrap_or_default() {
                assert!(object.is_empty() || object.starts_with(b"{"));
            }
            is_cut
        });
    }
}

/// An object that can be read is written as it was understood.
fn reads_what_it_writes<T>(input: &[u8]) -> bool
where
    T: serde::de::DeserializeOwned + serde::Serialize,
{
    let Ok(object) = serde_json::from_slice::<T>(input) else { return false };
    let written = serde_json::to_value(&object).expect("it can be written");
    let again: T = serde_json::from_value(written.clone()).expect("it can be read again");
    assert_eq!(serde_json::to_value(&again).expect("it can be written"), written);
    true
}

#[test]
fn objects_of_our_kinds() {
    fuzz("SpotPool", &corpus::pools(), reads_what_it_writes::<SpotPool>);
    fuzz("InterruptionNotice", &corpus::notices(), reads_what_it_writes::<InterruptionNotice>);
    fuzz("NodeReplacement", &corpus::replacements(), reads_what_it_writes::<NodeReplacement>);
    fuzz("SpotAction", &corpus::spot_actions(), reads_what_it_writes::<SpotAction>);
}

/// No reason that is stored is longer (SpotActionSpec).
const LONGEST_REASON: usize = 1024;

#[test]
fn bodies_of_requests() {
    fuzz("webhook", &corpus::webhooks(), |input| match parse_return(input) {
        Ok(wanted) => {
            let Some(spec) = wanted else { return true };
            assert_eq!(spec.action, ActionKind::Return);
            let names = [spec.pool.as_deref(), spec.node.as_deref(), spec.replacement.as_deref()];
            let named: Vec<&str> = names.into_iter().flatten().collect();
            assert!(named.len() == 1 && (1..=253).contains(&named[0].len()), "{named:?}");
            assert!(spec.reason.is_none_or(|reason| reason.chars().count() <= LONGEST_REASON));
            true
        }
        Err(problem) => {
            assert!(!problem.detail.is_empty());
            false
        }
    });
    fuzz("reason", &corpus::reasons(), |input| match parse_reason(input) {
        Ok(reason) => {
            assert!(reason.is_none_or(|reason| reason.chars().count() <= LONGEST_REASON));
            true
        }
        Err(problem) => {
            assert!(!problem.detail.is_empty());
            false
        }
    });
}

/// More entries than a page has at most.
const ENTRIES: usize = 600;
const LONGEST_PAGE: usize = 500;

#[test]
fn queries_of_lists() {
    const PATH: &str = "/api/v1/replacements";
    let entries: Vec<String> = (0..ENTRIES).map(|number| format!("i-{number:08x}")).collect();
    fuzz("query", &corpus::queries(), |input| {
        let Ok(pairs) = Query::<Vec<(String, String)>>::from_query(&text(input)) else { return false };
        let mut given: BTreeMap<String, String> = pairs.into_inner().into_iter().collect();
        let Ok(filter) = Filter::parse(PATH, given.clone()) else { return false };
        let (page, next) = filter.page(entries.clone(), |name| name);
        assert!(page.len() <= LONGEST_PAGE && page.is_sorted());
        if let Some(next) = next {
            given.insert("continue".to_owned(), next);
            let filter = Filter::parse(PATH, given).expect("the next page");
            let (rest, _) = filter.page(entries.clone(), |name| name);
            assert!(rest.first() > page.last(), "each entry is on one page");
        }
        true
    });
}

#[test]
fn words_of_aws() {
    fuzz("failures", &corpus::failures(), |input| {
        let words = text(input);
        let (code, message) = words.split_once(' ').unwrap_or((&words, ""));
        for status in [200, 400, 403, 503] {
            let _ = classify::call_failure(code, message, status);
        }
        let _ = classify::launch_failure(&words);
        let read = classify::launch_errors(&[(code, message, "subnet")], false);
        assert!(read.iter().all(|(_, told)| told.len() <= words.len() + 1024), "{read:?}");
        classify::by_code(code).is_some()
    });
}

/// What every call of the Auto Scaling API is answered: status and body.
#[derive(Clone, Debug, Default)]
struct Answer(Arc<Mutex<(u16, Vec<u8>)>>);

impl Answer {
    fn set(&self, status: u16, body: &[u8]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (status, body.to_vec());
    }
}

impl HttpConnector for Answer {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let status = StatusCode::try_from(status).expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

/// The product's own client, which gets this answer.
fn client(answer: &Answer) -> AutoScaling {
    let answer = answer.clone();
    let http = http_client_fn(move |_, _| SharedHttpConnector::new(answer.clone()));
    let cloud = Cloud::new(CloudClock::simulated(now()), 1);
    let config = cloud.sdk_config(None).into_builder().http_client(http).build();
    AutoScaling::new(&config, Duration::from_secs(5), Clock::System, Arc::new(Metrics::new()))
}

#[test]
fn answers_of_the_auto_scaling_api() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer = Answer::default();
    let aws = client(&answer);
    let group: GroupName = "workers-spot".into();
    // What is cut short is no answer.
    let is_whole = |input: &[u8]| input.trim_ascii_end().ends_with(b"Response>");
    fuzz("groups", &corpus::groups(), |input| {
        answer.set(200, input);
        let Ok(found) = runtime.block_on(aws.groups(slice::from_ref(&group), true)) else { return false };
        assert!(is_whole(input));
        for view in found.values() {
            let _ = (view.is_launching(), view.ended());
            assert!(view.active() <= view.instances.len(), "{view:?}");
        }
        true
    });
    let since = now() - SignedDuration::from_hours(1);
    fuzz("launches", &corpus::launches(), |input| {
        answer.set(200, input);
        let Ok(found) = runtime.block_on(aws.launches(&group, since)) else { return false };
        assert!(is_whole(input));
        assert!(found.failed.iter().all(|failed| failed.started_at >= since), "{found:?}");
        true
    });
    fuzz("refusals", &corpus::refusals(), |input| {
        answer.set(400, input);
        let error = runtime.block_on(aws.set_desired(&group, 1)).expect_err("it was refused");
        assert!(!error.to_string().is_empty());
        !matches!(error.code.as_str(), "Http400" | "UnreadableAnswer")
    });
}

#[test]
fn trace_contexts() {
    fuzz("traceparent", &corpus::traceparents(), |input| {
        let id = trace_id_of(&text(input));
        id.inspect(|id| {
            assert_eq!(id.len(), 32);
            assert!(id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        })
        .is_some()
    });
}
