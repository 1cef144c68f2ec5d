//! The Auto Scaling actions that only read.

use super::activity::{Activity, millis};
use super::autoscaling::{unknown_group, write_activity};
use super::faults::ErrorAnswer;
use super::query::{Query, Xml};
use super::state::{Group, Instance, LifecycleState, State, region_of, subnet_of, zone_id};
use jiff::{Timestamp, civil, tz};

/// The account of the simulated cloud.
pub(super) const ACCOUNT: &str = "111122223333";

/// The items after `NextToken`, at most `limit`, and the token of the next page.
///
/// `key` must ascend with the items. The token is the key of the last item, so that no item is lost or
/// repeated while the world moves on.
fn page<T>(
    items: impl IntoIterator<Item = T>,
    limit: usize,
    token: Option<&str>,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let read_before = |item: &T| token.is_some_and(|token| key(item).as_str() <= token);
    let mut items = items.into_iter().skip_while(read_before).peekable();
    let page: Vec<T> = items.by_ref().take(limit).collect();
    let next = items.peek().and(page.last()).map(&key);
    (page, next)
}

impl State {
    pub(super) fn describe_groups(&self, query: &Query) -> Result<String, ErrorAnswer> {
        let names = query.list("AutoScalingGroupNames");
        let filters = query.filters();
        let limit = query.max_records(50, 100)?;
        let with_instances = query.flag("IncludeInstances")?.unwrap_or(true);
        let wanted = self.groups.values().filter(|group| {
            (names.is_empty() || names.contains(&group.spec.name.as_str()))
                && filters.iter().all(|(name, values)| tags_match(group, name, values))
        });
        let (groups, next) = page(wanted, limit, query.get("NextToken"), |group| group.spec.name.clone());
        let mut xml = Xml::default();
        xml.list("AutoScalingGroups", groups, |xml, group| self.write_group(xml, group, with_instances));
        xml.text_opt("NextToken", next);
        Ok(xml.into_string())
    }

    fn write_group(&self, xml: &mut Xml, group: &Group, with_instances: bool) {
        let spec = &group.spec;
        let region = spec.zones.first().map_or("us-east-1", |zone| region_of(zone));
        xml.text("AutoScalingGroupName", &spec.name);
        xml.text(
            "AutoScalingGroupARN",
            format!(
                "arn:aws:autoscaling:{region}:{ACCOUNT}:autoScalingGroup:{}:autoScalingGroupName/{}",
                "00000000-0000-4000-8000-000000000000", spec.name
            ),
        );
        write_launch_source(xml, group);
        xml.text("MinSize", spec.min);
        xml.text("MaxSize", spec.max);
        xml.text("DesiredCapacity", group.desired);
        xml.text("DefaultCooldown", 300);
        xml.texts("AvailabilityZones", &spec.zones);
        xml.texts("AvailabilityZoneIds", spec.zones.iter().map(|zone| zone_id(zone)));
        xml.text("HealthCheckType", "EC2");
        xml.text("HealthCheckGracePeriod", 0);
        if with_instances {
            xml.list("Instances", self.members(&spec.name), |xml, instance| {
                write_instance(xml, group, instance);
            });
        }
        xml.text("CreatedTime", millis(group.created));
        xml.list("SuspendedProcesses", &group.suspended, |xml, (process, reason)| {
            xml.text("ProcessName", process);
            xml.text("SuspensionReason", reason);
        });
        let subnets: Vec<_> = spec.zones.iter().map(|zone| subnet_of(zone)).collect();
        xml.text("VPCZoneIdentifier", subnets.join(","));
        xml.list("Tags", &spec.tags, |xml, (key, value)| {
            xml.text("ResourceId", &spec.name);
            xml.text("ResourceType", "auto-scaling-group");
            xml.text("Key", key);
            xml.text("Value", value);
            xml.text("PropagateAtLaunch", true);
        });
        xml.texts("TerminationPolicies", ["Default"]);
        xml.text("NewInstancesProtectedFromScaleIn", spec.protect_new_instances);
        xml.text("CapacityRebalance", spec.capacity_rebalance);
        xml.text_opt("DesiredCapacityType", spec.capacity_type);
        xml.text_opt("MaxInstanceLifetime", spec.max_instance_lifetime.map(|life| life.as_secs()));
        if spec.warm_pool {
            xml.element("WarmPoolConfiguration", |xml| {
                xml.text("MinSize", 0);
                xml.text("PoolState", "Stopped");
            });
            xml.text("WarmPoolSize", 0);
        }
        if let Some(principal) = &spec.operator {
            xml.element("Operator", |xml| xml.text("Principal", principal));
        }
    }

    /// The instance refreshes of a group, the newest first: one is remembered.
    pub(super) fn describe_refreshes(&self, query: &Query) -> Result<String, ErrorAnswer> {
        let name = query.require("AutoScalingGroupName")?;
        let group = self.groups.get(name).ok_or_else(|| unknown_group(name))?;
        let mut xml = Xml::default();
        xml.list("InstanceRefreshes", group.refresh, |xml, status| {
            xml.text("InstanceRefreshId", "00000000-0000-4000-8000-000000000001");
            xml.text("AutoScalingGroupName", name);
            xml.text("Status", status);
        });
        Ok(xml.into_string())
    }

    pub(super) fn describe_instances(&self, query: &Query) -> Result<String, ErrorAnswer> {
        let ids = query.list("InstanceIds");
        let limit = query.max_records(50, 50)?;
        let wanted = self
            .instances
            .values()
            .filter(|instance| ids.is_empty() || ids.contains(&instance.id.as_str()))
            .filter_map(|instance| Some((self.groups.get(&instance.group)?, instance)));
        let (instances, next) = page(wanted, limit, query.get("NextToken"), |(_, i)| i.id.clone());
        let mut xml = Xml::default();
        xml.list("AutoScalingInstances", instances, |xml, (group, instance)| {
            xml.text("AutoScalingGroupName", &instance.group);
            write_instance(xml, group, instance);
        });
        xml.text_opt("NextToken", next);
        Ok(xml.into_string())
    }

    pub(super) fn describe_activities(&self, query: &Query) -> Result<String, ErrorAnswer> {
        let group = query.get("AutoScalingGroupName");
        if let Some(name) = group.filter(|name| !self.groups.contains_key(*name)) {
            return Err(unknown_group(name));
        }
        let ids = query.list("ActivityIds");
        let limit = query.max_records(100, 100)?;
        let filters = ActivityFilters::read(query)?;
        if filters.statuses.is_some() && group.is_none() {
            return Err(ErrorAnswer::validation("The Status filter needs AutoScalingGroupName"));
        }
        // Newest first.
        let wanted = self.activities.iter().rev().filter(|activity| {
            group.is_none_or(|group| activity.group == group)
                && (ids.is_empty() || ids.contains(&activity.id.as_str()))
                && filters.match_activity(activity)
        });
        let (activities, next) =
            page(wanted, limit, query.get("NextToken"), |activity| newest_first(activity.seq));
        let mut xml = Xml::default();
        xml.list("Activities", activities, write_activity);
        xml.text_opt("NextToken", next);
        Ok(xml.into_string())
    }

    pub(super) fn describe_hooks(&self, query: &Query) -> Result<String, ErrorAnswer> {
        let name = query.require("AutoScalingGroupName")?;
        let group = self.groups.get(name).ok_or_else(|| unknown_group(name))?;
        let mut xml = Xml::default();
        xml.list("LifecycleHooks", group.spec.termination_hook, |xml, timeout| {
            let seconds = timeout.as_secs();
            xml.text("LifecycleHookName", format!("{name}-termination"));
            xml.text("AutoScalingGroupName", name);
            xml.text("LifecycleTransition", "autoscaling:EC2_INSTANCE_TERMINATING");
            xml.text("HeartbeatTimeout", seconds);
            // The smaller of 48 hours and 100 times the heartbeat timeout.
            xml.text("GlobalTimeout", (seconds * 100).min(48 * 3600));
            xml.text("DefaultResult", "CONTINUE");
        });
        Ok(xml.into_string())
    }
}

/// A key that ascends from the newest activity to the oldest.
fn newest_first(seq: u64) -> String {
    format!("{:020}", u64::MAX - seq)
}

fn tags_match(group: &Group, filter: &str, values: &[&str]) -> bool {
    group.spec.tags.iter().any(|(key, value)| match filter {
        "tag-key" => values.contains(&key.as_str()),
        "tag-value" => values.contains(&value.as_str()),
        _ => filter.strip_prefix("tag:") == Some(key.as_str()) && values.contains(&value.as_str()),
    })
}

fn write_launch_source(xml: &mut Xml, group: &Group) {
    let spec = &group.spec;
    if let Some(mixed) = &spec.mixed {
        xml.element("MixedInstancesPolicy", |xml| {
            xml.element("LaunchTemplate", |xml| {
                xml.element("LaunchTemplateSpecification", |xml| {
                    write_template(xml, group, group.spec.template_version)
                });
                xml.list("Overrides", [&spec.instance_type], |xml, instance_type| {
                    xml.text("InstanceType", instance_type);
                    xml.text_opt("WeightedCapacity", spec.weight);
                });
            });
            xml.element("InstancesDistribution", |xml| {
                xml.text("OnDemandAllocationStrategy", "lowest-price");
                xml.text("OnDemandBaseCapacity", mixed.on_demand_base);
                xml.text("OnDemandPercentageAboveBaseCapacity", mixed.on_demand_percentage_above_base);
                xml.text("SpotAllocationStrategy", &mixed.spot_allocation_strategy);
            });
        });
    } else if spec.launch_template {
        xml.element("LaunchTemplate", |xml| write_template(xml, group, group.spec.template_version));
    } else {
        xml.text("LaunchConfigurationName", format!("{}-launch-configuration", spec.name));
    }
}

fn write_template(xml: &mut Xml, group: &Group, version: u32) {
    xml.text("LaunchTemplateId", "lt-00000000000000001");
    xml.text("LaunchTemplateName", format!("{}-template", group.spec.name));
    xml.text("Version", version);
}

fn write_instance(xml: &mut Xml, group: &Group, instance: &Instance) {
    let spec = &group.spec;
    xml.text("InstanceId", &instance.id);
    xml.text("InstanceType", &spec.instance_type);
    xml.text("AvailabilityZone", &instance.zone);
    xml.text("AvailabilityZoneId", zone_id(&instance.zone));
    let shown = instance.shown.filter(|_| instance.state == LifecycleState::InService);
    xml.text("LifecycleState", shown.unwrap_or(instance.state.as_str()));
    xml.text("HealthStatus", if instance.healthy { "Healthy" } else { "Unhealthy" });
    if spec.launch_template || spec.mixed.is_some() {
        xml.element("LaunchTemplate", |xml| write_template(xml, group, instance.template_version));
    } else {
        xml.text("LaunchConfigurationName", format!("{}-launch-configuration", spec.name));
    }
    xml.text("ProtectedFromScaleIn", instance.protected);
}

/// The filters of `DescribeScalingActivities` (API_DescribeScalingActivities).
#[derive(Default)]
struct ActivityFilters<'a> {
    earliest: Option<Timestamp>,
    latest: Option<Timestamp>,
    statuses: Option<Vec<&'a str>>,
}

impl<'a> ActivityFilters<'a> {
    fn read(query: &'a Query) -> Result<Self, ErrorAnswer> {
        let mut filters = Self::default();
        for (name, values) in query.filters() {
            let time = || parse_time(values.first().copied().unwrap_or_default());
            match name {
                "StartTimeLowerBound" => filters.earliest = Some(time()?),
                "StartTimeUpperBound" => filters.latest = Some(time()?),
                "Status" => filters.statuses = Some(values),
                _ => return Err(ErrorAnswer::validation(format!("Filter type {name} is not correct."))),
            }
        }
        Ok(filters)
    }

    fn match_activity(&self, activity: &Activity) -> bool {
        self.earliest.is_none_or(|earliest| activity.start >= earliest)
            && self.latest.is_none_or(|latest| activity.start <= latest)
            && self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&activity.status_code))
    }
}

/// An ISO 8601 time; without an offset it is UTC.
fn parse_time(text: &str) -> Result<Timestamp, ErrorAnswer> {
    let civil = || text.parse::<civil::DateTime>().and_then(|time| tz::TimeZone::UTC.to_timestamp(time));
    text.parse::<Timestamp>()
        .or_else(|_| civil())
        .map_err(|_| ErrorAnswer::validation(format!("{text} is not an ISO 8601 timestamp")))
}
