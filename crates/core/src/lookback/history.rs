//! A group's past, put together from its activities: instances in service, desired capacity, launches and
//! losses.

use super::cause::{self, Deed, Saying};
use super::facts::{ActivityStatus, GroupNow, GroupRecord, ScalingActivity};
use super::gaps::{Gap, GapKind};
use super::report::LossReason;
use super::timeline::{HOUR, Steps, hours, millis};
use crate::classify;
use crate::group::FailureClass;
use crate::ids::{GroupName, InstanceId};
use std::collections::BTreeMap;

/// A launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    /// When it began, milliseconds.
    pub at: i64,
    /// When its instance came into service.
    pub served_at: Option<i64>,
    /// Why it failed, if it did.
    pub failed: Option<FailureClass>,
}

impl Launch {
    /// Whether it says anything of what the market gives: throttling and unknown failures do not.
    pub(super) fn speaks(&self) -> bool {
        !matches!(self.failed, Some(FailureClass::Throttle | FailureClass::Unknown))
    }
}

/// An instance that was lost against its group's will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// When its group took it out of service, milliseconds.
    pub at: i64,
    pub instance: InstanceId,
    pub reason: LossReason,
}

/// The past of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupHistory {
    /// From when on it is known, milliseconds.
    pub from: i64,
    /// Instances in service.
    pub in_service: Steps,
    /// Instances that its desired capacity wants and that are not in service: so many at least.
    pub missing: Steps,
    /// Its desired capacity, at least.
    pub desired: Steps,
    /// In order of time.
    pub launches: Vec<Launch>,
    pub losses: Vec<Loss>,
    pub gaps: Vec<Gap>,
}

/// What the activities of a group say, read one after another.
#[derive(Default)]
struct Reading {
    /// Of each instance, when it came into service (true) and when it left (false).
    moves: BTreeMap<InstanceId, Vec<(i64, bool)>>,
    /// Instances whose launch is on record, however it ended.
    launched: BTreeMap<InstanceId, bool>,
    sayings: Vec<Saying>,
    launches: Vec<Launch>,
    losses: Vec<Loss>,
    unreadable: (u32, Option<String>),
    unknown: (u32, Option<String>),
}

fn count(found: &mut (u32, Option<String>), example: &str) {
    found.0 += 1;
    found.1.get_or_insert_with(|| example.to_owned());
}

impl Reading {
    fn read(&mut self, activity: &ScalingActivity) {
        let at = millis(activity.started_at);
        if cause::is_readable(&activity.cause) {
            self.sayings.extend(cause::sayings(&activity.cause));
        } else {
            count(&mut self.unreadable, &activity.cause);
        }
        let mut moved = |instance: InstanceId, at: i64, comes: bool| {
            self.moves.entry(instance).or_default().push((at, comes));
        };
        let is_done = activity.status == ActivityStatus::Successful;
        let ended = activity.ended_at.map_or(at, millis);
        match cause::deed(&activity.description) {
            None => count(&mut self.unknown, &activity.description),
            Some(Deed::Nothing) => {}
            Some(Deed::Come(instance)) if is_done => moved(instance, ended, true),
            Some(Deed::Come(_)) => {}
            Some(Deed::Launch(instance)) => {
                let failed = activity.status == ActivityStatus::Failed;
                let failed = failed.then(|| classify::launch_failure(&activity.message));
                let served_at = is_done.then_some(ended);
                self.launches.push(Launch { at, served_at, failed });
                if let Some(instance) = instance {
                    self.launched.insert(instance.clone(), is_done);
                    if is_done {
                        moved(instance, ended, true);
                    }
                }
            }
            // What was not done left the instance where it was.
            Some(Deed::Go(_) | Deed::Terminate(_)) if activity.status == ActivityStatus::Failed => {}
            Some(Deed::Go(instance)) => moved(instance, at, false),
            Some(Deed::Terminate(instance)) => {
                if let Some(reason) = cause::loss(&activity.cause, &activity.message) {
                    self.losses.push(Loss { at, instance: instance.clone(), reason });
                }
                moved(instance, at, false);
            }
        }
    }

    /// How many were in service, and how many are now whose launch is not over. An instance that leaves, or
    /// is there, without having come on record was there before.
    fn in_service(&mut self, now: Option<&GroupNow>, from: i64) -> (Steps, u32) {
        let (mut first, mut changes, mut unclear) = (0, Vec::new(), 0);
        for instance in now.iter().flat_map(|now| &now.in_service) {
            let moves = self.moves.entry(instance.clone()).or_default();
            let began = self.launched.get(instance);
            if moves.is_empty() && began == Some(&false) {
                unclear += 1;
                moves.push((from, true));
            }
        }
        for (instance, moves) in &mut self.moves {
            moves.sort_by_key(|(at, _)| *at);
            let comes_first = moves.first().is_some_and(|(_, comes)| *comes);
            let mut is_there = !comes_first && !self.launched.contains_key(instance);
            first += i64::from(is_there);
            for (at, comes) in moves.iter() {
                if *comes != is_there {
                    changes.push((*at, if *comes { 1 } else { -1 }));
                    is_there = *comes;
                }
            }
        }
        (Steps::summed(first, changes), unclear)
    }
}

/// Desired capacity at least and at most, and the times in which they differ.
struct Desired {
    least: Steps,
    most: Steps,
    unknown: Vec<(i64, i64)>,
}

/// Desired capacity from what causes say of it: what was said holds until the next change. Where the next
/// saying does not begin with what the last one ended with, a change lies between that no activity shows.
fn desired(mut sayings: Vec<Saying>, now: Option<i64>, to: i64) -> Option<Desired> {
    sayings.sort_by_key(|saying| saying.at);
    let mut seen: Vec<Saying> = Vec::with_capacity(sayings.len());
    for saying in sayings {
        // A cause may repeat a change that another one reported.
        if !seen.iter().rev().take_while(|known| known.at == saying.at).any(|known| *known == saying) {
            seen.push(saying);
        }
    }
    let first = seen.first().map(|saying| saying.before.unwrap_or(saying.after)).or(now)?;
    let end = now.map(|after| Saying { at: to, before: None, after });
    let (mut least, mut most, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let (mut value, mut since) = (first, None);
    for saying in seen.into_iter().chain(end) {
        let next = saying.before.unwrap_or(saying.after);
        if let Some(since) = since.filter(|since| next != value && *since < saying.at) {
            least.push((since, value.min(next)));
            most.push((since, value.max(next)));
            unknown.push((since, saying.at));
        }
        (value, since) = (saying.after, Some(saying.at));
        least.push((saying.at, value));
        most.push((saying.at, value));
    }
    Some(Desired { least: Steps::of(first, least), most: Steps::of(first, most), unknown })
}

/// The past of a group between `from` and `to`, in milliseconds.
pub(super) fn history(record: &GroupRecord, from: i64, to: i64) -> GroupHistory {
    let now = record.now.as_ref();
    let born = now.and_then(|now| now.created_at).map_or(from, millis);
    let known_from = millis(record.known_from).max(from).max(born).min(to);
    let mut reading = Reading::default();
    let mut activities: Vec<&ScalingActivity> = record.activities.iter().collect();
    activities.sort_by_key(|activity| activity.started_at);
    activities.iter().for_each(|activity| reading.read(activity));
    let (in_service, unclear) = reading.in_service(now, known_from);
    let mut gaps = record.gaps.clone();
    let mut gap = |kind: GapKind, count: u32, example: Option<&str>| {
        let gap = Gap::new(kind, Some(&record.name), count);
        gaps.extend((count > 0).then(|| example.map_or(gap.clone(), |example| gap.with_example(example))));
    };
    gap(GapKind::UnreadableCause, reading.unreadable.0, reading.unreadable.1.as_deref());
    gap(GapKind::UnknownActivity, reading.unknown.0, reading.unknown.1.as_deref());
    gap(GapKind::ServiceUnknown, unclear, None);
    let is_weighted = now.is_some_and(|now| now.is_weighted);
    gap(GapKind::Weighted, u32::from(is_weighted), None);
    if born > from && born > millis(record.known_from) {
        gaps.push(Gap::new(GapKind::GroupIsYounger, Some(&record.name), 1).with_hours(hours(born - from)));
    }
    let wanted = desired(reading.sayings, now.map(|now| i64::from(now.desired)), to).filter(|_| !is_weighted);
    let (wanted, missing) = match wanted {
        Some(wanted) => {
            let missing = wanted.least.with(&in_service, |wanted, there| (wanted - there).max(0));
            gaps.extend(unknown_desired(&record.name, &wanted, &in_service, known_from, to));
            (wanted.least, missing)
        }
        None => (Steps::default(), Steps::default()),
    };
    reading.launches.sort_by_key(|launch| launch.at);
    reading.losses.sort_by_key(|loss| loss.at);
    GroupHistory {
        from: known_from,
        in_service,
        missing,
        desired: wanted,
        launches: reading.launches,
        losses: reading.losses,
        gaps,
    }
}

/// What is to be said of changes of desired capacity that no activity shows, if they matter: seconds do not.
fn unknown_desired(
    group: &GroupName,
    wanted: &Desired,
    in_service: &Steps,
    from: i64,
    to: i64,
) -> Option<Gap> {
    let spans = wanted.unknown.iter().map(|(begin, end)| ((*begin).max(from), (*end).min(to)));
    let spans: Vec<_> = spans.filter(|(begin, end)| end - begin >= HOUR / 360).collect();
    let missing_in = |of: &Steps| {
        let missing = of.with(in_service, |wanted, there| (wanted - there).max(0));
        spans.iter().map(|(begin, end)| missing.sum(*begin, *end)).sum::<i64>()
    };
    let span: i64 = spans.iter().map(|(begin, end)| end - begin).sum();
    let more = missing_in(&wanted.most) - missing_in(&wanted.least);
    let count = u32::try_from(spans.len()).unwrap_or(u32::MAX);
    let gap = Gap::new(GapKind::DesiredUnknown, Some(group), count).with_hours(hours(span));
    (count > 0).then_some(Gap { instance_hours: Some(hours(more)), ..gap })
}
