//! The Auto Scaling Query API: dispatch, and the actions that change a group.

use super::activity::{Activity, millis, seconds};
use super::event::CallRecord;
use super::faults::ErrorAnswer;
use super::handle::Cloud;
use super::query::{self, Query, Xml};
use super::state::{LifecycleState, State, Timer, after, subnet_of};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response};
use jiff::Timestamp;
use serde_json::json;

/// Calls that are remembered.
const CALL_LOG: usize = 100_000;

impl Cloud {
    /// Answers one request of the Auto Scaling Query API, version 2011-01-01.
    pub async fn handle_autoscaling(&self, request: Request<Bytes>) -> Response<Bytes> {
        let query = if *request.method() == Method::GET {
            Query::parse(request.uri().query().unwrap_or_default().as_bytes())
        } else {
            Query::parse(request.body())
        };
        let operation = query.get("Action").unwrap_or_default().to_owned();
        let caller = access_key(request.headers());
        let response = self.with(|state, now| {
            let group = state.group_meant(&query);
            let outcome = match state.faults.refuse(&operation, now) {
                Some(refusal) => Err(refusal),
                None => state.answer(&operation, &query, now),
            };
            let request_id = format!("00000000-0000-4000-8000-{:012x}", state.next_seq());
            if state.calls.len() == CALL_LOG {
                state.calls.pop_front();
            }
            state.calls.push_back(CallRecord {
                at: now,
                caller,
                operation: operation.clone(),
                group,
                ok: outcome.is_ok(),
            });
            match outcome {
                Ok(result) => query::success(&operation, result.as_deref(), &request_id),
                Err(refusal) => query::refusal(&refusal, &request_id),
            }
        });
        if operation == "LaunchInstances" && response.status().is_success() {
            let latency = self.lock().settings.launch_instances_latency;
            tokio::time::sleep(latency).await;
        }
        response
    }
}

/// The access key in a Signature Version 4 header: `AWS4-HMAC-SHA256 Credential=KEY/date/region/service/...`.
fn access_key(headers: &HeaderMap) -> String {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = header.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next());
    key.unwrap_or_default().to_owned()
}

/// What an action gives: the content of its result element, if it has one.
type Answer = Result<Option<String>, ErrorAnswer>;

impl State {
    fn answer(&mut self, operation: &str, query: &Query, now: Timestamp) -> Answer {
        match operation {
            "DescribeAutoScalingGroups" => self.as_listed(now, |seen| seen.describe_groups(query)).map(Some),
            "DescribeAutoScalingInstances" => {
                self.as_listed(now, |seen| seen.describe_instances(query)).map(Some)
            }
            "DescribeScalingActivities" => {
                self.as_listed(now, |seen| seen.describe_activities(query)).map(Some)
            }
            "DescribeInstanceRefreshes" => self.describe_refreshes(query).map(Some),
            "DescribeLifecycleHooks" => self.describe_hooks(query).map(Some),
            "SetDesiredCapacity" => self.set_desired_capacity(query, now),
            "TerminateInstanceInAutoScalingGroup" => self.terminate_in_group(query, now).map(Some),
            "LaunchInstances" if self.settings.launch_instances => {
                self.launch_instances(query, now).map(Some)
            }
            "SetInstanceProtection" => self.set_instance_protection(query),
            "CompleteLifecycleAction" => self.complete_lifecycle_action(query, now),
            "RecordLifecycleActionHeartbeat" => self.prolong_lifecycle_action(query, now),
            _ => Err(ErrorAnswer::bad_request(
                "InvalidAction",
                format!("Could not find operation {operation} for version 2011-01-01"),
            )),
        }
    }

    /// The one group that a request is about, named itself or by its instance.
    pub(super) fn group_meant(&self, query: &Query) -> Option<String> {
        let of_instance = || self.instances.get(query.get("InstanceId")?).map(|i| i.group.clone());
        let only = || match query.list("AutoScalingGroupNames").as_slice() {
            [name] => Some((*name).to_owned()),
            _ => None,
        };
        query.get("AutoScalingGroupName").map(str::to_owned).or_else(only).or_else(of_instance)
    }

    /// The group that a change names, if changes are open to everyone.
    pub(super) fn open_group(&self, query: &Query) -> Result<&super::state::Group, ErrorAnswer> {
        let name = query.require("AutoScalingGroupName")?;
        let group = self.groups.get(name).ok_or_else(|| unknown_group(name))?;
        refuse_operated(group)?;
        Ok(group)
    }

    fn set_desired_capacity(&mut self, query: &Query, now: Timestamp) -> Answer {
        let group = self.open_group(query)?;
        query.require("DesiredCapacity")?;
        let desired: i64 = query.number("DesiredCapacity")?.unwrap_or_default();
        let (name, min, max) = (group.spec.name.clone(), group.spec.min, group.spec.max);
        let refuse = |side: &str, limit: u32| {
            Err(ErrorAnswer::validation(format!(
                "New SetDesiredCapacity value {desired} is {side} value {limit} for the AutoScalingGroup."
            )))
        };
        let Ok(wanted) = u32::try_from(desired) else { return refuse("below min", min) };
        if wanted > max {
            return refuse("above max", max);
        }
        if wanted < min {
            return refuse("below min", min);
        }
        if query.flag("HonorCooldown")?.unwrap_or(false) {
            let running = self.activities.iter().rev().find(|a| a.group == name && a.end.is_none());
            if let Some(activity) = running {
                return Err(ErrorAnswer::scaling_activity_in_progress(&activity.id));
            }
        }
        self.change_desired(&name, wanted, "a user request explicitly set group desired capacity", now);
        Ok(None)
    }

    fn terminate_in_group(&mut self, query: &Query, now: Timestamp) -> Result<String, ErrorAnswer> {
        let id = query.require("InstanceId")?.to_owned();
        query.require("ShouldDecrementDesiredCapacity")?;
        let decrement = query.flag("ShouldDecrementDesiredCapacity")?.unwrap_or(false);
        let unknown = || {
            let message = format!("Instance Id not found - No managed instance found for instance ID: {id}");
            ErrorAnswer::validation(message)
        };
        let instance = self.instances.get(&id).ok_or_else(unknown)?;
        let (name, ending) = (instance.group.clone(), instance.state.is_ending());
        let group = self.groups.get_mut(&name).ok_or_else(unknown)?;
        refuse_operated(group)?;
        let mut cause = format!(
            "At {} instance {id} was taken out of service in response to a user request",
            seconds(now)
        );
        // An instance that is already on its way out has been paid for: it lowers desired capacity only once.
        if decrement && !ending {
            if group.desired <= group.spec.min {
                return Err(ErrorAnswer::validation(format!(
                    "Currently, desiredSize equals minSize ({}). Terminating instance without replacement will \
                     violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or \
                     lower group's min size.",
                    group.spec.min
                )));
            }
            group.desired -= 1;
            cause.push_str(&format!(
                ", shrinking the capacity from {} to {}",
                group.desired + 1,
                group.desired
            ));
        }
        cause.push('.');
        let activity = self.terminate(&id, &cause, now).ok_or_else(unknown)?;
        let soon = after(now, self.settings.reaction);
        self.at(soon, Timer::Reconcile(name));
        let mut xml = Xml::default();
        if let Some(activity) = self.activity_mut(&activity) {
            xml.element("Activity", |xml| write_activity(xml, activity));
        }
        Ok(xml.into_string())
    }

    fn set_instance_protection(&mut self, query: &Query) -> Answer {
        let name = self.open_group(query)?.spec.name.clone();
        let protect = query.flag("ProtectedFromScaleIn")?.unwrap_or(false);
        let ids = query.list("InstanceIds");
        for id in &ids {
            if self.instances.get(*id).is_none_or(|instance| instance.group != name) {
                let message = format!("The instance {id} is not part of Auto Scaling group {name}.");
                return Err(ErrorAnswer::validation(message));
            }
        }
        for id in ids {
            if let Some(instance) = self.instances.get_mut(id) {
                instance.protected = protect;
            }
        }
        Ok(Some(String::new()))
    }

    fn complete_lifecycle_action(&mut self, query: &Query, now: Timestamp) -> Answer {
        self.open_group(query)?;
        let id = query.require("InstanceId")?.to_owned();
        if !self.complete_termination(&id, now) {
            let message = format!("No active Lifecycle Action found with instance ID {id}");
            return Err(ErrorAnswer::validation(message));
        }
        Ok(Some(String::new()))
    }

    /// Lets an instance go on to its end that a lifecycle hook holds; whether one holds it.
    pub(super) fn complete_termination(&mut self, id: &str, at: Timestamp) -> bool {
        let is_held =
            self.instances.get(id).is_some_and(|held| held.state == LifecycleState::TerminatingWait);
        if is_held {
            self.end_machine(id, at);
        }
        is_held
    }

    /// The wait of a hook begins anew (API Reference, RecordLifecycleActionHeartbeat).
    fn prolong_lifecycle_action(&mut self, query: &Query, now: Timestamp) -> Answer {
        let wait = self.open_group(query)?.spec.termination_hook;
        let id = query.require("InstanceId")?.to_owned();
        let instance = self.instances.get_mut(&id);
        let waits = instance.filter(|instance| instance.state == LifecycleState::TerminatingWait);
        let (Some(instance), Some(wait)) = (waits, wait) else {
            let message = format!("No active Lifecycle Action found with instance ID {id}");
            return Err(ErrorAnswer::validation(message));
        };
        let until = after(now, wait);
        instance.hook_until = Some(until);
        self.at(until, Timer::HookOver(id));
        Ok(Some(String::new()))
    }
}

pub(super) fn unknown_group(name: &str) -> ErrorAnswer {
    ErrorAnswer::validation(format!("AutoScalingGroup name not found - AutoScalingGroup {name} not found"))
}

/// Only the service named in `Operator` may change such a group (API_Operator). The wording is ours.
fn refuse_operated(group: &super::state::Group) -> Result<(), ErrorAnswer> {
    match &group.spec.operator {
        Some(principal) => {
            let name = &group.spec.name;
            Err(ErrorAnswer::validation(format!("AutoScalingGroup {name} is managed by {principal}.")))
        }
        None => Ok(()),
    }
}

/// Writes the content of an `Activity`.
pub(super) fn write_activity(xml: &mut Xml, activity: &Activity) {
    xml.text("ActivityId", &activity.id);
    xml.text("AutoScalingGroupName", &activity.group);
    xml.text("Description", &activity.description);
    xml.text("Cause", &activity.cause);
    xml.text("StartTime", millis(activity.start));
    xml.text_opt("EndTime", activity.end.map(millis));
    xml.text("StatusCode", activity.status_code);
    xml.text_opt("StatusMessage", activity.status_message.as_ref());
    xml.text("Progress", activity.progress);
    xml.text("Details", details(activity));
}

/// `Details`: JSON in a string.
fn details(activity: &Activity) -> String {
    let Some(zone) = &activity.zone else { return "{}".to_owned() };
    json!({ "Subnet ID": subnet_of(zone), "Availability Zone": zone }).to_string()
}
