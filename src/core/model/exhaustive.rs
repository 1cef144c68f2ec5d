//! The core explored completely for a small world: one pool, two Spot nodes, a dozen events of which each may
//! happen once, in every order, with turns of the controller, crashes and time between any two, up to a number
//! of steps. From every state that is reached, everything ends well once nothing fails any more.
//!
//! States are compared without names and times that make no difference: instances are known by their place in
//! their group, times by their distance from now, as far as any limit of the policy reaches.

use super::{Event, Fault, KINDS, World};
use crate::core::policy::Policy;
use crate::core::record::{Capacity, GroupKind, ReplacementStatus};
use crate::core::scaling::{Lifecycle, RequestMember, RequestState};
use crate::core::trigger::TriggerAction;
use jiff::Timestamp;
use std::collections::HashSet;
use std::fmt::{Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What may happen, each once.
const EVENTS: [Event; 14] = [
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
    Event::BootFails(GroupKind::Spot),
    Event::BootFails(GroupKind::OnDemand),
    Event::Ask(TriggerAction::Cancel, 0),
    Event::Ask(TriggerAction::Return, 0),
];

/// One step on the way.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An event, by its number.
    Event(usize),
    /// The controller takes a turn: the records are gone through, and the groups are asked for what they want.
    /// With a fault, it dies at its first call.
    Turn(Fault),
    /// Every drain that is under way ends.
    Drain,
    /// Half a minute passes.
    Pass,
}

/// How many steps are gone.
const STEPS: usize = 5;
/// No limit of the policy below reaches further than this many seconds.
const HORIZON: i64 = 150;
/// Simulated steps until everything has to be over.
const PATIENCE: usize = 720;

fn steps() -> Vec<Step> {
    let mut all: Vec<Step> = (0..EVENTS.len()).map(Step::Event).collect();
    all.extend([Fault::None, Fault::BeforeCall, Fault::LostAnswer].map(Step::Turn));
    all.extend([Step::Drain, Step::Pass]);
    all
}

fn small_world(can_launch: bool) -> World {
    let mut world = World::new(can_launch);
    world.policy = Policy {
        spot_timeout_seconds: 60,
        on_demand_timeout_seconds: 60,
        retry_seconds: 30,
        retry_max_seconds: 30,
        probe_seconds: 60,
        probe_max_seconds: 60,
        stability_seconds: 60,
        drain_timeout_seconds: 120,
        return_retry_seconds: 60,
        ..Policy::default()
    };
    let spot = world.groups.get_mut(&GroupKind::Spot).expect("a group");
    (spot.desired, spot.max) = (2, 5);
    spot.instances.truncate(2);
    world.baseline.insert(GroupKind::Spot, 2);
    world.old.truncate(2);
    world
}

impl World {
    fn take_step(&mut self, step: Step) {
        match step {
            Step::Event(number) => self.happen(EVENTS[number]),
            Step::Turn(fault) => {
                self.track();
                self.tell();
                self.scale(fault);
                // The next turn may be another controller's: nothing is kept but what is stored.
                self.told = Default::default();
            }
            Step::Drain => self.drain(),
            Step::Pass => self.happen(Event::Pass(30)),
        }
        self.forget_what_is_told();
    }

    /// What is told for people plays no part.
    fn forget_what_is_told(&mut self) {
        self.trace.clear();
        for status in self.records.values_mut() {
            (status.steps, status.conditions, status.blocking) = Default::default();
            status.triggers.clear();
        }
        let now = self.now;
        for group in self.groups.values_mut() {
            group.failures.retain(|failure| now.duration_since(failure.started_at).as_secs() < 2 * HORIZON);
        }
    }

    /// Whether everything is over, with the groups as they are to be.
    fn ended_well(&self) -> bool {
        self.is_settled()
            && KINDS.iter().all(|kind| {
                let others = self.others.get(kind).copied().unwrap_or(0);
                self.groups[kind].desired == self.baseline[kind] + others
            })
    }

    /// The state as far as it makes a difference.
    fn key(&self, happened: u16) -> u64 {
        let mut text = String::with_capacity(2048);
        let put = &mut |value: &dyn Debug| {
            let _ = write!(text, "{value:?};");
        };
        put(&(happened, self.can_launch, &self.others));
        for kind in KINDS {
            let group = &self.groups[&kind];
            put(&(group.desired, group.left, group.boots_fail, self.age(Some(group.retry_at)).max(-HORIZON)));
            for held in &group.instances {
                let left =
                    if held.lifecycle == Lifecycle::InService { 0 } else { self.age(Some(held.until)) };
                put(&(self.name(&held.id), held.lifecycle, left, held.busy, held.dies));
            }
            put(&group.failures.iter().map(|f| (self.age(Some(f.started_at)), f.class)).collect::<Vec<_>>());
        }
        for request in &self.ledger.scaling_requests {
            let before: Vec<String> =
                request.instances_before.iter().map(|id| self.name(id)).filter(|name| name != GONE).collect();
            put(&(request.group, request.baseline, request.target, request.state, &request.method, before));
            if request.state == RequestState::Intended {
                let known = self.answers.iter().filter(|(token, _)| token.contains(&request.id));
                put(&known.map(|(_, (ids, errors))| (self.names(ids), errors.len())).collect::<Vec<_>>());
            }
            request.members.iter().for_each(|member| put(&self.share(request.group, member)));
        }
        if let Some(reduction) = &self.ledger.reduction {
            let instance = reduction.instance_id.as_ref().map(|id| self.name(id));
            put(&(reduction.group, instance, &reduction.settles, reduction.baseline));
        }
        put(&(&self.ledger.desired_seen, self.ledger.cannot_launch.len()));
        for (name, status) in &self.records {
            put(&(name, self.record(status), self.withdrawn.contains(name)));
        }
        put(&self.drained.iter().map(|(id, purpose)| (self.name(id), purpose)).collect::<Vec<_>>());
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        hasher.finish()
    }

    /// Seconds since then, as far as they make a difference; negative ahead.
    fn age(&self, at: Option<Timestamp>) -> i64 {
        at.map_or(-2 * HORIZON, |at| self.now.duration_since(at).as_secs().clamp(-HORIZON, HORIZON))
    }

    /// An instance by its place.
    fn name(&self, id: &str) -> String {
        if self.old.iter().any(|old| old == id) {
            return id.to_owned();
        }
        let place = KINDS.iter().find_map(|kind| {
            let place = self.groups[kind].instances.iter().position(|held| held.id == id)?;
            Some(format!("{kind} {place}"))
        });
        place.unwrap_or_else(|| GONE.to_owned())
    }

    fn names(&self, ids: &[String]) -> Vec<String> {
        ids.iter().map(|id| self.name(id)).collect()
    }

    fn share(&self, group: GroupKind, member: &RequestMember) -> impl Debug {
        let asked = self.records.get(&member.replacement).map(ReplacementStatus::asked);
        let failed = self.groups[&group].failures.iter().any(|failure| failure.started_at >= member.since);
        (
            (
                member.replacement.clone(),
                member.surplus,
                asked == Some(member.attempt),
                self.age(Some(member.since)),
            ),
            (self.age(member.deadline), member.owed, member.debt, failed),
            member.instance_id.as_ref().map(|id| self.name(id)),
            member.failure.as_ref().map(|failure| failure.class),
        )
    }

    fn record(&self, status: &ReplacementStatus) -> impl Debug {
        let held = |capacity: &Option<Capacity>| {
            capacity
                .as_ref()
                .map(|held| (held.group, self.name(&held.instance_id), self.age(Some(held.ready_at))))
        };
        (
            (status.phase, self.age(status.phase_since), self.age(status.deadline), status.attempt.min(1)),
            (
                self.age(status.next_attempt_at),
                self.age(status.next_probe_at),
                self.age(status.spot_asked_at),
            ),
            (self.age(status.on_demand_asked_at), held(&status.capacity), status.fallback),
            (status.drain, status.old, held(&status.return_capacity), status.return_drain),
            (self.age(status.return_started_at), status.fallback_end, self.age(status.return_not_before)),
            status.return_requested_at.is_some(),
        )
    }
}

const GONE: &str = "gone";

/// Goes on from a state without any fault until everything has ended well, or a state is met of which that is
/// known.
fn ends_well(world: &World, known: &mut HashSet<u64>) {
    let mut world = world.clone();
    for group in world.groups.values_mut() {
        (group.left, group.boots_fail) = (None, 0);
    }
    let mut way = Vec::new();
    for _ in 0..PATIENCE {
        let key = world.key(0);
        if known.contains(&key) {
            break;
        }
        way.push(key);
        if world.ended_well() {
            break;
        }
        world.track();
        world.tell();
        world.scale(Fault::None);
        world.drain();
        world.happen(Event::Pass(10));
        world.forget_what_is_told();
    }
    if way.len() == PATIENCE {
        world.fail("it does not come to an end");
    }
    known.extend(way);
}

/// All states that are reached, by the number of steps.
fn explore(can_launch: bool) -> Vec<usize> {
    let mut known = HashSet::new();
    let first = small_world(can_launch);
    let mut visited = HashSet::from([first.key(0)]);
    let mut frontier = vec![(first, 0_u16, Vec::<Step>::new())];
    let mut counts = vec![1];
    for _ in 0..STEPS {
        let mut next = Vec::new();
        for (world, happened, way) in &frontier {
            for step in steps() {
                let happened = match step {
                    Step::Event(number) if happened & (1 << number) != 0 => continue,
                    Step::Event(number) => happened | (1 << number),
                    _ => *happened,
                };
                let reached = catch_unwind(AssertUnwindSafe(|| {
                    let mut world = world.clone();
                    world.take_step(step);
                    let is_new = visited.insert(world.key(happened));
                    if is_new {
                        ends_well(&world, &mut known);
                    }
                    is_new.then_some(world)
                }));
                let mut way = way.clone();
                way.push(step);
                match reached {
                    Ok(Some(world)) => next.push((world, happened, way)),
                    Ok(None) => {}
                    Err(panic) => {
                        eprintln!("after {way:?}, where an event is {EVENTS:?}");
                        resume_unwind(panic);
                    }
                }
            }
        }
        counts.push(next.len());
        frontier = next;
    }
    counts
}

#[test]
fn every_way_through_a_small_world_ends_well() {
    let began = std::time::Instant::now();
    let counts: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let both = [true, false].map(|can_launch| scope.spawn(move || explore(can_launch)));
        both.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).into()
    });
    let states: usize = counts.iter().flatten().sum();
    println!("{states} states within {STEPS} steps, {counts:?}, in {:.1} s", began.elapsed().as_secs_f64());
    assert!(states > 5_000, "the world is too small to say anything");
}
