//! `LaunchInstances`: synchronous launches, "no capacity" in a normal answer (API_LaunchInstances; User
//! Guide, "Launch instances synchronously").

use super::activity::seconds;
use super::faults::ErrorAnswer;
use super::query::{Query, Xml};
use super::spec::{GroupSpec, LaunchFailure, Market};
use super::state::{CachedLaunch, Group, State, Timer, after, subnet_of, zone_id};
use jiff::Timestamp;
use std::time::Duration;

/// Most instances of one call.
const MOST: u32 = 100;

struct Request {
    group: String,
    zone: String,
    count: u32,
    token: String,
    retry_with_group: bool,
}

impl State {
    pub(super) fn launch_instances(&mut self, query: &Query, now: Timestamp) -> Result<String, ErrorAnswer> {
        let request = read_request(self.open_group(query)?, query)?;
        let fingerprint = format!("{} {} {}", request.zone, request.count, request.retry_with_group);
        let life = self.settings.client_token_life;
        self.launch_tokens.retain(|_, cached| crate::clock::since(cached.at, now) < life);
        let key = (request.group.clone(), request.token.clone());
        if let Some(cached) = self.launch_tokens.get(&key) {
            if cached.request != fingerprint {
                return Err(ErrorAnswer::bad_request(
                    "IdempotentParameterMismatch",
                    "The client token was used with other parameters in an earlier request.",
                ));
            }
            return Ok(cached.answer.clone());
        }
        self.refuse_launch(&request)?;
        let answer = self.launch_now(&request, now);
        let cached = CachedLaunch { at: now, request: fingerprint, answer: answer.clone() };
        self.launch_tokens.insert(key, cached);
        Ok(answer)
    }

    /// What AWS leaves undocumented: a suspended Launch process, and the maximum size. The wordings are ours.
    fn refuse_launch(&self, request: &Request) -> Result<(), ErrorAnswer> {
        let Some(group) = self.groups.get(&request.group) else { return Ok(()) };
        if group.suspended.contains_key("Launch") {
            let message = format!("The Launch process of AutoScalingGroup {} is suspended.", request.group);
            return Err(ErrorAnswer::validation(message));
        }
        let wanted = group.desired.saturating_add(request.count);
        if self.settings.launch_instances_enforces_max && wanted > group.spec.max {
            return Err(ErrorAnswer::validation(format!(
                "The requested capacity would raise desired capacity to {wanted}, above max value {} for the \
                 AutoScalingGroup.",
                group.spec.max
            )));
        }
        Ok(())
    }

    fn launch_now(&mut self, request: &Request, now: Timestamp) -> String {
        let group = &request.group;
        let cause = format!("At {} a user request launched instances synchronously.", seconds(now));
        let raises = self.settings.launch_instances_raises_desired;
        let market = self.next_market(group);
        let mut launched = Vec::new();
        let mut failure = None;
        for _ in 0..request.count {
            match self.launch(group, Some(&request.zone), &cause, None, now) {
                Ok(id) => launched.push(id),
                Err(why) => {
                    failure = Some(why);
                    break;
                }
            }
        }
        let got = u32::try_from(launched.len()).unwrap_or(MOST);
        for id in &launched {
            if let Some(instance) = self.instances.get_mut(id) {
                instance.beyond_desired = raises != Some(Duration::ZERO);
            }
        }
        let still_wanted = if request.retry_with_group && failure.as_ref().is_some_and(is_capacity) {
            request.count - got
        } else {
            0
        };
        let soon = after(now, self.settings.reaction);
        let mut instance_type = String::new();
        if let Some(entry) = self.groups.get_mut(group) {
            entry.desired += still_wanted + if raises == Some(Duration::ZERO) { got } else { 0 };
            instance_type.clone_from(&entry.spec.instance_type);
        }
        if let Some(later) = raises.filter(|later| !later.is_zero()) {
            self.at(after(now, later), Timer::CountLaunched(group.clone(), got));
        }
        if still_wanted > 0 {
            self.at(soon, Timer::Reconcile(group.clone()));
        }
        write_answer(request, market, &instance_type, &launched, failure.as_ref())
    }
}

/// Validation errors do not raise desired capacity, whatever the retry strategy.
fn is_capacity(failure: &LaunchFailure) -> bool {
    matches!(failure.code.as_str(), "UnfulfillableCapacity" | "InsufficientInstanceCapacity")
}

fn read_request(group: &Group, query: &Query) -> Result<Request, ErrorAnswer> {
    let spec = &group.spec;
    refuse_unsupported(spec)?;
    query.require("RequestedCapacity")?;
    let count: u32 = query.number("RequestedCapacity")?.unwrap_or_default();
    if !(1..=MOST).contains(&count) {
        return Err(ErrorAnswer::validation(format!("RequestedCapacity must be between 1 and {MOST}.")));
    }
    let token = query.require("ClientToken")?.to_owned();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/');
    if token.len() > 64 || !token.chars().all(allowed) {
        return Err(ErrorAnswer::validation(
            "ClientToken must match [A-Za-z0-9\\-_\\/]+ and have at most 64 characters.",
        ));
    }
    let retry_with_group = match query.get("RetryStrategy") {
        None | Some("none") => false,
        Some("retry-with-group-configuration") => true,
        Some(other) => return Err(ErrorAnswer::validation(format!("RetryStrategy {other} is not known."))),
    };
    let zone = read_zone(spec, query)?;
    Ok(Request { group: spec.name.clone(), zone, count, token, retry_with_group })
}

fn refuse_unsupported(spec: &GroupSpec) -> Result<(), ErrorAnswer> {
    let mixes = spec.mixed.as_ref().is_some_and(|mixed| {
        let pure_spot = mixed.on_demand_base == 0 && mixed.on_demand_percentage_above_base == 0;
        !pure_spot && mixed.on_demand_percentage_above_base != 100
    });
    let reason = if !spec.launch_template && spec.mixed.is_none() {
        "uses a launch configuration"
    } else if spec.warm_pool {
        "has a warm pool"
    } else if mixes {
        "mixes Spot and On-Demand Instances"
    } else if !spec.launch_instances {
        "does not support it"
    } else {
        return Ok(());
    };
    Err(ErrorAnswer::bad_request(
        "UnsupportedOperation",
        format!("LaunchInstances is not available: AutoScalingGroup {} {reason}.", spec.name),
    ))
}

/// The one zone of the request, named itself, by its id or by its subnet.
fn read_zone(spec: &GroupSpec, query: &Query) -> Result<String, ErrorAnswer> {
    let zones = query.list("AvailabilityZones");
    let ids = query.list("AvailabilityZoneIds");
    let subnets = query.list("SubnetIds");
    if zones.len() > 1 || ids.len() > 1 || subnets.len() > 1 {
        return Err(ErrorAnswer::validation("Only one Availability Zone or subnet may be given."));
    }
    if zones.is_empty() && ids.is_empty() && subnets.is_empty() {
        return match spec.zones.as_slice() {
            [only] => Ok(only.clone()),
            _ => Err(ErrorAnswer::validation(
                "An Availability Zone or subnet is required for groups with multiple Availability Zones.",
            )),
        };
    }
    let fits = |zone: &&String| {
        zones.first().is_none_or(|wanted| wanted == zone)
            && ids.first().is_none_or(|wanted| *wanted == zone_id(zone))
            && subnets.first().is_none_or(|wanted| *wanted == subnet_of(zone))
    };
    spec.zones.iter().find(fits).cloned().ok_or_else(|| {
        ErrorAnswer::validation("The Availability Zone or subnet is not part of the AutoScalingGroup.")
    })
}

fn write_answer(
    request: &Request,
    market: Market,
    instance_type: &str,
    launched: &[String],
    failure: Option<&LaunchFailure>,
) -> String {
    let mut xml = Xml::default();
    xml.text("AutoScalingGroupName", &request.group);
    xml.text("ClientToken", &request.token);
    let place = |xml: &mut Xml| {
        xml.text("InstanceType", instance_type);
        xml.text("MarketType", market.market_type());
        xml.text("SubnetId", subnet_of(&request.zone));
        xml.text("AvailabilityZone", &request.zone);
        xml.text("AvailabilityZoneId", zone_id(&request.zone));
    };
    let instances = (!launched.is_empty()).then_some(launched);
    xml.list("Instances", instances, |xml, ids| {
        place(xml);
        xml.texts("InstanceIds", ids);
    });
    let errors = failure.map(|failure| {
        let first = (&failure.code, &failure.message);
        std::iter::once(first).chain(failure.beside.iter().map(|(code, message)| (code, message)))
    });
    xml.list("Errors", errors.into_iter().flatten(), |xml, (code, message)| {
        place(xml);
        xml.text("ErrorCode", code);
        xml.text("ErrorMessage", message);
    });
    xml.into_string()
}
