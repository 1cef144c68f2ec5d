//! Every timing and threshold, its default, and how a pool overrides it.

use crate::windows::{BadSetting, ReturnWindow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Declares each setting once, numbers first, then flags, then lists: the optional form that configuration
/// and SpotPool share, the resolved form that decisions read, and the default.
macro_rules! policy {
    (
        numbers { $($(#[$doc:meta])* $name:ident = $default:literal, $min:literal..=$max:literal;)* }
        flags { $($(#[$flag_doc:meta])* $flag:ident = $flag_default:literal;)* }
        lists { $($(#[$list_doc:meta])* $list:ident: $item:ty;)* }
    ) => {
        /// Settings of a pool as they are written: what is left out falls back to the configuration, then
        /// to the defaults.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct PolicySpec {
            $($(#[$doc])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = $min, max = $max))]
            pub $name: Option<u32>,)*
            $($(#[$flag_doc])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $flag: Option<bool>,)*
            $($(#[$list_doc])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(max = 50))]
            pub $list: Option<Vec<$item>>,)*
        }

        /// The settings in force for a pool.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Policy {
            $($(#[$doc])* pub $name: u32,)*
            $($(#[$flag_doc])* pub $flag: bool,)*
            $($(#[$list_doc])* pub $list: Vec<$item>,)*
        }

        impl Default for Policy {
            fn default() -> Self {
                Self { $($name: $default,)* $($flag: $flag_default,)* $($list: Vec::new(),)* }
            }
        }

        impl Policy {
            /// These settings with everything that `overrides` names replaced.
            #[must_use]
            pub fn overridden(&self, overrides: &PolicySpec) -> Self {
                Self {
                    $($name: overrides.$name.unwrap_or(self.$name),)*
                    $($flag: overrides.$flag.unwrap_or(self.$flag),)*
                    $($list: overrides.$list.clone().unwrap_or_else(|| self.$list.clone()),)*
                }
            }
        }

        impl PolicySpec {
            /// The first setting that cannot be used, as `name: why`.
            ///
            /// # Errors
            /// Names the setting, its value and what is wrong with it.
            pub fn validate(&self) -> Result<(), String> {
                $(if let Some(value) = self.$name
                    && !($min..=$max).contains(&value) {
                    let (setting, value) = (camel(stringify!($name)), i64::from(value));
                    let (min, max) = (i64::from($min), i64::from($max));
                    return Err(BadSetting::OutOfRange { setting, value, min, max }.to_string());
                })*
                $(for item in self.$list.iter().flatten() {
                    item.validate().map_err(|why| format!("{}: {why}", camel(stringify!($list))))?;
                })*
                Ok(())
            }
        }
    };
}

policy! {
    numbers {
    /// Box 1: minimum age of a node, in seconds, before a recommendation replaces it.
    min_node_age_seconds = 600, 0..=86_400;
    /// Box 1: how many nodes of the pool are replaced at a time; a node with a deadline does not wait.
    max_concurrent_replacements = 10, 1..=10_000;
    /// Box 1: and no more than this percentage of its nodes, but always one.
    max_concurrent_percent = 50, 1..=100;
    /// Box 3: seconds between two looks at a group with an open request.
    group_poll_seconds = 10, 1..=300;
    /// Box 3: seconds to wait for a Spot instance to be in service and its node Ready before falling back.
    spot_timeout_seconds = 180, 5..=3600;
    /// Box 3.2: seconds to wait for an on-demand instance before the attempt counts as failed.
    on_demand_timeout_seconds = 300, 5..=3600;
    /// Box 3: seconds that the node of an instance in service may stay unusable; then the instance is
    /// terminated and another one requested. Before a deadline a third of that, until an instance is taken.
    join_timeout_seconds = 900, 10..=86_400;
    /// Box 3.2: seconds before the first retry after both groups failed; doubles with each attempt.
    retry_seconds = 30, 1..=3600;
    /// Box 3.2: the longest wait between two attempts, in seconds.
    retry_max_seconds = 300, 1..=86_400;
    /// Boxes 5 and 10: seconds that a return may drain its node, or that a replacement without a deadline
    /// waits for a pod to leave; then it is given up.
    drain_timeout_seconds = 600, 10..=86_400;
    /// Box 5: seconds for which pods hold a drain without a deadline: those annotated
    /// `cluster-autoscaler.kubernetes.io/safe-to-evict: "false"` or `karpenter.sh/do-not-disrupt`, and those
    /// that no controller recreates; 0 is not at all.
    pod_hold_seconds = 3600, 0..=86_400;
    /// Boxes 5 and 10: seconds that an instance stays after its node left its load balancers, or as long as a
    /// deadline allows; the deregistration delay of the target groups is best.
    wait_before_termination_seconds = 90, 0..=3600;
    /// Boxes 5 and 10: seconds to wait for the evicted pods to run and be ready elsewhere; a return is given
    /// up then.
    reschedule_timeout_seconds = 300, 1..=3600;
    /// Box 5: seconds before a deadline at which Spot Guard terminates the old instance.
    terminate_before_deadline_seconds = 10, 0..=60;
    /// Box 6: seconds between two assessments.
    monitor_seconds = 30, 1..=3600;
    /// Box 8: seconds that the Spot group must have been healthy, and the claimed node Ready.
    stability_seconds = 120, 0..=86_400;
    /// Box 8: percentage of the Spot nodes that stay that may be not Ready.
    not_ready_percent = 5, 0..=100;
    /// Box 6: seconds between two probes for the instance that Spot owes a fallback.
    probe_seconds = 40, 5..=86_400;
    /// Box 6: the longest time between two probes, in seconds.
    probe_max_seconds = 300, 5..=86_400;
    /// Box 6: returns wait while there were more notices than this within the last hour.
    brake_interruptions = 10, 1..=10_000;
    /// Box 6: and more than this percentage of the pool's nodes.
    brake_percent = 25, 0..=100;
    /// Box 6: how many nodes of the pool return at a time; 0 is a tenth of its nodes, at least 1 and at most
    /// 5.
    max_concurrent_returns = 0, 0..=100;
    /// Box 6: how many returns may begin within `returnBudgetSeconds`; 0 is no limit.
    return_budget = 0, 0..=10_000;
    /// Box 6: the period of the budget of returns, in seconds.
    return_budget_seconds = 3600, 60..=86_400;
    /// Box 9: the utilisation after a return may not exceed this percentage of the allocatable resources.
    max_utilisation_percent = 75, 1..=100;
    /// Box 9: or the utilisation before the replacement plus this many points, whichever is larger.
    utilisation_slack_percent = 5, 0..=100;
    /// Box 9: with placeholdersAreFree, pods of a priority lower than minus this are placeholders.
    placeholder_priority = 10, 0..=1_000_000_000;
    /// Box 10: seconds before a return that failed is tried again.
    return_retry_seconds = 300, 1..=86_400;
    /// Box 11: seconds between two clean-ups.
    cleanup_seconds = 600, 1..=86_400;
    /// Box 11: seconds that a finished record is kept.
    keep_finished_seconds = 86_400, 60..=2_592_000;
    }
    flags {
    /// Box 5: at a deadline, delete the pods that a budget still holds back.
    delete_at_deadline = true;
    /// Box 5: evict pods that no controller recreates after `podHoldSeconds`; before a deadline they are
    /// always evicted.
    evict_unmanaged = true;
    /// Box 5: evict pods whose emptyDir is lost with them; before a deadline they are always evicted.
    evict_empty_dir = true;
    /// Box 10: evict pods that no controller recreates; if not, such a pod blocks the return of its node.
    return_unmanaged = false;
    /// Box 10: evict pods whose emptyDir is lost with them; if not, such a pod blocks the return of its
    /// node.
    return_empty_dir = true;
    /// Box 9: the requests of placeholder pods count as free, since other pods preempt them.
    placeholders_are_free = false;
    }
    lists {
    /// Box 6: when returns may begin; if empty, at any time.
    return_windows: ReturnWindow;
    }
}

impl Policy {
    /// Pods of a lower priority than this are placeholders; `None`: there are none.
    #[must_use]
    pub fn placeholders_below(&self) -> Option<i32> {
        let limit = i32::try_from(self.placeholder_priority).map_or(i32::MIN, |priority| -priority);
        self.placeholders_are_free.then_some(limit)
    }

    /// How long to wait before attempt number `attempt` (1 is the first retry): doubling, capped, and
    /// spread by up to a fifth so that replacements which failed together do not come back together.
    #[must_use]
    pub fn retry_delay(&self, attempt: u32, name: &str) -> Duration {
        let delay = backoff(seconds(self.retry_seconds), seconds(self.retry_max_seconds), attempt);
        spread(delay, name)
    }
}

/// The delay, longer by up to a fifth, by a name: what failed together is not to come back together.
#[must_use]
pub fn spread(delay: Duration, name: &str) -> Duration {
    let hash = name.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let fifth = u64::try_from(delay.as_millis() / 5).unwrap_or(u64::MAX);
    delay + Duration::from_millis(hash % fifth.max(1))
}

/// `first`, doubled with every further failure in a row, and never more than `cap`.
#[must_use]
pub fn backoff(first: Duration, cap: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(cap)
}

/// A number of seconds as a duration.
#[must_use]
pub fn seconds(count: u32) -> Duration {
    Duration::from_secs(u64::from(count))
}

fn camel(name: &str) -> String {
    let mut upper = false;
    name.chars().fold(String::with_capacity(name.len()), |mut text, letter| {
        if letter == '_' {
            upper = true;
        } else {
            text.push(if std::mem::take(&mut upper) { letter.to_ascii_uppercase() } else { letter });
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_overrides_what_it_names_and_nothing_else() {
        let overrides = PolicySpec { stability_seconds: Some(5), ..PolicySpec::default() };
        let policy = Policy::default().overridden(&overrides);
        assert_eq!(policy.stability_seconds, 5);
        assert_eq!(Policy { stability_seconds: 120, ..policy }, Policy::default());
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let bad = PolicySpec { max_utilisation_percent: Some(101), ..PolicySpec::default() };
        assert_eq!(bad.validate().unwrap_err(), "maxUtilisationPercent: 101 is not between 1 and 100");
    }

    #[test]
    fn retries_double_up_to_the_cap() {
        let policy = Policy::default();
        let at = |attempt| policy.retry_delay(attempt, "i-1").as_secs();
        assert!((30..36).contains(&at(1)) && (60..72).contains(&at(2)), "{} {}", at(1), at(2));
        assert!((300..360).contains(&at(9)) && (300..360).contains(&at(u32::MAX)));
    }
}
