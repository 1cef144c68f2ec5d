use super::*;
use crate::baseline::{excess, needs_back, watch};
use crate::cluster::{Effect, Node, Pod, ScaleDown};
use crate::ledger::{Balance, Ledger, Method, RequestState, ScalingRequest};
use crate::record::Excess;
use crate::testing::{cluster, labels, node, pod, serving_group, taint};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn group(name: &str, desired: i32, ids: &[&str]) -> GroupView {
    serving_group(name, desired, ids, at(0))
}

fn request(state: RequestState, balance: Balance, instance: Option<&str>) -> ScalingRequest {
    let share = serde_json::json!({
        "replacement": "i-old", "balance": balance, "attempt": 0, "since": at(0), "instanceId": instance,
    });
    ScalingRequest {
        id: "1".to_owned(),
        group: GroupKind::OnDemand,
        group_name: "on-demand".into(),
        desired_before: 1,
        target: 2,
        instances_before: Vec::new(),
        active: 1,
        requested_at: at(0),
        answered_at: None,
        method: Method::default(),
        state,
        failure: None,
        shares: vec![serde_json::from_value(share).expect("a share")],
    }
}

#[test]
fn what_a_replacement_raised_is_no_excess() {
    let (applied, raised) = (RequestState::Applied, Balance::Raised);
    for (desired, baseline, held, expected) in [
        (2, 1, None, Some(1)),
        (1, 1, None, Some(0)),
        (0, 1, None, Some(0)),
        (3, 0, None, Some(3)),
        (2, 1, Some((applied, raised, Some("i-d1"))), Some(0)),
        (3, 1, Some((applied, raised, None)), Some(1)),
        (2, 1, Some((applied, Balance::Even, Some("i-d1"))), Some(1)),
        (2, 1, Some((RequestState::Intended, raised, None)), None),
        (2, 1, Some((RequestState::Launched, raised, Some("i-d1"))), None),
    ] {
        let requests = held.map(|(state, balance, instance)| request(state, balance, instance));
        let ledger = Ledger { scaling_requests: requests.into_iter().collect(), ..Ledger::default() };
        let found = excess(&ledger, &group("on-demand", desired, &[]), baseline);
        assert_eq!(found, expected, "{desired} {baseline} {held:?}");
    }
}

#[test]
fn of_several_adopted_instances_as_many_are_needed_back_as_the_baseline_lacks() {
    let raised_for = |name: &str| {
        let mut request = request(RequestState::Applied, Balance::Raised, Some("i-d"));
        request.shares[0].replacement = name.into();
        request
    };
    let names = ["pool.adopted-a-0", "pool.adopted-b-0", "pool.adopted-c-0", "a-stand-in"];
    let ledger = Ledger { scaling_requests: names.map(raised_for).into(), ..Ledger::default() };
    let needed = |desired: i32, baseline: Option<u32>| {
        let group = group("on-demand", desired, &[]);
        let is_needed = |name: &&&str| needs_back(&ledger, &group, baseline, &(**name).into());
        names[..3].iter().filter(is_needed).count()
    };
    // Four of them are ours.
    for (desired, baseline, expected) in
        [(6, Some(2), 0), (5, Some(2), 1), (4, Some(2), 2), (5, Some(9), 3), (6, None, 3)]
    {
        assert_eq!(needed(desired, baseline), expected, "{desired} {baseline:?}");
    }
    let first = group("on-demand", 5, &[]);
    assert!(needs_back(&ledger, &first, Some(2), &"pool.adopted-a-0".into()), "the same for every leader");
}

#[test]
fn excess_keeps_its_time_until_there_is_more_of_it() {
    let baseline = Some(1);
    let mut ledger = Ledger::default();
    let mut seen = |desired, seconds, baseline| {
        watch(&mut ledger, &group("on-demand", desired, &[]), baseline, at(seconds));
        ledger.excess.map(|held| (held.instances, held.since))
    };
    assert_eq!(seen(1, 0, baseline), None);
    assert_eq!(seen(3, 10, baseline), Some((2, at(10))));
    assert_eq!(seen(2, 20, baseline), Some((1, at(10))));
    assert_eq!(seen(3, 30, baseline), Some((2, at(30))), "the whole excess must have stood");
    assert_eq!(seen(1, 40, baseline), None);
    assert_eq!(seen(2, 50, baseline), Some((1, at(50))));
    assert_eq!(seen(2, 60, None), None, "without a baseline there is none");
}

/// One on-demand instance above a baseline of one, since `at(0)`; its pod fits on a Spot node.
struct Case {
    spec: OnDemandSpec,
    mode: Mode,
    replaced_by: ReplacedBy,
    view: PoolView,
    ledger: Ledger,
    records: Vec<(bool, ReplacementStatus)>,
    held: Vec<Reason>,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    /// Whether each node can be given back as it is.
    is_safe: bool,
    now: i64,
}

fn case() -> Case {
    Case {
        spec: OnDemandSpec { baseline: Some(1), adopt_after_seconds: None },
        mode: Mode::Act,
        replaced_by: ReplacedBy::SpotGuard,
        view: PoolView {
            spot: group("spot", 1, &["i-s1"]),
            on_demand: group("on-demand", 2, &["i-d1", "i-d2"]),
        },
        ledger: Ledger { excess: Some(Excess { instances: 1, since: at(0) }), ..Ledger::default() },
        records: Vec::new(),
        held: Vec::new(),
        nodes: vec![node("s1"), node("d1"), node("d2")],
        pods: vec![pod("web-1", "d1", 1000), pod("web-2", "d1", 1000), pod("web-3", "d2", 1000)],
        is_safe: true,
        now: 1800,
    }
}

impl Case {
    fn judge(&self) -> Adoption {
        let cluster = cluster(self.nodes.clone(), self.pods.clone());
        let known: Vec<AdoptionRecord<'_>> = self
            .records
            .iter()
            .map(|(is_adopted, status)| AdoptionRecord { is_adopted: *is_adopted, status })
            .collect();
        judge(&AdoptionInputs {
            spec: &self.spec,
            mode: self.mode,
            replaced_by: self.replaced_by,
            view: &self.view,
            ledger: &self.ledger,
            known: &known,
            at_most: 2,
            held: &self.held,
            cluster: &cluster,
            taint_key: "spotguard.dev/interruption",
            with_spot_node: &|| {
                let spot = cluster.node(&"s1".into()).cloned();
                spot.map(|spot| cluster.with_node(Node { name: "s2".into(), ..spot })).into_iter().collect()
            },
            // With one more node there is always room.
            unsafe_: &|_, cluster| {
                let is_safe = self.is_safe || cluster.nodes().len() > self.nodes.len();
                if is_safe { Vec::new() } else { vec![Reason::NoSpotInstance] }
            },
            now: at(self.now),
        })
    }

    /// The node that is adopted, and whether Spot is asked for one more.
    fn next(&self) -> Option<(String, bool)> {
        let next = self.judge().next?;
        Some((next.instance.node.to_string(), next.requests_spot))
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

#[test]
fn the_node_with_the_fewest_pods_goes_first_and_spot_is_asked_only_where_it_helps() {
    let d2 = |spot| Some(("d2".to_owned(), spot));
    assert_eq!(case().next(), d2(false));
    assert_eq!(case().with(|case| case.now = 1799).next(), None, "it has not stood for long enough");
    assert_eq!(case().with(|case| case.is_safe = false).next(), d2(true));
    let by_group = |case: &mut Case| (case.is_safe, case.replaced_by) = (false, ReplacedBy::Group);
    assert_eq!(case().with(by_group).next(), None, "nothing is asked of a group that replaces by itself");
    let full = |case: &mut Case| (case.is_safe, case.view.spot.max) = (false, 1);
    assert_eq!(case().with(full).next(), None, "the Spot group has no room");
    let no_spot_node = |case: &mut Case| {
        case.is_safe = false;
        case.nodes.remove(0);
    };
    assert_eq!(case().with(no_spot_node).next(), d2(true), "without a Spot node to look at one is tried");
}

#[test]
fn what_others_keep_or_take_is_never_adopted() {
    let d1 = Some(("d1".to_owned(), false));
    let d2 = |change: fn(&mut Node)| case().with(|case| change(&mut case.nodes[2]));
    assert_eq!(d2(|node| node.labels = labels(&[(KEEP, "")])).next(), d1);
    assert_eq!(d2(|node| node.unschedulable = true).next(), d1);
    assert_eq!(d2(|node| node.ready = false).next(), d1);
    assert_eq!(d2(|node| node.scale_down = ScaleDown::DisabledByOther).next(), d1);
    assert_eq!(d2(|node| node.scale_down = ScaleDown::DisabledByUs).next(), Some(("d2".to_owned(), false)));
    for key in [
        "ToBeDeletedByClusterAutoscaler",
        "aws-node-termination-handler/spot-itn",
        DELETION_CANDIDATE,
        "spotguard.dev/interruption",
    ] {
        let tainted = |case: &mut Case| case.nodes[2].taints = vec![taint(key, Effect::NoSchedule)].into();
        assert_eq!(case().with(tainted).next(), d1, "{key}");
        let managed = |case: &mut Case| {
            case.nodes[2].labels = labels(&[("eks.amazonaws.com/nodegroup", "workers")]);
            tainted(case);
        };
        assert_eq!(case().with(managed).next(), d1, "{key} on a node of a managed node group");
    }
    assert_eq!(case().with(|case| case.view.on_demand.instances[1].protected = true).next(), d1);
    let arrives = |case: &mut Case| case.view.on_demand.instances[1].lifecycle = Lifecycle::Pending;
    assert_eq!(case().with(arrives).next(), d1);
    let claimed = |case: &mut Case| {
        case.ledger.scaling_requests = vec![request(RequestState::Applied, Balance::Raised, Some("i-d2"))];
    };
    assert_eq!(case().with(claimed).next(), d1);
}

#[test]
fn as_many_are_adopted_at_a_time_as_may_return_and_each_once_the_ledger_holds_the_one_before() {
    let adopted = |id: &str, fallback: fn(OpenFallback) -> FallbackState| {
        let instance = Candidate { instance_id: id.into(), node: "d1".into() };
        let mut status = super::open(&Adopted { instance, requests_spot: true }, &case().view.spot, at(0));
        status.fallback = fallback(OpenFallback::default()).into();
        (true, status)
    };
    let held = |id: &str| request(RequestState::Applied, Balance::Raised, Some(id));
    let with = |records: Vec<(bool, ReplacementStatus)>, ids: &[&str], is_safe: bool| {
        let ids: Vec<_> = ids.iter().map(|id| held(id)).collect();
        let change = |case: &mut Case| {
            (case.records, case.is_safe) = (records, is_safe);
            case.ledger.scaling_requests = ids;
        };
        case().with(change).next()
    };
    let (waits, drains) = (FallbackState::OnFallback, FallbackState::Draining);
    let d2 = |requests_spot| Some(("d2".to_owned(), requests_spot));
    assert_eq!(with(vec![adopted("i-d1", drains)], &[], true), None, "the ledger does not hold it yet");
    assert_eq!(with(vec![adopted("i-d1", drains)], &["i-d1"], true), d2(false));
    assert_eq!(with(vec![adopted("i-d1", waits)], &["i-d1"], true), None, "it may take the same room");
    assert_eq!(with(vec![adopted("i-d1", waits)], &["i-d1"], false), d2(true), "each has a Spot instance");
    let both = vec![adopted("i-d1", waits), adopted("i-d3", waits)];
    assert_eq!(with(both, &["i-d1", "i-d3"], false), None, "as many as may return");
    let replaced = ReplacementStatus { deadline: Some(at(1900)), ..ReplacementStatus::default() };
    assert_eq!(with(vec![adopted("i-d1", waits), (false, replaced)], &["i-d1"], false), None);
}

#[test]
fn nothing_is_adopted_beside_other_work_and_the_pool_says_why() {
    let advice = ReplacementStatus { started_at: Some(at(0)), ..ReplacementStatus::default() };
    let open = ReplacementStatus { deadline: Some(at(1900)), ..advice.clone() };
    assert_eq!(case().with(|case| case.records = vec![(false, open)]).next(), None);
    let begun_nothing = case().with(|case| case.records = vec![(false, advice)]);
    assert_eq!(begun_nothing.next(), Some(("d2".to_owned(), false)));
    let released = |finished: i64| {
        let mut status =
            ReplacementStatus { finished_at: Some(at(finished)), ..ReplacementStatus::default() };
        status.settle_phase(at(finished));
        case().with(|case| case.records = vec![(true, status)])
    };
    assert_eq!(released(1).next(), None, "one was released within the last half hour");
    assert_eq!(released(0).next(), Some(("d2".to_owned(), false)));
    assert_eq!(case().with(|case| case.spec.baseline = None).judge(), Adoption::default());
    assert_eq!(case().with(|case| case.ledger.excess = None).judge(), Adoption::default());

    let above = Reason::AboveBaseline { group: "on-demand".into(), instances: 1, baseline: 1 };
    let held = |case: Case| {
        let found = case.judge();
        assert_eq!((found.excess, found.next), (1, None));
        found.held
    };
    let observes = Reason::ObserveOnly { at_once: false };
    assert_eq!(held(case().with(|case| case.mode = Mode::Observe)), [above.clone(), observes]);
    let paused = Reason::Paused(crate::reason::Pause::Pool);
    let pauses = paused.clone();
    assert_eq!(held(case().with(|case| case.held = vec![pauses])), [above.clone(), paused]);
    let by_group = |case: &mut Case| (case.is_safe, case.replaced_by) = (false, ReplacedBy::Group);
    assert_eq!(held(case().with(by_group)), [above, Reason::NoSpotInstance]);
}

#[test]
fn an_adopted_instance_is_a_fallback_from_its_beginning() {
    let instance = Candidate { instance_id: "i-d2".into(), node: "d2".into() };
    for (requests_spot, replaced_by) in [(false, ReplacedBy::Group), (true, ReplacedBy::SpotGuard)] {
        let adopted = Adopted { instance: instance.clone(), requests_spot };
        let status = open(&adopted, &case().view.spot, at(5));
        assert_eq!(status.phase(), crate::record::Phase::OnFallback);
        assert_eq!((status.replaced_by, status.started_at), (Some(replaced_by), Some(at(5))));
        assert_eq!(status.capacity.taken().map(|held| &*held.instance_id), Some("i-d2"));
    }
    let first = |pool: &str| names(&pool.into(), &"i-d2".into()).next().expect("a name");
    assert_eq!(first("web"), "web.adopted-i-d2-0");
    assert_eq!(first(&format!("{}-.x", "a".repeat(199))), format!("{}.adopted-i-d2-0", "a".repeat(199)));
}
