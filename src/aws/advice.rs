//! What a person can do about AWS that cannot be read.

use super::answer::CallError;
use spot_guard_core::classify::CallFailure;

/// What to do where the environment names no Region.
pub const NO_REGION: &str = "no region: set AWS_REGION";

/// What to do about a call that failed, and the error. `needed` is what the caller's role has to allow.
#[must_use]
pub fn what_to_do(error: &CallError, needed: &str) -> String {
    let is_unsent = matches!(error.code.as_str(), "NoConnection" | "NotSent" | "Timeout");
    let lower = error.message.to_ascii_lowercase();
    let advice = match error.outcome {
        // The error would list every place where the SDK has looked.
        _ if is_unsent && lower.contains("no credentials found") => {
            return "no credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .to_owned();
        }
        _ if is_unsent && lower.contains("credential") => {
            "the credentials cannot be loaded: check AWS_PROFILE, or the role of the pod"
        }
        _ if is_unsent => "AWS cannot be reached: check the network and the proxy",
        _ if error.code.starts_with("ExpiredToken") => "the credentials are too old: renew them",
        CallFailure::Unsupported => return format!("allow {needed} ({error})"),
        _ if error.is_throttling() => "AWS throttles all calls of the account: try again later",
        _ => "AWS gives no usable answer: check the credentials, AWS_REGION and the names",
    };
    format!("{advice} ({error})")
}
