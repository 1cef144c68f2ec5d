//! What is told of a request that the Kubernetes API did not answer as it should: its kind, its status and
//! its reason, and nothing of what was sent or answered. An object may hold secrets of others.

use crate::causes::with_causes;
use kube::Error;
use std::fmt;

/// A failed request, for logs and for people.
#[derive(Clone, Copy, Debug)]
pub struct RequestProblem<'a>(pub &'a Error);

impl fmt::Display for RequestProblem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Api(status) => {
                write!(f, "refused with {} ({})", status.code, word(&status.reason))?;
                right(&status.message).map_or(Ok(()), |right| write!(f, ": {right}"))
            }
            // The parser's own words hold a piece of what it has read.
            Error::SerdeError(error) => write!(
                f,
                "the answer cannot be read: {:?} error at line {}, column {}",
                error.classify(),
                error.line(),
                error.column()
            ),
            Error::FromUtf8(_) => f.write_str("the answer is not UTF-8"),
            Error::HyperError(error) => f.write_str(&with_causes(error)),
            Error::Service(error) => f.write_str(&with_causes(&**error)),
            Error::ReadEvents(error) => write!(f, "the connection broke: {}", error.kind()),
            Error::Auth(_) => f.write_str("there are no credentials for the Kubernetes API"),
            _ => f.write_str("the request could not be made"),
        }
    }
}

/// A reason of the API is one word (`metav1.StatusReason`); what is none is not repeated.
fn word(reason: &str) -> &str {
    let is_word = |text: &str| text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    if is_word(reason) { reason } else { "?" }
}

/// Which right is missing, in the API server's own words (k8s.io/apiserver, `responsewriters.Forbidden`).
/// Other refusals may repeat what was sent.
fn right(message: &str) -> Option<String> {
    let (_, right) = message.split_once(" is forbidden: User \"")?;
    let right = right.split_once(" cannot ")?.1;
    Some(right.chars().filter(|letter| !letter.is_control()).take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    const SECRET: &str = "hunter2";

    #[test]
    fn nothing_of_an_answer_is_told() {
        let typed = serde_json::from_str::<u32>(&format!("\n  \"{SECRET}\"")).expect_err("no number");
        assert!(typed.to_string().contains(SECRET), "the parser tells what it has read: {typed}");
        let told = RequestProblem(&Error::SerdeError(typed)).to_string();
        assert!(told.contains("line 2") && !told.contains(SECRET), "{told}");

        let status = Status {
            code: 422,
            message: format!("spec.env: Invalid value: {SECRET}"),
            reason: "Invalid".to_owned(),
            ..Status::default()
        };
        let told = RequestProblem(&Error::Api(Box::new(status.clone()))).to_string();
        assert_eq!(told, "refused with 422 (Invalid)");
        let message = "nodes \"a\" is forbidden: User \"u\" cannot patch resource \"nodes\"".to_owned();
        let right = Status { code: 403, reason: "Forbidden".to_owned(), message, ..status.clone() };
        let told = RequestProblem(&Error::Api(Box::new(right))).to_string();
        assert_eq!(told, "refused with 403 (Forbidden): patch resource \"nodes\"");
        let odd = Status { reason: format!("because of {SECRET}"), ..status };
        assert_eq!(RequestProblem(&Error::Api(Box::new(odd))).to_string(), "refused with 422 (?)");
    }

    #[test]
    fn what_kept_a_request_from_being_made_is_told() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let told = RequestProblem(&Error::Service(Box::new(refused))).to_string();
        assert_eq!(told, "connection refused");
    }
}
