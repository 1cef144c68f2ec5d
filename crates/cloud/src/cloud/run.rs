//! The loop that lets time work on the cloud.

use super::handle::Cloud;
use super::host::{HostCall, NodeHost};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// First and longest pause before a call to the host is repeated.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

impl Cloud {
    /// Lets time work on the cloud until dropped: boots, interruptions, retries, and the calls to `host`.
    ///
    /// One loop per cloud. It sleeps until the next thing is due or something changes.
    pub async fn run(self, host: Arc<dyn NodeHost>) {
        // Calls about one node keep their order; those about different nodes do not wait for each other.
        let mut waiting: HashMap<String, VecDeque<HostCall>> = HashMap::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            let (next_due, calls) = self.tick();
            for call in calls {
                let name = call.node_name().to_owned();
                if let Some(queue) = waiting.get_mut(&name) {
                    queue.push_back(call);
                } else {
                    waiting.insert(name, VecDeque::new());
                    under_way.push(self.deliver(host.clone(), call));
                }
            }
            tokio::select! {
                biased;
                Some(name) = under_way.next(), if !under_way.is_empty() => {
                    let next = waiting.get_mut(&name).and_then(VecDeque::pop_front);
                    match next {
                        Some(call) => under_way.push(self.deliver(host.clone(), call)),
                        None => { waiting.remove(&name); }
                    }
                }
                () = self.changed() => {}
                () = sleep_opt(next_due) => {}
            }
        }
    }

    /// Makes one call, again and again until it succeeds; gives back the node's name.
    async fn deliver(&self, host: Arc<dyn NodeHost>, call: HostCall) -> String {
        let name = call.node_name().to_owned();
        let mut pause = RETRY_FIRST;
        loop {
            if call.needs_machine() && !self.machine_runs(&name) {
                return name;
            }
            let outcome = match &call {
                HostCall::Join(node) => host.join((**node).clone()).await,
                HostCall::Identify(node) => host.identify((**node).clone()).await,
                HostCall::Ready(name) => host.ready(name).await,
                HostCall::Stopped(name) => host.stopped(name).await,
                HostCall::Leave(name) => host.leave(name).await,
            };
            match outcome {
                Ok(()) => return name,
                Err(error) => {
                    tracing::debug!(node = %name, ?call, "node host refused, trying again: {error:#}")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

async fn sleep_opt(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
