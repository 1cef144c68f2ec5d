//! Errors as problem details (RFC 9457).

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

/// The body of an error: `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub type_: &'static str,
    /// The name of the status.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// The path that was asked for.
    pub instance: String,
}

/// An answer that says what is wrong.
pub(super) fn answer(status: StatusCode, request: &HttpRequest, detail: String) -> HttpResponse {
    let problem = Problem {
        type_: "about:blank",
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        status: status.as_u16(),
        detail,
        instance: request.path().to_owned(),
    };
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
    match serde_json::to_string(&problem) {
        Ok(body) => response.body(body),
        Err(_) => response.finish(),
    }
}

/// There is nothing at that path.
pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    answer(StatusCode::NOT_FOUND, &request, format!("there is nothing at {}", request.path()))
}

/// The path may name something, but nothing of that name is there.
pub(super) fn no_such(request: &HttpRequest, detail: &str) -> HttpResponse {
    answer(StatusCode::NOT_FOUND, request, detail.to_owned())
}

/// The path is there, but takes these methods only.
pub(super) async fn method_not_allowed(request: HttpRequest, allowed: String) -> HttpResponse {
    let methods = allowed.replace(", ", " and ");
    let detail = format!("{} takes {methods}, not {}", request.path(), request.method());
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, &request, detail);
    if let Ok(allowed) = allowed.parse() {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// It is too much at this time.
pub(super) fn unavailable(request: &HttpRequest, detail: &str) -> HttpResponse {
    answer(StatusCode::SERVICE_UNAVAILABLE, request, detail.to_owned())
}

/// Something that should not fail did.
pub(super) fn internal(request: &HttpRequest, detail: &str) -> HttpResponse {
    answer(StatusCode::INTERNAL_SERVER_ERROR, request, detail.to_owned())
}
