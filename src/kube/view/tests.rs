use super::*;
use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use spot_guard_core::cluster::{Claim, VolumeReach};
use spot_guard_core::effort::Effort;
use spot_guard_core::notices::KEPT;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{MutexGuard, Once, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tower::BoxError;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

type Answer = http::Response<UnsyncBoxBody<Bytes, BoxError>>;

const NODES: &str = "/api/v1/nodes";
const CSI_NODES: &str = "/apis/storage.k8s.io/v1/csinodes";
const PODS: &str = "/api/v1/pods";
const BUDGETS: &str = "/apis/policy/v1/poddisruptionbudgets";
const CLAIMS: &str = "/api/v1/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
const DRIVERS: &str = "/apis/storage.k8s.io/v1/csidrivers";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const NAMESPACES: &str = "/api/v1/namespaces";
const POOLS: &str = "/apis/spotguard.dev/v1alpha1/spotpools";
const NOTICES: &str = "/apis/spotguard.dev/v1alpha1/interruptionnotices";
const RECORDS: &str = "/apis/spotguard.dev/v1alpha1/nodereplacements";
const SPOT_ACTIONS: &str = "/apis/spotguard.dev/v1alpha1/spotactions";

/// What stands in a field of an object and must never leave it.
const SECRET: &str = "hunter2-do-not-tell";
const START: &str = "2026-03-01T12:00:00Z";

/// An API server that holds whatever it is given, unread.
#[derive(Clone)]
struct Fake(Arc<Mutex<State>>, Arc<watch::Sender<u64>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<(&'static str, String), Value>,
    /// The event of each version; the first version is 2.
    history: Vec<(&'static str, Value)>,
    /// Versions up to this one are forgotten.
    forgotten: u64,
    lists: usize,
    /// Nothing is answered any more, and nothing ends.
    silent: bool,
    /// The next continued page is refused with 410.
    page_expires: bool,
}

impl Fake {
    fn new() -> Self {
        Self(Arc::default(), Arc::new(watch::Sender::new(0)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, kind: &str, path: &'static str, mut object: Value) {
        let mut state = self.state();
        let version = (state.history.len() + 2).to_string();
        object["metadata"]["resourceVersion"] = json!(version);
        let key = (path, format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]));
        if kind == "DELETED" {
            state.objects.remove(&key);
        } else {
            state.objects.insert(key, object.clone());
        }
        state.history.push((path, json!({ "type": kind, "object": object })));
        drop(state);
        self.1.send_modify(|news| *news += 1);
    }

    fn set(&self, path: &'static str, object: Value) {
        self.change("MODIFIED", path, object);
    }

    fn remove(&self, path: &'static str, object: Value) {
        self.change("DELETED", path, object);
    }

    fn lists(&self) -> usize {
        self.state().lists
    }

    /// Breaks all connections.
    fn cut(&self) {
        self.1.send_modify(|news| *news += 1_000_000);
    }

    fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let fake = fake.clone();
            async move { fake.answer(request.uri().clone()).await }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, uri: http::Uri) -> Result<Answer, BoxError> {
        if self.state().silent {
            std::future::pending::<()>().await;
        }
        let query: BTreeMap<&str, &str> =
            uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let number = |key: &str| query.get(key).and_then(|text| text.parse::<u64>().ok());
        let full = |status: u16, value: Value| {
            let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
            http::Response::builder().status(status).body(body.boxed_unsync()).map_err(BoxError::from)
        };
        if query.contains_key("watch") {
            let version = number("resourceVersion").unwrap_or_default();
            let ends = Instant::now() + Duration::from_secs(number("timeoutSeconds").unwrap_or(1800));
            let frames = self.watch(uri.path().to_owned(), version, ends);
            return Ok(http::Response::new(StreamBody::new(frames).boxed_unsync()));
        }
        let mut state = self.state();
        let from = usize::try_from(number("continue").unwrap_or(0)).unwrap_or(0);
        if from > 0 && std::mem::take(&mut state.page_expires) {
            return full(
                410,
                json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": SECRET }),
            );
        }
        state.lists += 1;
        let all: Vec<&Value> = state
            .objects
            .iter()
            .filter(|((path, _), _)| *path == uri.path())
            .map(|(_, object)| object)
            .collect();
        // Smaller pages than were asked for, as the API server may.
        let (items, rest) = all[from..].split_at(all[from..].len().min(2));
        let mut metadata = json!({ "resourceVersion": (state.history.len() + 1).to_string() });
        if !rest.is_empty() {
            metadata["continue"] = json!((from + 2).to_string());
        }
        full(200, json!({ "kind": "List", "items": items, "metadata": metadata }))
    }

    fn watch(
        &self,
        path: String,
        from: u64,
        ends: Instant,
    ) -> impl futures::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + use<> {
        let news = self.1.subscribe();
        let epoch = *news.borrow() / 1_000_000;
        let fake = self.clone();
        stream::unfold((fake, news, from, false), move |(fake, mut news, mut seen, over)| {
            let path = path.clone();
            async move {
                if over {
                    return None;
                }
                loop {
                    if *news.borrow_and_update() / 1_000_000 != epoch {
                        return Some((Err("connection reset".into()), (fake, news, seen, true)));
                    }
                    let (lines, now, gone) = {
                        let state = fake.state();
                        let events = state.history.iter().enumerate();
                        let new = events.filter(|(at, (of, _))| *of == path && *at as u64 + 2 > seen);
                        let lines: String = new.map(|(_, (_, event))| format!("{event}\n")).collect();
                        (lines, state.history.len() as u64 + 1, seen < state.forgotten)
                    };
                    if fake.state().silent {
                        std::future::pending::<()>().await;
                    }
                    if gone {
                        let status =
                            json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": SECRET });
                        let line = format!("{}\n", json!({ "type": "ERROR", "object": status }));
                        return Some((Ok(Frame::data(line.into())), (fake, news, seen, true)));
                    }
                    seen = now;
                    if !lines.is_empty() {
                        return Some((Ok(Frame::data(lines.into())), (fake, news, seen, false)));
                    }
                    tokio::select! {
                        _ = news.changed() => {}
                        () = sleep_until(ends) => {
                            if fake.state().silent {
                                std::future::pending::<()>().await;
                            }
                            let metadata = json!({ "resourceVersion": seen.to_string(), "creationTimestamp": null });
                            let bookmark = json!({ "type": "BOOKMARK", "object": { "metadata": metadata } });
                            let line = Frame::data(format!("{bookmark}\n").into());
                            return Some((Ok(line), (fake, news, seen, true)));
                        }
                    }
                }
            }
        })
    }
}

/// A view of it, with everything that shows.
struct Seen {
    view: View,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

impl Seen {
    fn of(fake: &Fake) -> Self {
        let (readiness, metrics) = (Readiness::default(), Arc::new(Metrics::new()));
        let clock = Clock::simulated(START.parse().expect("a time"));
        let client = crate::kube::client::bounded(&fake.client(), Duration::from_secs(10), metrics.clone());
        let view = View::start(&client, "spot-guard", &readiness, &metrics, clock);
        Self { view, readiness, metrics }
    }

    async fn synced(fake: &Fake) -> Self {
        let seen = Self::of(fake);
        seen.view.synced().await;
        seen
    }

    fn unread(&self) -> Vec<String> {
        let unread = self.view.not_understood();
        let all = unread.kinds().flat_map(|(kind, unread)| {
            unread
                .named
                .iter()
                .map(move |object| format!("{} {}/{}", kind.plural(), object.namespace, object.name))
        });
        all.collect()
    }

    fn text(&self) -> String {
        let none: [crate::crd::NodeReplacement; 0] = [];
        let pools: [SpotPool; 0] = [];
        self.metrics.encode(false, &self.readiness, &none, &pools).expect("metrics")
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what}");
        sleep(Duration::from_millis(200)).await;
    }
}

fn object(namespace: &str, name: &str, rest: Value) -> Value {
    let mut object = rest;
    object["metadata"]["name"] = json!(name);
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

/// One of each kind that can be read.
fn good() -> Vec<(&'static str, Value)> {
    let pod = json!({ "spec": { "nodeName": "a", "containers": [{ "name": "c" }] }, "status": { "phase": "Running" } });
    let notice = json!({ "spec": { "nodeName": "a", "instanceId": "i-0a1b2c3d", "kind": "SpotInterruption",
        "detectedAt": START } });
    vec![
        (NODES, object("", "a", json!({ "spec": { "providerID": "aws:///z/i-0a1b2c3d" } }))),
        (CSI_NODES, object("", "a", json!({ "spec": { "drivers": null } }))),
        (PODS, object("ns", "p", pod)),
        (BUDGETS, object("ns", "b", json!({}))),
        (
            CLAIMS,
            object(
                "ns",
                "c",
                json!({ "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } },
                    "spec": { "volumeName": "v" } }),
            ),
        ),
        (VOLUMES, object("", "v", json!({ "spec": { "claimRef": { "namespace": "ns", "name": "c" } } }))),
        (
            ATTACHMENTS,
            object("", "va", json!({ "spec": { "attacher": "ebs", "nodeName": "a", "source": {} } })),
        ),
        (DRIVERS, object("", "ebs", json!({ "spec": { "preventPodSchedulingIfMissing": true } }))),
        (CLASSES, object("", "sc", json!({ "provisioner": "ebs" }))),
        (NAMESPACES, object("", "ns", json!({ "metadata": { "labels": { "team": "x" } } }))),
        (POOLS, object("", "workers", json!({ "spec": { "spotGroup": "s", "onDemandGroup": "o" } }))),
        (NOTICES, object("", "n", notice)),
        (
            RECORDS,
            object("", "i-0a1b2c3d", json!({ "spec": { "nodeName": "a", "instanceId": "i-0a1b2c3d" } })),
        ),
        (SPOT_ACTIONS, object("", "t", json!({ "spec": { "action": "Pause" } }))),
    ]
}

/// The same under another name, with a field of a wrong type that is read. Its value is a secret.
fn bad() -> Vec<(&'static str, Value)> {
    let spoil = |(path, mut object): (&'static str, Value)| {
        let name = object["metadata"]["name"].as_str().expect("a name");
        object["metadata"]["name"] = json!(format!("{name}-bad"));
        match path {
            NAMESPACES => object["metadata"]["generation"] = json!(SECRET),
            POOLS | NOTICES | RECORDS | SPOT_ACTIONS => object["spec"]["paused"] = json!({ SECRET: SECRET }),
            PODS => object["spec"]["priority"] = json!(SECRET),
            CLASSES => object["provisioner"] = json!({ "x": SECRET }),
            _ => {
                for field in ["providerID", "volumeName", "attacher", "storageCapacity"] {
                    object["spec"][field] = json!({ "x": SECRET });
                }
                for field in ["drivers", "selector", "csi"] {
                    object["spec"][field] = json!(SECRET);
                }
            }
        }
        (path, object)
    };
    good().into_iter().map(spoil).collect()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Lets the log hear this thread.
///
/// Whether a place in the code logs at all is kept for the whole process (`tracing_core::callsite`). So a
/// subscriber of the whole process that hears nothing stands beside this one: of a single one, another thread
/// that reaches a place first would find that nobody listens.
fn listen(log: &Log) -> tracing::subscriber::DefaultGuard {
    static DEAF: Once = Once::new();
    DEAF.call_once(|| {
        let deaf = tracing_subscriber::registry().with(LevelFilter::OFF);
        tracing::subscriber::set_global_default(deaf).expect("no other one is set");
    });
    tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(log.clone()).finish())
}

#[tokio::test(start_paused = true)]
async fn one_object_of_each_kind_that_cannot_be_read_changes_nothing_for_the_others() {
    let log = Log::default();
    let _logged = listen(&log);
    let fake = Fake::new();
    for (path, object) in bad().into_iter().chain(good()) {
        fake.set(path, object);
    }
    let seen = Seen::synced(&fake).await;
    let expected: Vec<String> = [
        "nodes /a-bad",
        "csinodes /a-bad",
        "pods ns/p-bad",
        "poddisruptionbudgets ns/b-bad",
        "persistentvolumeclaims ns/c-bad",
        "persistentvolumes /v-bad",
        "volumeattachments /va-bad",
        "csidrivers /ebs-bad",
        "storageclasses /sc-bad",
        "namespaces /ns-bad",
        "spotpools /workers-bad",
        "interruptionnotices /n-bad",
        "nodereplacements /i-0a1b2c3d-bad",
        "spotactions /t-bad",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(seen.unread(), expected);
    assert_eq!(seen.view.freshness(), Freshness::default());
    assert!(seen.readiness.reasons().is_empty(), "{:?}", seen.readiness.reasons());
    let remarks = seen.readiness.remarks();
    assert!(remarks["watch-pods"].starts_with("1 not understood: ns/p-bad ("), "{remarks:?}");
    let metrics = seen.text();
    assert!(metrics.contains("spot_guard_objects_not_understood{resource=\"pods\"} 1\n"), "{metrics}");

    // What they count as.
    let snapshot = seen.view.snapshot();
    let pods: Vec<_> =
        snapshot.pods_on(&"a".into()).map(|pod| (&*pod.name, pod.spec.not_understood.is_some())).collect();
    assert!(pods.contains(&("p", false)) && pods.contains(&("p-bad", true)), "{pods:?}");
    let node = snapshot.node(&"a-bad".into()).expect("it is there");
    assert!(!node.ready && node.unschedulable);
    let pod = snapshot.pods_on(&"a".into()).find(|pod| &*pod.name == "p").expect("it is there");
    let budgets = snapshot.budgets_of(pod, &Effort::of(1_000)).expect("few budgets");
    assert!(budgets.iter().any(|budget| &*budget.name == "b-bad" && budget.disruptions_allowed == 0));
    let unknown = Claim { reach: VolumeReach::Unknown, ..Claim::default() };
    assert_eq!(snapshot.claim(&"ns".into(), &"c-bad".into()), Some(&unknown));
    assert!(
        snapshot.claim(&"ns".into(), &"c".into()).is_some_and(|claim| claim.reach == VolumeReach::Anywhere)
    );
    let storage = snapshot.storage();
    // Of the other not even the node can be read.
    assert_eq!(storage.count_on(&"a".into()), 1);
    assert!(storage.must_be_installed("ebs") && storage.must_be_installed("ebs-bad"));
    assert_eq!(seen.view.pools.len() + seen.view.notices.len(), 2);
    assert_eq!(seen.view.replacements.len() + seen.view.spot_actions.len(), 2);
    assert!(seen.view.not_understood().may_hold(WatchedKind::Replacement, "i-0a1b2c3d-bad"));
    assert!(!seen.view.not_understood().may_hold(WatchedKind::Replacement, "i-0a1b2c3d"));

    // Nothing of them is told.
    let logged = String::from_utf8_lossy(&lock(&log.0)).into_owned();
    assert!(logged.contains("p-bad"), "{logged}");
    for text in [logged, metrics, format!("{remarks:?}")] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_more_rules_than_any_of_real_use_is_there_and_not_understood() {
    let fake = Fake::new();
    let lines = vec![json!({ "key": "k", "operator": "Exists" }); 85_000];
    let term = json!({ "topologyKey": "z", "labelSelector": { "matchExpressions": lines } });
    let affinity = json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
    let labels: BTreeMap<String, &str> = (0..2_000).map(|at| (format!("{SECRET}-{at}"), "")).collect();
    let wide = json!({ "metadata": { "labels": labels }, "spec": { "nodeName": "a", "affinity": affinity.clone() } });
    fake.set(PODS, object("ns", "wide", wide));
    fake.set(PODS, object("ns", "p", json!({ "spec": { "nodeName": "a" } })));
    let seen = Seen::synced(&fake).await;
    fake.set(PODS, object("ns", "late", json!({ "spec": { "nodeName": "a", "affinity": affinity } })));
    until("it is seen", || seen.unread().len() == 2).await;
    assert_eq!(seen.unread(), ["pods ns/late", "pods ns/wide"]);
    let unread = seen.view.not_understood();
    let told: Vec<String> =
        unread.kinds().flat_map(|(_, unread)| unread.named.iter().map(ToString::to_string)).collect();
    assert_eq!(told[0], "ns/late (it has more rules, parts or labels than are read)");
    assert!(!told.concat().contains(SECRET));
    let snapshot = seen.view.snapshot();
    for name in ["late", "p", "wide"] {
        let pod = snapshot.pods().iter().find(|pod| &*pod.name == name).expect("it is there");
        assert_eq!(pod.node.as_deref(), Some("a"), "{name}");
        assert_eq!(pod.spec.not_understood.is_some(), name != "p", "{name}");
        assert!(pod.spec.pod_affinity.is_empty(), "nothing of it is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn fields_that_are_not_read_may_hold_anything() {
    let fake = Fake::new();
    for (path, mut object) in good() {
        object["metadata"]["managedFields"] = json!([{ "time": "9999-12-31T23:59:59Z", "operation": 7 }]);
        object["metadata"]["annotations"] = json!({ "x": "y".repeat(250_000), "z": ["w"] });
        object["metadata"]["creationTimestamp"] = json!("9999-12-31T23:59:59.999999999Z");
        object["metadata"]["deletionTimestamp"] = json!("12000-01-01T00:00:00Z");
        object["metadata"]["selfLink"] = json!({ "a": [1e300, null] });
        object["extra"] = json!([[[["deep"]]]]);
        fake.set(path, object);
    }
    let seen = Seen::synced(&fake).await;
    assert_eq!(seen.unread(), Vec::<String>::new());
    let snapshot = seen.view.snapshot();
    let pod = snapshot.pods_on(&"a".into()).next().expect("it is there");
    let far: Timestamp = "9000-01-01T00:00:00Z".parse().expect("a time");
    assert_eq!((pod.created, pod.deletion), (Some(far), Some(far)));
    assert_eq!(seen.view.pools.len() + seen.view.notices.len(), 2);
    assert_eq!(seen.view.replacements.len() + seen.view.spot_actions.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_understood_stays_until_the_object_is_read_again_or_gone() {
    let fake = Fake::new();
    for (path, object) in good() {
        fake.set(path, object);
    }
    let seen = Seen::synced(&fake).await;
    let record = |paused: Value| {
        let spec = json!({ "nodeName": "a", "instanceId": "i-0a1b2c3d", "pool": paused });
        object("", "i-0a1b2c3d", json!({ "spec": spec }))
    };
    fake.set(RECORDS, record(json!(7)));
    until("it is not understood", || seen.unread() == ["nodereplacements /i-0a1b2c3d"]).await;
    assert_eq!(seen.view.replacements.len(), 1);
    // A list that names it is no reason to forget it either.
    let before = fake.lists();
    fake.state().forgotten = 1_000;
    fake.cut();
    until("everything is listed again", || fake.lists() >= before + 11).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((seen.view.replacements.len(), seen.unread().len()), (1, 1));
    fake.state().forgotten = 0;

    fake.set(RECORDS, record(json!("workers")));
    until("it is understood again", || seen.unread().is_empty()).await;
    let pool = |seen: &Seen| seen.view.replacements.state()[0].spec.pool.clone();
    assert_eq!(pool(&seen).as_deref(), Some("workers"));
    assert!(seen.readiness.remarks().is_empty());

    fake.set(RECORDS, record(json!(7)));
    until("it is not understood", || !seen.unread().is_empty()).await;
    fake.remove(RECORDS, record(json!(7)));
    until("it is gone", || seen.unread().is_empty() && seen.view.replacements.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn with_more_unread_records_than_are_named_any_may_be_among_them() {
    let fake = Fake::new();
    for i in 0..101 {
        fake.set(RECORDS, object("", &format!("i-{i:08}"), json!({ "spec": 7 })));
    }
    let seen = Seen::synced(&fake).await;
    assert_eq!(seen.unread().len(), 100);
    assert!(seen.view.not_understood().may_hold(WatchedKind::Replacement, "any"));
    assert!(seen.text().contains("spot_guard_objects_not_understood{resource=\"nodereplacements\"} 101\n"));
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_listed_anew_and_what_vanished_meanwhile_is_removed() {
    let fake = Fake::new();
    for (path, object) in good() {
        fake.set(path, object);
    }
    let seen = Seen::synced(&fake).await;
    // It goes without an event for anybody.
    fake.state().objects.retain(|(path, _), _| *path != PODS && *path != POOLS && *path != CLAIMS);
    fake.set(PODS, object("ns", "other", json!({ "spec": { "nodeName": "a" } })));
    until("the event is seen", || seen.view.snapshot().pods().len() == 2).await;
    let before = fake.lists();
    fake.state().forgotten = 1_000;
    until("everything is listed again", || fake.lists() >= before + 11).await;
    fake.state().forgotten = 0;
    let claim = || seen.view.snapshot().claim(&"ns".into(), &"c".into()).cloned();
    until("the rest is removed", || {
        seen.view.snapshot().pods().len() == 1 && seen.view.pools.is_empty() && claim().is_none()
    })
    .await;
    let metrics = seen.text();
    assert!(!metrics.contains("spot_guard_watch_failures_total{resource=\"pods\"} 0\n"), "{metrics}");
    for begun in [r#"{verb="List",result="Ok"}"#, r#"{verb="Watch",result="Ok"}"#] {
        let none = format!("spot_guard_kube_requests_total{begun} 0\n");
        assert!(metrics.contains(begun) && !metrics.contains(&none), "{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_page_has_expired_begins_again() {
    let fake = Fake::new();
    for i in 0..5 {
        fake.set(PODS, object("ns", &format!("p{i}"), json!({})));
    }
    fake.state().page_expires = true;
    let seen = Seen::synced(&fake).await;
    assert_eq!(seen.view.snapshot().pods().len(), 5);
    assert!(!fake.state().page_expires);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_taken_up_where_it_was_if_nothing_can_have_been_missed_for_long() {
    let fake = Fake::new();
    for (path, object) in good() {
        fake.set(path, object);
    }
    let seen = Seen::synced(&fake).await;
    sleep(Duration::from_secs(2)).await;
    let before = fake.lists();
    fake.cut();
    fake.set(PODS, object("ns", "other", json!({})));
    let cut = Instant::now();
    until("the cut is seen", || !seen.view.freshness().stale.is_empty()).await;
    until("all are taken up", || seen.view.freshness() == Freshness::default()).await;
    assert!(cut.elapsed() < Duration::from_secs(3), "{:?}", cut.elapsed());
    for _ in 0..100 {
        assert_eq!(seen.view.freshness(), Freshness::default());
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(fake.lists(), before);
    assert_eq!(seen.view.snapshot().pods().len(), 2);
    assert!(seen.readiness.reasons().is_empty());
    // Long after the last news a watch that goes on would not say when it has caught up.
    sleep(Duration::from_secs(15)).await;
    fake.cut();
    until("everything is listed again", || fake.lists() >= before + 11).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_told_as_old_within_45_s_and_since_when() {
    let fake = Fake::new();
    let seen = Seen::of(&fake);
    let stale = seen.view.freshness().stale;
    assert_eq!(stale.iter().map(|stale| stale.kind).collect::<Vec<_>>(), WatchedKind::ALL);
    seen.view.synced().await;
    assert_eq!(seen.view.freshness(), Freshness::default());
    // Regular ends and bookmarks keep it current.
    for _ in 0..120 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.view.freshness(), Freshness::default());
    }
    let before = fake.lists();
    assert!(before <= WatchedKind::ALL.len(), "nothing is listed anew: {before}");
    let silent = Instant::now();
    fake.state().silent = true;
    until("it is told", || seen.view.freshness().stale.len() == WatchedKind::ALL.len()).await;
    let (after, told) = (silent.elapsed(), seen.view.freshness().stale);
    assert!(after <= Duration::from_secs(46), "{after:?}");
    let began: Timestamp = START.parse().expect("a time");
    let since = spot_guard_core::time::since(began, told[0].since);
    assert!(since >= Duration::from_secs(85) && since <= Duration::from_secs(121), "{since:?}");
    assert!(!seen.readiness.reasons().is_empty());
    fake.state().silent = false;
    until("it is current again", || seen.view.freshness() == Freshness::default()).await;
    assert!(seen.readiness.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_notices_that_has_lost_its_connection_without_a_word_is_found_within_a_minute() {
    let fake = Fake::new();
    let seen = Seen::synced(&fake).await;
    fake.state().silent = true;
    sleep(Duration::from_secs(1)).await;
    for (path, object) in good() {
        fake.set(path, object);
    }
    fake.state().silent = false;
    let began = Instant::now();
    until("the notice is seen", || !seen.view.notices.is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn everything_is_paused_by_a_label_also_on_a_namespace_that_cannot_be_read() {
    let fake = Fake::new();
    let namespace = |label: &str, generation: Value| {
        let metadata = json!({ "labels": { PAUSED_LABEL: label }, "generation": generation });
        object("", "spot-guard", json!({ "metadata": metadata }))
    };
    fake.set(NAMESPACES, namespace("", json!("x")));
    let seen = Seen::synced(&fake).await;
    assert!(*seen.view.paused.borrow());
    fake.set(NAMESPACES, namespace("false", json!(1)));
    until("it goes on", || !*seen.view.paused.borrow()).await;
}

#[tokio::test(start_paused = true)]
async fn of_a_flood_of_notices_a_few_are_kept_and_the_others_are_named_until_they_are_gone() {
    let fake = Fake::new();
    let notice = |node: &str, number: usize| {
        let spec = json!({
            "nodeName": node,
            "instanceId": format!("i-{number:017x}"),
            "kind": "SpotInterruption",
            "detectedAt": START,
            "deadline": "2026-03-01T12:02:00Z",
        });
        let name = format!("{node}.i-{number:017x}-spot-interruption");
        let metadata = json!({ "uid": format!("u-{number}"), "creationTimestamp": START });
        object("", &name, json!({ "metadata": metadata, "spec": spec }))
    };
    fake.set(NOTICES, notice("honest", 0));
    let seen = Seen::synced(&fake).await;
    let flood = 2_000;
    for number in 1..=flood {
        fake.set(NOTICES, notice("liar", number));
    }
    let out = || seen.view.crowded_out.some(usize::MAX, |_, _| true);
    until("the flood is seen", || out().len() == flood - KEPT).await;
    assert_eq!(seen.view.notices.len(), 1 + KEPT);
    let (name, uid) = out().pop().expect("a notice");
    assert!(seen.view.crowded_out.has(&name, &uid) && !seen.view.crowded_out.has(&name, "another"));

    for number in 1..=flood {
        fake.remove(NOTICES, notice("liar", number));
    }
    until("they are gone", || seen.view.crowded_out.is_empty() && seen.view.notices.len() == 1).await;
    fake.set(NOTICES, notice("liar", 1));
    until("there is room again", || seen.view.notices.len() == 2).await;
}
