//! EventBridge and an SQS queue: what happens to instances becomes messages, late, twice and out of order.
//!
//! The queue speaks the JSON protocol of SQS (Amazon SQS Developer Guide, "AWS JSON protocol"); the events
//! are those of the EC2 User Guide, the Auto Scaling User Guide and the AWS Health User Guide.

use super::activity::seconds;
use super::faults::ErrorAnswer;
use super::handle::Cloud;
use super::messages::Held;
use super::spec::NoticeQueue;
use super::state::{State, after, region_of};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// How SQS's requests name their operation: `AmazonSQS.ReceiveMessage`.
pub(super) const TARGET: &str = "AmazonSQS.";
/// A message that nobody deletes stays for four days by default (Developer Guide, "MessageRetentionPeriod").
const RETENTION: Duration = Duration::from_secs(4 * 24 * 3600);
/// How often an empty queue is looked at again during a long poll.
const LOOK: Duration = Duration::from_secs(1);

impl State {
    /// EventBridge sends an event, if there is a queue.
    fn publish(&mut self, source: &str, detail_type: &str, id: &str, detail: &Value, at: Timestamp) {
        let Some(NoticeQueue { late_by, twice, .. }) = self.settings.notice_queue else { return };
        let zone = self.instances.get(id).map_or("us-east-1a", |instance| &instance.zone);
        let region = region_of(zone).to_owned();
        let body = json!({
            "version": "0",
            "id": format!("00000000-0000-4000-8000-{:012x}", self.queue.rng.u32(..)),
            "detail-type": detail_type,
            "source": source,
            "account": "111122223333",
            "time": seconds(at),
            "region": region,
            "resources": [format!("arn:aws:ec2:{region}:111122223333:instance/{id}")],
            "detail": detail,
        });
        for _ in 0..=u8::from(twice) {
            let late = late_by.mul_f64(self.queue.rng.f64());
            self.enqueue(body.to_string(), after(at, late));
        }
    }

    fn enqueue(&mut self, body: String, at: Timestamp) {
        let number = self.queue.held.last_key_value().map_or(0, |(number, _)| number + 1);
        self.queue.held.insert(number, Held { body, sent: at, visible: at, receives: 0, first: None });
    }

    pub(super) fn tell_interruption(&mut self, id: &str, at: Timestamp) {
        let detail = json!({ "instance-id": id, "instance-action": "terminate" });
        self.publish("aws.ec2", "EC2 Spot Instance Interruption Warning", id, &detail, at);
    }

    pub(super) fn tell_recommendation(&mut self, id: &str, at: Timestamp) {
        self.publish(
            "aws.ec2",
            "EC2 Instance Rebalance Recommendation",
            id,
            &json!({ "instance-id": id }),
            at,
        );
    }

    pub(super) fn tell_state(&mut self, id: &str, state: &str, at: Timestamp) {
        let detail = json!({ "instance-id": id, "state": state });
        self.publish("aws.ec2", "EC2 Instance State-change Notification", id, &detail, at);
    }

    pub(super) fn tell_hook(&mut self, id: &str, group: &str, at: Timestamp) {
        let detail = json!({
            "LifecycleActionToken": format!("00000000-0000-4000-9000-{:012x}", self.queue.rng.u32(..)),
            "AutoScalingGroupName": group,
            "LifecycleHookName": "termination",
            "EC2InstanceId": id,
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
        });
        self.publish("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action", id, &detail, at);
    }

    pub(super) fn tell_maintenance(&mut self, id: &str, starts: Timestamp, at: Timestamp) {
        let starts = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&starts);
        let detail = json!({
            "service": "EC2",
            "eventTypeCode": "AWS_EC2_INSTANCE_STOP_SCHEDULED",
            "eventTypeCategory": "scheduledChange",
            "statusCode": "upcoming",
            "startTime": starts.unwrap_or_default(),
            "affectedEntities": [{ "entityValue": id }],
        });
        self.publish("aws.health", "AWS Health Event", id, &detail, at);
    }

    /// Messages that are visible, ten at most; each is hidden from then on.
    fn take_messages(&mut self, query: &Value, now: Timestamp) -> Vec<Value> {
        let most = query["MaxNumberOfMessages"].as_u64().unwrap_or(1).clamp(1, 10);
        let hidden = Duration::from_secs(query["VisibilityTimeout"].as_u64().unwrap_or(30));
        let max_receives = self.settings.notice_queue.and_then(|queue| queue.max_receives);
        let mut taken = Vec::new();
        let mut dead = Vec::new();
        self.queue.held.retain(|_, held| crate::clock::since(held.sent, now) < RETENTION);
        for (number, held) in self.queue.held.iter_mut().filter(|(_, held)| held.visible <= now) {
            if taken.len() as u64 == most {
                break;
            }
            if max_receives.is_some_and(|most| held.receives >= most) {
                dead.push(*number);
                continue;
            }
            held.receives += 1;
            held.visible = after(now, hidden);
            let first = held.first.get_or_insert(now);
            taken.push(json!({
                "MessageId": format!("00000000-0000-4000-a000-{number:012x}"),
                "ReceiptHandle": format!("{number}.{}", held.receives),
                "Body": held.body,
                "Attributes": {
                    "SentTimestamp": held.sent.as_millisecond().to_string(),
                    "ApproximateReceiveCount": held.receives.to_string(),
                    "ApproximateFirstReceiveTimestamp": first.as_millisecond().to_string(),
                },
            }));
        }
        for number in dead {
            self.queue.dead.extend(self.queue.held.remove(&number).map(|held| held.body));
        }
        taken
    }

    /// The message of a receipt, if it is the latest one of that message.
    fn receipt(&self, query: &Value) -> Option<u64> {
        let (number, receives) = query["ReceiptHandle"].as_str()?.split_once('.')?;
        let number: u64 = number.parse().ok()?;
        let held = self.queue.held.get(&number)?;
        (held.receives.to_string() == receives).then_some(number)
    }

    fn queue_call(&mut self, operation: &str, query: &Value, now: Timestamp) -> Result<Value, ErrorAnswer> {
        if let Some((until, refusal)) = &self.queue.refused
            && now < *until
        {
            return Err(refusal.clone());
        }
        match operation {
            "DeleteMessage" => {
                // An older receipt is accepted, and need not delete (API Reference, DeleteMessage).
                if let Some(number) = self.receipt(query) {
                    self.queue.held.remove(&number);
                }
                Ok(json!({}))
            }
            "ChangeMessageVisibility" => {
                let time = Duration::from_secs(query["VisibilityTimeout"].as_u64().unwrap_or(0));
                let number = self.receipt(query);
                let held = number.and_then(|number| self.queue.held.get_mut(&number));
                let in_flight = held.filter(|held| held.visible > now);
                let held = in_flight.ok_or_else(|| {
                    ErrorAnswer::bad_request(
                        "com.amazonaws.sqs#MessageNotInflight",
                        "The specified message is not in flight.",
                    )
                })?;
                held.visible = after(now, time);
                Ok(json!({}))
            }
            "GetQueueAttributes" => {
                let policy = self.settings.notice_queue.and_then(|queue| queue.max_receives);
                let policy = policy.map(|most| json!({ "maxReceiveCount": most }).to_string());
                Ok(policy.map_or(json!({}), |policy| json!({ "Attributes": { "RedrivePolicy": policy } })))
            }
            _ => Err(ErrorAnswer::bad_request("com.amazon.coral.service#UnknownOperationException", "")),
        }
    }
}

impl Cloud {
    /// Puts a message into the queue, as whoever may write to it can.
    pub fn send_message(&self, body: impl Into<String>) {
        self.with(|state, now| state.enqueue(body.into(), now));
    }

    /// Refuses every call of the queue for so long: `AccessDenied`, `Throttling`, or no service at all.
    pub fn refuse_queue_for(&self, time: Duration, refusal: ErrorAnswer) {
        self.with(|state, now| state.queue.refused = Some((after(now, time), refusal)));
    }

    /// What is in the queue, hidden or not, and what is in the dead-letter queue.
    #[must_use]
    pub fn queued(&self) -> (Vec<String>, Vec<String>) {
        let held = |state: &State| state.queue.held.values().map(|held| held.body.clone()).collect();
        self.with(|state, _| (held(state), state.queue.dead.clone()))
    }

    /// Whether there is a queue.
    #[must_use]
    pub fn has_queue(&self) -> bool {
        self.lock().settings.notice_queue.is_some()
    }

    /// Answers one request of SQS.
    pub async fn handle_sqs(&self, request: Request<Bytes>) -> Response<Bytes> {
        let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok());
        let operation = target.and_then(|target| target.strip_prefix(TARGET)).unwrap_or_default().to_owned();
        let query: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        if operation != "ReceiveMessage" {
            return answer(self.with(|state, now| state.queue_call(&operation, &query, now)));
        }
        let until = after(self.now(), Duration::from_secs(query["WaitTimeSeconds"].as_u64().unwrap_or(0)));
        loop {
            let refused = self.with(|state, now| match &state.queue.refused {
                Some((until, refusal)) if now < *until => Some(refusal.clone()),
                _ => None,
            });
            if let Some(refusal) = refused {
                return answer(Err(refusal));
            }
            let taken = self.with(|state, now| state.take_messages(&query, now));
            if !taken.is_empty() || self.now() >= until {
                return answer(Ok(json!({ "Messages": taken })));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn answer(result: Result<Value, ErrorAnswer>) -> Response<Bytes> {
    let (status, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err(refusal) => (refusal.status, json!({ "__type": refusal.code, "message": refusal.message })),
    };
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response
}
