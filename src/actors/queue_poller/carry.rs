//! One message, from its receipt until it is deleted.

use crate::actors::deps::Deps;
use crate::actors::messages::InstanceEnded;
use crate::actors::supervision::MessageLink;
use crate::aws::CallError;
use crate::aws::queue::{HIDDEN_FOR, Received, SqsQueue};
use crate::clock::jittered;
use crate::crd::{InterruptionNotice, InterruptionNoticeSpec, NodeReplacement, notice_name};
use crate::kube::problem::RequestProblem;
use crate::telemetry::tracing::{box_span, traceparent_of};
use kube::api::{Api, PostParams};
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::ids::{InstanceId, NodeName};
use spot_guard_core::imds::Announcement;
use spot_guard_core::notices::MAX_NODE_NAME;
use spot_guard_core::policy::backoff;
use spot_guard_core::queue::{self, LifecycleAction, MessageKind, MessageResult, QueueEvent, Whose};
use spot_guard_core::record::FlowBox;
use spot_guard_core::replacement::Mode;
use spot_guard_core::time::since;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

/// Between two looks for a node that is to join.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks at a drain; each prolongs the lifecycle action. A hook waits 30 s at least (API
/// Reference, PutLifecycleHook).
const BEAT: Duration = Duration::from_secs(10);
/// Wait before the second attempt to store; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One attempt to store takes no longer.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of so many nodes that claim one instance a notice is stored.
const CLAIMS: usize = 4;

/// What a message is worked on with.
pub(super) struct Carrier {
    pub(super) deps: Deps,
    pub(super) queue: SqsQueue,
    pub(super) ended: MessageLink<InstanceEnded>,
    pub(super) stores: Arc<Semaphore>,
    pub(super) has_dead_letters: Option<bool>,
    /// Whether there is room for one more message that waits.
    pub(super) may_wait: bool,
    pub(super) message: Received,
}

impl Carrier {
    /// Does what the message calls for, and deletes it.
    pub(super) async fn carry(self) -> Result<(), CallError> {
        let (kind, result) = match queue::parse(&self.message.body, self.deps.clock.now()) {
            Ok(event) => (event.kind(), self.act(event).await?),
            Err(why) => {
                if self.message.receives <= 1 {
                    tracing::warn!(%why, "a message of the notice queue cannot be read");
                }
                let left = queue::is_left(self.has_dead_letters, self.message.receives);
                let result = if left { MessageResult::Left } else { MessageResult::Deleted };
                (MessageKind::Malformed, result)
            }
        };
        match result {
            MessageResult::Left => self.queue.hide(&self.message, Duration::ZERO).await?,
            _ => self.queue.delete(&self.message).await?,
        }
        // What comes again and again counts once.
        if result != MessageResult::Left || self.message.receives <= 1 {
            self.deps.metrics.queue().message(kind, result);
        }
        Ok(())
    }

    async fn act(&self, event: QueueEvent) -> Result<MessageResult, CallError> {
        match event {
            QueueEvent::Other => Ok(MessageResult::Ignored),
            QueueEvent::Ended(instance_id) => {
                self.ended.send(InstanceEnded { instance_id });
                Ok(MessageResult::Told)
            }
            QueueEvent::Notice(announced, instances) => {
                let mut best = MessageResult::Foreign;
                for instance_id in instances {
                    let result = self.report(&announced, &instance_id).await?;
                    if best != MessageResult::Stored && result != MessageResult::Foreign {
                        best = result;
                    }
                }
                Ok(best)
            }
            QueueEvent::Lifecycle(action) => self.hold(&action).await,
        }
    }

    /// Stores the notice about an instance, once its node is there.
    async fn report(
        &self,
        announced: &Announcement,
        instance_id: &InstanceId,
    ) -> Result<MessageResult, CallError> {
        loop {
            let nodes_are_current = self.deps.view.freshness().is_current(WatchedKind::Node);
            match queue::whose(self.claims(instance_id), nodes_are_current, self.may_wait, self.waited()) {
                Whose::Ours(nodes) => {
                    let mut best = MessageResult::Known;
                    for node in nodes {
                        if self.store(announced, instance_id, &node).await? == MessageResult::Stored {
                            best = MessageResult::Stored;
                        }
                    }
                    return Ok(best);
                }
                Whose::Foreign => return Ok(MessageResult::Foreign),
                Whose::Unknown => self.pause(jittered(LOOK)).await?,
            }
        }
    }

    /// Stores a notice: tries until there is an answer.
    async fn store(
        &self,
        announced: &Announcement,
        instance_id: &InstanceId,
        node: &NodeName,
    ) -> Result<MessageResult, CallError> {
        let name = notice_name(node, instance_id, announced.kind);
        let span = box_span(FlowBox::Notice, &instance_id.as_str().into(), node, None, None);
        let spec = InterruptionNoticeSpec {
            node_name: node.clone(),
            instance_id: instance_id.clone(),
            kind: announced.kind,
            notice_time: announced.notice_time,
            deadline: announced.deadline,
            detected_at: self.deps.clock.now(),
            traceparent: Some(traceparent_of(&span)),
        };
        let notice = InterruptionNotice::new(&name, spec);
        let api: Api<InterruptionNotice> = Api::all(self.deps.client.clone());
        let new = PostParams::default();
        for failures in 1.. {
            // Never closed; without a place the attempt is made all the same.
            let place = self.stores.acquire().await.ok();
            let create = api.create(&new, &notice).instrument(span.clone());
            let answer = timeout(STORE_TIMEOUT, create).await;
            drop(place);
            match answer {
                Ok(Ok(_)) => {
                    if let Some(given) = announced.given_at() {
                        let took = since(given, self.deps.clock.now());
                        self.deps.metrics.queue().stored(announced.kind, took);
                    }
                    tracing::info!(notice = name, "a notice of the queue is stored");
                    return Ok(MessageResult::Stored);
                }
                Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => break,
                Ok(Err(error)) if failures == 1 => {
                    let error = RequestProblem(&error);
                    tracing::warn!(notice = name, %error, "a notice could not be stored; it is tried again");
                }
                Ok(Err(_)) | Err(_) => {}
            }
            self.pause(jittered(backoff(FIRST_PAUSE, LONGEST_PAUSE, failures))).await?;
        }
        Ok(MessageResult::Known)
    }

    /// Holds a termination by its lifecycle action until the node is drained, if the group's pool says so.
    async fn hold(&self, action: &LifecycleAction) -> Result<MessageResult, CallError> {
        let mut pools = self.deps.pools().into_values();
        let pool = pools.find(|pool| [&pool.spot_group, &pool.on_demand_group].contains(&&action.group));
        match pool {
            None => return Ok(MessageResult::Foreign),
            Some(pool) if !pool.complete_lifecycle_actions || pool.mode == Mode::Observe => {
                return Ok(MessageResult::Ignored);
            }
            Some(_) => {}
        }
        let announced = action.announcement(self.deps.clock.now());
        self.report(&announced, &action.instance_id).await?;
        while !self.is_drained(action) {
            // An action that is over already is completed without an effect.
            if self.deps.fence.may_act(self.deps.call_timeout) {
                drop(self.deps.aws.prolong(action).await);
            }
            self.pause(BEAT).await?;
        }
        loop {
            if self.deps.fence.may_act(self.deps.call_timeout) {
                match self.deps.aws.complete(action).await {
                    Err(error) if error.may_pass() => {
                        tracing::warn!(%error, "a lifecycle action could not be completed; it is tried again");
                    }
                    // Somebody else has completed it, or its time was over.
                    Ok(()) | Err(_) => return Ok(MessageResult::Completed),
                }
            }
            self.pause(jittered(LOOK)).await?;
        }
    }

    fn is_drained(&self, action: &LifecycleAction) -> bool {
        let view = &self.deps.view;
        let about = |record: &NodeReplacement| record.spec.instance_id == action.instance_id;
        let record = view.replacements.find(about);
        let nodes_are_current = view.freshness().is_current(WatchedKind::Node);
        let has_node = !nodes_are_current || !self.claims(&action.instance_id).is_empty();
        let status = record.as_ref().and_then(|record| record.status.as_ref());
        queue::is_completed(status, has_node, self.waited())
    }

    /// The nodes that say that they run on the instance.
    fn claims(&self, instance_id: &InstanceId) -> Vec<NodeName> {
        let snapshot = self.deps.view.snapshot();
        let nodes = snapshot.nodes_of_instance(instance_id).map(|node| node.name.clone());
        nodes.filter(|name| name.len() <= MAX_NODE_NAME).take(CLAIMS).collect()
    }

    /// How long the message has been known.
    fn waited(&self) -> Duration {
        self.message.first_received.map_or(Duration::ZERO, |first| since(first, self.deps.clock.now()))
    }

    /// Waits, and keeps the message hidden meanwhile and for one attempt more.
    async fn pause(&self, time: Duration) -> Result<(), CallError> {
        self.queue.hide(&self.message, time + HIDDEN_FOR).await?;
        sleep(time).await;
        Ok(())
    }
}
