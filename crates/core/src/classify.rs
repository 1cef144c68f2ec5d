//! What a failed launch or a refused call means, by its code first and its text second.
//!
//! Codes and texts: EC2 Auto Scaling User Guide, "Troubleshoot issues in Amazon EC2 Auto Scaling" (instance
//! launch failures); EC2 API Reference, "Error codes".

use crate::group::{FailedActivity, FailureClass, GroupView};
use jiff::{SignedDuration, Timestamp};

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
    "UnknownOperationException",
    "UnsupportedOperation",
];

/// Codes that say that another change of the group is under way (API Reference, SetDesiredCapacity; Common
/// Errors).
const BUSY_CODES: &[&str] = &["PriorRequestNotComplete", "ResourceContention", "ScalingActivityInProgress"];

/// Codes that say nothing about the call: credentials that are renewed, a clock that is set, an earlier call
/// with the same token that is still under way, an answer that was not waited for (Common Errors), a proxy.
const PASSING_CODES: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "Http408",
    "Http429",
    "IdempotentCallInProgress",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "RequestAbortedException",
    "RequestExpired",
    "RequestTimeout",
    "RequestTimeoutException",
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
        None if (400..500).contains(&status) => CallFailure::Refused(FailureClass::Refused),
        None => CallFailure::Unclear,
    }
}

/// Codes by which AWS asks to slow down, or says that a change of the group is still under way. They end like
/// a quota, or are told from one by nothing but this list.
const THROTTLE_CODES: &[&str] = &[
    "BandwidthLimitExceeded",
    "EC2Throttled",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "ResourceContention",
    "ScalingActivityInProgress",
    "ServiceUnavailable",
    "SlowDown",
    "Throttled",
    "Throttling",
    "TooManyRequests",
    "Unavailable",
];

/// Codes of missing capacity that no family holds.
const CAPACITY_CODES: &[&str] = &[
    "MaxScheduledInstanceCapacityExceeded",
    "ReservationCapacityExceeded",
    "SpotInstanceShutdown",
    "SpotInstanceTermination",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
];

/// Codes of a wrong configuration that no family holds.
const CONFIGURATION_CODES: &[&str] = &[
    "AccessDenied",
    "AccountDisabled",
    "AuthFailure",
    "Blocked",
    "ClientInvalidParameterValue",
    "CustomerKeyHasBeenRevoked",
    "DisallowedForDedicatedTenancyNetwork",
    "NonEBSInstance",
    "NotAuthorized",
    "OperationNotPermitted",
    "OptInRequired",
    "PendingVerification",
    "TagPolicyViolation",
    "UnauthorizedOperation",
    "UnknownParameter",
    "UnknownVolumeType",
    "ValidationError",
    "VPCIdNotSpecified",
    "ZonesMismatched",
];

/// How codes of missing capacity begin.
const CAPACITY_BEGINNINGS: &[&str] = &["Insufficient"];
/// How codes of missing capacity end.
const CAPACITY_ENDINGS: &[&str] = &["HostRequirements"];
/// How codes of a quota end.
const QUOTA_ENDINGS: &[&str] = &["LimitExceeded", "CountExceeded"];
/// How codes of a wrong configuration begin.
const CONFIGURATION_BEGINNINGS: &[&str] = &["Invalid", "Malformed", "Missing", "Unsupported"];
/// How codes of a wrong configuration end.
const CONFIGURATION_ENDINGS: &[&str] = &[
    "DoesNotExist",
    "Malformed",
    "NotAvailableInZone",
    "NotFound",
    "NotSpecified",
    "NotSupported",
    "Unavailable",
    "Unsupported",
];

/// Beginnings of messages of missing capacity that carry no code.
const CAPACITY_TEXTS: &[&str] = &[
    "Insufficient capacity",
    "There are not enough free addresses in subnet",
    "There is not enough capacity",
    "There is no Spot capacity available that matches your request",
    "There is no capacity available that matches your request",
    "Unable to fulfill capacity",
    "We currently do not have sufficient",
    "Your Spot request price of",
];

/// What the first sentence says of the reservation or the subnet that an instance was to be launched into.
const CAPACITY_SAYINGS: &[&str] =
    &[" does not have enough free addresses", " does not have sufficient compatible"];

/// Beginnings of messages by which AWS asks to slow down.
const THROTTLE_TEXTS: &[&str] = &["Rate exceeded", "Request limit exceeded"];

/// Beginnings of messages of a quota that carry no code.
const QUOTA_TEXTS: &[&str] = &[
    "Max spot instance count exceeded",
    "You have exceeded ",
    "You have reached ",
    "You have requested more",
    "You've exceeded ",
    "You've reached ",
    "Your quota allows for",
];

/// Beginnings of messages of a wrong configuration that carry no code.
const CONFIGURATION_TEXTS: &[&str] = &[
    "Access denied",
    "Authentication Failure",
    "In order to use this AWS Marketplace product",
    "Invalid ",
    "No default ",
    "No subnets ",
    "Not authorized",
    "This account is currently blocked",
    "You are not authorized ",
    "You are not subscribed ",
    "You do not have permission",
    "You must use a valid",
];

/// What the first sentence of a message about a wrong configuration says of the thing that it names.
const CONFIGURATION_SAYINGS: &[&str] = &[
    " already been used",
    " belong to different networks",
    " can only be used ",
    " cannot be found",
    " cannot be run",
    " cannot be specified",
    " cannot be used with",
    " could not be found",
    " currently being verified",
    " do not have permission",
    " does not allow",
    " does not exist",
    " does not match",
    " does not support",
    " has no associated",
    " is being validated",
    " is currently constrained",
    " is invalid",
    " is not active",
    " is not authorized to ",
    " is not eligible for ",
    " is not valid",
    " is required ",
    " is smaller than",
    " may not be used ",
    " more than one ",
    " must be ",
    " no longer supported",
    " not supported",
];

/// How a message says that EC2 refused the launch for good (User Guide, "instance launch failures").
const REFUSED: (&str, &str) = ("Could not launch ", "Launching EC2 instance failed.");

/// How a message ends whose launch did not get as far as EC2: a load balancer of the group is not as it is
/// named (User Guide, "Troubleshoot load balancer issues").
const LOAD_BALANCER: &str = " load balancer configuration failed.";

/// What comes before the reason that counts, for a launch template (User Guide, "launch template issues").
const LAUNCH_TEMPLATE: &str = "You must use a valid fully-formed launch template. ";

/// Between the words of Auto Scaling and the code with which EC2 ended a new instance.
const TERMINATION_REASON: &str = "Termination Reason: ";

/// The class of an error code, by families: its part before the first dot, then its whole.
#[must_use]
pub fn by_code(code: &str) -> Option<FailureClass> {
    let code = code.strip_prefix("Server.").unwrap_or(code);
    // What EC2 says when a volume's key cannot be used (EC2 User Guide, "Instance terminates immediately").
    if code == "Client.InternalError" {
        return Some(FailureClass::Configuration);
    }
    let code = code.strip_prefix("Client.").unwrap_or(code);
    let base = code.split('.').next().unwrap_or(code);
    by_family(base).or_else(|| by_family(code))
}

fn by_family(code: &str) -> Option<FailureClass> {
    let bare = code.strip_suffix("Fault").or_else(|| code.strip_suffix("Exception")).unwrap_or(code);
    let is_one_of = |codes: &[&str]| codes.contains(&code) || codes.contains(&bare);
    let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| bare.starts_with(beginning));
    let ends = |endings: &[&str]| endings.iter().any(|ending| bare.ends_with(ending));
    if is_one_of(THROTTLE_CODES) {
        Some(FailureClass::Throttle)
    } else if is_one_of(CAPACITY_CODES) || begins(CAPACITY_BEGINNINGS) || ends(CAPACITY_ENDINGS) {
        Some(FailureClass::Capacity)
    } else if ends(QUOTA_ENDINGS) {
        Some(FailureClass::Quota)
    } else if is_one_of(CONFIGURATION_CODES)
        || begins(CONFIGURATION_BEGINNINGS)
        || ends(CONFIGURATION_ENDINGS)
    {
        Some(FailureClass::Configuration)
    } else {
        None
    }
}

/// The class of a failed scaling activity, from its StatusMessage.
///
/// The message is `Could not launch .. Instances. CODE - text`, `.. Termination Reason: CODE: text`, or a
/// text without a code. Its beginning decides; a word like "capacity" further on means nothing.
#[must_use]
pub fn launch_failure(status_message: &str) -> FailureClass {
    let text = match status_message.split_once(TERMINATION_REASON) {
        Some((_, reason)) => reason,
        None if status_message.starts_with(REFUSED.0) => {
            status_message.split_once(". ").map_or(status_message, |(_, text)| text)
        }
        None => status_message,
    };
    let text = text.trim_start();
    let word = text.split([' ', ':']).next().unwrap_or_default().trim_end_matches(['.', '-', ',']);
    // A code is one word that a dash or a colon ends; the first word of a sentence is none.
    let after = text[word.len()..].trim_start_matches('.');
    let is_code = after.is_empty() || after.starts_with(':') || after.starts_with(" -");
    let class = match by_code(word).filter(|_| is_code) {
        Some(class) => class,
        None => by_text(text),
    };
    // Whatever the reason is: nothing comes of what EC2 refused.
    if class == FailureClass::Unknown && is_refused_by_ec2(status_message) {
        FailureClass::Refused
    } else {
        class
    }
}

/// The class of an error in the answer of LaunchInstances. Such an error is final: nothing is tried again
/// (API Reference, LaunchInstances, RetryStrategy `none`).
fn launch_error(code: &str, message: &str) -> FailureClass {
    match by_code(code).unwrap_or_else(|| launch_failure(message)) {
        FailureClass::Unknown => FailureClass::Refused,
        class => class,
    }
}

/// The classes of the errors in one answer of LaunchInstances: code, message and instance type of each.
///
/// A type that is not supported in a zone is no fault of the configuration as long as others were tried
/// there: they are out of capacity, or came.
#[must_use]
pub fn launch_errors<'a>(errors: &[(&'a str, &'a str, &'a str)], came: bool) -> Vec<(FailureClass, String)> {
    let is_one_of_several = came || errors.iter().any(|(_, _, other)| *other != errors[0].2);
    let class = |code: &str, message: &str| {
        let of_zone =
            code == "Unsupported" || message.contains("not supported in your requested Availability Zone");
        if of_zone && is_one_of_several { FailureClass::Capacity } else { launch_error(code, message) }
    };
    errors.iter().map(|(code, message, _)| (class(code, message), format!("{code} - {message}"))).collect()
}

fn by_text(text: &str) -> FailureClass {
    let text = text.strip_prefix(LAUNCH_TEMPLATE).unwrap_or(text);
    let begins = |texts: &[&str]| texts.iter().any(|beginning| text.starts_with(beginning));
    let already_running = text
        .split_once(" instance(s) are already running")
        .is_some_and(|(count, _)| !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()));
    let sentence = text.split_once(". ").map_or(text, |(sentence, _)| sentence);
    let says = |sayings: &[&str]| sayings.iter().any(|saying| sentence.contains(saying));
    if begins(CAPACITY_TEXTS) || says(CAPACITY_SAYINGS) {
        FailureClass::Capacity
    } else if begins(THROTTLE_TEXTS) {
        FailureClass::Throttle
    } else if begins(QUOTA_TEXTS) || already_running {
        FailureClass::Quota
    } else if begins(CONFIGURATION_TEXTS)
        || says(CONFIGURATION_SAYINGS)
        || text.trim_end().ends_with(LOAD_BALANCER)
    {
        FailureClass::Configuration
    } else {
        FailureClass::Unknown
    }
}

/// Whether the StatusMessage of an activity says that EC2 refused the launch.
fn is_refused_by_ec2(status_message: &str) -> bool {
    status_message.starts_with(REFUSED.0) || status_message.trim_end().ends_with(REFUSED.1)
}

/// The failure that decides among several of one attempt: of several zones, instance types or activities.
///
/// The configuration is at fault only if it is in all of them. What can be had nowhere comes before what can
/// be asked for again.
#[must_use]
pub fn decisive<T>(failures: impl IntoIterator<Item = T>, class: impl Fn(&T) -> FailureClass) -> Option<T> {
    failures.into_iter().reduce(|first, next| {
        let is_heavier = class(&next).weight() > class(&first).weight();
        if is_heavier { next } else { first }
    })
}

/// By then a group has tried its other zones, unless an instance is on its way in.
const ZONES_TRIED_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Whether another zone may have what this one has not: capacity, the instance type itself, or a subnet.
#[must_use]
pub fn is_of_one_zone(class: FailureClass, message: &str) -> bool {
    let of_zone = ["Availability Zone", "InZone", "subnet", "Subnet"];
    class == FailureClass::Capacity || of_zone.iter().any(|word| message.contains(word))
}

/// Whether a group whose launch failed so tries no further zone. Failures count from `since` on, and the time
/// for further zones from `tries_since` on.
#[must_use]
pub fn has_tried_all(
    group: &GroupView,
    decisive: &FailedActivity,
    since: Timestamp,
    tries_since: Timestamp,
    now: Timestamp,
) -> bool {
    let failed = || group.failed_since(since);
    let is_tried = |zone: &String| failed().any(|failure| failure.zone.as_ref() == Some(zone));
    let waits_long = now.duration_since(tries_since) >= ZONES_TRIED_AFTER;
    // A quota is the account's, whatever one zone has.
    let is_of_account = |failure: &FailedActivity| failure.class == FailureClass::Quota;
    !is_of_one_zone(decisive.class, &decisive.message)
        || failed().any(is_of_account)
        || group.zones.len() <= 1
        || group.zones.iter().all(is_tried)
        || waits_long && !group.is_launching()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_text_has_its_class_and_near_misses_do_not() {
        use FailureClass::{Capacity, Configuration, Quota, Throttle, Unknown};
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
                Quota,
            ),
            (
                "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded",
                Quota,
            ),
            (
                "Your Spot request price of 0.01 is lower than the minimum required Spot request fulfillment price of 0.03.",
                Capacity,
            ),
            ("12 instance(s) are already running. Launching EC2 instance failed.", Quota),
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

    /// Of each class, codes of its list and of each of its families: with the ends that AWS puts to them, and
    /// near misses.
    #[test]
    fn a_code_has_the_class_of_its_family() {
        use FailureClass::{Capacity, Configuration, Quota, Throttle};
        let families: [(FailureClass, &[&str]); 4] = [
            (
                Capacity,
                &[
                    "InsufficientInstanceCapacity",
                    "InsufficientHostCapacity",
                    "InsufficientFreeAddressesInSubnet",
                    "InsufficientVolumeCapacity",
                    "InsufficientSomethingNew",
                    "ReservationCapacityExceeded",
                    "IncompatibleHostRequirements",
                    "MaxScheduledInstanceCapacityExceeded",
                    "Server.InsufficientInstanceCapacity",
                    "Server.SpotInstanceShutdown",
                    "Server.SpotInstanceTermination",
                    "SpotMaxPriceTooLow",
                    "UnavailableHostRequirements",
                    "UnfulfillableCapacity",
                ],
            ),
            (
                Quota,
                &[
                    "Client.VolumeLimitExceeded",
                    "InstanceLimitExceeded",
                    "LimitExceeded",
                    "LimitExceededFault",
                    "MaxFleetCountExceeded",
                    "MaxSpotInstanceCountExceeded",
                    "PrivateIpAddressLimitExceeded",
                    "VcpuLimitExceeded",
                ],
            ),
            (
                Configuration,
                &[
                    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
                    "Client.InternalError",
                    "Client.InvalidKMSKey.InvalidState",
                    "Client.InvalidSnapshot.NotFound",
                    "BootForVolumeTypeUnsupported",
                    "CustomerKeyHasBeenRevoked",
                    "DefaultVpcDoesNotExist",
                    "InvalidAMIID.Malformed",
                    "InvalidInterface.IpAddressLimitExceeded",
                    "MalformedQueryString",
                    "SnapshotCopyUnsupported.InterRegion",
                    "TagPolicyViolation",
                    "UnknownVolumeType",
                    "VolumeTypeNotAvailableInZone",
                    "InvalidAMIID.NotFound",
                    "InvalidAMIID.Unavailable",
                    "InvalidLaunchTemplateId.VersionNotFound",
                    "InvalidParameterCombination",
                    "LaunchTemplateVersionNotFoundException",
                    "MissingInput",
                    "PendingVerification",
                    "SnapshotNotFound",
                    "UnauthorizedOperation",
                    "Unsupported",
                    "UnsupportedHibernationConfiguration",
                ],
            ),
            (
                Throttle,
                &[
                    "LimitExceededException",
                    "RequestLimitExceeded",
                    "BandwidthLimitExceeded",
                    "ResourceContentionFault",
                    "Unavailable",
                    "Server.Unavailable",
                ],
            ),
        ];
        for (class, code) in
            families.iter().flat_map(|(class, codes)| codes.iter().map(|code| (*class, *code)))
        {
            assert_eq!(by_code(code), Some(class), "{code}");
            assert_eq!(by_code(&code.to_lowercase()), None, "codes are matched to the letter: {code}");
            for text in [
                format!("Could not launch Spot Instances. {code} - In words. Launching EC2 instance failed."),
                format!("Instance became unhealthy. Termination Reason: {code}: in words"),
            ] {
                assert_eq!(launch_failure(&text), class, "{text}");
            }
        }
        for code in
            ["", "Unknown", "InternalError", "Server.InternalError", "NotInsufficientAtAll", "IncorrectState"]
        {
            assert_eq!(by_code(code), None, "{code}");
        }
    }

    #[test]
    fn a_text_without_a_code_has_the_class_of_what_it_says() {
        use FailureClass::{Capacity, Configuration, Quota, Unknown};
        for (text, class) in [
            (
                "We currently do not have sufficient m5.large capacity in the zone (us-east-1a). You can get it by not specifying one.",
                Capacity,
            ),
            (
                "There are not enough free addresses in subnet 'subnet-1' to satisfy the requested number of instances.",
                Capacity,
            ),
            ("You have requested more instances (7) than your current instance limit of 6 allows.", Quota),
            ("You have requested more vCPU capacity than your current vCPU limit of 384 allows.", Quota),
            ("Max spot instance count exceeded. Launching EC2 instance failed.", Quota),
            (
                "Your requested instance type (g5.xlarge) is not supported in your requested Availability Zone (us-east-1c). Please retry.",
                Configuration,
            ),
            ("The security group 'sg-1' does not exist in VPC 'vpc-1'.", Configuration),
            ("The key pair 'workers' does not exist.", Configuration),
            ("The snapshot 'snap-1' does not exist.", Configuration),
            (
                "The requested Availability Zone us-east-1e is no longer supported. Please retry.",
                Configuration,
            ),
            ("AMI ami-1 is pending, and cannot be run.", Configuration),
            ("Invalid device name upload.", Configuration),
            ("The subnet subnet-1 could not be found.", Configuration),
            ("Security group sg-1 and subnet subnet-1 belong to different networks.", Configuration),
            ("Your account is currently being verified. Please try again.", Configuration),
            ("You've reached your quota for maximum Fleet Requests for this account.", Quota),
            ("Value (ephemeral9) for parameter virtualName is invalid.", Configuration),
            ("Placement groups may not be used with instances of type 'm1.large'.", Configuration),
            (
                "The architecture 'x86_64' of the specified instance type does not match the architecture 'arm64' of the specified AMI.",
                Configuration,
            ),
            ("This account is currently blocked and not recognized as a valid account.", Configuration),
            (
                "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token 1 was abandoned",
                Unknown,
            ),
            (
                "The requested reservation does not have sufficient compatible and available capacity for this request.",
                Capacity,
            ),
            ("Unable to fulfill capacity due to your request configuration. Please adjust it.", Capacity),
            ("You have exceeded your maximum gp3 storage limit of 50 TiB in this region.", Quota),
            ("You have reached the maximum number of network interfaces of this region.", Quota),
            ("You are not subscribed to this service. Please see the console.", Configuration),
            ("You are not authorized to use launch template: lt-1", Configuration),
            ("User: arn:aws:sts::1:assumed-role/a is not authorized to perform: iam:PassRole", Configuration),
            ("Your request for accessing resources in this region is being validated.", Configuration),
            ("The specified instance type is not eligible for Free Tier.", Configuration),
            ("The provided credentials do not have permission to create the role.", Configuration),
            ("Spot instance request: sir-1 has been cancelled.", Unknown),
            ("It went well. The thing does not exist.", Unknown),
            ("Not authorized for images: [ami-1]. Launching EC2 instance failed.", Configuration),
            ("Authentication Failure. Launching EC2 instance failed.", Configuration),
            (
                "Volume of size 8GB is smaller than snapshot 'snap-1', expect size >= 30GB. Launching EC2 instance failed.",
                Configuration,
            ),
            (
                "The device 'sda1' is used in more than one block-device mapping. Launching EC2 instance failed.",
                Configuration,
            ),
            ("VPC security groups may not be used for a non-VPC launch.", Configuration),
            (
                "The specified instance type can only be used in a VPC. A subnet ID is required.",
                Configuration,
            ),
            (
                "The 'Placement Group' has already been used in another Availability Zone. Launching EC2 instance failed.",
                Configuration,
            ),
            (
                "Enhanced networking with the Elastic Network Adapter (ENA) is required for the 't3.small' instance type.",
                Configuration,
            ),
            ("Your Capacity Block reservation cr-1 is not active yet.", Configuration),
            (
                "The requested Availability Zone is currently constrained and we are no longer accepting requests.",
                Configuration,
            ),
            ("No default subnet for availability zone: 'us-east-1e'.", Configuration),
            ("The instance profile workers has no associated IAM Roles.", Configuration),
            (
                "The tag policy does not allow the specified value for the following tag key: 'Team'.",
                Configuration,
            ),
            ("The specified subnet does not have enough free addresses to satisfy the request.", Capacity),
            ("There is not enough capacity on the Outpost to launch or start the instance.", Capacity),
            ("Request limit exceeded. Launching EC2 instance failed.", FailureClass::Throttle),
            ("Rate exceeded", FailureClass::Throttle),
            (
                "One or more target groups not found. Validating load balancer configuration failed.",
                Configuration,
            ),
            ("Cannot find Load Balancer web. Validating load balancer configuration failed.", Configuration),
            (
                "There is no ACTIVE Load Balancer named web. Updating load balancer configuration failed.",
                Configuration,
            ),
            ("EC2 instance i-1 is not in VPC. Updating load balancer configuration failed.", Configuration),
            (
                "You must use a valid fully-formed launch template. You have requested more vCPU capacity than your current vCPU limit of 32 allows.",
                Quota,
            ),
            (
                "You must use a valid fully-formed launch template. Value () for parameter groupId is invalid.",
                Configuration,
            ),
            ("The role workers does not have sufficient permissions.", Unknown),
            ("Something new happened. Launching EC2 instance failed.", FailureClass::Refused),
            ("Could not launch Spot Instances. SomethingNew - In words.", FailureClass::Refused),
        ] {
            assert_eq!(launch_failure(text), class, "{text}");
        }
    }

    #[test]
    fn a_type_that_a_zone_does_not_support_is_capacity_if_it_is_one_of_several() {
        use FailureClass::{Capacity, Configuration, Quota, Refused};
        let unsupported = |kind| ("Unsupported", "not supported in this zone", kind);
        for (errors, came, expected) in [
            (vec![], false, vec![]),
            (vec![unsupported("m5")], false, vec![Configuration]),
            (vec![unsupported("m5")], true, vec![Capacity]),
            (vec![unsupported("m5"), unsupported("m5")], false, vec![Configuration, Configuration]),
            (vec![unsupported("m5"), unsupported("m6")], false, vec![Capacity, Capacity]),
            (
                vec![unsupported("m5"), ("InvalidAMIID.NotFound", "", "m6")],
                false,
                vec![Capacity, Configuration],
            ),
            (vec![("SomethingNew", "", "m5"), ("VcpuLimitExceeded", "", "m6")], false, vec![Refused, Quota]),
        ] {
            let found = launch_errors(&errors, came);
            let classes: Vec<_> = found.into_iter().map(|(class, _)| class).collect();
            assert_eq!(classes, expected, "{errors:?}");
        }
    }

    #[test]
    fn of_several_failures_the_one_that_weighs_most_decides() {
        use FailureClass::{Capacity, Configuration, Quota, Refused, Throttle, Unknown};
        for (classes, expected) in [
            (vec![], None),
            (vec![Configuration, Configuration], Some(Configuration)),
            (vec![Configuration, Capacity], Some(Capacity)),
            (vec![Quota, Configuration], Some(Quota)),
            (vec![Throttle, Configuration], Some(Throttle)),
            (vec![Throttle, Capacity], Some(Capacity)),
            (vec![Refused, Unknown, Configuration], Some(Refused)),
        ] {
            assert_eq!(decisive(classes.clone(), |class| *class), expected, "{classes:?}");
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
        use FailureClass::{Capacity, Configuration, Quota};
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
            ("IdempotentParameterMismatchError", "", 400, Refused(FailureClass::Refused)),
            ("ExpiredToken", "", 403, Unclear),
            ("RequestAbortedException", "", 400, Unclear),
            ("RequestExpired", "", 400, Unclear),
            ("RequestTimeoutException", "", 408, Unclear),
            ("Http408", "", 408, Unclear),
            ("Http429", "", 429, Unclear),
            ("UnknownOperationException", "", 404, Unsupported),
            ("InvalidClientTokenId", "", 403, Unclear),
            ("SignatureDoesNotMatch", "", 403, Unclear),
            ("AccessDenied", "", 403, Unsupported),
            ("InvalidAction", "", 400, Unsupported),
            ("UnsupportedOperation", "", 400, Unsupported),
            ("LimitExceededFault", "", 400, Refused(Quota)),
            ("InsufficientInstanceCapacity", "", 400, Refused(Capacity)),
            ("InvalidParameterCombination", "", 400, Refused(Configuration)),
            ("SomethingNew", "", 400, Refused(FailureClass::Refused)),
            ("SomethingNew", "", 500, Unclear),
            ("InternalFailure", "", 500, Unclear),
            ("ServiceUnavailable", "", 503, Unclear),
            ("Unknown", "", 502, Unclear),
        ] {
            assert_eq!(call_failure(code, message, status), expected, "{code} {status}: {message}");
        }
    }
}
