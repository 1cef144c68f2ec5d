//! Lifecycle hooks of groups, and the actions that they hold.

use super::{AutoScaling, CallError, Change};
use crate::telemetry::metrics::AwsOperation;
use aws_sdk_autoscaling::types::LifecycleHook;
use spot_guard_core::ids::GroupName;
use spot_guard_core::queue::LifecycleAction;

/// The transition of hooks that hold what is terminated.
const TERMINATING: &str = "autoscaling:EC2_INSTANCE_TERMINATING";

impl AutoScaling {
    /// Whether a lifecycle hook of the group holds what it terminates (API Reference,
    /// DescribeLifecycleHooks).
    ///
    /// # Errors
    /// When the call fails.
    pub async fn has_termination_hook(&self, group: &GroupName) -> Result<bool, CallError> {
        let call = self.client.describe_lifecycle_hooks().auto_scaling_group_name(group.as_str()).send();
        let found = self.timed(AwsOperation::DescribeLifecycleHooks, call).await?;
        let holds = |hook: &LifecycleHook| hook.lifecycle_transition() == Some(TERMINATING);
        Ok(found.lifecycle_hooks().iter().any(holds))
    }

    /// Asks the group to wait for the lifecycle action for longer.
    ///
    /// # Errors
    /// When the call fails, such as when the action is over.
    pub async fn prolong(&self, action: &LifecycleAction) -> Result<(), CallError> {
        let _change = Change::begin(&self.changes);
        let call = self
            .client
            .record_lifecycle_action_heartbeat()
            .auto_scaling_group_name(action.group.as_str())
            .lifecycle_hook_name(action.hook.as_str())
            .instance_id(action.instance_id.as_str())
            .send();
        self.timed(AwsOperation::RecordLifecycleActionHeartbeat, call).await.map(drop)
    }

    /// Lets the group go on with what it waits for.
    ///
    /// # Errors
    /// When the call fails, such as when the action is over.
    pub async fn complete(&self, action: &LifecycleAction) -> Result<(), CallError> {
        let _change = Change::begin(&self.changes);
        let call = self
            .client
            .complete_lifecycle_action()
            .auto_scaling_group_name(action.group.as_str())
            .lifecycle_hook_name(action.hook.as_str())
            .instance_id(action.instance_id.as_str())
            .lifecycle_action_result("CONTINUE")
            .send();
        self.timed(AwsOperation::CompleteLifecycleAction, call).await.map(drop)
    }
}
