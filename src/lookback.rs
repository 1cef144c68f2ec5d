//! `spot-guard lookback`: what AWS still knows of a pair of groups, and what Spot Guard would have done.

mod since;
mod text;

use crate::aws::advice::{NO_REGION, what_to_do};
use crate::aws::history::{ActivityReading, ReadingEnd};
use crate::aws::{AutoScaling, CallError};
use crate::client::Output;
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;
use anyhow::{anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use since::Since;
use spot_guard_core::ids::GroupName;
use spot_guard_core::lookback::{
    Gap, GapKind, GroupNow, GroupRecord, LookbackFacts, ScalingActivity, beginning, look_back,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// What the role has to allow.
const NEEDED: &str = "autoscaling:DescribeAutoScalingGroups and autoscaling:DescribeScalingActivities";
/// So much earlier than what is asked for, in hours, activities are read: a launch takes its time.
const MARGIN_HOURS: i64 = 1;

/// What the command line gives.
#[derive(Args, Clone, Debug)]
pub struct LookbackOptions {
    /// The Auto Scaling group of Spot instances
    #[arg(long, value_name = "NAME")]
    pub spot_group: GroupName,
    /// The Auto Scaling group of on-demand instances beside it
    #[arg(long, value_name = "NAME")]
    pub on_demand_group: GroupName,
    /// On-demand instances that are no stand-ins; by default the minimum of their group
    #[arg(long, value_name = "N")]
    pub baseline: Option<u32>,
    /// How far to look back: a duration such as 10d or 36h, or a date such as 2026-11-01 (UTC)
    #[arg(long, value_name = "DURATION|DATE", default_value = "6w")]
    pub since: Since,
    /// The form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

/// Reads what AWS knows and returns what is to be printed.
///
/// # Errors
/// When there is no region, no such group, or nothing of any group can be read. Each says what to do.
pub async fn run(options: LookbackOptions) -> anyhow::Result<String> {
    let now = Clock::System.now();
    let since = options.since.before(now).map_err(|why| anyhow!("--since: {why}"))?;
    let aws = crate::aws::settings::load().await;
    let region = aws.region().map(ToString::to_string);
    let region = region.ok_or_else(|| anyhow!(NO_REGION))?;
    let api = AutoScaling::new(&aws, CALL_TIMEOUT, Clock::System, Arc::new(Metrics::new()));
    let names = [options.spot_group.clone(), options.on_demand_group.clone()];
    let (mut gaps, mut repeats) = (Vec::new(), 0);
    let groups = match api.groups_now(&names, &mut repeats).await {
        Ok(groups) => Some(groups),
        Err(error) => {
            gaps.push(failed(&error, None));
            None
        }
    };
    let is_missing = |name: &&GroupName| groups.as_ref().is_some_and(|found| !found.contains_key(*name));
    if let Some(name) = names.iter().find(is_missing) {
        bail!("no Auto Scaling group {name} in {region}: check the name, AWS_REGION and the account");
    }
    let (from, _) = beginning(since, now);
    let read_from = from.checked_sub(jiff::SignedDuration::from_hours(MARGIN_HOURS)).unwrap_or(from);
    let mut errors = Vec::new();
    let mut records = Vec::new();
    for name in &names {
        let reading = api.activities(name, read_from).await;
        repeats += reading.repeats;
        if let (ReadingEnd::Failed(error), true) = (&reading.end, reading.activities.is_empty()) {
            errors.push(error.clone());
        }
        records.push(record(name, groups.as_ref(), reading, from, now));
    }
    if let [first, _] = errors.as_slice() {
        bail!(what_to_do(first, NEEDED));
    }
    if repeats > 0 {
        gaps.push(Gap::new(GapKind::ThrottledAndRepeated, None, repeats));
    }
    let [spot, on_demand] = <[GroupRecord; 2]>::try_from(records).map_err(|_| anyhow!("two groups"))?;
    let facts = LookbackFacts { spot, on_demand, since, now, baseline: options.baseline };
    let mut report = look_back(&facts);
    report.gaps.splice(0..0, gaps);
    match options.output {
        Output::Json => Ok(format!("{}\n", serde_json::to_string_pretty(&report)?)),
        Output::Table => Ok(text::report(&report)),
    }
}

/// A call that failed, as something that the record does not show.
fn failed(error: &CallError, group: Option<&GroupName>) -> Gap {
    let kind = if error.is_throttling() { GapKind::Throttled } else { GapKind::CallFailed };
    Gap::new(kind, group, 1).with_example(&error.to_string())
}

/// What was read of a group. A reading that broke off knows what is newer than its last activity.
fn record(
    name: &GroupName,
    groups: Option<&BTreeMap<GroupName, GroupNow>>,
    reading: ActivityReading,
    from: Timestamp,
    now: Timestamp,
) -> GroupRecord {
    let oldest = |activities: &[ScalingActivity]| {
        activities.iter().map(|activity| activity.started_at).min().unwrap_or(now)
    };
    let (known_from, gaps) = match &reading.end {
        ReadingEnd::Complete => (from, Vec::new()),
        ReadingEnd::TooManyPages => {
            (oldest(&reading.activities), vec![Gap::new(GapKind::TooManyPages, Some(name), 1)])
        }
        ReadingEnd::Failed(error) => (oldest(&reading.activities), vec![failed(error, Some(name))]),
    };
    let gaps = gaps.into_iter().map(|gap| gap.covering(from, known_from));
    GroupRecord {
        name: name.clone(),
        now: groups.and_then(|groups| groups.get(name).cloned()),
        gaps: gaps.collect(),
        activities: reading.activities,
        known_from,
    }
}
