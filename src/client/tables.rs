//! What the answers look like to people. Pure: answers in, text out.

use crate::crd::Cause;
use crate::http::{BlockedBy, Fallback, NodeSafety, Pool, Replacement, Savings, Status};
use spot_guard_core::savings::NodeHours;
use std::fmt::Write as _;

/// A line on the whole, and one for each thing that a fallback waits for.
pub(super) fn status(status: &Status, open: &[Fallback], has_controller: bool) -> String {
    let counts = &status.replacements;
    let role = match (has_controller, status.leader) {
        (false, _) => "No controller is reached",
        (true, true) => "This replica leads",
        (true, false) => "This replica follows",
    };
    let ready = if status.ready || !has_controller { "" } else { ", is not ready" };
    let mut text = format!(
        "{role}{ready}. Replacements: {} open, {} blocked; fallbacks: {}.\n",
        counts.open, counts.blocked, counts.fallbacks
    );
    if !open.is_empty() {
        text.push('\n');
        text.push_str(&fallbacks(open));
    }
    text
}

/// A line for each thing that a fallback waits for.
pub(super) fn fallbacks(open: &[Fallback]) -> String {
    let head = ["FALLBACK", "POOL", "NODE", "ON DEMAND", "BOX", "SINCE", "WAITS FOR"];
    let mut rows = Vec::new();
    for fallback in open {
        let mut first = [
            fallback.replacement.to_string(),
            fallback.pool.as_deref().unwrap_or("-").to_owned(),
            fallback.node.to_string(),
            duration(fallback.on_demand_seconds),
        ];
        for [place, since, message] in waits(fallback) {
            let [name, pool, node, on_demand] = std::mem::take(&mut first);
            rows.push([name, pool, node, on_demand, place, since, message]);
        }
    }
    table(head, &rows)
}

/// A line for each pool, and one more for each further thing that is not as it should be.
pub(super) fn pools(pools: &[Pool]) -> String {
    let head = ["POOL", "MODE", "SPOT", "ON DEMAND", "FALLBACKS", "PROBLEMS"];
    let counts = |group: &Option<crate::crd::GroupStatus>| {
        group.as_ref().map_or_else(|| "-".to_owned(), |group| group.summary.clone())
    };
    let mut rows = Vec::new();
    for pool in pools {
        let mode = format!("{:?}{}", pool.mode, if pool.paused { ", paused" } else { "" });
        let mut first = [
            pool.name.clone(),
            mode,
            counts(&pool.spot),
            counts(&pool.on_demand),
            pool.fallbacks.to_string(),
        ];
        let wrong = pool.conditions.iter().filter(|held| held.status != "True");
        let mut wrong: Vec<String> =
            wrong.map(|held| format!("not {}: {}", held.type_.to_lowercase(), held.message)).collect();
        if wrong.is_empty() {
            wrong.push("-".to_owned());
        }
        for problem in wrong {
            let [name, mode, spot, on_demand, fallbacks] = std::mem::take(&mut first);
            rows.push([name, mode, spot, on_demand, fallbacks, problem]);
        }
    }
    table(head, &rows)
}

/// A line for each pool, of all days that are counted, or one for each day.
pub(super) fn savings(pools: &[Savings], by_day: bool) -> String {
    let days = if by_day { "DAY" } else { "DAYS" };
    let head = ["POOL", days, "SPOT H", "ON DEMAND H", "FALLBACK H", "PAID", "ALL ON DEMAND", "SAVED"];
    let mut rows = Vec::new();
    for held in pools {
        if by_day && !held.days.is_empty() {
            rows.extend(held.days.iter().map(|day| hours(&held.pool, &day.day, day.nodes)));
        } else {
            let days = if by_day { "-".to_owned() } else { held.days.len().to_string() };
            rows.push(hours(&held.pool, &days, held.total));
        }
    }
    table(head, &rows)
}

/// What nodes had in a time, with what it cost.
fn hours(pool: &str, time: &str, nodes: NodeHours) -> [String; 8] {
    let hours = [nodes.spot_hours, nodes.on_demand_hours, nodes.fallback_hours];
    let [spot, on_demand, fallback] = hours.map(|hours| format!("{hours:.1}"));
    let cost = nodes.cost.map(|cost| [cost.paid, cost.all_on_demand, cost.saved]);
    let [paid, all, saved] =
        cost.map_or(["-"; 3].map(str::to_owned), |cost| cost.map(|amount| format!("{amount:.2}")));
    [pool.to_owned(), time.to_owned(), spot, on_demand, fallback, paid, all, saved]
}

/// The steps of a replacement, and whether a node could be drained now.
pub(super) fn explain(name: &str, story: Option<&Replacement>, safety: Option<&NodeSafety>) -> String {
    let mut text = String::new();
    match story {
        Some(story) => tell(&mut text, story),
        None => {
            let _ = writeln!(text, "Node {name} is not part of a replacement.");
        }
    }
    if let Some(safety) = safety {
        let verdict = if safety.safe { "Yes." } else { "No:" };
        let _ =
            writeln!(text, "\nCould {} be drained now, by the safety check of box 9? {verdict}", safety.node);
        for blocker in &safety.blockers {
            let _ = writeln!(text, "  {}: {} (needed: {})", blocker.reason, blocker.message, blocker.hint);
        }
    }
    text
}

fn tell(text: &mut String, story: &Replacement) {
    let pool = story.pool.as_ref().map_or_else(|| "in no pool".to_owned(), |pool| format!("in pool {pool}"));
    let about = match story.cause {
        Cause::Notice => format!("of node {}", story.node),
        Cause::Shortfall => "for a missing Spot instance".to_owned(),
        Cause::Adoption => format!("for node {}, above the on-demand baseline,", story.node),
    };
    let _ = writeln!(text, "Replacement {} {about} {pool}", story.name);
    let place = match story.finished_at {
        Some(at) => format!("Over since {at:.0} ({:?})", story.phase),
        None => format!("At box {} ({:?})", story.flow_box.number(), story.phase),
    };
    let deadline =
        story.deadline.map_or_else(String::new, |at| format!("; EC2 takes the instance at {at:.0}"));
    let _ = writeln!(text, "{place}{deadline}");
    for (what, capacity) in
        [("Its replacement is", &story.capacity), ("Its fallback returns to", &story.return_capacity)]
    {
        if let Some(held) = capacity {
            let _ = writeln!(text, "{what} {} ({}, {})", held.node_name, held.group, held.instance_id);
        }
    }
    if !story.blocked_by.is_empty() {
        text.push_str("\nIt waits for:\n");
    }
    for by in &story.blocked_by {
        let _ = writeln!(
            text,
            "  box {}, for {}, {}: {}",
            by.flow_box.number(),
            duration(by.seconds),
            by.reason,
            by.message
        );
    }
    text.push_str("\nSo far:\n");
    let steps: Vec<[String; 4]> = story
        .steps
        .iter()
        .map(|step| {
            let place = format!("box {}", step.flow_box.number());
            [format!("  {:.0}", step.at), place, step.node.to_string(), step.message.clone()]
        })
        .collect();
    text.push_str(&lines(&steps));
}

fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let mut all = vec![head.map(str::to_owned)];
    all.extend_from_slice(rows);
    lines(&all)
}

/// Rows whose columns stand below each other.
fn lines<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Box, since when, and what it is, of everything that the fallback waits for.
fn waits(fallback: &Fallback) -> Vec<[String; 3]> {
    let blocked =
        |by: &BlockedBy| [by.flow_box.number().to_owned(), duration(by.seconds), by.message.clone()];
    let mut waits: Vec<[String; 3]> = fallback.blocked_by.iter().map(blocked).collect();
    if let Some(at) = fallback.return_not_before {
        let text = format!("the return was given up; the next attempt is after {at:.0}");
        waits.push([fallback.flow_box.number().to_owned(), "-".to_owned(), text]);
    }
    if waits.is_empty() {
        waits.push([fallback.flow_box.number().to_owned(), "-".to_owned(), "nothing".to_owned()]);
    }
    waits
}

/// The two largest units.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn whole() -> Status {
        serde_json::from_value(json!({
            "version": "1.2.3", "now": "2030-01-01T00:00:00Z", "leader": true, "paused": false, "ready": true,
            "pools": [],
            "replacements": { "open": 2, "finished": 1, "fallbacks": 2, "blocked": 1, "byPhase": {} },
        }))
        .expect("a status")
    }

    fn fallback(name: &str, box_: &str, more: Value) -> Fallback {
        let mut value = json!({
            "replacement": name, "pool": "web", "replacedNode": "old", "node": "node-d", "instanceId": "i-d",
            "since": "2030-01-01T00:00:00Z", "onDemandSeconds": 4000, "phase": "OnFallback", "box": box_,
            "blockedBy": [],
        });
        value.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        serde_json::from_value(value).expect("a fallback")
    }

    #[test]
    fn each_fallback_shows_everything_that_it_waits_for_and_since_when() {
        let by = |message: &str, seconds: u64| {
            json!({
                "box": "9", "reason": "PodDoesNotFit", "message": message, "since": "2030-01-01T00:00:00Z",
                "seconds": seconds,
            })
        };
        let blocked =
            json!({ "blockedBy": [by("pod default/db-0 fits on no other node", 90), by("no room", 5)] });
        let given_up = json!({ "returnNotBefore": "2030-01-01T00:05:00Z" });
        let fallbacks = [
            fallback("i-1", "9", blocked),
            fallback("i-22", "6", given_up),
            fallback("i-3", "10", json!({ "pool": null, "onDemandSeconds": 90_000 })),
        ];
        let expected = "\
This replica leads. Replacements: 2 open, 1 blocked; fallbacks: 2.

FALLBACK  POOL  NODE    ON DEMAND  BOX  SINCE  WAITS FOR
i-1       web   node-d  1h6m       9    1m30s  pod default/db-0 fits on no other node
                                   9    5s     no room
i-22      web   node-d  1h6m       6    -      the return was given up; the next attempt is after 2030-01-01T00:05:00Z
i-3       -     node-d  1d1h       10   -      nothing
";
        assert_eq!(super::status(&whole(), &fallbacks, true), expected);
    }

    #[test]
    fn without_a_fallback_there_is_no_table() {
        let status = Status { leader: false, ready: false, ..whole() };
        let expected = "This replica follows, is not ready. Replacements: 2 open, 1 blocked; fallbacks: 2.\n";
        assert_eq!(super::status(&status, &[], true), expected);
        let expected = "No controller is reached. Replacements: 2 open, 1 blocked; fallbacks: 2.\n";
        assert_eq!(super::status(&status, &[], false), expected);
    }

    #[test]
    fn a_pool_shows_everything_that_is_not_as_it_should_be() {
        let group =
            |summary: &str| json!({ "desired": 3, "inService": 2, "min": 0, "max": 9, "summary": summary });
        let condition = |kind: &str, status: &str, message: &str| {
            json!({ "type": kind, "status": status, "reason": "R", "message": message,
                "lastTransitionTime": "2030-01-01T00:00:00Z" })
        };
        let pool = |name: &str, paused: bool, conditions: Value| {
            json!({ "name": name, "spotGroup": "s", "onDemandGroup": "o", "mode": "Act", "rebalance": "Replace",
                "paused": paused, "spot": group("2/3"), "fallbacks": 1, "conditions": conditions,
                "scalingRequests": [] })
        };
        let unwell = json!([
            condition("Accepted", "True", ""),
            condition("Healthy", "False", "2 of 3 in service"),
            condition("Stable", "Unknown", "not healthy"),
        ]);
        let pools: Vec<Pool> =
            serde_json::from_value(json!([pool("web", false, unwell), pool("db", true, json!([]))]))
                .expect("pools");
        let expected = "\
POOL  MODE         SPOT  ON DEMAND  FALLBACKS  PROBLEMS
web   Act          2/3   -          1          not healthy: 2 of 3 in service
                                               not stable: not healthy
db    Act, paused  2/3   -          1          -
";
        assert_eq!(super::pools(&pools), expected);
    }

    #[test]
    fn a_story_is_told_with_what_it_waits_for() {
        let story: Replacement = serde_json::from_value(json!({
            "name": "i-1", "node": "old", "instanceId": "i-1", "pool": "web", "phase": "OnFallback", "box": "9",
            "retries": 0, "fallback": true,
            "capacity": { "group": "OnDemand", "instanceId": "i-2", "nodeName": "new", "readyAt": "2030-01-01T00:00:09Z" },
            "blockedBy": [{
                "box": "9", "reason": "PodDoesNotFit", "message": "no room", "since": "2030-01-01T00:00:00Z",
                "seconds": 61,
            }],
            "steps": [
                { "box": "1", "at": "2030-01-01T00:00:00Z", "outcome": "NoticeReceived", "node": "old", "message": "a notice" },
                { "box": "3.2", "at": "2030-01-01T00:00:09Z", "outcome": "InService", "node": "new", "message": "here" },
            ],
        }))
        .expect("a story");
        let safety: NodeSafety = serde_json::from_value(json!({
            "node": "new", "checkedAt": "2030-01-01T00:00:00Z", "safe": false, "utilisationBefore": {},
            "utilisationAfter": {}, "podsToMove": [],
            "blockers": [{ "reason": "BudgetExhausted", "message": "no room", "hint": "more replicas" }],
        }))
        .expect("a report");
        let expected = "\
Replacement i-1 of node old in pool web
At box 9 (OnFallback)
Its replacement is new (on-demand, i-2)

It waits for:
  box 9, for 1m1s, PodDoesNotFit: no room

So far:
  2030-01-01T00:00:00Z  box 1    old  a notice
  2030-01-01T00:00:09Z  box 3.2  new  here

Could new be drained now, by the safety check of box 9? No:
  BudgetExhausted: no room (needed: more replicas)
";
        assert_eq!(explain("i-1", Some(&story), Some(&safety)), expected);
        assert_eq!(explain("idle", None, None), "Node idle is not part of a replacement.\n");
    }
}
