//! The dashboard at `/`: the flow, and every replacement at the box that it is at. The page of the API at
//! `/docs`.
//!
//! A few files in the binary, without a build step and without anything from elsewhere. The page only reads
//! the API; its policy forbids scripts, styles and connections that are not this server's own.

use actix_web::HttpResponse;
use actix_web::http::header;

/// Nothing but what this server serves itself, and no frame around it (W3C, Content Security Policy Level 3).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn file(content_type: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .content_type(content_type)
        .body(content)
}

pub(super) async fn page() -> HttpResponse {
    file("text/html; charset=utf-8", include_str!("dashboard/index.html"))
}

pub(super) async fn style() -> HttpResponse {
    file("text/css; charset=utf-8", include_str!("dashboard/style.css"))
}

pub(super) async fn icon() -> HttpResponse {
    file("image/svg+xml", include_str!("dashboard/icon.svg"))
}

pub(super) async fn script() -> HttpResponse {
    file("text/javascript; charset=utf-8", include_str!("dashboard/app.js"))
}

pub(super) async fn docs() -> HttpResponse {
    file("text/html; charset=utf-8", include_str!("docs/index.html"))
}

pub(super) async fn docs_script() -> HttpResponse {
    file("text/javascript; charset=utf-8", include_str!("docs/docs.js"))
}
