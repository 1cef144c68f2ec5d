use super::*;
use crate::actors::supervision::crash::Crash;
use crate::actors::supervision::{ANSWER_WITHIN, PING_EVERY, Ping, RestartCause};
use crate::agent::{self, AgentHandle};
use aws_config::imds::client::Builder;
use aws_config::provider_config::ProviderConfig;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::time::sleep;

const NODE: &str = "ip-10-0-0-1";
const INSTANCE: &str = "i-1234567890abcdef0";
const REBALANCE: NoticeKind = NoticeKind::RebalanceRecommendation;
const INTERRUPTION: NoticeKind = NoticeKind::SpotInterruption;
const MAINTENANCE: NoticeKind = NoticeKind::ScheduledMaintenance;
const GROUP: NoticeKind = NoticeKind::GroupTermination;

/// How a server behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mood {
    #[default]
    Normal,
    Status(u16),
    /// Gives tokens, and answers 404 to everything else, as a proxy does that lets one of them through.
    NotFound,
    /// 200 with something else in it, also where a token is asked for.
    Garbage,
    /// Gives tokens and refuses those given before.
    ForgetsTokens,
    Silent,
    /// Kubernetes only: the object is there already.
    Exists,
}

/// The node's metadata service and the Kubernetes API, as the agent sees them.
#[derive(Default)]
struct World {
    imds: Mood,
    kubernetes: Mood,
    rebalance: bool,
    action: Option<&'static str>,
    target_state: Option<&'static str>,
    maintenance: Option<&'static str>,
    /// Another instance id than [`INSTANCE`].
    another: Option<&'static str>,
    reads: Vec<(Instant, String)>,
    tokens: u64,
    creates: Vec<(Instant, serde_json::Value)>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn get(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test panics while it holds the world")
    }

    fn notices(&self) -> Vec<InterruptionNoticeSpec> {
        let world = self.get();
        let notices = world.creates.iter();
        notices.map(|(_, body)| serde_json::from_value(body["spec"].clone()).expect("a notice")).collect()
    }

    fn agent(&self) -> AgentHandle {
        self.agent_of(NODE)
    }

    fn agent_of(&self, node: &str) -> AgentHandle {
        let config = ProviderConfig::empty()
            .with_http_client(self.clone())
            .with_sleep_impl(aws_smithy_async::rt::sleep::TokioSleep::new());
        let imds = Builder::default().configure(&config).endpoint("http://imds.test").expect("an address");
        let world = self.clone();
        let api = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let world = world.clone();
            async move { world.create(request).await }
        });
        let clock = Clock::simulated("2026-03-01T12:00:00Z".parse().expect("a time"));
        agent::start(node, kube::Client::new(api, "default"), imds, clock, Duration::from_secs(2))
    }

    async fn create(
        &self,
        request: http::Request<kube::client::Body>,
    ) -> Result<http::Response<kube::client::Body>, tower::BoxError> {
        assert_eq!(request.method(), http::Method::POST);
        assert_eq!(request.uri().path(), "/apis/spotguard.dev/v1alpha1/interruptionnotices");
        let body = request.into_body().collect().await?.to_bytes();
        let notice: serde_json::Value = serde_json::from_slice(&body)?;
        let mood = {
            let mut world = self.get();
            world.creates.push((Instant::now(), notice.clone()));
            world.kubernetes
        };
        let failure = |code: u16, reason: &str| {
            let status = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
                "message": "no", "reason": reason, "code": code,
            });
            (code, status)
        };
        let (code, answer) = match mood {
            Mood::Normal => (201, notice),
            Mood::Exists => failure(409, "AlreadyExists"),
            Mood::Status(code) => failure(code, "Refused"),
            Mood::Silent => pending().await,
            Mood::Garbage | Mood::ForgetsTokens | Mood::NotFound => return Err("connection refused".into()),
        };
        Ok(http::Response::builder().status(code).body(serde_json::to_vec(&answer)?.into())?)
    }

    async fn metadata(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let path = request.uri().trim_start_matches("http://imds.test").to_owned();
        let token = request.headers().get("x-aws-ec2-metadata-token").map(str::to_owned);
        let answer = {
            let mut world = self.get();
            world.reads.push((Instant::now(), path.clone()));
            world.answer(request.method(), &path, token.as_deref())
        };
        let Some((status, body)) = answer else { return pending().await };
        let response = http::Response::builder().status(status);
        // Only a token has it.
        let response = match status {
            200 => response.header("x-aws-ec2-metadata-token-ttl-seconds", "21600"),
            _ => response,
        };
        let response = response.body(SdkBody::from(body)).expect("a response");
        Ok(HttpResponse::try_from(response).expect("a response"))
    }
}

impl World {
    fn answer(&mut self, method: &str, path: &str, token: Option<&str>) -> Option<(u16, String)> {
        match self.imds {
            Mood::Silent => return None,
            Mood::Status(code) => return Some((code, String::new())),
            Mood::Garbage => return Some((200, "<html>It works!</html>".to_owned())),
            Mood::ForgetsTokens => {
                // Refuses the token of the first client, takes that of the next.
                self.imds = Mood::Normal;
                self.tokens += 1;
            }
            Mood::NotFound if method != "PUT" => return Some((404, String::new())),
            Mood::Normal | Mood::Exists | Mood::NotFound => {}
        }
        let valid = format!("token-{}", self.tokens);
        let found = |text: Option<String>| Some(text.map_or((404, String::new()), |text| (200, text)));
        match path {
            "/latest/api/token" if method == "PUT" => Some((200, valid)),
            _ if token != Some(&valid) => Some((401, String::new())),
            "/latest/meta-data/instance-id" => found(Some(self.another.unwrap_or(INSTANCE).to_owned())),
            "/latest/meta-data/autoscaling/target-lifecycle-state" => {
                found(self.target_state.map(str::to_owned))
            }
            "/latest/meta-data/events/maintenance/scheduled" => found(self.maintenance.map(str::to_owned)),
            "/latest/meta-data/spot/instance-action" => found(self.action.map(str::to_owned)),
            "/latest/meta-data/events/recommendations/rebalance" => {
                // Like the mock: another time with every read.
                let second = self.reads.len() % 60;
                found(self.rebalance.then(|| format!(r#"{{"noticeTime":"2026-03-01T12:00:{second:02}Z"}}"#)))
            }
            _ => found(None),
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl HttpClient for Shared {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Shared {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let world = self.clone();
        HttpConnectorFuture::new(async move { world.metadata(request).await })
    }
}

/// Runs the test in an actix system on paused time.
fn paused(test: impl Future<Output = ()>) {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    };
    actix::System::with_tokio_rt(runtime).block_on(test);
}

fn after(seconds: u64) -> tokio::time::Sleep {
    sleep(Duration::from_secs(seconds))
}

#[test]
fn nothing_announced_is_read_every_2_s_and_not_a_word_to_kubernetes() {
    paused(async {
        let world = Shared::default();
        let agent = world.agent();
        after(599).await;
        assert!(world.get().creates.is_empty());
        assert_eq!(agent.metrics.imds_requests("NotFound"), 3 * 300 + 10);
        assert_eq!(agent.metrics.imds_requests("Found"), 10, "the instance id is read every minute");
        let tokens = world.get().reads.iter().filter(|(_, path)| path == "/latest/api/token").count();
        assert_eq!(tokens, 1, "the token is cached");
        assert!(agent.readiness.reasons().is_empty());
    });
}

#[test]
fn a_notice_is_reported_once_although_its_time_changes_with_every_read() {
    paused(async {
        let world = Shared::default();
        let agent = world.agent();
        after(60).await;
        world.get().rebalance = true;
        after(600).await;
        let notices = world.notices();
        assert_eq!(notices.len(), 1);
        assert_eq!((notices[0].node_name.as_str(), notices[0].instance_id.as_str()), (NODE, INSTANCE));
        assert_eq!((notices[0].kind, notices[0].deadline), (REBALANCE, None));
        assert!(notices[0].notice_time.is_some());
        let late = notices[0].detected_at.as_second()
            - "2026-03-01T12:01:00Z".parse::<Timestamp>().unwrap().as_second();
        assert!((0..=2).contains(&late), "detected {late} s late");
        let trace = notices[0].traceparent.as_deref().unwrap_or_default();
        assert!(crate::telemetry::tracing::trace_id_of(trace).is_some(), "{trace}");
        assert_eq!(
            world.get().creates[0].1["metadata"]["name"],
            format!("{NODE}.{INSTANCE}-rebalance-recommendation")
        );
        assert_eq!(agent.metrics.notices_reported(REBALANCE), 1);
    });
}

#[test]
fn advice_and_then_an_interruption_are_two_notices() {
    paused(async {
        let world = Shared::default();
        let agent = world.agent();
        world.get().rebalance = true;
        after(30).await;
        world.get().action = Some(r#"{"action":"terminate","time":"2026-03-01T12:02:31Z"}"#);
        after(30).await;
        let mut notices = world.notices();
        // One with a deadline is created again until then.
        notices.dedup();
        assert_eq!(notices.iter().map(|notice| notice.kind).collect::<Vec<_>>(), [REBALANCE, INTERRUPTION]);
        assert_eq!(notices[1].deadline, Some("2026-03-01T12:02:31Z".parse().unwrap()));
        assert_eq!(
            (agent.metrics.notices_reported(REBALANCE), agent.metrics.notices_reported(INTERRUPTION)),
            (1, 1)
        );
    });
}

#[test]
fn a_name_that_is_taken_is_tried_on_at_a_slow_pace_until_it_is_free() {
    paused(async {
        let world = Shared::default();
        world.get().kubernetes = Mood::Exists;
        world.get().rebalance = true;
        let agent = world.agent();
        after(600).await;
        let gaps = gaps(&world);
        assert!(gaps.iter().all(|gap| (15.0..=30.1).contains(gap)), "{gaps:?}");
        let tried = u64::try_from(gaps.len() + 1).expect("a number");
        assert_eq!(agent.metrics.names_taken(REBALANCE), tried);
        assert_eq!(agent.metrics.notices_reported(REBALANCE), 0, "somebody has stored something");
        assert!(agent.readiness.reasons().is_empty(), "the usual case is that it was this node");
        // The controller removes what it refuses.
        world.get().kubernetes = Mood::Normal;
        after(31).await;
        assert_eq!(agent.metrics.notices_reported(REBALANCE), 1);
        let stored = world.notices().len();
        after(300).await;
        assert_eq!(world.notices().len(), stored, "stored is stored");
    });
}

#[test]
fn before_a_deadline_a_name_that_is_taken_is_tried_on_every_few_seconds() {
    paused(async {
        let world = Shared::default();
        world.get().kubernetes = Mood::Exists;
        world.get().action = Some(r#"{"action":"terminate","time":"2026-03-01T12:02:00Z"}"#);
        let agent = world.agent();
        after(120).await;
        let all = gaps(&world);
        assert!(all.len() >= 22 && all.iter().all(|gap| *gap <= 5.1), "{all:?}");
        after(600).await;
        let late = gaps(&world);
        assert!(late[late.len() - 5..].iter().all(|gap| *gap >= 15.0), "it is over: {late:?}");
        assert_eq!(agent.metrics.notices_reported(INTERRUPTION), 0);
    });
}

#[test]
fn a_stored_notice_with_a_deadline_is_created_again_until_then_and_advice_is_not() {
    paused(async {
        let world = Shared::default();
        world.get().rebalance = true;
        world.get().action = Some(r#"{"action":"terminate","time":"2026-03-01T12:02:00Z"}"#);
        let agent = world.agent();
        after(10).await;
        // It is there still; one that was removed is stored again.
        world.get().kubernetes = Mood::Exists;
        after(30).await;
        world.get().kubernetes = Mood::Status(500);
        after(10).await;
        assert!(agent.readiness.reasons().is_empty(), "it is stored: {:?}", agent.readiness.reasons());
        world.get().kubernetes = Mood::Normal;
        after(70).await;
        let kinds: Vec<_> = world.notices().iter().map(|notice| notice.kind).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == REBALANCE).count(), 1);
        let times = kinds.len() - 1;
        assert!((23..=49).contains(&times), "every 2.5 s to 5 s for two minutes: {times}");
        let reported = |kind| agent.metrics.notices_reported(kind);
        assert_eq!((reported(REBALANCE), reported(INTERRUPTION)), (1, 1));
        assert_eq!(agent.metrics.names_taken(INTERRUPTION), 0, "nobody has taken its name");
        after(60).await;
        let over = world.notices().len();
        after(600).await;
        assert_eq!(world.notices().len(), over, "the deadline has passed");
    });
}

#[test]
fn a_stored_notice_is_not_created_again_once_imds_takes_it_back() {
    paused(async {
        let world = Shared::default();
        world.get().action = Some(r#"{"action":"terminate","time":"2026-03-01T12:02:00Z"}"#);
        let _agent = world.agent();
        after(10).await;
        world.get().action = None;
        after(3).await;
        let stored = world.notices().len();
        after(60).await;
        assert_eq!(world.notices().len(), stored);
    });
}

#[test]
fn a_notice_that_imds_takes_back_is_not_tried_any_more_and_is_one_again_when_it_comes_again() {
    paused(async {
        let world = Shared::default();
        world.get().kubernetes = Mood::Exists;
        world.get().rebalance = true;
        let agent = world.agent();
        after(60).await;
        world.get().rebalance = false;
        after(3).await;
        let tried = world.notices().len();
        after(300).await;
        assert_eq!(world.notices().len(), tried);
        world.get().kubernetes = Mood::Normal;
        world.get().rebalance = true;
        after(3).await;
        assert_eq!((world.notices().len(), agent.metrics.notices_reported(REBALANCE)), (tried + 1, 1));
    });
}

#[test]
fn a_node_whose_name_is_too_long_for_a_notice_says_so() {
    paused(async {
        let world = Shared::default();
        let name = "n".repeat(MAX_NODE_NAME + 1);
        let agent = world.agent_of(&name);
        after(1).await;
        let reasons = agent.readiness.reasons();
        let told = reasons.get(NODE_NAME_PART).expect("a reason");
        assert_eq!(told.reason, UnreadyCode::NodeNameTooLong);
        assert!(told.message.contains("201") && told.message.contains("200"), "{told:?}");
        let agent = world.agent_of(&name[1..]);
        after(1).await;
        assert!(agent.readiness.reasons().is_empty());
    });
}

/// The gaps between the attempts to store a notice, seconds.
fn gaps(world: &Shared) -> Vec<f64> {
    let at: Vec<Instant> = world.get().creates.iter().map(|(at, _)| *at).collect();
    at.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()).collect()
}

#[test]
fn an_interruption_is_tried_every_2_s_until_it_is_stored() {
    for mood in [Mood::Status(500), Mood::Status(403), Mood::Status(429), Mood::Garbage, Mood::Silent] {
        paused(async move {
            let world = Shared::default();
            world.get().kubernetes = mood;
            world.get().action = Some(r#"{"action":"stop","time":"2026-03-01T12:02:00Z"}"#);
            let agent = world.agent();
            after(60).await;
            let gaps = gaps(&world);
            assert!(gaps.len() > 28, "{mood:?}: {gaps:?}");
            assert!(gaps.iter().all(|gap| *gap <= 2.01), "{mood:?}: {gaps:?}");
            assert!(agent.readiness.reasons().contains_key(NOTICES_PART), "{mood:?}");
            world.get().kubernetes = Mood::Normal;
            after(3).await;
            let tried = world.notices();
            assert_eq!(agent.metrics.notices_reported(INTERRUPTION), 1, "{mood:?}");
            assert!(agent.readiness.reasons().is_empty(), "{mood:?}");
            assert!(tried.windows(2).all(|pair| pair[0] == pair[1]), "the notice never changes");
            after(600).await;
            let again = world.notices().len() - tried.len();
            assert!((16..=35).contains(&again), "{mood:?}: renewed until the deadline, {again} times");
            assert_eq!(agent.metrics.notices_reported(INTERRUPTION), 1, "{mood:?}: stored is stored");
        });
    }
}

#[test]
fn advice_backs_off_while_the_api_is_down_and_is_stored_in_the_end() {
    paused(async {
        let world = Shared::default();
        world.get().kubernetes = Mood::Garbage;
        world.get().rebalance = true;
        let agent = world.agent();
        after(600).await;
        let gaps = gaps(&world);
        assert!((20..60).contains(&gaps.len()), "{gaps:?}");
        assert!(gaps[0] <= 0.51 && gaps.iter().all(|gap| *gap <= 30.01), "{gaps:?}");
        world.get().kubernetes = Mood::Normal;
        after(31).await;
        assert_eq!(agent.metrics.notices_reported(REBALANCE), 1);
    });
}

/// IMDS behaves like that for ten minutes, then announces something.
#[track_caller]
fn check_misbehaviour(mood: Mood, problem: &'static str, reads_less: bool) {
    paused(async move {
        let world = Shared::default();
        world.get().imds = mood;
        let agent = world.agent();
        after(600).await;
        let polls = world.get().reads.len();
        let code = if problem == "NotImds" { UnreadyCode::NotImds } else { UnreadyCode::ImdsUnreadable };
        let told = agent.readiness.reasons()[IMDS_PART].clone();
        assert_eq!(told.reason, code, "{mood:?}: {told:?}");
        assert!(polls >= 10, "{polls} reads: it gave up");
        assert_eq!(polls < 150, reads_less, "{polls} reads");
        assert!(agent.metrics.imds_requests(problem) >= 10, "counted as {problem}");
        assert!(agent.readiness.reasons().contains_key(IMDS_PART));
        assert_eq!(agent.poller.ask(Ping).await, Ok(()));
        assert!(agent.poller.restarts().is_empty(), "it did not panic");
        world.get().imds = Mood::Normal;
        world.get().rebalance = true;
        after(61).await;
        assert_eq!(agent.metrics.notices_reported(REBALANCE), 1);
        assert!(agent.readiness.reasons().is_empty());
        let reads = world.get().reads.len();
        after(60).await;
        let again = world.get().reads.len() - reads;
        assert!((90..=96).contains(&again), "{again} reads: back to every 2 s");
    });
}

#[test]
fn imds_is_switched_off() {
    check_misbehaviour(Mood::Status(403), "Forbidden", true);
}

#[test]
fn imds_refuses_every_token() {
    check_misbehaviour(Mood::Status(401), "Unauthorized", true);
}

#[test]
fn imds_fails() {
    check_misbehaviour(Mood::Status(500), "Failing", true);
}

#[test]
fn imds_throttles() {
    check_misbehaviour(Mood::Status(503), "Failing", true);
}

#[test]
fn imds_is_silent() {
    check_misbehaviour(Mood::Silent, "NoAnswer", true);
}

#[test]
fn a_proxy_in_front_of_imds_answers_404_to_everything() {
    for status in [404, 405, 400, 302] {
        check_misbehaviour(Mood::Status(status), "NotImds", true);
    }
}

#[test]
fn a_proxy_gives_tokens_and_answers_404_to_everything_else() {
    check_misbehaviour(Mood::NotFound, "UnexpectedStatus", false);
}

#[test]
fn imds_that_answers_404_to_everything_from_now_on_is_found_within_a_minute() {
    for mood in [Mood::NotFound, Mood::Status(404)] {
        paused(async move {
            let world = Shared::default();
            let agent = world.agent();
            after(90).await;
            assert!(agent.readiness.reasons().is_empty());
            world.get().imds = mood;
            // The token is good for six hours.
            after(62).await;
            let reasons = agent.readiness.reasons();
            assert!(reasons.contains_key(IMDS_PART), "{mood:?}");
            after(120).await;
            assert!(agent.readiness.reasons().contains_key(IMDS_PART), "{mood:?}: and it stays so");
            world.get().imds = Mood::Normal;
            after(61).await;
            assert!(agent.readiness.reasons().is_empty(), "{mood:?}");
        });
    }
}

#[test]
fn an_instance_id_that_changes_is_told_and_the_notice_names_the_new_one() {
    paused(async {
        let world = Shared::default();
        world.get().another = Some("i-0000000000000bad0");
        world.get().rebalance = true;
        let agent = world.agent();
        after(30).await;
        assert!(agent.readiness.reasons().is_empty());
        world.get().another = None;
        after(62).await;
        let told = agent.readiness.reasons()[IMDS_PART].reason;
        assert_eq!(told, UnreadyCode::NotImds);
        let ids: Vec<_> = world.notices().iter().map(|notice| notice.instance_id.to_string()).collect();
        assert_eq!(ids, ["i-0000000000000bad0", INSTANCE]);
        after(62).await;
        assert!(agent.readiness.reasons().is_empty(), "it is the same again");
    });
}

#[test]
fn what_the_group_terminates_and_what_ec2_maintains_is_reported() {
    paused(async {
        let world = Shared::default();
        world.get().target_state = Some("InService");
        world.get().maintenance = Some("[]");
        let agent = world.agent();
        after(60).await;
        assert!(world.notices().is_empty() && agent.readiness.reasons().is_empty());
        world.get().target_state = Some("Terminated");
        after(3).await;
        world.get().maintenance = Some(
            r#"[{"NotBefore":"21 Mar 2026 09:00:43 GMT","Code":"system-reboot","State":"active",
                "Description":"scheduled reboot","EventId":"instance-event-0d59937288b749b32"}]"#,
        );
        after(60).await;
        // One with a deadline is reported again until then, always the same.
        let mut notices = world.notices();
        notices.sort_by_key(|notice| notice.kind.to_string());
        notices.dedup();
        assert_eq!(notices.iter().map(|notice| notice.kind).collect::<Vec<_>>(), [GROUP, MAINTENANCE]);
        let left = notices[0].deadline.map(|at| at.duration_since(notices[0].detected_at).as_secs());
        assert_eq!(left, Some(120), "the state has no time of its own");
        assert_eq!(notices[1].deadline, Some("2026-03-21T09:00:43Z".parse().unwrap()));
        let name = world.get().creates[0].1["metadata"]["name"].clone();
        assert_eq!(name, format!("{NODE}.{INSTANCE}-group-termination"));
        let reported = |kind| agent.metrics.notices_reported(kind);
        assert_eq!((reported(GROUP), reported(MAINTENANCE), reported(REBALANCE)), (1, 1, 0));
    });
}

/// A list of one scheduled event at that time.
fn event_at(not_before: &str) -> &'static str {
    let event = serde_json::json!({ "NotBefore": not_before, "Code": "instance-stop", "State": "active" });
    Box::leak(serde_json::json!([event]).to_string().into_boxed_str())
}

/// The times of the notices that were stored, each told once in a row, and whether each has the name of its
/// time.
fn maintenance_told(world: &Shared) -> Vec<String> {
    let creates = world.get().creates.clone();
    let mut told = Vec::new();
    for (_, body) in creates {
        let deadline: Timestamp = body["spec"]["deadline"].as_str().expect("a time").parse().expect("a time");
        let name = format!("{NODE}.{INSTANCE}-scheduled-maintenance-{}", deadline.as_second());
        assert_eq!(body["metadata"]["name"], name);
        told.push(deadline.to_string());
    }
    told.dedup();
    told
}

#[test]
fn maintenance_that_ec2_moves_cancels_or_follows_up_is_reported_anew() {
    let (late, later, early) = ("2026-03-21T09:00:00Z", "2026-03-28T09:00:00Z", "2026-03-02T09:00:00Z");
    paused(async move {
        let world = Shared::default();
        world.get().maintenance = Some(event_at(late));
        let agent = world.agent();
        after(90).await;
        assert_eq!(maintenance_told(&world), [late]);
        // What was told of the earlier time is not taken back.
        world.get().maintenance = Some(event_at(later));
        after(90).await;
        assert_eq!(maintenance_told(&world), [late]);
        world.get().maintenance = Some(event_at(early));
        after(90).await;
        assert_eq!(maintenance_told(&world), [late, early], "moved to an earlier time");
        world.get().maintenance = Some("[]");
        after(90).await;
        assert_eq!(maintenance_told(&world), [late, early], "cancelled");
        world.get().maintenance = Some(event_at(later));
        after(90).await;
        assert_eq!(maintenance_told(&world), [late, early, later], "another event");
        assert_eq!(world.get().creates.len(), 3, "each once");
        assert_eq!(agent.metrics.notices_reported(MAINTENANCE), 3);
        assert!(agent.readiness.reasons().is_empty());
    });
}

#[test]
fn maintenance_that_is_moved_while_its_notice_cannot_be_stored_is_stored_in_the_end() {
    let (late, early) = ("2026-03-21T09:00:00Z", "2026-03-02T09:00:00Z");
    paused(async move {
        let world = Shared::default();
        // The answer to the first attempt comes when the second notice is on its way.
        world.get().kubernetes = Mood::Silent;
        world.get().maintenance = Some(event_at(late));
        let agent = world.agent();
        after(58).await;
        world.get().maintenance = Some(event_at(early));
        after(30).await;
        world.get().kubernetes = Mood::Normal;
        after(60).await;
        assert_eq!(maintenance_told(&world), [late, early]);
        assert_eq!(agent.metrics.notices_reported(MAINTENANCE), 1);
        assert!(agent.readiness.reasons().is_empty(), "{:?}", agent.readiness.reasons());
    });
}

#[test]
fn maintenance_that_was_stored_long_ago_is_created_again_when_its_time_is_near() {
    paused(async {
        let world = Shared::default();
        world.get().maintenance = Some(event_at("2026-03-01T15:00:00Z"));
        let agent = world.agent();
        after(10_190).await;
        assert_eq!(world.get().creates.len(), 1, "three hours ahead, and now ten minutes");
        // The controller may have removed it with what it began.
        after(600).await;
        let near = world.get().creates.len();
        assert!((18..=42).contains(&near), "every 15 s to 30 s for ten minutes: {near}");
        assert_eq!(maintenance_told(&world).len(), 1);
        after(60).await;
        let over = world.get().creates.len();
        after(600).await;
        assert_eq!(world.get().creates.len(), over, "its time has passed");
        assert_eq!(agent.metrics.notices_reported(MAINTENANCE), 1);
    });
}

#[test]
fn something_else_answers_in_the_place_of_imds() {
    // A page for every path: the "token" is one, and no header value.
    check_misbehaviour(Mood::Garbage, "Malformed", false);
}

#[test]
fn an_unreadable_document_does_not_slow_the_reads_down() {
    paused(async {
        let world = Shared::default();
        let agent = world.agent();
        world.get().action = Some("{}");
        after(100).await;
        assert_eq!(agent.metrics.imds_requests("Malformed"), 50);
        world.get().action = Some(r#"{"action":"hibernate","time":"2026-03-01T13:00:00Z"}"#);
        after(2).await;
        let notices = world.notices();
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].deadline, Some(notices[0].detected_at), "hibernation begins at once");
    });
}

#[test]
fn a_token_that_imds_forgot_is_replaced() {
    paused(async {
        let world = Shared::default();
        let agent = world.agent();
        after(60).await;
        world.get().imds = Mood::ForgetsTokens;
        after(10).await;
        assert!(agent.metrics.imds_requests("Unauthorized") >= 1);
        assert!(agent.readiness.reasons().is_empty());
        world.get().rebalance = true;
        after(3).await;
        assert_eq!(world.notices().len(), 1);
    });
}

#[test]
fn many_agents_live_in_one_system_and_one_can_end() {
    paused(async {
        let worlds: Vec<Shared> = (0..5).map(|_| Shared::default()).collect();
        let agents: Vec<AgentHandle> = worlds.iter().map(Shared::agent).collect();
        after(10).await;
        agents[0].stop().await;
        let reads = worlds[0].get().reads.len();
        for world in &worlds {
            world.get().rebalance = true;
        }
        after(10).await;
        assert_eq!(worlds[0].get().reads.len(), reads, "the ended one reads no more");
        assert!(worlds[0].notices().is_empty());
        assert!(worlds[1..].iter().all(|world| world.notices().len() == 1));
    });
}

#[test]
fn a_poller_that_fails_in_any_way_is_back_at_once_and_reports_no_second_notice() {
    let second = Duration::from_secs(1);
    for (crash, cause, within) in [
        (Crash::PanicNow, RestartCause::Panicked, second),
        (Crash::PanicLater, RestartCause::Panicked, second),
        (Crash::Stop, RestartCause::Stopped, second),
        (Crash::Hang, RestartCause::Stuck, PING_EVERY + ANSWER_WITHIN + 6 * second),
    ] {
        paused(async {
            let world = Shared::default();
            world.get().rebalance = true;
            let agent = world.agent();
            after(30).await;
            world.get().kubernetes = Mood::Exists;
            let began = Instant::now();
            agent.poller.send(crash);
            while agent.poller.restarts().is_empty() || agent.poller.ask(Ping).await.is_err() {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(began.elapsed() <= within, "{crash:?}: it answers after {:?}", began.elapsed());
            after(30).await;
            world.get().kubernetes = Mood::Normal;
            world.get().action = Some(r#"{"action":"terminate","time":"2026-03-01T12:02:31Z"}"#);
            after(30).await;
            // A new life does not know what was reported, and does not have to: the name is the same.
            let names: Vec<String> =
                world.get().creates.iter().map(|(_, body)| body["metadata"]["name"].to_string()).collect();
            let advice = format!("\"{NODE}.{INSTANCE}-rebalance-recommendation\"");
            let deadline = format!("\"{NODE}.{INSTANCE}-spot-interruption\"");
            let mut different = names.clone();
            different.dedup();
            // The second life may try the advice once more before it meets the interruption, and after.
            different.retain(|name| *name != advice);
            assert_eq!(
                (names[0].as_str(), names[1].as_str()),
                (advice.as_str(), advice.as_str()),
                "{crash:?}"
            );
            different.dedup();
            assert_eq!(different, [deadline], "{crash:?}");
            let advised = names.iter().filter(|name| **name == advice).count();
            assert!(advised <= 5, "{crash:?}: {names:?}");
            assert!(agent.readiness.reasons().is_empty(), "{:?}", agent.readiness.reasons());
            let line =
                format!("spot_guard_actor_restarts_total{{actor=\"ImdsPoller\",cause=\"{:?}\"}} 1\n", cause);
            let metrics = agent.encode_metrics().expect("text");
            assert!(metrics.contains(&line), "no {line} in {metrics}");
        });
    }
}

#[test]
fn a_poller_that_fails_for_good_turns_readiness_red_by_its_name() {
    paused(async {
        let agent = Shared::default().agent();
        after(1).await;
        let mut restarts = 0;
        while !agent.readiness.reasons().contains_key("ImdsPoller") {
            agent.poller.send(Crash::PanicNow);
            restarts += 1;
            assert!(restarts < 10, "it restarts in vain and nobody says so");
            let panicked = || agent.poller.restarts().get(&RestartCause::Panicked).copied();
            while panicked() != Some(restarts) || agent.poller.ask(Ping).await.is_err() {
                sleep(Duration::from_millis(1)).await;
            }
        }
        assert!(agent.readiness.reasons()["ImdsPoller"].message.contains("restarted 6 times"));
    });
}

#[test]
fn the_metrics_have_their_names() {
    paused(async {
        let world = Shared::default();
        let agent = world.agent();
        after(5).await;
        let text = agent.encode_metrics().expect("text");
        for line in [
            "spot_guard_imds_requests_total{result=\"NotFound\"} 10",
            "spot_guard_notices_reported_total{kind=\"SpotInterruption\"} 0",
            "spot_guard_actor_restarts_total{actor=\"ImdsPoller\",cause=\"Panicked\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(agent.poller.restarts().get(&RestartCause::Panicked), None);
    });
}
