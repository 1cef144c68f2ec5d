//! What attackers do in a random story. Each kind can be left out, by [`PLAYED`].

use super::faults::Blindness;
use super::plot::{Event, pick};
use std::time::Duration;

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Objects whose fields cannot be read.
    Poison,
    /// Agents that report what is not so.
    Lie,
    /// An agent takes the name of another node's notice.
    Squat,
    /// The watch of one kind is broken or silent while its objects change.
    Blind,
    /// An agent that reports without end.
    Flood,
}

/// All kinds.
const ALL: [Attack; 5] = [Attack::Poison, Attack::Lie, Attack::Squat, Attack::Blind, Attack::Flood];

/// The kinds that are played unless SIMULATE_ATTACKS says otherwise.
const PLAYED: &[Attack] = &ALL;

/// Something that an attacker does. Nodes and objects are named by a number, counted among those that are
/// there.
#[derive(Clone, Debug)]
pub enum Act {
    /// An object holds what cannot be read, for so many seconds or for good.
    Poisoned(Poison, usize, Option<u64>),
    /// The agent of the one node reports, and the other one is whom it wants to hit.
    Lied(Lie, usize, usize),
    /// The agent of the one node takes the name of the other one's notice.
    Squatted(usize, usize),
    /// The watches and lists of a kind fail for so many seconds; pods go and come meanwhile.
    Blinded(&'static str, Blindness, u64, usize),
    /// The agent of a node reports instances that do not exist.
    Flooded(usize),
}

impl Act {
    fn kind(&self) -> Attack {
        match self {
            Self::Poisoned(..) => Attack::Poison,
            Self::Lied(..) => Attack::Lie,
            Self::Squatted(..) => Attack::Squat,
            Self::Blinded(..) => Attack::Blind,
            Self::Flooded(_) => Attack::Flood,
        }
    }
}

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// When the fields of an object of this kind were written: a time that nobody needs. Whoever may change
    /// the object chooses it.
    Managed(&'static str),
    /// When a pod was started, by a kubelet.
    Started,
    /// A whole notice.
    Notice,
    /// A whole SpotAction.
    SpotAction,
    /// A whole record.
    Record,
}

/// What an agent says that is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Its own node has the other one's instance.
    Foreign,
    /// The same after its own node is gone, with a deadline that is over.
    FromTheGrave,
    /// Its own instance is taken in thousands of years.
    FarOff,
    /// Its own instance was taken an hour ago.
    LongOver,
    /// Its own instance is taken tomorrow.
    Tomorrow,
}

/// How often each kind was played.
#[derive(Clone, Copy, Debug, Default)]
#[allow(dead_code, reason = "they are printed")]
pub struct Counts {
    pub poisoned: usize,
    pub lied: usize,
    pub squatted: usize,
    pub blinded: usize,
    pub flooded: usize,
}

impl Counts {
    pub fn of(events: &[(usize, Duration, Event)]) -> Self {
        let mut counts = Self::default();
        for (_, _, event) in events {
            let Event::Attacked(act) = event else { continue };
            match act.kind() {
                Attack::Poison => counts.poisoned += 1,
                Attack::Lie => counts.lied += 1,
                Attack::Squat => counts.squatted += 1,
                Attack::Blind => counts.blinded += 1,
                Attack::Flood => counts.flooded += 1,
            }
        }
        counts
    }

    pub fn add(&mut self, other: Self) {
        self.poisoned += other.poisoned;
        self.lied += other.lied;
        self.squatted += other.squatted;
        self.blinded += other.blinded;
        self.flooded += other.flooded;
    }
}

/// The kinds that are played: those of the variable SIMULATE_ATTACKS (`all`, or names), else [`PLAYED`].
fn played() -> Vec<Attack> {
    let text = std::env::var("SIMULATE_ATTACKS").ok().filter(|text| !text.is_empty());
    let Some(text) = text else { return PLAYED.to_vec() };
    if text == "all" {
        return ALL.to_vec();
    }
    let named = |name: &str| {
        let found = ALL.iter().find(|kind| format!("{kind:?}").eq_ignore_ascii_case(name.trim()));
        *found.unwrap_or_else(|| panic!("SIMULATE_ATTACKS: {name} is none of {ALL:?}"))
    };
    text.split(',').map(named).collect()
}

/// What attackers do is drawn apart from the rest: whoever leaves them out plays the same story without them.
const ATTACKING: u64 = 0x00a7_7ac4;

/// In half of the stories somebody attacks.
pub fn with_attacks(events: Vec<(usize, Duration, Event)>, seed: u64) -> Vec<(usize, Duration, Event)> {
    let kinds = played();
    let random = &mut fastrand::Rng::with_seed(seed ^ ATTACKING);
    let mut events = events;
    if kinds.is_empty() || random.bool() {
        return events;
    }
    let last = events.last().map_or(Duration::ZERO, |(_, at, _)| *at) + Duration::from_secs(60);
    let first = events.len();
    for number in 0..random.usize(1..=6) {
        let at = Duration::from_millis(random.u64(..=u64::try_from(last.as_millis()).unwrap_or(0)));
        let act = act(random);
        if kinds.contains(&act.kind()) {
            events.push((first + number, at, Event::Attacked(act)));
        }
    }
    events.sort_by_key(|(_, at, _)| *at);
    events
}

fn act(random: &mut fastrand::Rng) -> Act {
    let (number, other) = (random.usize(..12), random.usize(..12));
    match random.u8(..100) {
        0..30 => Act::Poisoned(poison(random), number, pick(random, &[None, Some(5), Some(60), Some(300)])),
        30..55 => {
            let lies = [Lie::Foreign, Lie::FromTheGrave, Lie::FarOff, Lie::LongOver, Lie::Tomorrow];
            Act::Lied(pick(random, &lies), number, other)
        }
        55..70 => Act::Squatted(number, other),
        70..92 => {
            let how = pick(random, &[Blindness::Refused, Blindness::Silent]);
            Act::Blinded(watched(random), how, pick(random, &[10, 30, 60, 120, 300, 600]), number)
        }
        _ => Act::Flooded(number),
    }
}

fn poison(random: &mut fastrand::Rng) -> Poison {
    let kinds = [
        Poison::Managed("pods"),
        Poison::Managed("pods"),
        Poison::Managed("nodes"),
        Poison::Managed("namespaces"),
        Poison::Managed("poddisruptionbudgets.policy"),
        Poison::Managed("persistentvolumeclaims"),
        Poison::Managed("spotpools.spotguard.dev"),
        Poison::Managed("interruptionnotices.spotguard.dev"),
        Poison::Managed("nodereplacements.spotguard.dev"),
        Poison::Started,
        Poison::Notice,
        Poison::Notice,
        Poison::SpotAction,
        Poison::Record,
    ];
    pick(random, &kinds)
}

/// Every kind that is watched, pods more often: a node that looks empty is ended.
fn watched(random: &mut fastrand::Rng) -> &'static str {
    let kinds = [
        "pods",
        "pods",
        "pods",
        "pods",
        "nodes",
        "nodes",
        "poddisruptionbudgets",
        "poddisruptionbudgets",
        "persistentvolumeclaims",
        "persistentvolumes",
        "csinodes",
        "volumeattachments",
        "csidrivers",
        "storageclasses",
        "namespaces",
        "spotpools",
        "interruptionnotices",
        "nodereplacements",
        "spotactions",
    ];
    pick(random, &kinds)
}
