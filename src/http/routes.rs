//! The table of all routes, and what a caller needs for each.
//!
//! Everything that is served stands here once: the server is made from this table, and so are the tests that go
//! through it.

use super::access::{self, Need, Resource, Verb};
use super::{api, dashboard, events, health, nodes, problem};
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, Route, guard, web};

/// One route.
pub(super) struct Endpoint {
    /// Its path; `{name}` stands for a name.
    pub(super) path: &'static str,
    /// How it is asked.
    pub(super) method: Ask,
    /// What a caller needs.
    pub(super) need: Need,
    /// The parameters that it takes; others are refused.
    takes: Option<&'static [&'static str]>,
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

/// Parameters of lists that are told in pages.
const PAGES: &[&str] = &["limit", "continue"];
/// And of those that can be narrowed down.
const NARROWED: &[&str] = &["pool", "node", "since", "limit", "continue"];
const NARROWED_BY_PHASE: &[&str] = &["pool", "phase", "node", "since", "limit", "continue"];

const fn get(path: &'static str, need: Need, handler: fn() -> Route) -> Endpoint {
    Endpoint { path, method: Ask::Get, need, takes: Some(&[]), handler }
}

impl Endpoint {
    const fn taking(self, takes: &'static [&'static str]) -> Self {
        Self { takes: Some(takes), ..self }
    }

    /// What comes in the query is nobody's business.
    const fn taking_anything(self) -> Self {
        Self { takes: None, ..self }
    }
}

const fn list(resource: Resource) -> Need {
    Need::Right { verb: Verb::List, resource, named: false }
}

const fn named(resource: Resource) -> Need {
    Need::Right { verb: Verb::Get, resource, named: true }
}

/// All routes; those of one path stand together.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    get("/healthz", Need::Nothing, || web::to(health::healthz)).taking_anything(),
    get("/readyz", Need::Nothing, || web::to(health::readyz)).taking_anything(),
    get("/metrics", Need::Nothing, || web::to(health::metrics)).taking_anything(),
    get("/", Need::Token, || web::to(dashboard::page)).taking_anything(),
    get("/dashboard/style.css", Need::Token, || web::to(dashboard::style)).taking_anything(),
    get("/dashboard/icon.svg", Need::Token, || web::to(dashboard::icon)).taking_anything(),
    get("/dashboard/app.js", Need::Token, || web::to(dashboard::script)).taking_anything(),
    get("/api/v1/status", list(Resource::Pools), || web::to(api::status)),
    get("/api/v1/events", list(Resource::Replacements), || web::to(events::events)),
    get("/api/v1/pools", list(Resource::Pools), || web::to(api::pools)).taking(PAGES),
    get("/api/v1/pools/{name}", named(Resource::Pools), || web::to(api::pool_named)),
    get("/api/v1/nodes", list(Resource::Replacements), || web::to(nodes::nodes)).taking(NARROWED_BY_PHASE),
    get("/api/v1/nodes/{name}", list(Resource::Replacements), || web::to(nodes::node_named)),
    get("/api/v1/nodes/{name}/safety", list(Resource::Replacements), || web::to(nodes::safety_of)),
    get("/api/v1/notices", list(Resource::Notices), || web::to(api::notices)).taking(NARROWED),
    get("/api/v1/notices/{name}", named(Resource::Notices), || web::to(api::notice_named)),
    get("/api/v1/replacements", list(Resource::Replacements), || web::to(api::replacements))
        .taking(NARROWED_BY_PHASE),
    get("/api/v1/replacements/{name}", named(Resource::Replacements), || web::to(api::replacement_named)),
    get("/api/v1/replacements/{name}/timeline", named(Resource::Replacements), || web::to(api::timeline_of)),
    get("/api/v1/fallbacks", list(Resource::Replacements), || web::to(api::fallbacks))
        .taking(NARROWED_BY_PHASE),
    get("/api/v1/fallbacks/{name}", named(Resource::Replacements), || web::to(api::fallback_named)),
];

/// The name in the path; empty if there is none.
pub(super) fn name(request: &HttpRequest) -> String {
    request.match_info().get("name").unwrap_or_default().to_owned()
}

/// Adds all routes.
pub(super) fn configure(cfg: &mut web::ServiceConfig) {
    for of_path in ENDPOINTS.chunk_by(|one, other| one.path == other.path) {
        let Some(path) = of_path.first().map(|endpoint| endpoint.path) else { continue };
        let mut resource = web::resource(path);
        for endpoint in of_path {
            let (need, takes) = (endpoint.need, endpoint.takes);
            let route = (endpoint.handler)()
                .wrap(from_fn(move |request, next| access::admit(need, takes, request, next)));
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
