//! `/api/v1/savings`: the node hours of each pool, and what they cost.

use super::ApiState;
use super::api::name_of;
use super::model::Items;
use super::problem::Refused;
use super::query::Filter;
use crate::crd::SpotPool;
use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use jiff::Timestamp;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spot_guard_core::savings::{NodeHours, NodeSeconds};

/// The node hours of a pool on one day in UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DayHours {
    /// The day.
    pub day: String,
    /// Its hours.
    #[serde(flatten)]
    pub nodes: NodeHours,
}

/// `/api/v1/savings`: the node hours of a pool, of the last 35 days at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Savings {
    /// The pool.
    pub pool: String,
    /// Until when they are counted; absent before the first count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_at: Option<Timestamp>,
    /// All days together.
    pub total: NodeHours,
    /// Each day, oldest first.
    pub days: Vec<DayHours>,
}

impl Savings {
    fn of(pool: &SpotPool) -> Self {
        let account = pool.status.as_ref().and_then(|status| status.node_account.as_ref());
        let prices = pool.spec.hourly_prices.as_ref();
        let days = account.map_or(&[][..], |account| &account.days);
        let mut total = NodeSeconds::default();
        for held in days {
            total.spot += held.nodes.spot;
            total.on_demand += held.nodes.on_demand;
            total.fallbacks += held.nodes.fallbacks;
        }
        Self {
            pool: pool.name_any(),
            counted_at: account.map(|account| account.counted_at),
            total: NodeHours::of(total, prices),
            days: days
                .iter()
                .map(|held| DayHours { day: held.day.to_string(), nodes: NodeHours::of(held.nodes, prices) })
                .collect(),
        }
    }
}

pub(super) async fn savings(
    state: Data<ApiState>,
    request: HttpRequest,
) -> Result<Json<Items<Savings>>, Refused> {
    let (pools, next) = Filter::of(&request)?.page(state.pools.state(), name_of);
    Ok(Json(Items { items: pools.iter().map(|pool| Savings::of(pool)).collect(), next }))
}
