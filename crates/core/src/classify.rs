//! What a failed launch or a refused call means, by its code first and its text second.
//!
//! Codes and texts: EC2 Auto Scaling User Guide, "Troubleshoot issues in Amazon EC2 Auto Scaling" (instance
//! launch failures); EC2 API Reference, "Error codes".

use crate::group::FailureClass;

/// What a failed call means for what it was to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// AWS refused: nothing changed.
    Refused(FailureClass),
    /// The group, the endpoint or the role cannot make this call at all: nothing changed, and asking again
    /// soon is no use.
    Unsupported,
    /// There is no such instance in a group: it is gone already.
    NotFound,
    /// Another change of the group is under way: nothing changed, later it can be.
    Busy,
    /// Throttled, no valid credentials, no answer, or an internal error: it may have taken effect; the group
    /// is read again.
    Unclear,
}

/// Codes that say that the call cannot be made at all: not known to the endpoint (Common Errors), not
/// possible with this group (API Reference, LaunchInstances), or not allowed to the role.
const UNSUPPORTED_CODES: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "InvalidAction",
    "NotAuthorized",
    "OptInRequired",
    "UnauthorizedOperation",
    "UnsupportedOperation",
];

/// Codes that say that another change of the group is under way (API Reference, SetDesiredCapacity; Common
/// Errors).
const BUSY_CODES: &[&str] = &["PriorRequestNotComplete", "ResourceContention", "ScalingActivityInProgress"];

/// Codes that say nothing about the call: credentials that are renewed, a clock that is set, an earlier call
/// with the same token that is still under way.
const PASSING_CODES: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "IdempotentCallInProgress",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// What follows from the error answer of a call with this HTTP status.
#[must_use]
pub fn call_failure(code: &str, message: &str, status: u16) -> CallFailure {
    if code == "ValidationError" && message.starts_with("Instance Id not found") {
        return CallFailure::NotFound;
    }
    let code = code.strip_suffix("Fault").unwrap_or(code);
    if UNSUPPORTED_CODES.contains(&code) {
        return CallFailure::Unsupported;
    }
    if BUSY_CODES.contains(&code) {
        return CallFailure::Busy;
    }
    if PASSING_CODES.contains(&code) {
        return CallFailure::Unclear;
    }
    match by_code(code) {
        Some(FailureClass::Throttle) => CallFailure::Unclear,
        Some(class) => CallFailure::Refused(class),
        None if code == "ValidationError" => CallFailure::Refused(FailureClass::Configuration),
        None if (400..500).contains(&status) => CallFailure::Refused(FailureClass::Unknown),
        None => CallFailure::Unclear,
    }
}

/// Codes that say that capacity cannot be had now: none left, or a quota.
const CAPACITY_CODES: &[&str] = &[
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientReservedInstanceCapacity",
    "InsufficientFreeAddressesInSubnet",
    "InstanceLimitExceeded",
    "MaxFleetCountExceeded",
    "MaxSpotInstanceCountExceeded",
    "ReservationCapacityExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "VcpuLimitExceeded",
    "LimitExceeded",
    "LimitExceededFault",
];

/// Codes that say that the group cannot launch as it is configured.
const CONFIGURATION_CODES: &[&str] = &[
    "AuthFailure",
    "InvalidAMIID.NotFound",
    "InvalidBlockDeviceMapping",
    "InvalidKeyPair.NotFound",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidParameter",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "InvalidSecurityGroupID.NotFound",
    "InvalidSubnetID.NotFound",
    "UnauthorizedOperation",
    "Unsupported",
    "UnsupportedOperation",
    "AccessDenied",
];

/// Codes by which AWS asks to slow down, or says that a change of the group is still under way.
const THROTTLE_CODES: &[&str] = &[
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "ResourceContention",
    "ScalingActivityInProgress",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottledException",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// Beginnings of messages that carry no code.
const CAPACITY_TEXTS: &[&str] = &[
    "There is no Spot capacity available that matches your request",
    "We currently do not have sufficient",
    "Your Spot request price of",
    "Your quota allows for",
    "You have requested more vCPU capacity than your current vCPU limit",
];

const CONFIGURATION_TEXTS: &[&str] = &["The requested configuration is currently not supported"];

/// The class of an error code.
#[must_use]
pub fn by_code(code: &str) -> Option<FailureClass> {
    if THROTTLE_CODES.contains(&code) {
        Some(FailureClass::Throttle)
    } else if CAPACITY_CODES.contains(&code) {
        Some(FailureClass::Capacity)
    } else if CONFIGURATION_CODES.contains(&code) {
        Some(FailureClass::Configuration)
    } else {
        None
    }
}

/// The class of a failed scaling activity, from its StatusMessage.
///
/// The message is `Could not launch .. Instances. CODE - text`, or a text without a code. Its beginning
/// decides; a word like "capacity" further on means nothing.
#[must_use]
pub fn launch_failure(status_message: &str) -> FailureClass {
    let text = ["Could not launch Spot Instances. ", "Could not launch On-Demand Instances. "]
        .iter()
        .find_map(|prefix| status_message.strip_prefix(prefix))
        .unwrap_or(status_message)
        .trim_start();
    let code = text.split([' ', '.', '-', ':']).next().unwrap_or_default();
    let dotted = text.split([' ', ':']).next().unwrap_or_default();
    if let Some(class) = by_code(dotted).or_else(|| by_code(code)) {
        return class;
    }
    let begins = |texts: &[&str]| texts.iter().any(|beginning| text.starts_with(beginning));
    let already_running = text
        .split_once(" instance(s) are already running")
        .is_some_and(|(count, _)| !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()));
    if begins(CAPACITY_TEXTS) || already_running {
        FailureClass::Capacity
    } else if begins(CONFIGURATION_TEXTS) {
        FailureClass::Configuration
    } else {
        FailureClass::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_text_has_its_class_and_near_misses_do_not() {
        use FailureClass::{Capacity, Configuration, Throttle, Unknown};
        for (text, class) in [
            (
                "Could not launch Spot Instances. UnfulfillableCapacity - There is no capacity available that matches your request. Launching EC2 instance failed.",
                Capacity,
            ),
            (
                "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity due to your request configuration. Launching EC2 instance failed.",
                Capacity,
            ),
            (
                "Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity",
                Capacity,
            ),
            (
                "There is no Spot capacity available that matches your request. Launching EC2 instance failed.",
                Capacity,
            ),
            (
                "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have sufficient m5.large capacity in the Availability Zone you requested (us-east-1a).",
                Capacity,
            ),
            (
                "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity than your current vCPU limit of 32 allows",
                Capacity,
            ),
            (
                "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded",
                Capacity,
            ),
            (
                "Your Spot request price of 0.01 is lower than the minimum required Spot request fulfillment price of 0.03.",
                Capacity,
            ),
            ("12 instance(s) are already running. Launching EC2 instance failed.", Capacity),
            (
                "Could not launch On-Demand Instances. InvalidParameterCombination - Could not find capacity for it",
                Configuration,
            ),
            (
                "Could not launch Spot Instances. InvalidSubnetID.NotFound - The subnet ID 'subnet-1' does not exist",
                Configuration,
            ),
            (
                "The requested configuration is currently not supported. Launching EC2 instance failed.",
                Configuration,
            ),
            ("Could not launch Spot Instances. RequestLimitExceeded - Request limit exceeded.", Throttle),
            ("Instance became unhealthy while waiting for instance to be in InService state.", Unknown),
            ("The capacity reservation was changed", Unknown),
            ("some instance(s) are already running", Unknown),
            ("UnfulfillableCapacityX - no", Unknown),
            ("", Unknown),
        ] {
            assert_eq!(launch_failure(text), class, "{text}");
        }
    }

    #[test]
    fn every_code_that_ends_a_launch_for_lack_of_capacity_or_a_quota_is_capacity() {
        for code in [
            "InsufficientInstanceCapacity",
            "MaxSpotInstanceCountExceeded",
            "VcpuLimitExceeded",
            "UnfulfillableCapacity",
            "InsufficientFreeAddressesInSubnet",
            "MaxFleetCountExceeded",
            "ReservationCapacityExceeded",
            "SpotMaxPriceTooLow",
            "InstanceLimitExceeded",
            "LimitExceeded",
        ] {
            assert_eq!(by_code(code), Some(FailureClass::Capacity), "{code}");
            let text = format!(
                "Could not launch Spot Instances. {code} - In AWS's words. Launching EC2 instance failed."
            );
            assert_eq!(launch_failure(&text), FailureClass::Capacity, "{text}");
            assert_eq!(by_code(&code.to_lowercase()), None, "codes are matched to the letter");
        }
    }

    #[test]
    fn every_code_by_which_aws_asks_to_slow_down_is_throttling() {
        for code in [
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottledException",
            "TooManyRequestsException",
            "RequestLimitExceeded",
            "BandwidthLimitExceeded",
            "LimitExceededException",
            "RequestThrottled",
            "SlowDown",
            "PriorRequestNotComplete",
            "EC2ThrottledException",
        ] {
            assert_eq!(by_code(code), Some(FailureClass::Throttle), "{code}");
        }
    }

    #[test]
    fn what_follows_from_each_error_answer() {
        use CallFailure::{Busy, NotFound, Refused, Unclear, Unsupported};
        use FailureClass::{Capacity, Configuration, Unknown};
        let not_found =
            "Instance Id not found - No managed instance found for instance ID: i-0123456789abcdef0";
        let at_minimum = "Currently, desiredSize equals minSize (1). Terminating instance without replacement will \
                          violate group's min size constraint.";
        for (code, message, status, expected) in [
            ("ValidationError", not_found, 400, NotFound),
            ("ValidationError", at_minimum, 400, Refused(Configuration)),
            (
                "ValidationError",
                "New SetDesiredCapacity value 2 is above max value 1",
                400,
                Refused(Configuration),
            ),
            ("ScalingActivityInProgress", "", 400, Busy),
            ("ScalingActivityInProgressFault", "", 400, Busy),
            ("ResourceContention", "", 500, Busy),
            ("ResourceContentionFault", "", 500, Busy),
            ("Throttling", "", 400, Unclear),
            ("RequestLimitExceeded", "", 503, Unclear),
            ("IdempotentCallInProgressFault", "", 400, Unclear),
            ("IdempotentParameterMismatchError", "", 400, Refused(Unknown)),
            ("ExpiredToken", "", 403, Unclear),
            ("RequestExpired", "", 400, Unclear),
            ("InvalidClientTokenId", "", 403, Unclear),
            ("SignatureDoesNotMatch", "", 403, Unclear),
            ("AccessDenied", "", 403, Unsupported),
            ("InvalidAction", "", 400, Unsupported),
            ("UnsupportedOperation", "", 400, Unsupported),
            ("LimitExceededFault", "", 400, Refused(Capacity)),
            ("InsufficientInstanceCapacity", "", 400, Refused(Capacity)),
            ("InvalidParameterCombination", "", 400, Refused(Configuration)),
            ("SomethingNew", "", 400, Refused(Unknown)),
            ("SomethingNew", "", 500, Unclear),
            ("InternalFailure", "", 500, Unclear),
            ("ServiceUnavailable", "", 503, Unclear),
            ("Unknown", "", 502, Unclear),
        ] {
            assert_eq!(call_failure(code, message, status), expected, "{code} {status}: {message}");
        }
    }
}
