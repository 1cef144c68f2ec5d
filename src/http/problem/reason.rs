//! The codes of problems, for machines: they stay as they are, and their set is closed.

use actix_web::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

spot_guard_core::codes! {
    /// The code of a problem. `docs/reasons.md` says what to do about each.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
    pub enum ProblemReason {
        /// A parameter, a header or a field of the body cannot be used.
        InvalidField,
        /// The query cannot be read.
        QueryUnreadable,
        /// The body broke off.
        BodyUnreadable,
        /// The head of the request is no HTTP/1.1.
        RequestUnreadable,
        /// The request has no bearer token.
        TokenRequired,
        /// The Kubernetes API does not accept the token.
        TokenInvalid,
        /// The message of a webhook is not signed as it must be.
        SignatureInvalid,
        /// The user of the token lacks a right.
        Forbidden,
        /// The local port takes no actions.
        ReadOnlyPort,
        /// The local port was reached under another name than this machine's.
        ForeignHost,
        /// A token came over an unencrypted connection from elsewhere.
        TlsRequired,
        /// There is nothing at the path.
        NoSuchPath,
        /// The path exists, but nothing has this name.
        NoSuchObject,
        /// The path does not take the method.
        MethodNotAllowed,
        /// The body did not arrive in time.
        BodyTooSlow,
        /// The head of the request did not arrive in time.
        HeadTooSlow,
        /// A message with this `webhook-id` was taken before.
        MessageTaken,
        /// The body has no `Content-Length`.
        LengthRequired,
        /// The body is too long.
        BodyTooLong,
        /// Path and query are too long.
        TargetTooLong,
        /// The body is not `application/json`.
        BodyNotJson,
        /// The `Idempotency-Key` was used for another request.
        KeyTaken,
        /// The API server does not accept the SpotAction.
        ActionInvalid,
        /// The headers are too long.
        HeadersTooLong,
        /// Something failed that should not.
        Internal,
        /// A watch has been broken or silent, so no safety check is made.
        StaleWatch,
        /// Too many safety checks are under way.
        TooManyChecks,
        /// Too many streams of events are open.
        TooManyStreams,
        /// The Kubernetes API did not answer what the request needs.
        KubernetesUnavailable,
    }
}

impl ProblemReason {
    /// The status that a problem of this kind is answered with.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::InvalidField | Self::QueryUnreadable | Self::BodyUnreadable | Self::RequestUnreadable => {
                StatusCode::BAD_REQUEST
            }
            Self::TokenRequired | Self::TokenInvalid | Self::SignatureInvalid => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::ReadOnlyPort | Self::ForeignHost | Self::TlsRequired => {
                StatusCode::FORBIDDEN
            }
            Self::NoSuchPath | Self::NoSuchObject => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow | Self::HeadTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::MessageTaken => StatusCode::CONFLICT,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyNotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::KeyTaken | Self::ActionInvalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::HeadersTooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::StaleWatch | Self::TooManyChecks | Self::TooManyStreams | Self::KubernetesUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_list_every_code_with_its_status() {
        let docs = include_str!("../../../docs/reasons.md");
        let (_, docs) =
            docs.split_once("\n## Refusing a request of the HTTP API").expect("a part of its own");
        let part = docs.split("\n## ").next().expect("a part");
        let listed: Vec<(&str, &str)> = part
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .map(|(code, rest)| (code, &rest[..3]))
            .collect();
        let codes = ProblemReason::ALL.map(|reason| (reason.as_str(), reason.status().as_u16().to_string()));
        let codes: Vec<(&str, &str)> = codes.iter().map(|(code, status)| (*code, &**status)).collect();
        assert_eq!(listed, codes);
        for reason in ProblemReason::ALL {
            assert_eq!(serde_json::to_value(reason).expect("JSON"), reason.as_str());
        }
    }
}
