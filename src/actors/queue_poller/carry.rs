//! One message, from its receipt until it is deleted.

use crate::actors::deps::Deps;
use crate::actors::messages::InstanceEnded;
use crate::actors::supervision::MessageLink;
use crate::aws::CallError;
use crate::aws::queue::{HIDDEN_FOR, Received, SqsQueue};
use crate::clock::jittered;
use crate::crd::{InterruptionNotice, InterruptionNoticeSpec, NodeReplacement, dated_notice_name};
use crate::kube::marks;
use crate::kube::problem::RequestProblem;
use crate::telemetry::call_trace::{call_span, is_about};
use crate::telemetry::tracing::{notice_span, traceparent_of};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::api::{Api, PostParams};
use spot_guard_core::cluster::Node;
use spot_guard_core::drain;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::ids::{InstanceId, NodeName};
use spot_guard_core::imds::Announcement;
use spot_guard_core::notices::MAX_NODE_NAME;
use spot_guard_core::policy::backoff;
use spot_guard_core::queue::{self, LifecycleAction, MessageKind, MessageResult, QueueEvent, Whose};
use spot_guard_core::replacement::Mode;
use spot_guard_core::time::since;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{Instrument, Span};

/// A message that is worked on is hidden again after so long. Half of the time is left for a slow call.
const HIDE_AGAIN: Duration = Duration::from_secs(HIDDEN_FOR.as_secs() / 2);
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
    /// Does what the message calls for, and deletes it. Meanwhile the message stays hidden.
    pub(super) async fn carry(self) -> Result<(), CallError> {
        let (kind, result) = match queue::parse(&self.message.body, self.deps.clock.now()) {
            Ok(event) => {
                let kind = event.kind();
                let result = tokio::select! {
                    biased;
                    result = self.act(event) => result,
                    error = self.keep_hidden() => return Err(error),
                };
                (kind, result)
            }
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

    /// Hides the message again and again, until that fails.
    async fn keep_hidden(&self) -> CallError {
        loop {
            sleep(HIDE_AGAIN).await;
            if let Err(error) = self.queue.hide(&self.message, HIDDEN_FOR).await {
                return error;
            }
        }
    }

    async fn act(&self, event: QueueEvent) -> MessageResult {
        match event {
            QueueEvent::Other => MessageResult::Ignored,
            QueueEvent::Ended(instance_id) => {
                self.ended.send(InstanceEnded { instance_id });
                MessageResult::Told
            }
            QueueEvent::Notice(announced, instances) => self.report(&announced, instances).await,
            QueueEvent::Lifecycle(action) => self.hold(&action).await,
        }
    }

    /// Stores the notices about these instances side by side, each once its node is there.
    async fn report(&self, announced: &Announcement, instances: Vec<InstanceId>) -> MessageResult {
        let mut best = MessageResult::Foreign;
        let mut stores = FuturesUnordered::new();
        let mut unknown = instances;
        loop {
            let nodes_are_current = self.deps.view.freshness().is_current(WatchedKind::Node);
            let waited = self.waited();
            unknown.retain(|id| {
                match queue::whose(self.claims(id), nodes_are_current, self.may_wait, waited) {
                    Whose::Ours(nodes) => {
                        stores.extend(nodes.into_iter().map(|node| self.store(announced, id.clone(), node)));
                        false
                    }
                    Whose::Foreign => false,
                    Whose::Unknown => true,
                }
            });
            if unknown.is_empty() {
                break;
            }
            let mut look = pin!(sleep(jittered(LOOK)));
            loop {
                tokio::select! {
                    biased;
                    Some(result) = stores.next() => best = best.or(result),
                    () = &mut look => break,
                }
            }
        }
        stores.fold(best, async |best, result| best.or(result)).await
    }

    /// Stores a notice: tries until there is an answer.
    async fn store(
        &self,
        announced: &Announcement,
        instance_id: InstanceId,
        node: NodeName,
    ) -> MessageResult {
        let name = dated_notice_name(&node, &instance_id, announced.kind, announced.deadline);
        let span = notice_span(&instance_id.as_str().into(), &node, None);
        let spec = InterruptionNoticeSpec {
            node_name: node,
            instance_id,
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
                    return MessageResult::Stored;
                }
                Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => break,
                Ok(Err(error)) if failures == 1 => {
                    let error = RequestProblem(&error);
                    tracing::warn!(notice = name, %error, "a notice could not be stored; it is tried again");
                }
                Ok(Err(_)) | Err(_) => {}
            }
            sleep(jittered(backoff(FIRST_PAUSE, LONGEST_PAUSE, failures))).await;
        }
        MessageResult::Known
    }

    /// Holds a termination by its lifecycle action until the node is drained, if the group's pool says so.
    async fn hold(&self, action: &LifecycleAction) -> MessageResult {
        let mut pools = self.deps.pools().into_values();
        let pool = pools.find(|pool| [&pool.spot_group, &pool.on_demand_group].contains(&&action.group));
        match pool {
            None => return MessageResult::Foreign,
            Some(pool) if !pool.complete_lifecycle_actions || pool.mode == Mode::Observe => {
                return MessageResult::Ignored;
            }
            Some(_) => {}
        }
        let announced = action.announcement(self.deps.clock.now());
        self.report(&announced, vec![action.instance_id.clone()]).await;
        while !self.is_drained(action) {
            // An action that is over already is completed without an effect.
            if self.deps.fence.may_act(self.deps.call_timeout) {
                drop(self.deps.aws.prolong(action).await);
            }
            sleep(BEAT).await;
        }
        loop {
            if self.deps.fence.may_act(self.deps.call_timeout) {
                let span = self.span("CompleteLifecycleAction", &action.instance_id);
                match self.deps.aws.complete(action).instrument(span.clone()).await {
                    Err(error) if error.may_pass() => span.in_scope(|| {
                        tracing::warn!(%error, "a lifecycle action was not completed; it is tried again");
                    }),
                    // Somebody else has completed it, or its time was over.
                    Ok(()) | Err(_) => return MessageResult::Completed,
                }
            }
            sleep(jittered(LOOK)).await;
        }
    }

    /// The span for a call about an instance, in the trace of the replacement that drains its node.
    fn span(&self, operation: &str, instance_id: &InstanceId) -> Span {
        let records = || self.deps.view.replacements.state();
        call_span(operation, instance_id, records, |record| is_about(record, instance_id))
    }

    fn is_drained(&self, action: &LifecycleAction) -> bool {
        let view = &self.deps.view;
        let about = |record: &NodeReplacement| record.spec.instance_id == action.instance_id;
        let records: Vec<_> = view.replacements.state().into_iter().filter(|record| about(record)).collect();
        let nodes_are_current = view.freshness().is_current(WatchedKind::Node);
        let has_node = !nodes_are_current || !self.claims(&action.instance_id).is_empty();
        let ours = records.is_empty() && nodes_are_current && self.is_ended_by_us(&action.instance_id);
        let statuses: Vec<_> = records.iter().filter_map(|record| record.status.as_ref()).collect();
        ours || queue::is_completed(&statuses, has_node, self.waited())
    }

    /// Whether we end the instance ourselves, as after a return: its node has our marks, and no pod holds it.
    fn is_ended_by_us(&self, instance_id: &InstanceId) -> bool {
        let (snapshot, now) = (self.deps.view.snapshot(), self.deps.clock.now());
        let is_empty = |node: &Node| {
            let pods = &mut snapshot.pods_on(&node.name);
            marks::are_set(node, &self.deps.taint_key) && !pods.any(|pod| drain::holds_its_node(pod, now))
        };
        let mut nodes = snapshot.nodes_of_instance(instance_id).peekable();
        nodes.peek().is_some() && nodes.all(is_empty)
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
}
