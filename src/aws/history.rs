//! What AWS still knows of groups, for a look back: the groups as they are, and all their scaling activities.
//!
//! All Auto Scaling calls of an account share one allowance. So pages are read one after another, and a call
//! that AWS throttles is repeated after pauses that grow, a bounded number of times.

use super::{AutoScaling, CallError, counted_in, next_page, time};
use crate::clock::jittered;
use crate::telemetry::metrics::{AwsOperation, AwsResult};
use aws_sdk_autoscaling::types::{Activity, AutoScalingGroup, LifecycleState};
use jiff::Timestamp;
use spot_guard_core::group::Lifecycle;
use spot_guard_core::ids::GroupName;
use spot_guard_core::lookback::{ActivityStatus, GroupNow, ScalingActivity};
use spot_guard_core::policy::backoff;
use std::collections::BTreeMap;
use std::time::Duration;

/// Pages of activities that are read at most, of 100 each.
const MOST_PAGES: usize = 500;
/// How often a call that AWS throttles is repeated at most.
const MOST_REPEATS: u32 = 8;
/// The first pause before a throttled call is repeated; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause before a throttled call is repeated.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause between two pages, so that others' calls are not throttled.
const BETWEEN_PAGES: Duration = Duration::from_millis(50);

/// How the reading of a group's activities ended.
#[derive(Clone, Debug)]
pub enum ReadingEnd {
    /// All of them were read.
    Complete,
    /// There are more pages than are read.
    TooManyPages,
    /// A call failed; what was read before it is there.
    Failed(CallError),
}

/// The activities of a group, newest first.
#[derive(Clone, Debug)]
pub struct ActivityReading {
    /// Those that were read.
    pub activities: Vec<ScalingActivity>,
    /// How often a call was throttled and repeated.
    pub repeats: u32,
    /// How it ended.
    pub end: ReadingEnd,
}

impl CallError {
    /// Whether AWS asks to slow down.
    #[must_use]
    pub fn is_throttling(&self) -> bool {
        self.result() == AwsResult::Throttled
    }
}

impl AutoScaling {
    /// The groups of these names as they are; one that does not exist is left out. Counts repeated calls.
    ///
    /// # Errors
    /// When the call fails, or is throttled for too long.
    pub async fn groups_now(
        &self,
        names: &[GroupName],
        repeats: &mut u32,
    ) -> Result<BTreeMap<GroupName, GroupNow>, CallError> {
        let page = repeated(repeats, || async {
            let call = self
                .client
                .describe_auto_scaling_groups()
                .set_auto_scaling_group_names(Some(names.iter().map(ToString::to_string).collect()))
                .max_records(100)
                .send();
            self.timed(AwsOperation::DescribeAutoScalingGroups, call).await
        })
        .await?;
        let named = |group: &AutoScalingGroup| Some((group.auto_scaling_group_name()?.into(), now(group)));
        Ok(page.auto_scaling_groups().iter().filter_map(named).collect())
    }

    /// The activities of a group that began at or after `since`.
    pub async fn activities(&self, group: &GroupName, since: Timestamp) -> ActivityReading {
        let mut reading =
            ActivityReading { activities: Vec::new(), repeats: 0, end: ReadingEnd::TooManyPages };
        let mut token: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let page =
                repeated(&mut reading.repeats, || self.activities_page(group, since, token.clone())).await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    reading.end = ReadingEnd::Failed(error);
                    return reading;
                }
            };
            // An endpoint that does not know the filter answers with older ones.
            let found = page.activities().iter().filter_map(scaling_activity);
            reading.activities.extend(found.filter(|activity| activity.started_at >= since));
            token = next_page(page.next_token());
            if token.is_none() {
                reading.end = ReadingEnd::Complete;
                return reading;
            }
            tokio::time::sleep(BETWEEN_PAGES).await;
        }
        reading
    }
}

/// Makes a call again while AWS throttles it, a bounded number of times; counts the repeats.
async fn repeated<T, F>(repeats: &mut u32, call: impl Fn() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    for failures in 1..=MOST_REPEATS {
        match call().await {
            Err(error) if error.is_throttling() => {
                *repeats += 1;
                tokio::time::sleep(jittered(backoff(FIRST_PAUSE, LONGEST_PAUSE, failures))).await;
            }
            answer => return answer,
        }
    }
    call().await
}

/// The fields that a look back needs; one without a beginning is none (API Reference, Activity: required).
fn scaling_activity(activity: &Activity) -> Option<ScalingActivity> {
    Some(ScalingActivity {
        description: activity.description().unwrap_or_default().to_owned(),
        cause: activity.cause().unwrap_or_default().to_owned(),
        started_at: time(activity.start_time()?)?,
        ended_at: activity.end_time().and_then(time),
        status: ActivityStatus::of(activity.status_code().map_or("", |code| code.as_str())),
        message: activity.status_message().unwrap_or_default().to_owned(),
    })
}

fn now(group: &AutoScalingGroup) -> GroupNow {
    let serves = |state: Option<&LifecycleState>, health: Option<&str>| {
        Lifecycle::of(state.map_or("", LifecycleState::as_str), health) == Lifecycle::InService
    };
    let in_service =
        group.instances().iter().filter(|held| serves(held.lifecycle_state(), held.health_status()));
    GroupNow {
        min: u32::try_from(group.min_size().unwrap_or_default()).unwrap_or_default(),
        desired: u32::try_from(group.desired_capacity().unwrap_or_default()).unwrap_or_default(),
        is_weighted: counted_in(group).is_some(),
        created_at: group.created_time().and_then(time),
        in_service: in_service.filter_map(|held| Some(held.instance_id()?.into())).collect(),
    }
}

#[cfg(all(test, feature = "sim"))]
#[allow(clippy::expect_used, reason = "a test may fail")]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::telemetry::metrics::Metrics;
    use spot_guard_cloud::clock::CloudClock;
    use spot_guard_cloud::cloud::{CallFate, Cloud, GroupSpec, Market, ScriptedGate, Supply};
    use std::sync::Arc;
    use tokio::time::Instant;

    /// Half a day of failed launches, and their first page as the script lets it through.
    async fn read(script: impl Fn(&ScriptedGate)) -> (ActivityReading, Duration) {
        let began = "2026-11-02T00:00:00Z".parse().expect("a time");
        let cloud = Cloud::new(CloudClock::simulated(began), 1);
        cloud.add_group(GroupSpec::new("spot", Market::Spot));
        cloud.set_supply("spot", None, Supply::None).expect("a group");
        cloud.set_desired("spot", 3).expect("within the sizes");
        tokio::time::advance(Duration::from_secs(12 * 3600)).await;
        assert!(cloud.snapshot().activities.len() > 200, "no three pages");
        let gate = Arc::new(ScriptedGate::default());
        script(&gate);
        let (timeout, metrics) = (Duration::from_secs(10), Arc::new(Metrics::new()));
        let api = AutoScaling::new(&cloud.sdk_config(Some(gate)), timeout, Clock::System, metrics);
        let asked = Instant::now();
        (api.activities(&"spot".into(), began).await, asked.elapsed())
    }

    fn throttle(gate: &ScriptedGate, times: u32) {
        (0..times).for_each(|_| gate.next_request("DescribeScalingActivities", CallFate::throttling()));
    }

    #[tokio::test(start_paused = true)]
    async fn all_pages_are_read_through_throttling() {
        let (whole, _) = read(|_| {}).await;
        assert!(matches!(whole.end, ReadingEnd::Complete) && whole.repeats == 0, "{:?}", whole.end);
        let (busy, time) = read(|gate| throttle(gate, MOST_REPEATS)).await;
        assert!(matches!(busy.end, ReadingEnd::Complete), "{:?}", busy.end);
        assert_eq!((busy.activities.len(), busy.repeats), (whole.activities.len(), MOST_REPEATS));
        assert!((20..60).contains(&time.as_secs()), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_is_throttled_for_too_long_keeps_what_it_has() {
        let (broken, time) = read(|gate| {
            gate.next_request("DescribeScalingActivities", CallFate::Pass);
            throttle(gate, MOST_REPEATS + 1);
        })
        .await;
        assert!(
            matches!(&broken.end, ReadingEnd::Failed(error) if error.is_throttling()),
            "{:?}",
            broken.end
        );
        assert_eq!((broken.activities.len(), broken.repeats), (100, MOST_REPEATS));
        assert!(time < Duration::from_secs(60), "{time:?}");
    }
}
