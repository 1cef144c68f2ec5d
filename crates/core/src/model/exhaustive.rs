//! The core explored completely for a small world: one pool, two Spot nodes, a dozen events of which each may
//! happen once, in every order, with turns of the controller, a crash at each of its calls, drains and time
//! between any two. Time passes when the controller has nothing left to do; once in a story it may pass while
//! there is none. Every state that can be reached is visited, however many steps away; from each, everything
//! ends well once nothing fails any more. What is bounded is how many of the events happen in one story
//! ([`EVENTS_AT_MOST`]); in coarser steps all of them do ([`orders`]).
//!
//! Time moves in steps of half a minute, of which every limit of the policy is a multiple. So what is
//! compared of a time is how many steps it is away, as far as anything reaches ([`World::key`]). Instances
//! are compared by their place in their group, and what is told for people not at all.

mod orders;

use super::{Event, Fault, KINDS, Raises, World};
use crate::group::Lifecycle;
use crate::ids::InstanceId;
use crate::ledger::{RequestState, Share};
use crate::policy::Policy;
use crate::record::{
    Capacity, CapacityState, FallbackState, GroupKind, Phase, Region as _, ReplacementStatus,
};
use crate::spot_action::ActionKind;
use jiff::Timestamp;
use std::collections::HashSet;
use std::fmt::{self, Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// What may happen, each once.
const EVENTS: [Event; 15] = [
    Event::Notice(false),
    Event::Notice(true),
    Event::Escalate(0),
    Event::Capacity(GroupKind::Spot, Some(0)),
    Event::Capacity(GroupKind::Spot, None),
    Event::Capacity(GroupKind::OnDemand, Some(0)),
    Event::Capacity(GroupKind::OnDemand, None),
    Event::Take(0),
    Event::Take(1),
    Event::OthersRaise(GroupKind::Spot),
    Event::OthersErase(GroupKind::Spot),
    Event::BootFails(GroupKind::Spot),
    Event::NeverJoins(GroupKind::Spot),
    Event::NodesStay,
    Event::Action(ActionKind::Cancel, 0),
];

/// How many of the events happen in one story; `EXPLORE_EVENTS` asks for another number.
const EVENTS_AT_MOST: u32 = 2;

/// One step on the way.
#[derive(Clone, Copy)]
enum Step {
    /// An event, by its number.
    Event(usize),
    /// The controller takes a turn: the records are gone through, and the groups are asked for what they
    /// want.
    Turn,
    /// It dies in its turn, once the records are stored.
    DiesBeforeScaling,
    /// It dies in its turn, at the call of that number: before it takes effect, or before the answer is
    /// stored.
    DiesAt(usize, Fault),
    /// Every drain that is under way ends.
    Drain,
    /// Half a minute passes: nothing is left to do for the controller, or it is dead, and the next one leads
    /// then.
    Pass,
    /// Everything comes to rest.
    Rests,
}

impl Step {
    fn tell(self) -> String {
        match self {
            Self::Event(number) => format!("{:?}", EVENTS[number]),
            Self::Turn => "a turn".to_owned(),
            Self::DiesBeforeScaling => "dies once the records are stored".to_owned(),
            Self::DiesAt(call, fault) => format!("dies at call {call}: {fault:?}"),
            Self::Drain => "drains end".to_owned(),
            Self::Pass => "time passes".to_owned(),
            Self::Rests => "everything comes to rest".to_owned(),
        }
    }
}

/// The steps that time moves in, in seconds.
const UNIT: i64 = 30;
/// Simulated steps until everything has to be over.
const PATIENCE: usize = 240;

/// How the groups are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorldKind {
    Launch,
    SetDesired,
    /// The Spot group replaces by itself.
    ByGroup,
}

const WORLDS: [WorldKind; 3] = [WorldKind::Launch, WorldKind::SetDesired, WorldKind::ByGroup];

fn small_world(kind: WorldKind) -> World {
    let mut world = World::new(kind == WorldKind::Launch, Raises::AtOnce);
    world.by_group = kind == WorldKind::ByGroup;
    world.policy = Policy {
        spot_timeout_seconds: 60,
        on_demand_timeout_seconds: 60,
        join_timeout_seconds: 90,
        retry_seconds: 30,
        retry_max_seconds: 30,
        probe_seconds: 30,
        probe_max_seconds: 30,
        stability_seconds: 30,
        drain_timeout_seconds: 60,
        return_retry_seconds: 30,
        terminate_before_deadline_seconds: 30,
        ..Policy::default()
    };
    let unit = Duration::from_secs(UNIT.unsigned_abs());
    for group in world.groups.values_mut() {
        (group.boot, group.leave) = (unit, unit);
    }
    let spot = world.groups.get_mut(&GroupKind::Spot).expect("a group");
    (spot.desired, spot.max) = (2, 5);
    spot.instances.truncate(2);
    world.baseline.insert(GroupKind::Spot, 2);
    world.old.truncate(2);
    world
}

impl World {
    /// A turn that meets nothing.
    fn acts(&mut self) {
        self.turn(0, Fault::None);
    }

    /// A turn that meets `fault` at the call of that number; whether it came so far.
    fn turn(&mut self, call: usize, fault: Fault) -> bool {
        self.track();
        self.tell();
        let met = self.scale_until(call, fault);
        // The next turn may be another controller's: nothing is kept but what is stored.
        self.told = Default::default();
        met || fault == Fault::None
    }

    /// Nothing happens between two steps of time.
    fn pass(&mut self) {
        self.now += Duration::from_secs(UNIT.unsigned_abs());
        self.reconcile();
    }

    /// What is told for people plays no part.
    fn forget_what_is_told(&mut self) {
        self.trace = String::new();
        let requests = &self.ledger.scaling_requests;
        self.answers.retain(|token, _| requests.iter().any(|request| token.contains(&request.id)));
        for status in self.records.values_mut() {
            (status.steps, status.conditions, status.blocking) = Default::default();
            status.spot_actions.clear();
            status.discarded.clear();
        }
        let now = self.now;
        for group in self.groups.values_mut() {
            group.failures.retain(|failure| now.duration_since(failure.started_at).as_secs() < 4 * UNIT);
        }
    }

    /// Whether everything is over, with the groups as they are to be.
    fn ended_well(&self) -> bool {
        self.is_settled()
            && KINDS.iter().all(|kind| self.expected(*kind).contains(&self.groups[kind].desired))
    }

    /// The state as far as it makes a difference.
    fn key(&self) -> u64 {
        let mut digest = Digest(DefaultHasher::new());
        let put = &mut |value: &dyn Debug| {
            let _ = write!(digest, "{value:?};");
        };
        put(&(self.can_launch, self.nodes_stay, &self.others, &self.erased, &self.lowered));
        let at_risk = self.at_risk.iter().map(|(id, at)| (self.name(id), at.map(|at| self.ahead(at))));
        put(&at_risk.filter(|(name, _)| name != GONE).collect::<Vec<_>>());
        for kind in KINDS {
            let group = &self.groups[&kind];
            put(&(group.desired, group.left, group.boots_fail, group.nodes_fail, self.ahead(group.retry_at)));
            for instance in &group.instances {
                let left =
                    if instance.lifecycle == Lifecycle::InService { 0 } else { self.ahead(instance.until) };
                put(&(self.name(&instance.id), instance.lifecycle, left, instance.has_pods, instance.dies));
                put(&instance.never_joins);
            }
            // A failure matters to shares that are older, and to health for one step.
            let matters =
                |at| self.past(at, 1) == 0 || self.ledger.shares(kind).any(|share| share.since <= at);
            let failures = group.failures.iter().filter(|failure| matters(failure.started_at));
            put(&failures
                .map(|failure| (self.past(failure.started_at, 1), failure.class))
                .collect::<Vec<_>>());
        }
        for request in &self.ledger.scaling_requests {
            let before: Vec<String> =
                request.instances_before.iter().map(|id| self.name(id)).filter(|name| name != GONE).collect();
            put(&(request.group, request.target == request.desired_before, before));
            if request.state != RequestState::Applied {
                put(&(request.desired_before, request.target, request.state, &request.method));
                let known = self.answers.iter().filter(|(token, _)| token.contains(&request.id));
                put(&known.map(|(_, (ids, errors))| (self.names(ids), errors.len())).collect::<Vec<_>>());
            }
            request.shares.iter().for_each(|share| put(&self.share(request.group, share)));
        }
        if let Some(reduction) = &self.ledger.reduction {
            let instance = reduction.instance_id.as_ref().map(|id| self.name(id));
            put(&(reduction.group, instance, &reduction.settles, reduction.desired_before));
            put(&self.past(reduction.requested_at, 1));
        }
        put(&(&self.ledger.desired_seen, self.ledger.cannot_launch.len()));
        let first = self.records.values().map(|status| status.started_at).min();
        for (name, status) in &self.records {
            let open = (!status.phase.is_finished()).then(|| self.record(status));
            let withdrawn = status.old_node.is_retained() && self.withdrawn.contains(name);
            let old = InstanceId::from(name.as_str());
            let held = status.capacity.taken().map(|held| &held.instance_id);
            let left = [Some(&old), held].map(|id| id.is_some_and(|id| self.left_nodes.contains(id)));
            put(&(left, status.phase.is_finished()));
            put(&(name, Some(status.started_at) == first, status.phase == Phase::Cancelled, withdrawn, open));
        }
        let drained = self.drained.iter().map(|(id, purpose)| (self.name(id), purpose));
        put(&drained.filter(|(name, _)| name != GONE).collect::<Vec<_>>());
        put(&self.names(&self.cordoned.iter().cloned().collect::<Vec<_>>()));
        digest.0.finish()
    }

    /// In how many steps of time that is; 0 if it is past.
    fn ahead(&self, at: Timestamp) -> i64 {
        let seconds = at.duration_since(self.now).as_secs_f64();
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a few steps")]
        let steps = (seconds / UNIT as f64).ceil() as i64;
        steps.max(0)
    }

    /// How many steps of time ago that was, as far as anything reaches.
    fn past(&self, at: Timestamp, reach: i64) -> i64 {
        (self.now.duration_since(at).as_secs() / UNIT).min(reach)
    }

    /// An instance by its place.
    fn name(&self, id: &str) -> String {
        if self.old.iter().any(|old| old == id) {
            return id.to_owned();
        }
        let place = KINDS.iter().find_map(|kind| {
            let place = self.groups[kind].instances.iter().position(|instance| instance.id == id)?;
            Some(format!("{kind} {place}"))
        });
        place.unwrap_or_else(|| GONE.to_owned())
    }

    fn names(&self, ids: &[InstanceId]) -> Vec<String> {
        ids.iter().map(|id| self.name(id)).collect()
    }

    /// A share: `since` matters by the failures that came after it, and by who comes first.
    fn share(&self, group: GroupKind, share: &Share) -> impl Debug {
        let all = || self.ledger.shares(group);
        let first = all().map(|share| share.since).min() == Some(share.since);
        let urgent = all().filter_map(|share| share.deadline).min() == share.deadline;
        let round = self.records.get(&share.replacement).map(ReplacementStatus::requests_made);
        let failures = &self.groups[&group].failures;
        let failed = failures.iter().filter(|failure| failure.started_at >= share.since).count();
        (
            (share.replacement.clone(), share.balance, round == Some(share.attempt), failed),
            (first, urgent, share.deadline.is_some(), share.stood_in_for),
            share.instance_id.as_ref().map(|id| self.name(id)),
            share.failure.as_ref().map(|failure| {
                let later = all().filter_map(|other| other.claimed_at).any(|at| at > failure.at);
                (failure.class, later)
            }),
            share.unusable.as_ref().map(|held| (self.past(held.since, 3), held.is_now())),
            share.discarded.as_ref().map(|last| (last.times, last.rests(self.now))),
            share.claimed_at.map(|at| failures.iter().filter(|failure| failure.started_at > at).count()),
        )
    }

    /// A record, each of its times only while something asks for it.
    fn record(&self, status: &ReplacementStatus) -> impl Debug {
        let seen = |capacity: Option<&Capacity>, reach: i64| {
            capacity
                .map(|taken| (taken.group, self.name(&taken.instance_id), self.past(taken.ready_at, reach)))
        };
        let ahead = |at: Option<Timestamp>| at.map(|at| self.ahead(at));
        let requested = match &*status.capacity {
            CapacityState::SpotRequested { since } => (self.past(*since, 2), 0),
            CapacityState::BothRequested { spot_since, on_demand_since } => {
                (self.past(*spot_since, 2), self.past(*on_demand_since, 2))
            }
            CapacityState::BackingOff { until } => (self.ahead(*until), 0),
            _ => (0, 0),
        };
        let settles = matches!(status.phase(), Phase::Terminating | Phase::ScalingDown);
        let returns = matches!(*status.fallback, FallbackState::Draining(_));
        let past_if = |asks: bool, at: Option<Timestamp>| at.filter(|_| asks).map(|at| self.past(at, 2));
        let fallback = status.fallback.open();
        (
            (status.phase(), past_if(settles, status.phase_since), ahead(status.deadline)),
            (status.capacity.name(), requested, status.capacity.is_on_demand_requested()),
            (seen(status.capacity.taken(), 0), status.old_node.name(), status.fallback.name()),
            (seen(status.fallback.successor(), 1), past_if(returns, status.return_started_at)),
            (
                ahead(fallback.and_then(|open| open.next_probe_at)),
                ahead(fallback.and_then(|open| open.not_before)).filter(|steps| *steps > 0),
            ),
        )
    }
}

/// What is written to it is hashed.
struct Digest(DefaultHasher);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

const GONE: &str = "gone";

/// Goes on from a state without any fault until everything has ended well, or a state is met of which that is
/// known.
fn ends_well(world: &World, known: &mut HashSet<u64>) {
    let mut world = world.clone();
    for group in world.groups.values_mut() {
        (group.left, group.boots_fail, group.nodes_fail) = (None, 0, 0);
    }
    let mut way = Vec::new();
    for _ in 0..PATIENCE {
        let key = world.key();
        if known.contains(&key) {
            break;
        }
        way.push(key);
        if world.ended_well() {
            break;
        }
        world.acts();
        world.drain();
        world.make_up();
        world.pass();
        world.forget_what_is_told();
    }
    if way.len() == PATIENCE {
        world.fail("it does not come to an end");
    }
    known.extend(way);
}

/// A state on the way.
#[derive(Clone)]
struct State {
    world: World,
    /// The events that have happened.
    happened: u16,
    /// Whether the controller is dead, and no other one leads yet.
    dead: bool,
    /// Whether time has passed without a leader: once in a story, or every age of everything would come
    /// about.
    late: bool,
}

impl State {
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.world.key(), self.happened, self.dead, self.late).hash(&mut hasher);
        hasher.finish()
    }

    /// Another state, after something was done to this one's world.
    fn after(&self, dead: bool, change: impl FnOnce(&mut World)) -> Self {
        let mut next = Self { dead, ..self.clone() };
        change(&mut next.world);
        next.world.forget_what_is_told();
        next
    }

    /// Everything that may come next, if at most so many events happen in all.
    fn steps(&self, events: u32) -> Vec<(Step, Self)> {
        let mut next = Vec::new();
        let here = self.world.key();
        for (number, event) in EVENTS.into_iter().enumerate() {
            let happened = self.happened | (1 << number);
            if happened == self.happened || happened.count_ones() > events {
                continue;
            }
            let after = self.after(self.dead, |world| world.happen(event));
            // An event that changes nothing has not happened; it still may.
            if after.world.key() != here {
                next.push((Step::Event(number), Self { happened, ..after }));
            }
        }
        next.push((Step::Drain, self.after(self.dead, World::drain)));
        if self.dead {
            if !self.late {
                next.push((Step::Pass, Self { late: true, ..self.after(false, World::pass) }));
            }
            next.push((Step::Turn, self.after(false, World::acts)));
            return next;
        }
        let turned = self.after(false, World::acts);
        if turned.world.key() == here {
            next.push((Step::Pass, self.after(false, World::pass)));
            return next;
        }
        next.push((Step::Turn, turned));
        next.push((Step::DiesBeforeScaling, self.after(true, World::track)));
        for fault in [Fault::BeforeCall, Fault::LostAnswer] {
            for call in 0.. {
                let mut met = false;
                let after = self.after(true, |world| met = world.turn(call, fault));
                if !met {
                    break;
                }
                next.push((Step::DiesAt(call, fault), after));
            }
        }
        next
    }
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    steps: usize,
    /// The longest way that was gone to a state; a shorter one may lead there, too.
    longest_way: usize,
}

/// Visits every state that stories of at most `events` events can reach.
fn explore(kind: WorldKind, events: u32) -> Found {
    let (mut known, mut visited) = (HashSet::new(), HashSet::new());
    let mut found = Found::default();
    // The states that are still to be gone on from, with the step that led to each and how far it is away.
    let mut open = vec![(0, None, State { world: small_world(kind), happened: 0, dead: false, late: false })];
    let mut way = Vec::new();
    while let Some((depth, step, state)) = open.pop() {
        way.truncate(depth);
        way.push(step);
        let next = catch_unwind(AssertUnwindSafe(|| {
            if !visited.insert(state.key()) {
                return None;
            }
            ends_well(&state.world, &mut known);
            Some(state.steps(events))
        }));
        match next {
            Ok(Some(next)) => {
                found.states += 1;
                found.steps += next.len();
                found.longest_way = found.longest_way.max(depth);
                open.extend(next.into_iter().map(|(step, state)| (depth + 1, Some(step), state)));
            }
            Ok(None) => {}
            Err(panic) => {
                eprintln!(
                    "after: {}",
                    way.iter().flatten().map(|step| step.tell()).collect::<Vec<_>>().join("; ")
                );
                resume_unwind(panic);
            }
        }
    }
    found
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how far to explore is told by the Makefile")]
fn every_way_through_a_small_world_ends_well() {
    let began = Instant::now();
    let events = std::env::var("EXPLORE_EVENTS").ok().filter(|text| !text.is_empty());
    let events = events.map_or(EVENTS_AT_MOST, |text| text.parse().expect("EXPLORE_EVENTS is a number"));
    let found: Vec<Found> = std::thread::scope(|scope| {
        let all = WORLDS.map(|kind| scope.spawn(move || explore(kind, events)));
        all.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).into()
    });
    let states: usize = found.iter().map(|found| found.states).sum();
    println!(
        "stories of at most {events} events: {states} states, {found:?}, in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(states > 5_000, "the world is too small to say anything");
}
