//! A route: how it is asked, what a caller needs, and what it answers with.

use super::access::Need;
use actix_web::Route;
use schemars::{Schema, SchemaGenerator};

/// One route.
pub(super) struct Endpoint {
    /// Its path; `{name}` stands for a name.
    pub(super) path: &'static str,
    /// How it is asked.
    pub(super) method: RouteMethod,
    /// What a caller needs.
    pub(super) need: Need,
    /// The parameters that it takes; others are refused.
    pub(super) takes: Option<&'static [&'static str]>,
    /// What it is for, in a few words.
    pub(super) summary: &'static str,
    /// What it answers with when all is well.
    pub(super) answer: Answer,
    pub(super) handler: fn() -> Route,
}

/// How a route is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteMethod {
    /// `GET`, and `HEAD` with it.
    Get,
    /// `POST`.
    Post,
}

/// What a route answers with when all is well.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// 200 with JSON of this schema.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// 202 with the SpotAction, and its place.
    Accepted,
    /// As [`Answer::Accepted`]; 204 if there is nothing to do, 409 if the message came before.
    Webhook,
    /// 200 with text of this media type.
    Text(&'static str),
    /// Something that the API's description leaves out: a part of a page, an answer to a probe.
    Unlisted,
}

impl RouteMethod {
    /// Its method.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }

    /// As the header `Allow` lists it.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
        }
    }
}

impl Endpoint {
    pub(super) const fn taking(self, takes: &'static [&'static str]) -> Self {
        Self { takes: Some(takes), ..self }
    }

    /// What comes in the query is nobody's business.
    pub(super) const fn taking_anything(self) -> Self {
        Self { takes: None, ..self }
    }
}
