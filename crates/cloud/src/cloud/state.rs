//! Everything that the simulated cloud knows, and the timers that move it.

use super::activity::Activity;
use super::event::{CallRecord, CloudEvent, EventKind};
use super::faults::Faults;
use super::host::HostCall;
use super::messages::MessageQueue;
use super::spec::{BootFault, CloudSettings, GroupSpec, ImdsMode, LaunchFailure, Market, Supply};
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::broadcast;

/// How long scaling activities are kept.
const ACTIVITY_LIFE: Duration = Duration::from_secs(42 * 24 * 3600);

/// `LifecycleState` of an instance in its group (User Guide, "Amazon EC2 Auto Scaling instance lifecycle").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleState {
    /// Launched, not counted as capacity yet.
    Pending,
    /// Held by a lifecycle hook on launch; the machine runs, and its kubelet registers the node.
    PendingWait,
    /// Let on by its lifecycle hook.
    PendingProceed,
    /// Counted as capacity.
    InService,
    /// Held by a lifecycle hook; the machine still runs.
    TerminatingWait,
    /// Kept after its lifecycle hook until somebody terminates it; the machine runs.
    TerminatingRetained,
    /// On its way out.
    Terminating,
    /// Put aside by a person; the machine runs, and desired capacity does not count it.
    Standby,
}

impl LifecycleState {
    /// As the API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::PendingWait => "Pending:Wait",
            Self::PendingProceed => "Pending:Proceed",
            Self::InService => "InService",
            Self::TerminatingWait => "Terminating:Wait",
            Self::TerminatingRetained => "Terminating:Retained",
            Self::Terminating => "Terminating",
            Self::Standby => "Standby",
        }
    }

    /// Whether it is on its way out.
    #[must_use]
    pub fn is_ending(self) -> bool {
        matches!(self, Self::TerminatingWait | Self::TerminatingRetained | Self::Terminating)
    }
}

#[derive(Clone)]
pub(super) struct Instance {
    pub id: String,
    /// Launch order; newer is larger.
    pub order: u64,
    pub group: String,
    pub zone: String,
    pub market: Market,
    pub node_name: String,
    pub address: String,
    pub launched_at: Timestamp,
    pub state: LifecycleState,
    pub healthy: bool,
    pub protected: bool,
    /// The version of the launch template that it was launched from.
    pub template_version: u32,
    /// Whether the machine runs. A lost instance stays in its group until the health check sees it.
    pub machine_runs: bool,
    pub joined: bool,
    pub boot_fault: Option<BootFault>,
    /// The instance that ends when this one is in service (capacity or AZ rebalancing).
    pub replaces: Option<String>,
    /// Launched beside desired capacity, which does not count it.
    pub beyond_desired: bool,
    pub rebalance_at: Option<Timestamp>,
    pub interrupt_at: Option<Timestamp>,
    /// When EC2 stops the instance, as it has scheduled it.
    pub maintenance_at: Option<Timestamp>,
    pub hook_until: Option<Timestamp>,
    /// The state that listings show while it is in service, if it is another one.
    pub shown: Option<&'static str>,
    pub launch_activity: String,
    pub end_activity: Option<String>,
    pub imds_mode: ImdsMode,
    /// IMDSv2 session tokens and when they expire.
    pub imds_tokens: BTreeMap<String, Timestamp>,
}

#[derive(Clone)]
pub(super) struct Group {
    pub spec: GroupSpec,
    pub created: Timestamp,
    pub desired: u32,
    /// What controls of the scenario, and no call of the API, have added to desired capacity.
    pub added_by_others: i64,
    /// The same without what they have added.
    pub lowered_by_others: i64,
    /// By zone; `None` is the whole group.
    pub capacity: BTreeMap<Option<String>, Supply>,
    /// Scripted failures and for how many more launches they hold (`None`: until they are taken back), by
    /// zone; `None` is the whole group.
    pub failures: BTreeMap<Option<String>, (LaunchFailure, Option<u32>)>,
    pub boot_faults: VecDeque<BootFault>,
    /// The activities of launches that have begun and have no instance yet.
    pub launching: Vec<String>,
    /// Suspended processes and the reasons.
    pub suspended: BTreeMap<String, String>,
    /// Since when every launch has failed.
    pub failing_since: Option<Timestamp>,
    pub retry_pause: Duration,
    pub retry_at: Option<Timestamp>,
    /// The instance refresh that was begun last: its status.
    pub refresh: Option<&'static str>,
    /// Who last changed desired capacity, for the causes of activities.
    pub change_cause: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Timer {
    Reconcile(String),
    CountLaunched(String, u32),
    Launch(String, String),
    InService(String),
    LaunchHookOver(String),
    Join(String),
    Identify(String),
    Ready(String),
    Interrupt(String),
    ReplaceAtRisk(String),
    LossSeen(String),
    HookOver(String),
    MachineStops(String),
    NodeRemoved(String),
    Gone(String),
}

/// What the Describe calls show, as it was at one moment.
#[derive(Clone)]
pub(super) struct Picture {
    pub at: Timestamp,
    pub groups: BTreeMap<String, Group>,
    pub instances: BTreeMap<String, Instance>,
    pub activities: VecDeque<Activity>,
}

/// The remembered answer to a `ClientToken`.
pub(super) struct CachedLaunch {
    pub at: Timestamp,
    pub request: String,
    pub answer: String,
}

pub(super) struct State {
    pub rng: fastrand::Rng,
    /// For session tokens alone, so that polling IMDS does not change what happens next.
    pub token_rng: fastrand::Rng,
    /// For the age of listings alone.
    pub lag_rng: fastrand::Rng,
    pub settings: CloudSettings,
    pub groups: BTreeMap<String, Group>,
    pub instances: BTreeMap<String, Instance>,
    /// Oldest first, six weeks at most, as in AWS (API_DescribeScalingActivities).
    pub activities: VecDeque<Activity>,
    /// What listings may still show, oldest first; none while they are not behind.
    pub pictures: VecDeque<Picture>,
    pub timers: BTreeMap<(Timestamp, u64), Timer>,
    pub seq: u64,
    /// How many instances have ever existed; gives each its own address.
    pub hosts: u64,
    /// The names of nodes that are gone, oldest first.
    pub free_names: VecDeque<String>,
    /// Calls that the host has not seen yet.
    pub outbox: Vec<HostCall>,
    pub calls: VecDeque<CallRecord>,
    pub faults: Faults,
    pub queue: MessageQueue,
    pub launch_tokens: BTreeMap<(String, String), CachedLaunch>,
    pub events: broadcast::Sender<CloudEvent>,
}

/// `at` plus `duration`, at most the end of time.
pub(super) fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

impl State {
    pub(super) fn new(seed: u64, events: broadcast::Sender<CloudEvent>) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            token_rng: fastrand::Rng::with_seed(!seed),
            lag_rng: fastrand::Rng::with_seed(seed.rotate_left(32)),
            settings: CloudSettings::default(),
            groups: BTreeMap::new(),
            instances: BTreeMap::new(),
            activities: VecDeque::new(),
            pictures: VecDeque::new(),
            timers: BTreeMap::new(),
            seq: 0,
            hosts: 0,
            free_names: VecDeque::new(),
            outbox: Vec::new(),
            calls: VecDeque::new(),
            faults: Faults::default(),
            queue: MessageQueue::seeded(seed),
            launch_tokens: BTreeMap::new(),
            events,
        }
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub(super) fn at(&mut self, at: Timestamp, timer: Timer) {
        let seq = self.next_seq();
        self.timers.insert((at, seq), timer);
    }

    /// Runs every timer that is due, each at its own time.
    pub(super) fn advance(&mut self, now: Timestamp) {
        while let Some(entry) = self.timers.first_entry() {
            let at = entry.key().0;
            if at > now {
                return;
            }
            let timer = entry.remove();
            self.fire(timer, at);
        }
    }

    /// Hexadecimal digits from the seed.
    pub(super) fn hex(&mut self, digits: usize) -> String {
        hex(&mut self.rng, digits)
    }

    /// A version 4 UUID from the seed.
    pub(super) fn uuid(&mut self) -> String {
        let raw = uuid_digits(self.rng.u128(..));
        format!("{}-{}-4{}-a{}-{}", &raw[..8], &raw[8..12], &raw[13..16], &raw[17..20], &raw[20..32])
    }

    pub(super) fn tell(
        &mut self,
        at: Timestamp,
        kind: EventKind,
        group: &str,
        instance: Option<&str>,
        text: impl Into<String>,
    ) {
        // Nobody listening is not an error.
        let _ = self.events.send(CloudEvent {
            at,
            kind,
            group: group.to_owned(),
            instance: instance.map(str::to_owned),
            text: text.into(),
        });
    }

    pub(super) fn activity_mut(&mut self, id: &str) -> Option<&mut Activity> {
        self.activities.iter_mut().rev().find(|activity| activity.id == id)
    }

    /// Records an activity that starts now and gives its id.
    pub(super) fn begin_activity(
        &mut self,
        group: &str,
        description: String,
        cause: String,
        status_code: &'static str,
        instance: Option<&str>,
        at: Timestamp,
    ) -> String {
        let id = self.uuid();
        let seq = self.next_seq();
        let forgotten = |activity: &Activity| crate::clock::since(activity.start, at) > ACTIVITY_LIFE;
        while self.activities.front().is_some_and(forgotten) {
            self.activities.pop_front();
        }
        self.activities.push_back(Activity {
            seq,
            id: id.clone(),
            group: group.to_owned(),
            description,
            cause,
            start: at,
            end: None,
            status_code,
            status_message: None,
            progress: 0,
            instance: instance.map(str::to_owned),
            zone: None,
        });
        id
    }

    /// Ends an activity; one that is over already stays as it is.
    pub(super) fn finish_activity(
        &mut self,
        id: &str,
        at: Timestamp,
        status_code: &'static str,
        message: Option<&str>,
    ) {
        if let Some(activity) = self.activity_mut(id).filter(|activity| activity.end.is_none()) {
            activity.finish(at, status_code, message);
        }
    }

    /// The instances of a group, oldest first.
    pub(super) fn members(&self, group: &str) -> Vec<&Instance> {
        let mut members: Vec<_> = self.instances.values().filter(|i| i.group == group).collect();
        members.sort_by_key(|instance| instance.order);
        members
    }

    /// Whether desired capacity counts this instance.
    pub(super) fn counts(&self, instance: &Instance) -> bool {
        let replacing = instance
            .replaces
            .as_ref()
            .is_some_and(|old| self.instances.get(old).is_some_and(|old| !old.state.is_ending()));
        let aside = instance.state.is_ending() || instance.state == LifecycleState::Standby;
        !aside && !instance.beyond_desired && !replacing
    }

    pub(super) fn counted(&self, group: &str) -> u32 {
        let counted = self.instances.values().filter(|i| i.group == group && self.counts(i)).count();
        let launching = self.groups.get(group).map_or(0, |group| group.launching.len());
        u32::try_from(counted + launching).unwrap_or(u32::MAX)
    }
}

pub(super) fn hex(rng: &mut fastrand::Rng, digits: usize) -> String {
    (0..digits).map(|_| char::from_digit(rng.u32(0..16), 16).unwrap_or('0')).collect()
}

fn uuid_digits(bits: u128) -> String {
    format!("{bits:032x}")
}

/// The Region of a zone: `us-east-1a` lies in `us-east-1`.
pub(super) fn region_of(zone: &str) -> &str {
    zone.trim_end_matches(|c: char| c.is_ascii_lowercase())
}

/// The zone id of a zone: `us-east-1a` is `use1-az1`.
pub(super) fn zone_id(zone: &str) -> String {
    let region = region_of(zone);
    let mut parts = region.split('-');
    let (area, direction, number) =
        (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let letter = zone.bytes().last().unwrap_or(b'a');
    format!("{area}{}{number}-az{}", &direction[..direction.len().min(1)], letter.saturating_sub(b'a') + 1)
}

/// The subnet that the simulated groups have in a zone.
pub(super) fn subnet_of(zone: &str) -> String {
    format!("subnet-{}", zone.replace('-', ""))
}
