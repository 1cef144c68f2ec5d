//! Errors as problem details (RFC 9457).

mod reason;

pub use reason::ProblemReason;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;

/// The body of an error: `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub type_: &'static str,
    /// The name of the status.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// The code of the problem, for machines. docs/reasons.md says what to do about each.
    pub reason: ProblemReason,
    /// What is wrong with this request.
    pub detail: String,
    /// The path that was requested. Empty if the head of the request could not be read.
    pub instance: String,
    /// The fields that are wrong, if it is about fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
}

/// A field of a request that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldProblem {
    /// The parameter, header or field of the body.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

impl FieldProblem {
    pub(super) fn of(field: &str, detail: &str) -> Self {
        Self { field: field.to_owned(), detail: detail.to_owned() }
    }

    /// 400 for the field.
    pub(super) fn refuses(self, request: &HttpRequest) -> Refused {
        Refused::field(request, &self.field, self.detail)
    }
}

impl Problem {
    /// A problem of a request for `instance`.
    pub(super) fn of(reason: ProblemReason, detail: String, instance: String) -> Self {
        let status = reason.status();
        Self {
            type_: "about:blank",
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            reason,
            detail,
            instance,
            errors: Vec::new(),
        }
    }
}

/// A request that is not done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    problem: Box<Problem>,
}

impl Refused {
    pub(super) fn new(reason: ProblemReason, request: &HttpRequest, detail: String) -> Self {
        Self { problem: Box::new(Problem::of(reason, detail, request.path().to_owned())) }
    }

    /// 400 for one field.
    pub(super) fn field(request: &HttpRequest, field: &str, detail: String) -> Self {
        Self::fields(ProblemReason::InvalidField, request, field, detail)
    }

    /// For one field.
    pub(super) fn fields(reason: ProblemReason, request: &HttpRequest, field: &str, detail: String) -> Self {
        let mut refused = Self::new(reason, request, format!("{field}: {detail}"));
        refused.problem.errors.push(FieldProblem { field: field.to_owned(), detail });
        refused
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.detail)
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        self.problem.reason.status()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        match serde_json::to_string(&self.problem) {
            Ok(body) => response.body(body),
            Err(_) => response.finish(),
        }
    }
}

/// An answer that says what is wrong.
pub(super) fn answer(reason: ProblemReason, request: &HttpRequest, detail: String) -> HttpResponse {
    Refused::new(reason, request, detail).error_response()
}

/// There is nothing at that path.
pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    answer(ProblemReason::NoSuchPath, &request, format!("there is nothing at {}", request.path()))
}

/// The path may name something, but nothing of that name is there.
pub(super) fn no_such(request: &HttpRequest, detail: &str) -> HttpResponse {
    answer(ProblemReason::NoSuchObject, request, detail.to_owned())
}

/// The path is there, but takes these methods only.
pub(super) async fn method_not_allowed(request: HttpRequest, allowed: String) -> HttpResponse {
    let methods = allowed.replace(", ", " and ");
    let detail = format!("{} takes {methods}, not {}", request.path(), request.method());
    let mut response = answer(ProblemReason::MethodNotAllowed, &request, detail);
    if let Ok(allowed) = allowed.parse() {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// It is too much at this time.
pub(super) fn unavailable(reason: ProblemReason, request: &HttpRequest, detail: &str) -> HttpResponse {
    let mut response = answer(reason, request, detail.to_owned());
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}

/// Something that should not fail did.
pub(super) fn internal(request: &HttpRequest, detail: &str) -> HttpResponse {
    answer(ProblemReason::Internal, request, detail.to_owned())
}
