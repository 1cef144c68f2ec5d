//! The table of all routes, and what a caller needs for each.
//!
//! Everything that is served stands here once: the server is made from this table, and so are the tests that go
//! through it.

use super::access::{self, Need, Resource, Verb};
use super::{api, dashboard, events, health, problem};
use actix_web::middleware::from_fn;
use actix_web::{Route, guard, web};

/// One route.
pub(super) struct Endpoint {
    /// Its path; `{name}` stands for a name.
    pub(super) path: &'static str,
    /// How it is asked.
    pub(super) method: Ask,
    /// What a caller needs.
    pub(super) need: Need,
    handler: fn() -> Route,
}

/// How a route is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// `GET`, and `HEAD` with it.
    Get,
}

impl Ask {
    /// Its method.
    #[cfg(test)]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
        }
    }

    /// As the header `Allow` lists it.
    fn methods(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
        }
    }
}

const fn get(path: &'static str, need: Need, handler: fn() -> Route) -> Endpoint {
    Endpoint { path, method: Ask::Get, need, handler }
}

const fn list(resource: Resource) -> Need {
    Need::Right { verb: Verb::List, resource }
}

const fn named(resource: Resource) -> Need {
    Need::Right { verb: Verb::Get, resource }
}

/// All routes; those of one path stand together.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    get("/healthz", Need::Nothing, || web::to(health::healthz)),
    get("/readyz", Need::Nothing, || web::to(health::readyz)),
    get("/metrics", Need::Nothing, || web::to(health::metrics)),
    get("/", Need::Token, || web::to(dashboard::page)),
    get("/dashboard/style.css", Need::Token, || web::to(dashboard::style)),
    get("/dashboard/icon.svg", Need::Token, || web::to(dashboard::icon)),
    get("/dashboard/app.js", Need::Token, || web::to(dashboard::script)),
    get("/api/v1/status", list(Resource::Pools), || web::to(api::status)),
    get("/api/v1/pools", list(Resource::Pools), || web::to(api::pools)),
    get("/api/v1/replacements", list(Resource::Replacements), || web::to(api::replacements)),
    get("/api/v1/events", list(Resource::Replacements), || web::to(events::events)),
    get("/api/v1/fallbacks", list(Resource::Replacements), || web::to(api::fallbacks)),
    get("/api/v1/fallbacks/{name}", named(Resource::Replacements), || web::to(api::fallback_named)),
];

/// Adds all routes.
pub(super) fn configure(cfg: &mut web::ServiceConfig) {
    for of_path in ENDPOINTS.chunk_by(|one, other| one.path == other.path) {
        let Some(path) = of_path.first().map(|endpoint| endpoint.path) else { continue };
        let mut resource = web::resource(path);
        for endpoint in of_path {
            let need = endpoint.need;
            let route =
                (endpoint.handler)().wrap(from_fn(move |request, next| access::admit(need, request, next)));
            resource = resource.route(match endpoint.method {
                Ask::Get => route.guard(guard::Any(guard::Get()).or(guard::Head())),
            });
        }
        cfg.service(
            resource.default_service(web::to(move |request| {
                problem::method_not_allowed(request, allowed(of_path))
            })),
        );
    }
    cfg.default_service(web::to(problem::not_found));
}

/// The methods of a path, as the header `Allow` lists them.
fn allowed(of_path: &[Endpoint]) -> String {
    of_path.iter().map(|endpoint| endpoint.method.methods()).collect::<Vec<_>>().join(", ")
}
