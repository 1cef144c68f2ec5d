//! What a message of the notice queue says, and what becomes of it.
//!
//! EventBridge sends events of EC2, EC2 Auto Scaling and AWS Health to an SQS queue, directly or through SNS.
//! A lifecycle hook can have the queue as its notification target, and then its messages have no such frame.
//! A message is advice of whoever may write to the queue. So an interruption notice of the queue is judged
//! like one of an agent.
//!
//! Rules: EC2 User Guide, "Spot Instance interruption notices", "EC2 instance rebalance recommendations" and
//! "Automate Amazon EC2 using EventBridge"; Amazon EC2 Auto Scaling User Guide, "EventBridge event
//! reference"; its API Reference, PutLifecycleHook, "NotificationTargetARN"; AWS Health User Guide, "Amazon
//! EventBridge schema".

#[cfg(test)]
mod tests;

use crate::codes;
use crate::ids::{GroupName, HookName, InstanceId, NodeName};
use crate::imds::{Announcement, INTERRUPTION_WARNING, parse_instance_id, time};
use crate::notices::is_too_far;
use crate::record::{NoticeKind, ReplacementStatus};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// The longest body of a message that is read, bytes: 256 KiB was the limit of SQS for years, and what is
/// read here is far shorter (SQS Developer Guide, "Message quotas").
const MAX_BODY: usize = 256 << 10;
/// An AWS Health event names so many instances at most that are looked at.
const MAX_ENTITIES: usize = 100;
/// The node of an instance may join so long after the notice about it.
const JOINS_WITHIN: Duration = Duration::from_secs(120);
/// A node of a lifecycle action has so long to be drained. Its notice is stored a moment later, and its
/// deadline is to be one that counts.
const DRAINS_WITHIN: SignedDuration = SignedDuration::from_secs(540);
/// A lifecycle action is completed after so long, drained or not.
const HELD_FOR: Duration = Duration::from_secs(900);
/// A message that cannot be read was received so often at most before it is deleted. A dead-letter queue is
/// to take it before (SQS Developer Guide, "Using dead-letter queues": `maxReceiveCount`).
const MAX_RECEIVES: u32 = 20;

/// What EventBridge calls an interruption notice.
const INTERRUPTION: &str = concat!("EC2 Spot Instance", " Interruption Warning");

codes! {
    /// What kind of message it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
    pub enum MessageKind {
        /// EC2 takes a Spot instance.
        Interruption,
        /// EC2 advises to move.
        Rebalance,
        /// AWS Health tells of scheduled maintenance.
        Maintenance,
        /// An instance changes its state.
        StateChange,
        /// A group ends an instance and waits for a lifecycle hook.
        LifecycleAction,
        /// Anything else that can be read.
        Other,
        /// What cannot be read.
        Malformed,
    }
}

codes! {
    /// What became of a message.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
    pub enum MessageResult {
        /// Its interruption notice was stored.
        Stored,
        /// An interruption notice of that node, instance and kind was there.
        Known,
        /// Told to the actor that reads the groups.
        Told,
        /// The lifecycle action was completed.
        Completed,
        /// It is about nothing that this cluster acts on.
        Ignored,
        /// No node of this cluster has the instance.
        Foreign,
        /// It was left to the dead-letter queue.
        Left,
        /// It could not be read, and was deleted.
        Deleted,
    }
}

impl MessageResult {
    /// The result of a message that names several instances, of the results of two of them: what was stored
    /// counts before what was known, and both count before what is foreign.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Stored, _) | (_, Self::Foreign) => self,
            _ => other,
        }
    }
}

/// A termination that a group holds for a lifecycle hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifecycleAction {
    /// The instance that is to be ended.
    pub instance_id: InstanceId,
    /// Its group.
    pub group: GroupName,
    /// The hook.
    pub hook: HookName,
}

impl LifecycleAction {
    /// The notice of it. Its deadline is what a drain may take.
    #[must_use]
    pub fn announcement(&self, now: Timestamp) -> Announcement {
        let deadline = now.checked_add(DRAINS_WITHIN).ok();
        Announcement { kind: NoticeKind::GroupTermination, notice_time: None, deadline }
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueEvent {
    /// EC2 announces something of these instances.
    Notice(Announcement, Vec<InstanceId>),
    /// EC2 has ended or stopped the instance, or does so now.
    Ended(InstanceId),
    /// A group waits before it ends the instance.
    Lifecycle(LifecycleAction),
    /// Nothing that concerns Spot Guard.
    Other,
}

impl QueueEvent {
    /// What kind it is; a change of state that ends nothing is `Other`.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Notice(announced, _) => match announced.kind {
                NoticeKind::SpotInterruption => MessageKind::Interruption,
                NoticeKind::RebalanceRecommendation => MessageKind::Rebalance,
                NoticeKind::ScheduledMaintenance => MessageKind::Maintenance,
                NoticeKind::GroupTermination => MessageKind::LifecycleAction,
                NoticeKind::Manual => MessageKind::Other,
            },
            Self::Ended(_) => MessageKind::StateChange,
            Self::Lifecycle(_) => MessageKind::LifecycleAction,
            Self::Other => MessageKind::Other,
        }
    }
}

/// Why a message cannot be read. Nothing of the message is told, since anybody may have written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedMessage {
    /// It is no JSON object, or too long.
    #[error("it is no JSON object of at most 256 KiB")]
    NoObject,
    /// It names no instance, or something else as one.
    #[error("it names no instance")]
    NoInstance,
    /// It names no group or no hook.
    #[error("it names no group, or no lifecycle hook")]
    NoHook,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope {
    source: Value,
    #[serde(rename = "detail-type")]
    detail_type: Value,
    time: Value,
    detail: Value,
    /// SNS has the event as a text in it.
    #[serde(rename = "Type")]
    sns_type: Value,
    #[serde(rename = "Message")]
    sns_message: Value,
    /// A hook that sends by itself has its fields here.
    #[serde(flatten)]
    direct: Value,
}

/// Reads the body of a message: an EventBridge event, a message of a lifecycle hook, or an SNS notification
/// with one of them in it.
///
/// An interruption has its deadline two minutes after the event, and a deadline that EC2 cannot have given is
/// none. Of an AWS Health event the start of a scheduled change is the deadline.
///
/// # Errors
/// If it is none of them, or lacks what it has to name.
pub fn parse(body: &str, now: Timestamp) -> Result<QueueEvent, MalformedMessage> {
    let outer = envelope(body)?;
    match (outer.sns_type.as_str(), outer.sns_message.as_str()) {
        (Some("Notification"), Some(inner)) => event(&envelope(inner)?, now),
        // SNS asks whether the subscription is meant; who has set it up answers.
        (Some(_), _) => Ok(QueueEvent::Other),
        (None, _) => event(&outer, now),
    }
}

fn envelope(text: &str) -> Result<Envelope, MalformedMessage> {
    let short = text.len() <= MAX_BODY;
    let object = Some(text).filter(|text| short && text.trim_start().starts_with('{'));
    object.and_then(|text| serde_json::from_str(text).ok()).ok_or(MalformedMessage::NoObject)
}

fn event(envelope: &Envelope, now: Timestamp) -> Result<QueueEvent, MalformedMessage> {
    let detail = &envelope.detail;
    let at = time(&envelope.time);
    let (source, detail_type) = (envelope.source.as_str(), envelope.detail_type.as_str());
    match (source.unwrap_or_default(), detail_type.unwrap_or_default()) {
        ("aws.ec2", INTERRUPTION) => {
            // Hibernation begins at once (EC2 User Guide, "Spot Instance interruption notices"), and the
            // message is late in any case.
            let begins_at_once = detail["instance-action"] == "hibernate";
            let told_at = at.unwrap_or(now);
            let is_fresh = now.duration_since(told_at) <= INTERRUPTION_WARNING;
            let ends = told_at.checked_add(INTERRUPTION_WARNING).ok();
            let ends = if begins_at_once { Some(now).filter(|_| is_fresh) } else { ends };
            let deadline = ends.filter(|at| may_be_given(*at, now));
            let kind = NoticeKind::SpotInterruption;
            let announced = Announcement { kind, notice_time: at, deadline };
            Ok(QueueEvent::Notice(announced, vec![instance(&detail["instance-id"])?]))
        }
        ("aws.ec2", "EC2 Instance Rebalance Recommendation") => {
            let kind = NoticeKind::RebalanceRecommendation;
            let announced = Announcement { kind, notice_time: at, deadline: None };
            Ok(QueueEvent::Notice(announced, vec![instance(&detail["instance-id"])?]))
        }
        ("aws.ec2", "EC2 Instance State-change Notification") => {
            let ends = ["shutting-down", "terminated", "stopping", "stopped"];
            let id = instance(&detail["instance-id"])?;
            let ended = detail["state"].as_str().is_some_and(|state| ends.contains(&state));
            Ok(if ended { QueueEvent::Ended(id) } else { QueueEvent::Other })
        }
        ("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action") => lifecycle(detail),
        ("aws.health", "AWS Health Event") => maintenance(detail, at),
        ("", "") => direct(&envelope.direct),
        (_, "") | ("", _) => Err(MalformedMessage::NoObject),
        _ => Ok(QueueEvent::Other),
    }
}

fn instance(id: &Value) -> Result<InstanceId, MalformedMessage> {
    id.as_str().and_then(|id| parse_instance_id(id).ok()).ok_or(MalformedMessage::NoInstance)
}

fn lifecycle(detail: &Value) -> Result<QueueEvent, MalformedMessage> {
    let instance_id = instance(&detail["EC2InstanceId"])?;
    let text = |field: &str| detail[field].as_str().filter(|text| (1..=255).contains(&text.len()));
    let (group, hook) = (text("AutoScalingGroupName"), text("LifecycleHookName"));
    let (group, hook) = group.zip(hook).ok_or(MalformedMessage::NoHook)?;
    Ok(QueueEvent::Lifecycle(LifecycleAction { instance_id, group: group.into(), hook: hook.into() }))
}

/// A message that a group sends by itself. A test message comes when a hook gets its notification target, and
/// has an `Event` as the plain notifications of a group have.
fn direct(message: &Value) -> Result<QueueEvent, MalformedMessage> {
    match (message["LifecycleTransition"].as_str(), message["Event"].as_str()) {
        (_, Some(event)) if event.starts_with("autoscaling:") => Ok(QueueEvent::Other),
        (Some("autoscaling:EC2_INSTANCE_TERMINATING"), _) => lifecycle(message),
        (Some(_), _) => Ok(QueueEvent::Other),
        (None, _) => Err(MalformedMessage::NoObject),
    }
}

/// An event of AWS Health: a change that is scheduled for instances, and not over.
fn maintenance(detail: &Value, at: Option<Timestamp>) -> Result<QueueEvent, MalformedMessage> {
    let is = |field: &str, value: &str| detail[field] == value;
    if !is("service", "EC2") || !is("eventTypeCategory", "scheduledChange") || is("statusCode", "closed") {
        return Ok(QueueEvent::Other);
    }
    let entities = detail["affectedEntities"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = entities.iter().take(MAX_ENTITIES).filter_map(|entity| instance(&entity["entityValue"]).ok());
    let instances: Vec<InstanceId> = named.collect();
    if instances.is_empty() {
        return Err(MalformedMessage::NoInstance);
    }
    let (kind, deadline) = (NoticeKind::ScheduledMaintenance, time(&detail["startTime"]));
    Ok(QueueEvent::Notice(Announcement { kind, notice_time: at, deadline }, instances))
}

/// Whether EC2 may have given that deadline.
fn may_be_given(deadline: Timestamp, now: Timestamp) -> bool {
    deadline >= now && !is_too_far(deadline, now)
}

/// Whose an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of these nodes of the cluster. Of several that claim it nobody knows which one has it; the notice of
    /// each is judged.
    Ours(Vec<NodeName>),
    /// Its node may join yet.
    Unknown,
    /// Of no node of this cluster.
    Foreign,
}

/// Whose the instance is that these nodes claim. `waited` is since the message was received first;
/// `may_wait` is false if too many other messages wait. By an old picture nothing is foreign.
#[must_use]
pub fn whose(claimed_by: Vec<NodeName>, nodes_are_current: bool, may_wait: bool, waited: Duration) -> Whose {
    if !claimed_by.is_empty() {
        Whose::Ours(claimed_by)
    } else if may_wait && (!nodes_are_current || waited < JOINS_WITHIN) {
        Whose::Unknown
    } else {
        Whose::Foreign
    }
}

/// Whether a message that cannot be read is left to the dead-letter queue; else it is deleted.
/// `has_dead_letters` is `None` if the queue does not tell. `receives` is how often it was received.
#[must_use]
pub fn is_left(has_dead_letters: Option<bool>, receives: u32) -> bool {
    has_dead_letters != Some(false) && receives < MAX_RECEIVES
}

/// Whether a lifecycle action whose notice is stored is completed now: its node is drained or gone, or it
/// was held for long enough. `statuses` are those of the records of its instance: one may have drained its
/// node before it was known whose it is, and another one may still do.
#[must_use]
pub fn is_completed(statuses: &[&ReplacementStatus], has_node: bool, waited: Duration) -> bool {
    // A replacement that was cancelled has drained nothing: the notice begins it anew.
    let is_over = |held: &ReplacementStatus| held.is_finished() && !held.old_node.is_retained();
    let is_done = |held: &&&ReplacementStatus| held.old_node.is_past_drain() || is_over(held);
    let drains = |held: &&&ReplacementStatus| !held.is_finished() && !is_done(held);
    let drained = statuses.iter().any(|held| is_done(&held)) && !statuses.iter().any(|held| drains(&held));
    drained || !has_node || waited >= HELD_FOR
}
