//! The table of all routes, and what a caller needs for each.
//!
//! Everything that is served stands here once: the server is made from this table, and so are the tests that
//! go through it.

use super::access::{self, Need, Resource, Verb};
use super::endpoint::{Answer, Endpoint, RouteMethod};
use super::history::PoolHistory;
use super::model::{
    Access, ActionState, Fallback, Items, NodeSafety, Notice, Pool, PoolNode, Replacement, Status, Timeline,
};
use super::openapi::{self, of};
use super::savings::{self, Savings};
use super::{api, dashboard, events, health, nodes, problem, spot_actions, webhook};
use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::{Route, guard, web};
use serde_json::{Map, Value};

/// Parameters of lists that are told in pages.
const PAGES: &[&str] = &["limit", "continue"];
/// And of those that can be narrowed down.
const NARROWED: &[&str] = &["pool", "node", "since", "limit", "continue"];
const NARROWED_BY_PHASE: &[&str] = &["pool", "phase", "node", "since", "limit", "continue"];

const fn get(
    path: &'static str,
    need: Need,
    summary: &'static str,
    answer: Answer,
    handler: fn() -> Route,
) -> Endpoint {
    Endpoint { path, method: RouteMethod::Get, need, takes: Some(&[]), summary, answer, handler }
}

const fn post(path: &'static str, need: Need, summary: &'static str, handler: fn() -> Route) -> Endpoint {
    Endpoint {
        path,
        method: RouteMethod::Post,
        need,
        takes: Some(&[]),
        summary,
        answer: Answer::Accepted,
        handler,
    }
}

const fn list(resource: Resource) -> Need {
    Need::Right { verb: Verb::List, resource, named: false }
}

const fn named(resource: Resource) -> Need {
    Need::Right { verb: Verb::Get, resource, named: true }
}

/// To one replacement, or to all.
const fn replacement(verb: Verb, named: bool) -> Need {
    Need::Right { verb, resource: Resource::Replacements, named }
}

/// To pause and to resume one pool, or everything.
const fn pause(named: bool) -> Need {
    Need::Right { verb: Verb::Pause, resource: Resource::Pools, named }
}

/// All routes; those of one path stand together.
#[rustfmt::skip]
pub(super) const ENDPOINTS: &[Endpoint] = &[
    get("/healthz", Need::Probe, "Whether the process is alive", Answer::Unlisted, || web::to(health::healthz))
        .taking_anything(),
    get("/readyz", Need::Probe, "Whether every part is ready", Answer::Unlisted, || web::to(health::readyz))
        .taking_anything(),
    get("/metrics", Need::Probe, "What is counted", Answer::Unlisted, || web::to(health::metrics)).taking_anything(),
    get("/", Need::Nothing, "The dashboard", Answer::Unlisted, || web::to(dashboard::page)).taking_anything(),
    get("/dashboard/style.css", Need::Nothing, "Its style", Answer::Unlisted, || web::to(dashboard::style)).taking_anything(),
    get("/dashboard/icon.svg", Need::Nothing, "Its icon", Answer::Unlisted, || web::to(dashboard::icon)).taking_anything(),
    get("/dashboard/app.js", Need::Nothing, "Its script", Answer::Unlisted, || web::to(dashboard::script)).taking_anything(),
    get("/docs", Need::Nothing, "The description of the API, as a page", Answer::Unlisted, || web::to(dashboard::docs)).taking_anything(),
    get("/docs/docs.js", Need::Nothing, "Its script", Answer::Unlisted, || web::to(dashboard::docs_script)).taking_anything(),
    get("/api/v1/openapi.json", Need::Nothing, "This description", Answer::Json(of::<Map<String, Value>>),
        || web::to(openapi::served)),
    get("/api/v1/access", Need::Token, "What the caller may request", Answer::Json(of::<Access>),
        || web::to(access::told)),
    Endpoint {
        path: "/webhooks/v1/scale-down", method: RouteMethod::Post, need: Need::Signed, takes: Some(&[]),
        summary: "Return fallbacks to Spot, as another system requests", answer: Answer::Webhook,
        handler: || web::to(webhook::scale_down),
    },
    get("/api/v1/status", list(Resource::Pools), "The state in short", Answer::Json(of::<Status>),
        || web::to(api::status)),
    get("/api/v1/events", list(Resource::Replacements), "Every step as it happens, as server-sent events",
        Answer::Text("text/event-stream"), || web::to(events::events)),
    post("/api/v1/pause", pause(false), "Pause everything", || web::to(spot_actions::pause_all)),
    post("/api/v1/resume", pause(false), "Resume everything", || web::to(spot_actions::resume_all)),
    get("/api/v1/pools", list(Resource::Pools), "The pools", Answer::Json(of::<Items<Pool>>), || web::to(api::pools))
        .taking(PAGES),
    get("/api/v1/pools/{name}", named(Resource::Pools), "A pool", Answer::Json(of::<Pool>),
        || web::to(api::pool_named)),
    get("/api/v1/pools/{name}/history", named(Resource::Pools), "How many instances a pool had, since the answering replica began",
        Answer::Json(of::<PoolHistory>), || web::to(api::history_of)),
    post("/api/v1/pools/{name}/pause", pause(true), "Pause a pool",
        || web::to(spot_actions::pause_pool)),
    post("/api/v1/pools/{name}/resume", pause(true), "Resume a pool",
        || web::to(spot_actions::resume_pool)),
    get("/api/v1/savings", list(Resource::Pools), "The node hours of each pool by day, and what they cost",
        Answer::Json(of::<Items<Savings>>), || web::to(savings::savings)).taking(PAGES),
    get("/api/v1/nodes", list(Resource::Replacements), "The nodes of pools and replacements",
        Answer::Json(of::<Items<PoolNode>>), || web::to(nodes::nodes)).taking(NARROWED_BY_PHASE),
    get("/api/v1/nodes/{name}", list(Resource::Replacements), "A node", Answer::Json(of::<PoolNode>),
        || web::to(nodes::node_named)),
    get("/api/v1/nodes/{name}/safety", list(Resource::Replacements), "Whether a node could be drained now",
        Answer::Json(of::<NodeSafety>), || web::to(nodes::safety_of)),
    post("/api/v1/nodes/{name}/replace", replacement(Verb::Replace, false), "Replace a node",
        || web::to(spot_actions::replace_node)),
    get("/api/v1/notices", list(Resource::Notices), "What was announced", Answer::Json(of::<Items<Notice>>),
        || web::to(api::notices)).taking(NARROWED),
    get("/api/v1/notices/{name}", named(Resource::Notices), "A notice", Answer::Json(of::<Notice>),
        || web::to(api::notice_named)),
    get("/api/v1/replacements", list(Resource::Replacements), "The replacements",
        Answer::Json(of::<Items<Replacement>>), || web::to(api::replacements)).taking(NARROWED_BY_PHASE),
    get("/api/v1/replacements/{name}", named(Resource::Replacements), "One replacement",
        Answer::Json(of::<Replacement>), || web::to(api::replacement_named)),
    get("/api/v1/replacements/{name}/timeline", named(Resource::Replacements), "The steps of a replacement, with their durations",
        Answer::Json(of::<Timeline>), || web::to(api::timeline_of)),
    post("/api/v1/replacements/{name}/cancel", replacement(Verb::Cancel, true), "Cancel a replacement",
        || web::to(spot_actions::cancel_replacement)),
    get("/api/v1/fallbacks", list(Resource::Replacements), "The open fallbacks: on-demand capacity that stands in for Spot",
        Answer::Json(of::<Items<Fallback>>), || web::to(api::fallbacks)).taking(NARROWED_BY_PHASE),
    get("/api/v1/fallbacks/{name}", named(Resource::Replacements), "A fallback, by the name of its replacement",
        Answer::Json(of::<Fallback>), || web::to(api::fallback_named)),
    post("/api/v1/fallbacks/{name}/return", replacement(Verb::Return, true),
        "Return a fallback to Spot now: stability is skipped, safety is not", || web::to(spot_actions::return_fallback)),
    get("/api/v1/spotactions", list(Resource::SpotActions), "The SpotActions", Answer::Json(of::<Items<ActionState>>),
        || web::to(spot_actions::spot_actions)).taking(PAGES),
    get("/api/v1/spotactions/{name}", named(Resource::SpotActions), "One SpotAction, with its state",
        Answer::Json(of::<ActionState>), || web::to(spot_actions::spot_action_named)),
];

/// Adds the routes that are served.
pub(super) fn configure(cfg: &mut web::ServiceConfig, served: impl Fn(&Endpoint) -> bool) {
    for of_path in ENDPOINTS.chunk_by(|one, other| one.path == other.path) {
        let Some(path) = of_path.first().filter(|first| served(first)).map(|first| first.path) else {
            continue;
        };
        let mut resource = web::resource(path);
        for endpoint in of_path {
            let (need, takes) = (endpoint.need, endpoint.takes);
            let route = (endpoint.handler)()
                .wrap(from_fn(move |request, next| access::admit(need, takes, request, next)));
            resource = resource.route(match endpoint.method {
                RouteMethod::Get => route.guard(guard::Any(guard::Get()).or(guard::Head())),
                RouteMethod::Post => route.method(Method::POST),
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
