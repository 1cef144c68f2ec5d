//! A history of the simulated cloud on paused time, with what is true of it: from its events, and from the
//! changes that the test itself has made.

use jiff::{SignedDuration, Timestamp};
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::{
    Cloud, CloudEvent, EventKind, GroupSpec, LaunchFailure, LifecycleState, Market,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;

pub const SPOT: &str = "workers-spot";
pub const OD: &str = "workers-on-demand";
/// On-demand instances that the group always has.
const MINIMUM: i64 = 1;

/// Something that changed a number of a group.
struct Change {
    at: Timestamp,
    group: &'static str,
    what: Number,
}

#[derive(Clone, Copy)]
enum Number {
    /// Desired capacity is this.
    Desired(i64),
    /// So many more are in service.
    InService(i64),
    /// Whether the last launch failed.
    Fails(bool),
}

pub struct Played {
    pub cloud: Cloud,
    events: Receiver<CloudEvent>,
    began: Timestamp,
    changes: Vec<Change>,
    in_service: Vec<String>,
    interrupted: Vec<String>,
    /// When an instance was lost, or a launch of Spot failed by this class.
    counted: Vec<(Timestamp, &'static str)>,
    /// So many of the next failures are of the quota.
    by_quota: u32,
    failed: [u32; 2],
}

/// What happened in a week.
#[derive(Debug, Default)]
pub struct WeekTruth {
    /// How often an instance was lost, or a launch of Spot failed by this class.
    pub counts: BTreeMap<&'static str, u32>,
    /// Hours in which desired capacity was not met: of Spot, and of on-demand.
    pub unmet: [f64; 2],
}

/// What happened; times in hours, and instances times hours.
#[derive(Debug, Default)]
pub struct Truth {
    pub interruptions: u32,
    pub spot_failed: u32,
    pub on_demand_failed: u32,
    pub spot_missing: f64,
    pub spot_unmet: f64,
    pub on_demand_missing: f64,
    pub could_serve: f64,
    pub spot_could_not: f64,
    /// By the Monday.
    pub weeks: BTreeMap<String, WeekTruth>,
}

/// The Monday of a time, 00:00 UTC. The first one of the Unix time was its fifth day.
fn monday(at: Timestamp) -> Timestamp {
    let (week, first) = (7 * 24 * 3600, 4 * 24 * 3600);
    let seconds = at.as_second();
    Timestamp::from_second(seconds - (seconds - first).rem_euclid(week)).expect("a time")
}

fn name_of(group: &str) -> &'static str {
    if group == SPOT { SPOT } else { OD }
}

impl Played {
    /// Two groups that began so long ago: six Spot instances and two on-demand ones.
    pub async fn new(seed: u64, ago: Duration) -> Self {
        let began = Timestamp::now() - SignedDuration::try_from(ago).expect("a time");
        let cloud = Cloud::new(CloudClock::simulated(began), seed);
        let events = cloud.subscribe();
        cloud.add_group(GroupSpec { desired: 6, max: 20, ..GroupSpec::new(SPOT, Market::Spot) });
        cloud.add_group(GroupSpec { min: 1, desired: 2, ..GroupSpec::new(OD, Market::OnDemand) });
        let mut played = Self {
            cloud,
            events,
            began,
            changes: Vec::new(),
            in_service: Vec::new(),
            interrupted: Vec::new(),
            counted: Vec::new(),
            by_quota: 0,
            failed: [0; 2],
        };
        for (group, desired) in [(SPOT, 6), (OD, 2)] {
            for what in [Number::Desired(desired), Number::InService(desired)] {
                played.changes.push(Change { at: began, group, what });
            }
            let instances = played.cloud.group(group).expect("a group").instances;
            played.in_service.extend(instances.into_iter().map(|instance| instance.id));
        }
        played.pass(Duration::from_secs(3600)).await;
        played
    }

    /// Lets time pass.
    pub async fn pass(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(Duration::from_secs(6 * 3600));
            tokio::time::advance(step).await;
            left -= step;
            // Looking at it lets everything happen that is due.
            self.cloud.group(SPOT).expect("a group");
            self.listen();
        }
    }

    /// Lets time pass until this day of the history begins.
    pub async fn pass_until(&mut self, day: u64) {
        let until = self.began + SignedDuration::from_hours(24 * i64::try_from(day).expect("small"));
        let left = until.duration_since(self.cloud.now());
        self.pass(Duration::try_from(left).expect("the day is not over")).await;
    }

    fn listen(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            let (at, group) = (event.at, name_of(&event.group));
            let id = event.instance.unwrap_or_default();
            let what = match event.kind {
                EventKind::InService => {
                    self.in_service.push(id);
                    Number::InService(1)
                }
                EventKind::Terminating if self.in_service.contains(&id) => {
                    self.in_service.retain(|held| *held != id);
                    self.counted.extend(self.interrupted.contains(&id).then_some((at, "lost")));
                    Number::InService(-1)
                }
                EventKind::Launching => Number::Fails(false),
                EventKind::LaunchFailed => {
                    self.failed[usize::from(group == OD)] += 1;
                    if group == SPOT {
                        let class = if self.by_quota > 0 { "Quota" } else { "Capacity" };
                        self.by_quota = self.by_quota.saturating_sub(1);
                        self.counted.push((at, class));
                    }
                    Number::Fails(true)
                }
                _ => continue,
            };
            self.changes.push(Change { at, group, what });
        }
    }

    /// Changes desired capacity as a person would.
    pub fn set_desired(&mut self, group: &'static str, desired: u32) {
        self.listen();
        self.cloud.set_desired(group, desired).expect("within the sizes");
        let what = Number::Desired(desired.into());
        self.changes.push(Change { at: self.cloud.now(), group, what });
    }

    /// The next launches of Spot fail by the quota of the account.
    pub fn fail_by_quota(&mut self, launches: u32) {
        self.listen();
        let quota = LaunchFailure::vcpu_limit(Market::Spot, 32);
        self.cloud.set_launch_failure(SPOT, Some(quota), Some(launches)).expect("a group");
        self.by_quota = launches;
    }

    /// AWS takes the Spot instance with this number, after its notice.
    pub async fn interrupt(&mut self, number: usize) {
        let instances = self.cloud.group(SPOT).expect("a group").instances;
        let serving = instances.iter().filter(|instance| instance.state == LifecycleState::InService);
        let id = serving.map(|instance| instance.id.clone()).nth(number).expect("an instance");
        self.cloud.interrupt(&id).expect("an instance");
        self.interrupted.push(id);
        self.pass(Duration::from_secs(600)).await;
    }

    /// What happened until now.
    pub fn truth(&self) -> Truth {
        let mut truth = Truth {
            interruptions: u32::try_from(self.interrupted.len()).expect("few"),
            spot_failed: self.failed[0],
            on_demand_failed: self.failed[1],
            ..Truth::default()
        };
        for (at, what) in &self.counted {
            let week = truth.weeks.entry(monday(*at).to_string()).or_default();
            *week.counts.entry(*what).or_default() += 1;
        }
        let (mut desired, mut there, mut fails) = ([0_i64; 2], [0_i64; 2], [false; 2]);
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        changes.sort_by_key(|change| change.at);
        let ends = changes.iter().skip(1).map(|next| next.at).chain([Timestamp::now()]);
        for (change, end) in changes.iter().zip(ends) {
            let group = usize::from(change.group == OD);
            match change.what {
                Number::Desired(count) => desired[group] = count,
                Number::InService(more) => there[group] += more,
                Number::Fails(now) => fails[group] = now,
            }
            let hours = end.duration_since(change.at).as_secs_f64() / 3600.0;
            let missing = [0, 1].map(|group| (desired[group] - there[group]).max(0) as f64);
            truth.spot_missing += missing[0] * hours;
            truth.spot_unmet += if missing[0] > 0.0 { hours } else { 0.0 };
            truth.on_demand_missing += missing[1] * hours;
            let above = (there[1] - MINIMUM).max(0) as f64 * hours;
            *if fails[0] { &mut truth.spot_could_not } else { &mut truth.could_serve } += above;
            truth.add_unmet(missing, change.at, end);
        }
        truth
    }
}

impl Truth {
    /// Adds a time in which so many instances were missing to the weeks that it lies in.
    fn add_unmet(&mut self, missing: [f64; 2], from: Timestamp, end: Timestamp) {
        let mut from = from;
        while from < end {
            let until = (monday(from) + SignedDuration::from_hours(7 * 24)).min(end);
            let hours = until.duration_since(from).as_secs_f64() / 3600.0;
            let week = self.weeks.entry(monday(from).to_string()).or_default();
            for (unmet, _) in week.unmet.iter_mut().zip(missing).filter(|(_, missing)| *missing > 0.0) {
                *unmet += hours;
            }
            from = until;
        }
    }
}
