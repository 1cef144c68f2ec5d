//! The API's description of itself: OpenAPI 3.1, made from the table of routes and the types of the answers.

use super::access::{Need, Resource, Verb};
use super::endpoint::{Answer, Endpoint, RouteMethod};
use super::model::{ActionRequest, ActionState, ScaleDownRequest, Status};
use super::problem::Problem;
use super::{query, spot_actions};
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use spot_guard_core::record::Phase;

/// What makes the document.
pub(super) struct Description(pub(super) fn() -> Value);

/// Answers with the document.
pub(super) async fn served(description: Data<Description>) -> HttpResponse {
    let document = (description.0)();
    HttpResponse::Ok().insert_header(header::ContentType::json()).body(document.to_string())
}

/// The document of these routes, of OpenAPI 3.1.0.
pub(super) fn of_routes(endpoints: &[Endpoint]) -> Value {
    // JSON Schema of the draft that OpenAPI 3.1 is made on, as what is written has it.
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for endpoint in endpoints.iter().filter(|endpoint| !matches!(endpoint.answer, Answer::Unlisted)) {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.name().to_lowercase()] = operation(endpoint, &mut generator);
    }
    let request = generator.subschema_for::<ActionRequest>();
    let scale_down = generator.subschema_for::<ScaleDownRequest>();
    let problem = generator.subschema_for::<Problem>();
    let _ = (generator.subschema_for::<Phase>(), generator.subschema_for::<Status>());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Spot Guard",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What Spot Guard knows, and what can be requested of it. Any replica answers. Errors are \
                problem details (RFC 9457).",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "parameters": parameters(),
            "responses": PROBLEMS.iter().map(|(code, description)| {
                let content = json!({ "application/problem+json": { "schema": problem } });
                (format!("Problem{code}"), json!({ "description": description, "content": content }))
            }).collect::<Map<String, Value>>(),
            "requestBodies": {
                "ScaleDown": {
                    "description": "The target of the return: a fallback, a node or a pool. Or the body of Alertmanager.",
                    "required": true,
                    "content": { "application/json": { "schema": scale_down } },
                },
                "SpotAction": {
                    "description": "The reason of the request; optional.",
                    "required": false,
                    "content": { "application/json": { "schema": request } },
                },
            },
            "securitySchemes": {
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "webhook-signature",
                    "description": "Standard Webhooks: with the headers webhook-id and webhook-timestamp.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the cluster, such as that of a service account. The local port reads \
                        without one.",
                },
            },
        },
    })
}

/// What each answer that is a problem means.
const PROBLEMS: &[(&str, &str)] = &[
    ("400", "A part of the request is invalid; `errors` names it."),
    ("401", "There is no token, or it is not valid."),
    ("403", "The user of the token lacks the right, or this port only reads."),
    ("404", "There is nothing of that name."),
    ("408", "The body did not arrive in time."),
    ("409", "A message with this webhook-id was taken before."),
    ("411", "The body has no Content-Length."),
    ("413", "The body is too long."),
    ("414", "The path and the query are too long."),
    ("415", "The body is not JSON."),
    ("422", "The Idempotency-Key was used for another request."),
    ("431", "The headers are too long."),
    ("503", "The Kubernetes API does not answer, or there are too many requests; try again."),
];

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let parameters = parameters_of(endpoint);
    let mut answers = problems_of(endpoint);
    answers.extend(successes_of(endpoint, generator));
    answers.sort_keys();
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [tag(endpoint.path)],
        "responses": answers,
    });
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if endpoint.method == RouteMethod::Post {
        let body = if matches!(endpoint.answer, Answer::Webhook) { "ScaleDown" } else { "SpotAction" };
        operation["requestBody"] = json!({ "$ref": format!("#/components/requestBodies/{body}") });
    }
    if let Need::Right { verb, resource, named } = endpoint.need {
        operation["description"] = json!(right(verb, resource, named));
    }
    if endpoint.need != Need::Nothing {
        operation["security"] = match endpoint.need {
            Need::Signed => json!([{ "token": [] }, { "signature": [] }]),
            _ => json!([{ "token": [] }]),
        };
    }
    operation
}

/// Whether one thing is asked for by its name.
fn is_named(endpoint: &Endpoint) -> bool {
    endpoint.path.contains("{name}")
}

fn parameters_of(endpoint: &Endpoint) -> Vec<Value> {
    let mut parameters: Vec<Value> = Vec::new();
    let mut refer =
        |name: &str| parameters.push(json!({ "$ref": format!("#/components/parameters/{name}") }));
    if is_named(endpoint) {
        refer("name");
    }
    endpoint.takes.unwrap_or_default().iter().for_each(|name| refer(name));
    if matches!(endpoint.answer, Answer::Accepted) {
        refer("idempotencyKey");
    }
    if matches!(endpoint.answer, Answer::Text("text/event-stream")) {
        refer("lastEventId");
    }
    parameters
}

/// The answers that are problems.
fn problems_of(endpoint: &Endpoint) -> Map<String, Value> {
    let mut answers = Map::new();
    let mut problem = |code: &str| {
        answers.insert(code.to_owned(), json!({ "$ref": format!("#/components/responses/Problem{code}") }));
    };
    if endpoint.takes.is_some() {
        ["400", "414", "431"].into_iter().for_each(&mut problem);
    }
    if endpoint.need != Need::Nothing {
        ["401", "403", "503"].into_iter().for_each(&mut problem);
    }
    if is_named(endpoint) {
        problem("404");
    }
    if endpoint.method == RouteMethod::Post {
        ["408", "411", "413", "415", "422"].into_iter().for_each(&mut problem);
    }
    if matches!(endpoint.answer, Answer::Webhook) {
        problem("409");
    }
    answers
}

/// The answers when all is well.
fn successes_of(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut answers = Map::new();
    let text = |media: &str, description: &str| json!({ "description": description, "content": { media: { "schema": { "type": "string" } } } });
    match endpoint.answer {
        Answer::Json(schema) => {
            let schema = schema(generator);
            answers.insert(
                "200".to_owned(),
                json!({ "description": "Found.", "content": { "application/json": { "schema": schema } } }),
            );
        }
        Answer::Accepted | Answer::Webhook => {
            let schema = generator.subschema_for::<ActionState>();
            answers.insert(
                "202".to_owned(),
                json!({
                    "description": "The SpotAction is stored, and the leader will follow it.",
                    "headers": { "Location": {
                        "description": "The path of the SpotAction.", "required": true,
                        "schema": { "type": "string" },
                    } },
                    "content": { "application/json": { "schema": schema } },
                }),
            );
        }
        Answer::Text(media) => {
            answers.insert("200".to_owned(), text(media, "The text."));
        }
        Answer::Unlisted => {}
    }
    if matches!(endpoint.answer, Answer::Webhook) {
        answers.insert("204".to_owned(), json!({ "description": "Nothing has to be done." }));
    }
    answers
}

fn right(verb: Verb, resource: Resource, named: bool) -> String {
    let what = if named { ", at least for that name" } else { "" };
    format!("Requires the right to {} {}.{}{what}.", verb.as_str(), resource.as_str(), crate::crd::GROUP)
}

/// `GET /api/v1/nodes/{name}/safety` is `getNodesNameSafety`.
fn operation_id(endpoint: &Endpoint) -> String {
    let words =
        endpoint.path.trim_start_matches("/api/v1").split(|letter: char| !letter.is_ascii_alphanumeric());
    let capital =
        |word: &str| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect();
    endpoint.method.name().to_lowercase() + &words.map(capital).collect::<Vec<String>>().concat()
}

fn tag(path: &str) -> &str {
    let part = path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next());
    match part {
        None if path.starts_with("/webhooks") => "webhooks",
        None => "process",
        Some("access" | "status" | "events" | "pause" | "resume" | "openapi.json") => "everything",
        Some(part) => part,
    }
}

fn parameters() -> Value {
    let of_query = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let name = || json!({ "type": "string", "minLength": 1 });
    json!({
        "name": {
            "name": "name", "in": "path", "required": true, "description": "A Kubernetes name.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 253,
                "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" },
        },
        "pool": of_query("pool", "Only entries of this pool.", name()),
        "node": of_query("node", "Only entries about this node.", name()),
        "phase": of_query("phase", "Only entries in this phase.", json!({ "$ref": "#/components/schemas/Phase" })),
        "since": of_query(
            "since",
            "Only entries since then: notices seen, nodes joined, replacements started, fallbacks in service.",
            json!({ "type": "string", "format": "date-time" }),
        ),
        "limit": of_query("limit", "How many entries a page has at most.", json!({
            "type": "integer", "minimum": 1, "maximum": query::MAX_LIMIT, "default": query::DEFAULT_LIMIT,
        })),
        "continue": of_query("continue", "The `continue` of the previous page, with the same filters.", name()),
        "lastEventId": {
            "name": "Last-Event-ID", "in": "header", "required": false,
            "description": "The id of the last step that the reader knows: those that it missed come first.",
            "schema": { "type": "string", "minLength": 1 },
        },
        "idempotencyKey": {
            "name": spot_actions::IDEMPOTENCY_KEY, "in": "header", "required": false,
            "description": "A repeated request with the same key creates nothing new, and has the same answer.",
            "schema": { "type": "string", "minLength": 1, "maxLength": spot_actions::MAX_KEY, "pattern": "^[!-~]+$" },
        },
    })
}

/// The schema of an answer.
pub(super) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<T>()
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::super::routes::ENDPOINTS;
    use super::*;
    use std::path::Path;

    /// Every reference in the document.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_committed_document_is_that_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        let made = format!("{:#}\n", document());
        assert!(committed == made, "docs/openapi.json is another one: write it with `spot-guard openapi`");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100);
        for reference in found {
            let place = reference.strip_prefix('#').and_then(|place| document.pointer(place));
            assert!(place.is_some(), "nothing at {reference}");
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let mut ids: Vec<String> = ENDPOINTS.iter().map(operation_id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), ENDPOINTS.len());
        assert!(ids.contains(&"getNodesNameSafety".to_owned()), "{ids:?}");
    }
}
