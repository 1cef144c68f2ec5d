//! The same small world in coarser steps, and therefore with all events in one story: each at most once, in
//! every order. The next one comes at once, or when everything has come to rest; in shorter stories, also
//! after each turn of the controller in between ([`Gap`]). Once in a story the controller dies in a turn, at
//! any of its calls; that counts as an event like the others, so what follows comes before the next one
//! leads, or when that one has brought everything to rest.
//!
//! What may become of a world after some events may also become of it after fewer of the same: so it is gone
//! on from only if it was not met after fewer. Stories are gone through by the number of their events, the
//! short ones first.

use super::super::{Fault, World};
use super::{EVENTS, PATIENCE, Step, WORLDS, WorldKind, ends_well, small_world};
use crate::ids::ReplacementName;
use crate::record::ReplacementStatus;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// When the next event may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    /// At once, or when everything has come to rest.
    AtRest,
    /// Also after any turn of the controller that follows at once.
    AtTurns,
}

/// How many events happen in one story between whose turns others come, the controller's death among them;
/// `EXPLORE_ORDERS` asks for another number.
const EVENTS_AT_MOST: u32 = 4;

/// Among what has happened: the controller has died.
const DIED: u16 = 1 << EVENTS.len();

impl World {
    /// Turns until there is nothing left to do at this instant.
    fn acts_to_rest(&mut self) {
        for _ in 0..40 {
            let before = (self.records.clone(), self.ledger.clone(), self.withdrawn.clone(), self.calls);
            self.acts();
            self.forget_what_is_told();
            let unchanged = before.0 == self.records && before.1 == self.ledger;
            if unchanged && before.2 == self.withdrawn && before.3 == self.calls {
                return;
            }
        }
        self.fail("the controller goes on and on at one instant");
    }

    /// Half a minute in which everything goes well.
    fn goes_on(&mut self) {
        self.acts_to_rest();
        let drained = self.drained.len();
        self.drain();
        if self.drained.len() > drained {
            self.acts_to_rest();
        }
        self.pass();
        self.forget_what_is_told();
    }
}

/// A state on the way.
struct State {
    /// Without its records: in their map each takes several kB, and many states wait at a time.
    world: World,
    records: Vec<(ReplacementName, ReplacementStatus)>,
    /// The world's key.
    key: u64,
    /// What has happened: the events by their numbers, and [`DIED`].
    happened: u16,
    /// The number of the state before, and the step that led here.
    from: Option<(u32, Step)>,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// How many states there are after no event, one, two and so on, without those met after fewer of the
    /// same.
    states: Vec<usize>,
    steps: usize,
}

struct Search {
    gap: Gap,
    /// How many events happen in one story at most.
    events: u32,
    /// By the key of a world: after what it was met.
    met: HashMap<u64, Vec<u16>>,
    /// From where it is known that everything ends well.
    known: HashSet<u64>,
    /// In which world everything comes to rest, by the world before.
    rests: HashMap<u64, u64>,
    /// The states that are still to be gone on from, by what has happened.
    open: BTreeMap<(u32, u16), VecDeque<State>>,
    /// The way to each state.
    ways: Vec<Option<(u32, Step)>>,
    found: Found,
}

impl Search {
    fn is_met(&self, key: u64, happened: u16) -> bool {
        self.met.get(&key).is_some_and(|met| met.iter().any(|fewer| fewer & happened == *fewer))
    }

    /// Takes in a state.
    fn reach(&mut self, step: Step, from: u32, mut world: World, key: u64, happened: u16) {
        self.found.steps += 1;
        if self.is_met(key, happened) {
            return;
        }
        let met = self.met.entry(key).or_default();
        met.retain(|more| more & happened != happened);
        met.push(happened);
        let records = std::mem::take(&mut world.records).into_iter().collect();
        let state = State { world, records, key, happened, from: Some((from, step)) };
        self.open.entry((happened.count_ones(), happened)).or_default().push_back(state);
    }

    /// Everything that may come next.
    fn go_on(&mut self, state: &State, number: u32) {
        ends_well(&state.world, &mut self.known);
        let after = |change: &mut dyn FnMut(&mut World)| {
            let mut world = state.world.clone();
            change(&mut world);
            world.forget_what_is_told();
            let key = world.key();
            (world, key)
        };
        let happened = state.happened;
        let more = happened.count_ones() < self.events;
        for (event, name) in EVENTS.into_iter().enumerate().filter(|_| more) {
            let with = happened | (1 << event);
            if with != happened {
                let (world, key) = after(&mut |world| world.happen(name));
                // An event that changes nothing has not happened; it still may.
                if key != state.key {
                    self.reach(Step::Event(event), number, world, key, with);
                }
            }
        }
        if more && happened & DIED == 0 {
            let (world, key) = after(&mut World::track);
            if key != state.key {
                self.reach(Step::DiesBeforeScaling, number, world, key, happened | DIED);
            }
            for fault in [Fault::BeforeCall, Fault::LostAnswer] {
                for call in 0.. {
                    let mut met = false;
                    let (world, key) = after(&mut |world| met = world.turn(call, fault));
                    if !met {
                        break;
                    }
                    self.reach(Step::DiesAt(call, fault), number, world, key, happened | DIED);
                }
            }
        }
        if self.gap == Gap::AtTurns {
            let (world, key) = after(&mut World::acts);
            self.reach(Step::Turn, number, world, key, happened);
        }
        self.rest(state, number);
    }

    /// Goes on until everything has come to rest, or goes round and round as it waits.
    fn rest(&mut self, state: &State, number: u32) {
        let happened = state.happened;
        let known = self.rests.get(&state.key).copied();
        if known.is_some_and(|key| self.is_met(key, happened)) {
            return;
        }
        let (mut world, mut key) = (state.world.clone(), state.key);
        let mut way = Vec::new();
        while known != Some(key) && !way.contains(&key) {
            way.push(key);
            if way.len() == PATIENCE {
                world.fail("it does not come to rest");
            }
            world.goes_on();
            key = world.key();
            if let Some(end) = self.rests.get(&key).copied().filter(|end| self.is_met(*end, happened)) {
                self.rests.extend(way.into_iter().map(|key| (key, end)));
                return;
            }
        }
        self.rests.extend(way.into_iter().map(|before| (before, key)));
        self.reach(Step::Rests, number, world, key, happened);
    }
}

/// Visits every state that stories of at most `events` events can reach.
fn explore(kind: WorldKind, gap: Gap, events: u32) -> Found {
    let world = small_world(kind);
    let first = State { key: world.key(), world, records: Vec::new(), happened: 0, from: None };
    let mut search = Search {
        gap,
        events,
        met: HashMap::from([(first.key, vec![0])]),
        known: HashSet::new(),
        rests: HashMap::new(),
        open: BTreeMap::from([((0, 0), VecDeque::from([first]))]),
        ways: Vec::new(),
        found: Found::default(),
    };
    while let Some(mut entry) = search.open.first_entry() {
        let Some(mut state) = entry.get_mut().pop_front() else {
            entry.remove();
            continue;
        };
        // Meanwhile it may have been met after fewer.
        if !search.met[&state.key].contains(&state.happened) {
            continue;
        }
        state.world.records = std::mem::take(&mut state.records).into_iter().collect();
        let events = state.happened.count_ones() as usize;
        if search.found.states.len() <= events {
            search.found.states.resize(events + 1, 0);
        }
        search.found.states[events] += 1;
        let number = u32::try_from(search.ways.len()).expect("fewer states");
        search.ways.push(state.from);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| search.go_on(&state, number))) {
            let mut way = Vec::new();
            let mut at = number;
            while let Some((before, step)) = search.ways[at as usize] {
                way.insert(0, step.tell());
                at = before;
            }
            eprintln!("after: {}", way.join("; "));
            resume_unwind(panic);
        }
    }
    search.found
}

/// Explores with both ways to ask a group, and says what there was; how many events the longest story has.
fn explore_both(gap: Gap, events: u32) -> usize {
    let began = Instant::now();
    let found: Vec<Found> = std::thread::scope(|scope| {
        let all = WORLDS.map(|kind| scope.spawn(move || explore(kind, gap, events)));
        all.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).into()
    });
    let states: usize = found.iter().flat_map(|found| &found.states).sum();
    println!(
        "every order of at most {events} events, {gap:?}: {states} states, {found:?}, in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(states > 10_000, "the world is too small to say anything");
    found.iter().map(|found| found.states.len() - 1).min().unwrap_or(0)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how far to explore is told by the Makefile")]
fn every_order_of_a_few_events_ends_well() {
    let events = std::env::var("EXPLORE_ORDERS").ok().filter(|text| !text.is_empty());
    let events = events.map_or(EVENTS_AT_MOST, |text| text.parse().expect("EXPLORE_ORDERS is a number"));
    explore_both(Gap::AtTurns, events);
}

#[test]
#[ignore = "takes minutes: make explore"]
fn every_order_of_all_events_ends_well() {
    let all = EVENTS.len() + 1;
    let longest = explore_both(Gap::AtRest, u32::try_from(all).expect("few"));
    assert_eq!(longest, all, "in one story all of them happen");
}
