//! The refusals of a Kubernetes API, as `Status` objects with the code and reason that clients look at.

use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails, StatusSummary};

/// Why a request is not done.
pub type Refusal = Box<Status>;

/// A refusal without details.
#[must_use]
pub fn refusal(code: u16, reason: &str, message: impl Into<String>) -> Refusal {
    Box::new(Status {
        status: Some(StatusSummary::Failure),
        code,
        message: message.into(),
        metadata: None,
        reason: reason.to_owned(),
        details: None,
    })
}

fn about(mut status: Refusal, resource: &str, group: &str, name: &str) -> Refusal {
    status.details = Some(details(resource, group, name));
    status
}

fn details(resource: &str, group: &str, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: resource.to_owned(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

/// `pods` or `deployments.apps`: how messages name a resource.
pub(super) fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

pub(super) fn bad_request(message: impl Into<String>) -> Refusal {
    refusal(400, "BadRequest", message)
}

pub(super) fn not_found(resource: &str, group: &str, name: &str) -> Refusal {
    let message = format!("{} \"{name}\" not found", qualified(resource, group));
    about(refusal(404, "NotFound", message), resource, group, name)
}

pub(super) fn already_exists(resource: &str, group: &str, name: &str) -> Refusal {
    let message = format!("{} \"{name}\" already exists", qualified(resource, group));
    about(refusal(409, "AlreadyExists", message), resource, group, name)
}

pub(super) fn conflict(resource: &str, group: &str, name: &str, why: &str) -> Refusal {
    let message =
        format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(resource, group));
    about(refusal(409, "Conflict", message), resource, group, name)
}

/// The conflict of optimistic concurrency.
pub(super) fn modified(resource: &str, group: &str, name: &str) -> Refusal {
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    conflict(resource, group, name, why)
}

pub(super) fn invalid(kind: &str, group: &str, name: &str, field: &str, why: &str) -> Refusal {
    let message = format!("{} \"{name}\" is invalid: {field}: {why}", qualified(kind, group));
    let mut status = about(refusal(422, "Invalid", message), kind, group, name);
    if let Some(details) = &mut status.details {
        details.causes.push(StatusCause {
            reason: "FieldValueInvalid".to_owned(),
            message: why.to_owned(),
            field: field.to_owned(),
        });
    }
    status
}

pub(super) fn forbidden(resource: &str, group: &str, name: &str, why: &str) -> Refusal {
    let target = if name.is_empty() {
        qualified(resource, group)
    } else {
        format!("{} \"{name}\"", qualified(resource, group))
    };
    about(refusal(403, "Forbidden", format!("{target} is forbidden: {why}")), resource, group, name)
}

/// The resource version asked for is no longer in the history.
pub(super) fn expired(wanted: u64, oldest: u64) -> Refusal {
    refusal(410, "Expired", format!("too old resource version: {wanted} ({oldest})"))
}

/// 429 of an eviction: the cause tells it apart from rate limiting.
pub(super) fn disruption_budget(cause: String, retry_after_seconds: u32) -> Refusal {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = refusal(429, "TooManyRequests", message);
    let mut details = details("", "", "");
    details.retry_after_seconds = retry_after_seconds;
    details.causes.push(budget_cause(cause));
    status.details = Some(details);
    status
}

/// 403 of an eviction: the status of the budget is not to be trusted.
pub(super) fn budget_forbidden(name: &str, why: &str, cause: String) -> Refusal {
    let mut status = forbidden("poddisruptionbudget", "policy", name, why);
    if let Some(details) = &mut status.details {
        details.causes.push(budget_cause(cause));
    }
    status
}

fn budget_cause(message: String) -> StatusCause {
    StatusCause { reason: "DisruptionBudget".to_owned(), message, field: String::new() }
}
