//! The node hours of a pool by day and market, and what they cost.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// So many days are kept: a month and its neighbours.
const DAYS: usize = 35;
/// Hours are counted this often: each time the pool's status is written.
const EVERY: Duration = Duration::from_secs(300);
/// After a longer time without a count nobody knows what there was meanwhile.
const KNOWN_FOR: Duration = Duration::from_secs(900);

/// Prices of one instance, in any currency, as decimal numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HourlyPrices {
    /// Of the Spot group.
    #[schemars(length(max = 13), regex(pattern = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"))]
    pub spot: String,
    /// Of the on-demand group.
    #[schemars(length(max = 13), regex(pattern = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"))]
    pub on_demand: String,
}

impl HourlyPrices {
    /// What an on-demand instance costs more than a Spot instance in that time.
    #[must_use]
    pub fn extra(&self, time: Duration) -> Option<f64> {
        let (spot, on_demand) = self.numbers()?;
        Some((on_demand - spot) * time.as_secs_f64() / 3600.0)
    }

    fn numbers(&self) -> Option<(f64, f64)> {
        Some((self.spot.parse().ok()?, self.on_demand.parse().ok()?))
    }
}

/// How many nodes a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Spot instances in service.
    pub spot: u32,
    /// On-demand instances in service, fallbacks among them.
    pub on_demand: u32,
    /// Fallbacks.
    pub fallbacks: u32,
}

/// How long nodes have served, in seconds of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSeconds {
    /// Spot instances in service.
    #[schemars(range(max = 1_000_000_000_000_000_u64))]
    pub spot: u64,
    /// On-demand instances in service, fallbacks among them.
    #[schemars(range(max = 1_000_000_000_000_000_u64))]
    pub on_demand: u64,
    /// Fallbacks.
    #[schemars(range(max = 1_000_000_000_000_000_u64))]
    pub fallbacks: u64,
}

impl NodeSeconds {
    fn add(&mut self, nodes: NodeCounts, time: Duration) {
        let seconds = |count: u32| u64::from(count) * time.as_secs();
        self.spot += seconds(nodes.spot);
        self.on_demand += seconds(nodes.on_demand);
        self.fallbacks += seconds(nodes.fallbacks);
    }
}

/// What a pool had on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DayCount {
    /// The day in UTC.
    #[schemars(with = "String", length(max = 10))]
    pub day: Date,
    /// How long its nodes served.
    #[serde(flatten)]
    pub nodes: NodeSeconds,
}

/// What a pool has had so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAccount {
    /// Until when it is counted.
    pub counted_at: Timestamp,
    /// In all.
    pub total: NodeSeconds,
    /// The last days, oldest first.
    #[schemars(length(max = 40))]
    pub days: Vec<DayCount>,
}

impl NodeAccount {
    /// The account with what passed since it was counted last, which is done at that `pace`. `nodes` are
    /// those of that time as far as is known: what changes in between is counted as it is at the end.
    #[must_use]
    pub fn counted(account: Option<&Self>, nodes: NodeCounts, pace: Duration, now: Timestamp) -> Self {
        let start = || Self { counted_at: now, total: NodeSeconds::default(), days: Vec::new() };
        let Some(account) = account else { return start() };
        let mut next = Self { counted_at: now, ..account.clone() };
        let passed = crate::time::since(account.counted_at, now);
        let is_ahead = account.counted_at > now + EVERY;
        if passed < EVERY && !is_ahead {
            return account.clone();
        }
        if is_ahead || passed > KNOWN_FOR.max(2 * pace) {
            return next;
        }
        let mut from = account.counted_at;
        while from < now {
            let day = from.to_zoned(TimeZone::UTC).date();
            let midnight = day.checked_add(1.day()).ok().and_then(|day| day.to_zoned(TimeZone::UTC).ok());
            let until = midnight.map_or(now, |midnight| midnight.timestamp().min(now));
            next.add(day, nodes, crate::time::since(from, until));
            from = until;
        }
        next
    }

    fn add(&mut self, day: Date, nodes: NodeCounts, time: Duration) {
        self.total.add(nodes, time);
        if self.days.last().is_none_or(|last| last.day < day) {
            self.days.push(DayCount { day, nodes: NodeSeconds::default() });
        }
        let over = self.days.len().saturating_sub(DAYS);
        self.days.drain(..over);
        if let Some(last) = self.days.last_mut() {
            last.nodes.add(nodes, time);
        }
    }
}

/// What nodes cost, and what they would have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// What they cost.
    pub paid: f64,
    /// What they would have cost on on-demand alone.
    pub all_on_demand: f64,
    /// What was saved.
    pub saved: f64,
    /// What fallbacks cost more than Spot would have.
    pub fallbacks: f64,
}

/// Node hours, and their cost if prices are known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeHours {
    /// Of Spot instances.
    pub spot_hours: f64,
    /// Of on-demand instances, fallbacks among them.
    pub on_demand_hours: f64,
    /// Of fallbacks.
    pub fallback_hours: f64,
    /// About, by the pool's hourly prices; absent without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

impl NodeHours {
    /// Those of some nodes.
    #[must_use]
    pub fn of(nodes: NodeSeconds, prices: Option<&HourlyPrices>) -> Self {
        let hours = |seconds: u64| Duration::from_secs(seconds).as_secs_f64() / 3600.0;
        let (spot, on_demand, fallbacks) =
            (hours(nodes.spot), hours(nodes.on_demand), hours(nodes.fallbacks));
        let cost = prices.and_then(HourlyPrices::numbers).map(|(spot_price, price)| {
            let paid = spot * spot_price + on_demand * price;
            let all_on_demand = (spot + on_demand) * price;
            let (saved, fallbacks) = (all_on_demand - paid, fallbacks * (price - spot_price));
            Cost { paid, all_on_demand, saved, fallbacks }
        });
        Self { spot_hours: spot, on_demand_hours: on_demand, fallback_hours: fallbacks, cost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: NodeCounts = NodeCounts { spot: 3, on_demand: 2, fallbacks: 1 };

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn counted(account: &NodeAccount, now: &str) -> NodeAccount {
        NodeAccount::counted(Some(account), NODES, Duration::from_secs(30), at(now))
    }

    #[test]
    fn what_passes_is_counted_every_five_minutes_by_the_day() {
        let began = NodeAccount::counted(None, NODES, Duration::ZERO, at("2026-01-01T23:55:00Z"));
        assert_eq!(began.total, NodeSeconds::default());
        assert_eq!(counted(&began, "2026-01-01T23:59:59Z"), began, "not yet");
        let after = counted(&began, "2026-01-02T00:02:00Z");
        assert_eq!(after.total, NodeSeconds { spot: 3 * 420, on_demand: 2 * 420, fallbacks: 420 });
        let days: Vec<(String, u64)> =
            after.days.iter().map(|held| (held.day.to_string(), held.nodes.fallbacks)).collect();
        assert_eq!(days, [("2026-01-01".to_owned(), 300), ("2026-01-02".to_owned(), 120)]);
    }

    #[test]
    fn a_time_without_a_count_is_not_made_up_and_a_clock_that_is_set_back_counts_nothing() {
        let began = NodeAccount::counted(None, NODES, Duration::ZERO, at("2026-01-01T12:00:00Z"));
        let known = counted(&began, "2026-01-01T12:15:00Z");
        assert_eq!(known.total.fallbacks, 900);
        let away = counted(&began, "2026-01-01T12:15:01Z");
        assert_eq!((away.total.fallbacks, away.counted_at), (0, at("2026-01-01T12:15:01Z")));
        assert_eq!(counted(&known, "2026-01-01T12:11:00Z"), known);
        let set_back = counted(&known, "2026-01-01T11:00:00Z");
        assert_eq!((set_back.total, set_back.counted_at), (known.total, at("2026-01-01T11:00:00Z")));
        let slow = Duration::from_secs(3600);
        let later = NodeAccount::counted(Some(&began), NODES, slow, at("2026-01-01T13:30:00Z"));
        assert_eq!(later.total.fallbacks, 5400, "a pool that is assessed once an hour");
    }

    #[test]
    fn days_are_bounded_and_the_total_is_not() {
        let mut account = NodeAccount::counted(None, NODES, Duration::ZERO, at("2026-01-01T00:00:00Z"));
        for number in 1..=40 * 24 * 6 {
            let now = at("2026-01-01T00:00:00Z") + Duration::from_secs(600 * number);
            account = NodeAccount::counted(Some(&account), NODES, Duration::ZERO, now);
        }
        assert_eq!(account.days.len(), DAYS);
        assert_eq!(account.total.spot, 3 * 40 * 86_400);
        assert!(account.days[..DAYS - 1].iter().all(|held| held.nodes.spot == 3 * 86_400));
    }

    #[test]
    fn prices_say_what_was_saved() {
        let prices = |spot: &str| HourlyPrices { spot: spot.to_owned(), on_demand: "0.10".to_owned() };
        let nodes = NodeSeconds { spot: 36_000, on_demand: 7_200, fallbacks: 3_600 };
        let hours = NodeHours::of(nodes, Some(&prices("0.04")));
        assert_eq!((hours.spot_hours, hours.on_demand_hours, hours.fallback_hours), (10.0, 2.0, 1.0));
        let cost = hours.cost.expect("prices");
        let rounded =
            [cost.paid, cost.all_on_demand, cost.saved, cost.fallbacks].map(|it| (it * 100.0).round());
        assert_eq!(rounded, [60.0, 120.0, 60.0, 6.0]);
        assert_eq!(NodeHours::of(nodes, None).cost, None);
        assert_eq!(NodeHours::of(nodes, Some(&prices("free"))).cost, None);
    }
}
