//! What happens in a random story: everything follows from its seed, and any event may be left out.

use super::attacks::{Act, with_attacks};
use spot_guard::sim::world::{App, PoolStart};
use spot_guard_cloud::cloud::{BootFault, BootTimes, NoticeQueue, Supply};
use spot_guard_core::adoption::OnDemandSpec;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::record::GroupKind;
use spot_guard_core::spot_action::ActionKind;
use spot_guard_core::stand_ins::{CoverSpec, OnAdvice};
use std::time::Duration;

/// A random story.
#[derive(Clone, Debug)]
pub struct Plot {
    pub seed: u64,
    pub pools: Vec<PoolPlan>,
    pub apps: Vec<App>,
    /// Pods that are spread over the zones and wait rather than lean to one; 0 in most stories.
    pub spread: u32,
    /// After how long LaunchInstances raises desired capacity, and whether it keeps to the maximum:
    /// undocumented.
    pub raises_after: Duration,
    pub enforces_max: bool,
    /// After how long a group sees that AWS has taken an instance.
    pub loss_detection: Duration,
    /// How far listings are behind at most; 0 in most stories.
    pub listing_lag: Duration,
    /// How long a launch takes before there is an instance, or a failure.
    pub launch_takes: Duration,
    /// Whether the agents run; if not, the notices are reported as they would, which is much faster.
    pub agents: bool,
    /// How the same notices come through a queue as well, if they do.
    pub queue: Option<NoticeQueue>,
    /// Whether cluster-autoscaler scales the same groups.
    pub autoscaler: bool,
    /// How many controllers there are, one of which leads.
    pub controllers: usize,
    /// What happens, in order, with the number that it is known by.
    pub events: Vec<(usize, Duration, Event)>,
}

/// A pool, and what its groups are like.
#[derive(Clone, Debug)]
pub struct PoolPlan {
    pub start: PoolStart,
    pub boot: BootTimes,
    /// Whether the groups have no room below, and little above what they begin with.
    pub tight: bool,
}

/// One of a pool's groups.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub pool: usize,
    pub kind: GroupKind,
}

/// A class of requests to the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeCall {
    Ledger,
    Record,
    Node,
    Eviction,
    Lease,
    AnyWrite,
    AnyRead,
}

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The connection breaks before it arrives.
    NotArrived,
    /// It takes effect, and its answer is lost.
    AnswerLost,
    /// An internal error instead.
    Failed,
    /// The server asks to slow down.
    Throttled,
    /// It takes this long, in milliseconds.
    Slow(u64),
}

/// Something that happens. Instances are named by a number, counted among those that are there.
#[derive(Clone, Debug)]
pub enum Event {
    Rebalance(Place, usize),
    Interrupt(Place, usize),
    /// A notice that is there already is reported once more under another name.
    ReportedAgain(usize),
    /// A notice that names the wrong instance.
    Lie(usize),
    Market(Place, Supply),
    LaunchesFail(Place, LaunchFault, u32),
    BootsFail(Place, BootFault, usize),
    /// AWS takes an instance at once.
    Taken(Place, usize),
    /// Somebody else raises desired capacity by one.
    Raised(Place),
    /// cluster-autoscaler deletes the placeholders of what is missing: desired becomes what is there.
    Erased(Place),
    /// cluster-autoscaler ends an empty node.
    ScaledDown(Place, usize),
    /// AWS throttles every call for so many seconds.
    Throttled(u64),
    /// What befalls the next calls of an operation.
    Aws(&'static str, Mishap, usize),
    Kube(KubeCall, Mishap, usize),
    /// Nothing of AWS, or of the Kubernetes API, can be reached for so many seconds.
    AwsOut(u64),
    KubeOut(u64),
    /// The leader alone cannot reach the Kubernetes API.
    LeaderCutOff(u64),
    /// All watches end; if `true` the history is forgotten, too.
    WatchesEnd(bool),
    /// The budget of an application allows so many unavailable pods.
    Budget(usize, u32),
    Replicas(usize, u32),
    /// The pods of an application ask to stay where they are.
    Held(usize),
    /// Somebody runs a pod on an instance that nothing makes anew.
    Runner(Place, usize),
    /// An application of one pod has a budget that never lets it go.
    NeverOpens,
    /// A node is not Ready for so many seconds.
    NodeUnready(usize, u64),
    /// The leader is killed and comes back after so many seconds.
    Killed(u64),
    /// The leader ends gracefully and comes back.
    HandedOver,
    /// The controllers' clocks are set to so many milliseconds ahead of the world's.
    ClockSet(i64),
    /// A person pauses a pool, and goes on after so many seconds.
    Paused(usize, u64),
    /// A person asks for something by a SpotAction, about the node or the story of that number.
    Asked(ActionKind, usize),
    /// A person pauses a pool, or everything, by a SpotAction, and lets it go on after so many seconds.
    PauseAsked(Option<usize>, u64),
    /// From here on the Node objects of instances that are gone stay.
    NodesStay,
    /// From here on a termination hook holds what a group ends for so many seconds.
    EndsHeld(Place, u64),
    /// From here on a group retains what its termination hook has held for so many seconds.
    EndsRetained(Place, u64),
    /// A person puts an instance aside for so many seconds.
    PutAside(Place, usize, u64),
    /// Listings show an instance in service in another state for so many seconds.
    Shown(Place, usize, &'static str, u64),
    /// The next launches fail in the zone of that number.
    ZoneFails(Place, usize, LaunchFault, u32),
    /// An instance refresh runs for so many seconds, and replaces the instance of that number first.
    Refreshed(Place, usize, u64),
    /// EKS updates a managed node group for so many seconds, and replaces the instance of that number first.
    Updated(Place, usize, u64),
    /// From here on new nodes have the names of nodes that are gone.
    NamesComeBack,
    /// From here on a Node has its providerID so many seconds after it has joined.
    ProviderIdsLate(u64),
    /// Somebody attacks.
    Attacked(Act),
}

/// Why launches fail.
#[derive(Clone, Copy, Debug)]
pub enum LaunchFault {
    Quota,
    Configuration,
    Unknown,
    /// Of two types one is out of capacity, and the other one not offered.
    Several,
}

/// States of instances that run on, of the model's thirty, and one that nobody knows (API Reference,
/// Instance).
const IN_SERVICE_STATES: [&str; 5] = [
    "ReplacingRootVolume",
    "ReplacingRootVolume:Wait",
    "ReplacingRootVolume:Proceed",
    "RootVolumeReplaced",
    "SomethingNew",
];

const OPERATIONS: [&str; 5] = [
    "LaunchInstances",
    "SetDesiredCapacity",
    "TerminateInstanceInAutoScalingGroup",
    "DescribeAutoScalingGroups",
    "DescribeScalingActivities",
];

/// The clocks of the controllers differ from the world's by this much at most, in milliseconds.
pub const MOST_SKEW: i64 = 30_000;

pub fn pick<T: Clone>(random: &mut fastrand::Rng, all: &[T]) -> T {
    all[random.usize(..all.len())].clone()
}

impl Plot {
    pub fn of(seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let returns = pick(&mut fastrand::Rng::with_seed(seed ^ RETURNS), &[None, Some(2), Some(5)]);
        let policy = PolicySpec { max_concurrent_returns: returns, ..policy(random) };
        let mut pools: Vec<PoolPlan> = (0..pick(random, &[1, 1, 2, 2, 3]))
            .map(|number| PoolPlan {
                start: PoolStart {
                    name: if number == 0 { "workers".to_owned() } else { format!("pool-{number}") },
                    spot_nodes: random.u32(2..=4),
                    on_demand_nodes: pick(random, &[0, 0, 1]),
                    policy: policy.clone(),
                    launch_instances: random.bool(),
                    zones: pick(random, &[1, 2, 3, 3, 3]),
                    managed: false,
                    cover: CoverSpec::default(),
                    baseline: OnDemandSpec::default(),
                },
                boot: BootTimes {
                    launch: Duration::from_secs(pick(random, &[5, 25, 25, 70])),
                    node_join: Duration::from_secs(pick(random, &[2, 20, 20, 60])),
                    node_ready: Duration::from_secs(pick(random, &[1, 15, 15, 40])),
                },
                tight: random.u8(..4) == 0,
            })
            .collect();
        with_managed(&mut pools, &mut fastrand::Rng::with_seed(seed ^ MANAGED));
        with_baselines(&mut pools, &mut fastrand::Rng::with_seed(seed ^ BASELINES));
        let nodes: u32 = pools.iter().map(|pool| pool.start.spot_nodes).sum();
        let apps: Vec<App> = ["web", "api", "batch"]
            .iter()
            .take(random.usize(1..=3))
            .map(|name| App {
                name: (*name).to_owned(),
                replicas: random.u32(2..=nodes + 1),
                cpu_millis: 100 * random.u32(2..=6),
                memory_mib: 256 * random.u32(1..=6),
                max_unavailable: pick(random, &[None, Some(1), Some(1), Some(2)]),
            })
            .collect();
        let mut at = Duration::ZERO;
        let count = random.usize(3..=30);
        let events = (0..count)
            .map(|number| {
                let gap = pick(random, &[0, 1_u64, 3, 10, 10, 30, 60, 120]);
                at += Duration::from_millis(1000 * gap + random.u64(..1000));
                let event =
                    if number == 0 { notice(random, &pools) } else { event(random, &pools, apps.len()) };
                (number, at, event)
            })
            .collect();
        let events = with_spot_actions(events, &mut fastrand::Rng::with_seed(seed ^ ASKING), pools.len());
        let events = with_nodes(events, &mut fastrand::Rng::with_seed(seed ^ NODES));
        let events = with_holds(events, &mut fastrand::Rng::with_seed(seed ^ HOLDS), apps.len());
        let events = with_hooks(events, &mut fastrand::Rng::with_seed(seed ^ HOOKS), &pools);
        let events = with_stays(events, &mut fastrand::Rng::with_seed(seed ^ STAYS), &pools);
        let events = with_refreshes(events, &mut fastrand::Rng::with_seed(seed ^ REFRESHES), &pools);
        let events = with_updates(events, &mut fastrand::Rng::with_seed(seed ^ UPDATES), &pools);
        let events = with_states(events, &mut fastrand::Rng::with_seed(seed ^ STATES), &pools);
        let events = with_zones(events, &mut fastrand::Rng::with_seed(seed ^ ZONES), &pools);
        let events = with_attacks(events, seed);
        Self {
            seed,
            raises_after: raises_after(random.u8(..3) > 0, seed),
            enforces_max: random.u8(..3) > 0,
            loss_detection: Duration::from_secs(fastrand::Rng::with_seed(seed ^ LOSSES).u64(60..=180)),
            listing_lag: listing_lag(&mut fastrand::Rng::with_seed(seed ^ LISTINGS)),
            launch_takes: launch_takes(&mut fastrand::Rng::with_seed(seed ^ LAUNCHES)),
            agents: random.u8(..12) == 0,
            queue: queue(&mut fastrand::Rng::with_seed(seed ^ QUEUE)),
            autoscaler: fastrand::Rng::with_seed(seed ^ AUTOSCALER).u8(..6) == 0,
            controllers: random.usize(1..=2),
            spread: spread(&mut fastrand::Rng::with_seed(seed ^ SPREAD), &pools),
            pools,
            apps,
            events,
        }
    }

    /// The same with these events alone.
    pub fn only(&self, numbers: &[usize]) -> Self {
        let events = self.events.iter().filter(|(number, _, _)| numbers.contains(number)).cloned().collect();
        Self { events, ..self.clone() }
    }
}

/// The queue is drawn apart from the rest.
const QUEUE: u64 = 0x5150;

/// A queue in every third story: late by up to a minute, and each message twice in half of them.
fn queue(random: &mut fastrand::Rng) -> Option<NoticeQueue> {
    let there = random.u8(..3) == 0;
    let (late, twice) = (pick(random, &[0, 5, 60]), random.bool());
    there.then(|| NoticeQueue { late_by: Duration::from_secs(late), twice, max_receives: None })
}

/// How soon lost instances are seen is drawn apart from the rest.
const LOSSES: u64 = 0x0001_0557;

/// How far listings are behind is drawn apart from the rest.
const LISTINGS: u64 = 0x0011_57a6;

/// Listings are behind in a third of the stories (EC2 API Reference, "Eventual consistency").
fn listing_lag(random: &mut fastrand::Rng) -> Duration {
    let lag = pick(random, &[2, 10]);
    if random.u8(..3) > 0 { Duration::ZERO } else { Duration::from_secs(lag) }
}

/// How long launches take is drawn apart from the rest.
const LAUNCHES: u64 = 0x001a_0c43;

/// In half of the stories a launch takes up to 6 s.
fn launch_takes(random: &mut fastrand::Rng) -> Duration {
    let takes = random.u64(1..=6);
    if random.bool() { Duration::ZERO } else { Duration::from_secs(takes) }
}

/// The delay of a raise is drawn apart from the rest.
const RAISES: u64 = 0x000a_15e5;

/// When LaunchInstances raises desired capacity: at once, or up to 20 s later.
fn raises_after(at_once: bool, seed: u64) -> Duration {
    let later = fastrand::Rng::with_seed(seed ^ RAISES).u64(1..=20);
    if at_once { Duration::ZERO } else { Duration::from_secs(later) }
}

/// Puts what was drawn apart among the other events.
fn among(
    mut events: Vec<(usize, Duration, Event)>,
    drawn: Vec<(Duration, Event)>,
) -> Vec<(usize, Duration, Event)> {
    let first = events.len();
    events.extend(drawn.into_iter().enumerate().map(|(number, (at, event))| (first + number, at, event)));
    events.sort_by_key(|(_, at, _)| *at);
    events
}

/// In a third of the stories one to three more events, within the first `eighths` of the story.
fn in_a_third(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
    eighths: u32,
    draw: impl Fn(&mut fastrand::Rng) -> Event,
) -> Vec<(usize, Duration, Event)> {
    if random.u8(..3) > 0 {
        return events;
    }
    let last = events.last().map_or(Duration::ZERO, |(_, at, _)| *at);
    let mut drawn = Vec::new();
    for _ in 0..random.usize(1..=3) {
        let event = draw(random);
        drawn.push((last * random.u32(..eighths) / 8, event));
    }
    among(events, drawn)
}

/// Whether cluster-autoscaler is there is drawn apart from the rest.
const AUTOSCALER: u64 = 0x00a5_ca1e;

/// What people ask for is drawn apart from the rest.
const ASKING: u64 = 0x0a5c_1266;

/// In a third of the stories people ask for something, too.
fn with_spot_actions(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
    pools: usize,
) -> Vec<(usize, Duration, Event)> {
    if random.u8(..3) > 0 {
        return events;
    }
    let mut drawn = Vec::new();
    let last = events.last().map_or(Duration::ZERO, |(_, at, _)| *at) + Duration::from_secs(120);
    for _ in 0..random.usize(1..=5) {
        let at = Duration::from_millis(random.u64(..=u64::try_from(last.as_millis()).unwrap_or(0)));
        let number = random.usize(..8);
        let event = match random.u8(..10) {
            0..3 => Event::Asked(ActionKind::Replace, number),
            3..6 => Event::Asked(ActionKind::Cancel, number),
            6..8 => Event::Asked(ActionKind::Return, number),
            _ => {
                let pool = random.bool().then(|| random.usize(..pools));
                Event::PauseAsked(pool, pick(random, &[30, 300]))
            }
        };
        drawn.push((at, event));
    }
    among(events, drawn)
}

/// What befalls Node objects is drawn apart from the rest.
const NODES: u64 = 0x0b0d_1e50;

/// In a third of the stories the cluster has no cloud controller, or a slow one, or names come back.
fn with_nodes(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
) -> Vec<(usize, Duration, Event)> {
    if random.u8(..3) > 0 {
        return events;
    }
    let mut drawn = Vec::new();
    let last = events.last().map_or(Duration::ZERO, |(_, at, _)| *at);
    let befalls = match random.u8(..4) {
        0 => vec![Event::NodesStay],
        1 => vec![Event::NamesComeBack],
        2 => vec![Event::ProviderIdsLate(pick(random, &[5, 30, 120]))],
        _ => vec![Event::NamesComeBack, Event::ProviderIdsLate(pick(random, &[5, 30]))],
    };
    for event in befalls {
        let at = Duration::from_millis(random.u64(..=u64::try_from(last.as_millis()).unwrap_or(0)));
        drawn.push((at, event));
    }
    among(events, drawn)
}

/// Which pods ask to stay is drawn apart from the rest.
const HOLDS: u64 = 0x0401_d5e1;

/// In a third of the stories pods ask to stay, and a budget has no room, until the faults are over.
fn with_holds(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
    apps: usize,
) -> Vec<(usize, Duration, Event)> {
    if random.u8(..3) > 0 {
        return events;
    }
    let mut drawn = Vec::new();
    let last = events.last().map_or(Duration::ZERO, |(_, at, _)| *at);
    let at = |part: u32| last * part / 8;
    for (part, event) in [
        (random.u32(..4), Event::Held(random.usize(..apps))),
        (random.u32(..4), Event::Budget(random.usize(..apps), 0)),
    ] {
        drawn.push((at(part), event));
    }
    among(events, drawn)
}

/// What lifecycle hooks do is drawn apart from the rest.
const HOOKS: u64 = 0x0400_4b15;

/// In a third of the stories lifecycle hooks hold instances on their way in or out, or abandon launches.
fn with_hooks(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
    pools: &[PoolPlan],
) -> Vec<(usize, Duration, Event)> {
    in_a_third(events, random, 6, |random| {
        let place = place(random, pools);
        let wait = Duration::from_secs(pick(random, &[20, 90, 300]));
        match random.u8(..3) {
            0 => Event::BootsFail(place, BootFault::HookHolds(wait), random.usize(1..3)),
            1 => Event::BootsFail(place, BootFault::HookAbandons(wait), random.usize(1..3)),
            _ => Event::EndsHeld(place, pick(random, &[30, 300, 1200])),
        }
    })
}

/// Lifecycle states are drawn apart from the rest.
const STATES: u64 = 0x0057_a7e5;

/// In a third of the stories instances are in states that are neither on the way in nor on the way out.
fn with_states(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
    pools: &[PoolPlan],
) -> Vec<(usize, Duration, Event)> {
    in_a_third(events, random, 8, |random| {
        let (place, number) = (place(random, pools), random.usize(..6));
        let seconds = pick(random, &[20, 120, 900]);
        match random.u8(..4) {
            0 => Event::EndsRetained(place, pick(random, &[5, 60])),
            1 => Event::PutAside(place, number, seconds),
            _ => Event::Shown(place, number, pick(random, &IN_SERVICE_STATES), seconds),
        }
    })
}

/// Failures by zone are drawn apart from the rest.
const ZONES: u64 = 0x0020_4e5f;

/// In a third of the stories launches fail in one zone, or for one type in another way than for the next.
fn with_zones(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
    pools: &[PoolPlan],
) -> Vec<(usize, Duration, Event)> {
    let faults = [LaunchFault::Several, LaunchFault::Several, LaunchFault::Quota, LaunchFault::Configuration];
    in_a_third(events, random, 6, |random| {
        let (place, fault, times) = (place(random, pools), pick(random, &faults), random.u32(1..6));
        match random.u8(..3) {
            0 => Event::LaunchesFail(place, fault, times),
            _ => Event::ZoneFails(place, random.usize(..3), fault, times),
        }
    })
}

/// What stays of itself is drawn apart from the rest.
const STAYS: u64 = 0x057a_9512;

/// In a third of the stories there are pods that nothing makes anew, and a budget that never opens.
fn with_stays(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
    pools: &[PoolPlan],
) -> Vec<(usize, Duration, Event)> {
    if random.u8(..3) > 0 {
        return events;
    }
    let mut drawn = Vec::new();
    let last = events.last().map_or(Duration::ZERO, |(_, at, _)| *at);
    if random.bool() {
        drawn.push((last * random.u32(..2) / 8, Event::NeverOpens));
    }
    for _ in 0..random.usize(1..=3) {
        let event = Event::Runner(place(random, pools), random.usize(..8));
        drawn.push((last * random.u32(..6) / 8, event));
    }
    among(events, drawn)
}

/// Instance refreshes are drawn apart from the rest.
const REFRESHES: u64 = 0x004e_f4e5;

/// In a quarter of the stories somebody refreshes the instances of a group.
fn with_refreshes(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
    pools: &[PoolPlan],
) -> Vec<(usize, Duration, Event)> {
    if random.u8(..4) > 0 {
        return events;
    }
    let last = events.last().map_or(Duration::ZERO, |(_, at, _)| *at);
    let seconds = pick(random, &[60, 300, 1200]);
    let refreshed = Event::Refreshed(place(random, pools), random.usize(..6), seconds);
    among(events, vec![(last * random.u32(..6) / 8, refreshed)])
}

/// How many nodes return at a time is drawn apart from the rest.
const RETURNS: u64 = 0x4e7a_42e5;

/// Which pools are of managed node groups is drawn apart from the rest.
const MANAGED: u64 = 0x00e5_7e45;

/// In every sixth story the groups of a pool are those of EKS managed node groups.
fn with_managed(pools: &mut [PoolPlan], random: &mut fastrand::Rng) {
    if random.u8(..6) == 0 {
        let number = random.usize(..pools.len());
        // Room for the successors of what is at risk, and for an update.
        (pools[number].start.managed, pools[number].tight) = (true, false);
        let on_advice = if random.bool() { OnAdvice::Failure } else { OnAdvice::Never };
        pools[number].start.cover = CoverSpec { on_advice };
    }
}

/// Updates of node groups are drawn apart from the rest.
const UPDATES: u64 = 0x0d01_f00d;

/// In half of the stories with a managed node group EKS updates one of its groups.
fn with_updates(
    events: Vec<(usize, Duration, Event)>,
    random: &mut fastrand::Rng,
    pools: &[PoolPlan],
) -> Vec<(usize, Duration, Event)> {
    let Some(pool) = pools.iter().position(|pool| pool.start.managed).filter(|_| random.bool()) else {
        return events;
    };
    let last = events.last().map_or(Duration::ZERO, |(_, at, _)| *at);
    let seconds = pick(random, &[120, 600, 1800]);
    let updated = Event::Updated(Place { pool, ..place(random, pools) }, random.usize(..6), seconds);
    among(events, vec![(last * random.u32(..6) / 8, updated)])
}

/// Baselines are drawn apart from the rest.
const BASELINES: u64 = 0x0ba5_e11e;

/// In a quarter of the stories each pool keeps as many on-demand instances as it begins with, or fewer. In
/// the others nobody says how many, and what others raise stays.
fn with_baselines(pools: &mut [PoolPlan], random: &mut fastrand::Rng) {
    if random.u8(..4) > 0 {
        return;
    }
    for pool in pools {
        // A group without room below has its minimum.
        let fewer = u32::from(!pool.tight && random.bool());
        let baseline = Some(pool.start.on_demand_nodes.saturating_sub(fewer));
        pool.start.baseline = OnDemandSpec { baseline, adopt_after_seconds: Some(pick(random, &[60, 300])) };
    }
}

/// How pods are spread is drawn apart from the rest. A group that chooses the zone by itself may never bring
/// the one zone that such pods fit in: a return waits for ever then, and says so.
const SPREAD: u64 = 0x0059_2ead;

fn spread(random: &mut fastrand::Rng, pools: &[PoolPlan]) -> u32 {
    let chooses = pools.iter().any(|pool| !pool.start.launch_instances && pool.start.zones > 1);
    let nodes: u32 = pools.iter().map(|pool| pool.start.spot_nodes).sum();
    let none = random.u8(..3) > 0 || chooses;
    if none { 0 } else { random.u32(2..=nodes + 1) }
}

fn policy(random: &mut fastrand::Rng) -> PolicySpec {
    let mut among = |all: &[u32]| Some(pick(random, all));
    PolicySpec {
        spot_timeout_seconds: among(&[60, 120, 180]),
        on_demand_timeout_seconds: among(&[120, 300]),
        retry_seconds: among(&[10, 30]),
        retry_max_seconds: among(&[60, 300]),
        drain_timeout_seconds: among(&[60, 300]),
        reschedule_timeout_seconds: among(&[60, 300]),
        terminate_before_deadline_seconds: among(&[0, 10]),
        monitor_seconds: among(&[10, 30]),
        stability_seconds: among(&[20, 60, 120]),
        probe_seconds: among(&[30, 120, 300]),
        probe_max_seconds: among(&[300, 600]),
        return_retry_seconds: among(&[30, 300]),
        cleanup_seconds: among(&[60, 600]),
        keep_finished_seconds: among(&[120, 86_400]),
        join_timeout_seconds: Some(400),
        delete_at_deadline: Some(among(&[0, 1]) == Some(1)),
        pod_hold_seconds: among(&[0, 60, 3600]),
        wait_before_termination_seconds: among(&[0, 30, 90]),
        ..PolicySpec::default()
    }
}

fn place(random: &mut fastrand::Rng, pools: &[PoolPlan]) -> Place {
    let kind = pick(random, &[GroupKind::Spot, GroupKind::Spot, GroupKind::OnDemand]);
    Place { pool: random.usize(..pools.len()), kind }
}

fn notice(random: &mut fastrand::Rng, pools: &[PoolPlan]) -> Event {
    let place = Place { kind: GroupKind::Spot, ..place(random, pools) };
    if random.u8(..3) > 0 {
        Event::Rebalance(place, random.usize(..6))
    } else {
        Event::Interrupt(place, random.usize(..6))
    }
}

fn mishap(random: &mut fastrand::Rng) -> Mishap {
    pick(
        random,
        &[
            Mishap::NotArrived,
            Mishap::AnswerLost,
            Mishap::AnswerLost,
            Mishap::Failed,
            Mishap::Throttled,
            Mishap::Slow(2_000),
            Mishap::Slow(20_000),
        ],
    )
}

fn event(random: &mut fastrand::Rng, pools: &[PoolPlan], apps: usize) -> Event {
    let place = place(random, pools);
    let number = random.usize(..8);
    match random.u8(..100) {
        0..26 => notice(random, pools),
        26..28 => Event::ReportedAgain(number),
        28..29 => Event::Lie(number),
        29..45 => {
            let left = [Supply::None, Supply::None, Supply::Left(1), Supply::Unlimited];
            Event::Market(place, pick(random, &left))
        }
        45..48 => {
            let fault = pick(random, &[LaunchFault::Quota, LaunchFault::Configuration, LaunchFault::Unknown]);
            Event::LaunchesFail(place, fault, random.u32(1..4))
        }
        48..52 => {
            let fault = [
                BootFault::DiesPending,
                BootFault::NeverJoins,
                BootFault::NeverReady,
                BootFault::KeepsTaint,
                BootFault::StaysCordoned,
            ];
            Event::BootsFail(place, pick(random, &fault), random.usize(1..3))
        }
        52..57 => Event::Taken(place, number),
        57..60 => Event::Raised(place),
        60..62 => Event::Erased(place),
        62..64 => Event::ScaledDown(place, number),
        64..66 => Event::Throttled(pick(random, &[20, 120, 600])),
        66..75 => Event::Aws(pick(random, &OPERATIONS), mishap(random), random.usize(1..4)),
        75..81 => {
            let calls = [
                KubeCall::Ledger,
                KubeCall::Record,
                KubeCall::Node,
                KubeCall::Eviction,
                KubeCall::Lease,
                KubeCall::AnyWrite,
                KubeCall::AnyRead,
            ];
            Event::Kube(pick(random, &calls), mishap(random), random.usize(1..4))
        }
        81..82 => Event::AwsOut(pick(random, &[10, 90])),
        82..83 => Event::KubeOut(pick(random, &[10, 60])),
        83..84 => Event::LeaderCutOff(pick(random, &[10, 60])),
        84..86 => Event::WatchesEnd(random.bool()),
        86..90 => Event::Budget(random.usize(..apps), pick(random, &[0, 0, 1, 2])),
        90..92 => Event::Replicas(random.usize(..apps), random.u32(1..6)),
        92..94 => Event::NodeUnready(random.usize(..12), pick(random, &[5, 60, 300])),
        94..97 => Event::Killed(pick(random, &[0, 3, 30])),
        97..98 => Event::HandedOver,
        98..99 => Event::ClockSet(random.i64(-MOST_SKEW..=MOST_SKEW)),
        _ => Event::Paused(random.usize(..pools.len()), pick(random, &[30, 300])),
    }
}
