//! The Auto Scaling API, thin: answers become the core's views, errors get a class.
//!
//! Region, endpoint, credentials and proxy come from the SDK's own settings alone; see [`settings`].

pub mod advice;
mod answer;
pub mod history;
mod hooks;
pub mod imds;
mod intact;
mod listing;
pub mod queue;
pub mod settings;

pub use answer::{CallError, Described, Launched, Terminated};

use crate::causes::with_causes;
use crate::clock::Clock;
use crate::telemetry::call_trace::answered;
use crate::telemetry::metrics::{AwsOperation, AwsResult, Metrics};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_autoscaling::operation::RequestId;
use aws_sdk_autoscaling::operation::describe_scaling_activities::DescribeScalingActivitiesOutput;
use aws_sdk_autoscaling::operation::launch_instances::LaunchInstancesOutput;
use aws_sdk_autoscaling::primitives::DateTime;
use aws_sdk_autoscaling::types::{
    Activity, AutoScalingGroup, Filter, LifecycleState, MixedInstancesPolicy, RetryStrategy,
    ScalingActivityStatusCode as StatusCode,
};
use jiff::Timestamp;
use listing::Listing;
use spot_guard_core::classify::{self, CallFailure};
use spot_guard_core::group::{
    CapacityUnit, FailedActivity, GroupSetup, GroupView, Instance, LaunchActivities, Lifecycle, MixedMarkets,
    is_refreshing,
};
use spot_guard_core::ids::{GroupName, InstanceId};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How many groups one Describe call may name (API Reference, DescribeAutoScalingGroups).
const GROUPS_PER_CALL: usize = 50;
/// Pages of groups that are read at most for one call's names.
const MAX_GROUP_PAGES: usize = 10;
/// Pages of activities that are read at most: 100 each.
const MAX_ACTIVITY_PAGES: usize = 5;

/// The Auto Scaling API.
#[derive(Clone)]
pub struct AutoScaling {
    client: Client,
    clock: Clock,
    metrics: Arc<Metrics>,
    listing: Listing,
    changes: Arc<watch::Sender<usize>>,
}

/// A call that changes something and is under way.
struct Change<'a>(&'a watch::Sender<usize>);

impl<'a> Change<'a> {
    fn begin(under_way: &'a watch::Sender<usize>) -> Self {
        under_way.send_modify(|count| *count += 1);
        Self(under_way)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl fmt::Debug for AutoScaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoScaling").finish_non_exhaustive()
    }
}

impl AutoScaling {
    /// An adapter whose calls take `timeout` at most.
    ///
    /// The SDK's own retries are off: a change is repeated only after the groups were read again, and
    /// readings are repeated by their next turn.
    #[must_use]
    pub fn new(config: &SdkConfig, timeout: Duration, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let settings = aws_sdk_autoscaling::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(timeout).build())
            .interceptor(intact::IntactAnswers)
            .build();
        let changes = Arc::new(watch::Sender::new(0));
        Self { client: Client::from_conf(settings), clock, metrics, listing: Listing::default(), changes }
    }

    /// Waits until no call is under way that changes something; each ends within its time limit.
    pub async fn quiet(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.changes.subscribe().wait_for(|under_way| *under_way == 0).await;
    }

    /// The groups of these names, and others; one that does not exist is left out. Read after this was
    /// called, in one call with what others ask for at the same moment; one that is not urgent waits for them
    /// a little.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn groups(&self, names: &[GroupName], urgent: bool) -> Result<Arc<Described>, CallError> {
        let aws = self.clone();
        self.listing.read(names, urgent, |names| async move { aws.describe(&names).await }).await
    }

    async fn describe(&self, names: &[GroupName]) -> Result<Described, CallError> {
        let mut found = Described::new();
        for chunk in names.chunks(GROUPS_PER_CALL) {
            let mut token = None;
            for pages in 1.. {
                let call = self
                    .client
                    .describe_auto_scaling_groups()
                    .set_auto_scaling_group_names(Some(chunk.iter().map(ToString::to_string).collect()))
                    .max_records(100)
                    .set_next_token(token.take())
                    .send();
                let page = self.timed(AwsOperation::DescribeAutoScalingGroups, call).await?;
                let now = self.clock.now();
                for group in page.auto_scaling_groups() {
                    let view = group_view(group, now);
                    found.insert(view.name.clone(), view);
                }
                token = next_page(page.next_token());
                if token.is_none() {
                    break;
                }
                if pages == MAX_GROUP_PAGES {
                    return Err(CallError {
                        operation: AwsOperation::DescribeAutoScalingGroups,
                        code: "UnreadableAnswer".to_owned(),
                        message: format!("{pages} pages for {} groups, and still a NextToken", chunk.len()),
                        outcome: CallFailure::Unclear,
                    });
                }
            }
        }
        Ok(found)
    }

    /// The launches of a group that began at or after `since`, and failed or are under way.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn launches(&self, group: &GroupName, since: Timestamp) -> Result<LaunchActivities, CallError> {
        let mut found = LaunchActivities::default();
        let mut token = None;
        for _ in 0..MAX_ACTIVITY_PAGES {
            let page = self.activities_page(group, since, token).await?;
            // The bound is applied here too: an endpoint that does not know the filter answers with old ones.
            let launches = page.activities().iter().filter(|activity| is_launch(activity));
            for (activity, at) in
                launches.filter_map(|activity| Some((activity, time(activity.start_time()?)?)))
            {
                match activity.status_code() {
                    _ if at < since => {}
                    Some(StatusCode::Failed | StatusCode::Cancelled) if evens_out_zones(activity) => {}
                    Some(StatusCode::Failed | StatusCode::Cancelled) => {
                        found.failed.push(failed_launch(activity, at));
                    }
                    Some(StatusCode::Successful) | None => {}
                    Some(_) => found.under_way.push(activity.description().and_then(InstanceId::named_in)),
                }
            }
            token = next_page(page.next_token());
            if token.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// A page of the activities of a group that began at or after `since`.
    async fn activities_page(
        &self,
        group: &GroupName,
        since: Timestamp,
        token: Option<String>,
    ) -> Result<DescribeScalingActivitiesOutput, CallError> {
        let since = Filter::builder().name("StartTimeLowerBound").values(format!("{since:.0}")).build();
        let call = self
            .client
            .describe_scaling_activities()
            .auto_scaling_group_name(group.as_str())
            .filters(since)
            .max_records(100)
            .set_next_token(token)
            .send();
        self.timed(AwsOperation::DescribeScalingActivities, call).await
    }

    /// The status of the instance refresh of a group that is under way, if there is one. The newest comes
    /// first, and one at a time is under way (API Reference, DescribeInstanceRefreshes).
    ///
    /// # Errors
    /// When the call fails.
    pub async fn refresh(&self, group: &GroupName) -> Result<Option<String>, CallError> {
        let call = self
            .client
            .describe_instance_refreshes()
            .auto_scaling_group_name(group.as_str())
            .max_records(1)
            .send();
        let found = self.timed(AwsOperation::DescribeInstanceRefreshes, call).await?;
        let newest = found.instance_refreshes().first().and_then(|newest| newest.status());
        Ok(newest.map(|status| status.as_str().to_owned()).filter(|status| is_refreshing(status)))
    }

    /// Sets the desired capacity; no cooldown is honoured.
    ///
    /// # Errors
    /// When the call fails; see [`CallFailure`] for what that says about the group.
    pub async fn set_desired(&self, group: &GroupName, desired: i32) -> Result<(), CallError> {
        let _change = Change::begin(&self.changes);
        let call = self
            .client
            .set_desired_capacity()
            .auto_scaling_group_name(group.as_str())
            .desired_capacity(desired)
            .send();
        self.timed(AwsOperation::SetDesiredCapacity, call).await.map(drop)
    }

    /// Ends exactly this instance.
    ///
    /// # Errors
    /// When the call fails; see [`CallFailure`] for what that says about the group.
    pub async fn terminate(
        &self,
        instance_id: &InstanceId,
        decrement: bool,
    ) -> Result<Terminated, CallError> {
        let _change = Change::begin(&self.changes);
        let call = self
            .client
            .terminate_instance_in_auto_scaling_group()
            .instance_id(instance_id.as_str())
            .should_decrement_desired_capacity(decrement)
            .send();
        let answer = self.timed(AwsOperation::TerminateInstanceInAutoScalingGroup, call).await?;
        let cause = answer.activity().and_then(|activity| activity.cause()).unwrap_or_default();
        Ok(Terminated { says_shrunk: cause.contains("shrinking the capacity") })
    }

    /// Launches instances in one zone, synchronously; what AWS does not launch it does not try again.
    ///
    /// # Errors
    /// When the call fails. An answer without instances is none: it says why in its errors.
    pub async fn launch(
        &self,
        group: &GroupName,
        zone: &str,
        count: i32,
        token: &str,
    ) -> Result<Launched, CallError> {
        let _change = Change::begin(&self.changes);
        let call = self
            .client
            .launch_instances()
            .auto_scaling_group_name(group.as_str())
            .requested_capacity(count)
            .client_token(token)
            .availability_zones(zone)
            .retry_strategy(RetryStrategy::None)
            .send();
        let result_of = |answer: &LaunchInstancesOutput| launched(answer).result();
        let answer = counted(&self.metrics, AwsOperation::LaunchInstances, call, result_of).await?;
        Ok(launched(&answer))
    }

    async fn timed<T, E>(
        &self,
        operation: AwsOperation,
        call: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, CallError>
    where
        T: RequestId,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        counted(&self.metrics, operation, call, |_| AwsResult::Ok).await
    }
}

/// Counts a call with its time, and writes its answer into its span; `result_of` tells an answer's result.
async fn counted<T, E>(
    metrics: &Metrics,
    operation: AwsOperation,
    call: impl Future<Output = Result<T, SdkError<E>>>,
    result_of: impl FnOnce(&T) -> AwsResult,
) -> Result<T, CallError>
where
    T: RequestId,
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let started = tokio::time::Instant::now();
    let answer = call.await;
    let request_id = answer.as_ref().map_or_else(RequestId::request_id, RequestId::request_id);
    let request_id = request_id.map(str::to_owned);
    let result = answer.map_err(|error| call_error(operation, &error));
    let outcome = result.as_ref().map_or_else(CallError::result, result_of);
    metrics.aws_call(operation, outcome, started.elapsed());
    let failure = result.as_ref().err().map(|error| error as &dyn fmt::Display);
    answered(outcome, request_id.as_deref(), failure);
    result
}

fn launched(answer: &LaunchInstancesOutput) -> Launched {
    let ids = answer.instances().iter().flat_map(|collection| collection.instance_ids());
    let instance_ids: Vec<InstanceId> = ids.map(|id| id.as_str().into()).collect();
    let words = answer.errors().iter().map(|error| {
        let [code, message, kind] = [error.error_code(), error.error_message(), error.instance_type()];
        (code.unwrap_or_default(), message.unwrap_or_default(), kind.unwrap_or_default())
    });
    let errors: Vec<_> = words.collect();
    let errors = classify::launch_errors(&errors, !instance_ids.is_empty());
    Launched { instance_ids, errors }
}

fn call_error<E: ProvideErrorMetadata + std::error::Error + 'static>(
    operation: AwsOperation,
    error: &SdkError<E>,
) -> CallError {
    let SdkError::ServiceError(answer) = error else {
        let code = match error {
            SdkError::TimeoutError(_) => "Timeout",
            SdkError::DispatchFailure(_) => "NoConnection",
            SdkError::ResponseError(_) => "UnreadableAnswer",
            _ => "NotSent",
        };
        let message = with_causes(error);
        return CallError { operation, code: code.to_owned(), message, outcome: CallFailure::Unclear };
    };
    let meta = answer.err().meta();
    let status = answer.raw().status().as_u16();
    let (code, message) = match meta.code() {
        Some(code) => (code.to_owned(), meta.message().unwrap_or_default().to_owned()),
        // No answer of the API: a page of something in between, or one that cannot be read.
        None => (format!("Http{status}"), with_causes(error)),
    };
    let outcome = classify::call_failure(&code, &message, status);
    CallError { operation, code, message, outcome }
}

fn group_view(group: &AutoScalingGroup, now: Timestamp) -> GroupView {
    let setup = group_setup(group);
    GroupView {
        name: group.auto_scaling_group_name().unwrap_or_default().into(),
        desired: group.desired_capacity().unwrap_or_default(),
        min: group.min_size().unwrap_or_default(),
        max: group.max_size().unwrap_or_default(),
        zones: group.availability_zones().to_vec(),
        can_launch: setup.can_launch(),
        setup,
        instances: group
            .instances()
            .iter()
            .filter_map(|instance| {
                Some(Instance {
                    id: instance.instance_id()?.into(),
                    zone: instance.availability_zone().unwrap_or_default().to_owned(),
                    lifecycle: Lifecycle::of(
                        instance.lifecycle_state().map_or("", LifecycleState::as_str),
                        instance.health_status(),
                    ),
                    protected: instance.protected_from_scale_in().unwrap_or(false),
                })
            })
            .collect(),
        failures: Vec::new(),
        unlisted_launches: 0,
        observed_at: now,
    }
}

fn group_setup(group: &AutoScalingGroup) -> GroupSetup {
    let mixed = group.mixed_instances_policy();
    // Without a distribution AWS buys on-demand only (API Reference, InstancesDistribution).
    let markets = |policy: &MixedInstancesPolicy| {
        let spread = policy.instances_distribution();
        MixedMarkets {
            on_demand_base: spread.and_then(|spread| spread.on_demand_base_capacity()).unwrap_or(0),
            on_demand_percentage: spread
                .and_then(|spread| spread.on_demand_percentage_above_base_capacity())
                .unwrap_or(100),
        }
    };
    let of_instances = group.instances().iter().filter_map(|held| held.launch_template());
    let of_policy = mixed.and_then(|policy| policy.launch_template()?.launch_template_specification());
    let templates = of_instances.chain(group.launch_template()).chain(of_policy);
    // `$Latest` and `$Default` say nothing of a number.
    let numbers = templates.filter_map(|template| template.version()).filter(|text| !text.starts_with('$'));
    let node_group = group.tags().iter().find(|tag| tag.key() == Some("eks:nodegroup-name"));
    GroupSetup {
        launch_configuration: group.launch_template().is_none() && mixed.is_none(),
        mixed: mixed.map(markets),
        warm_pool: group.warm_pool_configuration().is_some(),
        capacity_rebalance: group.capacity_rebalance().unwrap_or(false),
        operator: group.operator().and_then(|operator| operator.principal()).map(str::to_owned),
        eks_node_group: node_group.map(|tag| tag.value().unwrap_or_default().to_owned()),
        counted_in: counted_in(group),
        status: group.status().map(str::to_owned),
        max_instance_lifetime: group.max_instance_lifetime().filter(|seconds| *seconds > 0),
        mixed_versions: numbers.collect::<BTreeSet<&str>>().len() > 1,
        rollout: None,
        termination_hook: None,
        suspended: group
            .suspended_processes()
            .iter()
            .filter_map(|process| {
                let reason = process.suspension_reason().unwrap_or("no reason is given");
                Some((process.process_name()?.to_owned(), reason.to_owned()))
            })
            .collect(),
    }
}

/// In what the group counts its capacity, if not in instances.
fn counted_in(group: &AutoScalingGroup) -> Option<CapacityUnit> {
    let by_type = group.desired_capacity_type().filter(|unit| !unit.is_empty() && *unit != "units");
    let template = group.mixed_instances_policy().and_then(|policy| policy.launch_template());
    let weights = template.into_iter().flat_map(|template| template.overrides());
    let is_weighted = weights.filter_map(|entry| entry.weighted_capacity()).any(|weight| weight != "1");
    by_type.map(|unit| CapacityUnit::Type(unit.to_owned())).or(is_weighted.then_some(CapacityUnit::Weights))
}

/// The zone in the details of an activity: JSON in a string (API Reference, Activity).
fn zone_of(details: &str) -> Option<String> {
    let details: serde_json::Value = serde_json::from_str(details).ok()?;
    Some(details.get("Availability Zone")?.as_str()?.to_owned())
}

/// The token of the next page, if there is one.
fn next_page(token: Option<&str>) -> Option<String> {
    token.filter(|token| !token.is_empty()).map(str::to_owned)
}

fn time(at: &DateTime) -> Option<Timestamp> {
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).unwrap_or(0)).ok()
}

/// Whether it is about a launch. What a scale-in leaves behind that could not be done is none, nor is what
/// fills a warm pool up.
fn is_launch(activity: &Activity) -> bool {
    let is_of_group = |text: &str| text.starts_with("Launching") && !text.contains("into warm pool");
    activity.description().is_none_or(is_of_group)
}

/// Whether it only moves an instance to another zone (AZRebalance): if that fails, no capacity is missing.
fn evens_out_zones(activity: &Activity) -> bool {
    let causes = ["to balance instances in zones", "to aid in balancing the group"];
    activity.cause().is_some_and(|cause| causes.iter().any(|text| cause.contains(text)))
}

/// The text of a failed launch is in StatusMessage; only where that is empty, Description has it.
fn failed_launch(activity: &Activity, started_at: Timestamp) -> FailedActivity {
    let told = activity.status_message().filter(|text| !text.trim().is_empty());
    let described = || Some(activity.description()?.split_once("Status Reason: ")?.1);
    let message = told.or_else(described).unwrap_or_default().to_owned();
    FailedActivity {
        started_at,
        zone: activity.details().and_then(zone_of),
        class: classify::launch_failure(&message),
        message,
    }
}
