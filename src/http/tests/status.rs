//! The header of the dashboard: the cluster, who leads, when AWS was read, and what is paused.

use super::*;
use std::collections::BTreeSet;

#[actix_web::test]
async fn the_leader_knows_when_aws_was_read_and_a_replica_that_follows_does_not() {
    let last_readings = LastReadings::default();
    last_readings.read(&"web".into(), noon(-12));
    last_readings.read(&"batch".into(), noon(-40));
    let fixture =
        |leader: bool| Fixture { leader, last_readings: last_readings.clone(), ..Fixture::with_a_fallback() };
    let status = fixture(true).get("/api/v1/status").await;
    assert_eq!((&status["clusterName"], &status["holder"]), (&json!("production"), &json!("spot-guard-0")));
    assert_eq!(status["observedAt"], json!(noon(-40)), "of the pool for which it is longest ago");
    let pools = fixture(true).get("/api/v1/pools").await;
    assert_eq!(pools["items"][1]["observedAt"], json!(noon(-12)));
    let status = fixture(false).get("/api/v1/status").await;
    assert_eq!((&status["observedAt"], &status["holder"]), (&Value::Null, &json!("spot-guard-0")));

    last_readings.keep(&BTreeSet::from(["web".into()]));
    assert_eq!(fixture(true).get("/api/v1/status").await["observedAt"], json!(noon(-12)));
    last_readings.forget();
    assert_eq!(fixture(true).get("/api/v1/status").await["observedAt"], Value::Null);
}

#[actix_web::test]
async fn every_pause_says_what_it_holds_and_who_requested_it_why() {
    let spot_action = |name: &str, spec: Value| -> SpotAction {
        let object = json!({
            "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotAction", "spec": spec,
            "metadata": { "name": name, "creationTimestamp": noon(-90) },
        });
        serde_json::from_value(object).unwrap()
    };
    let spot_actions = vec![
        spot_action("pause-batch", json!({ "action": "Pause", "pool": "batch", "requestedBy": "ann" })),
        spot_action("pause-all", json!({ "action": "Pause", "requestedBy": "bob", "reason": "a freeze" })),
        spot_action("return-web", json!({ "action": "Return", "pool": "web" })),
    ];
    let mut fixture = Fixture { spot_actions, paused: true, ..Fixture::with_a_fallback() };
    fixture.pools[0].spec.paused = true;
    let pauses = fixture.get("/api/v1/status").await["pauses"].take();
    let expected = json!([
        { "scope": "Everything", "source": "Namespace" },
        {
            "scope": "Everything", "source": "SpotAction", "spotAction": "pause-all", "by": "bob",
            "reason": "a freeze", "since": noon(-90),
        },
        {
            "scope": "Pool", "pool": "batch", "source": "SpotAction", "spotAction": "pause-batch", "by": "ann",
            "since": noon(-90),
        },
        { "scope": "Pool", "pool": "web", "source": "Pool" },
    ]);
    assert_eq!(pauses, expected);
    let none = Fixture::with_a_fallback().get("/api/v1/status").await;
    assert_eq!(none["pauses"], json!([]));
}

#[actix_web::test]
async fn what_is_wrong_comes_with_what_to_do() {
    let mut fixture = Fixture::with_a_fallback();
    let mut status = SpotPoolStatus::default();
    set_condition(&mut status.conditions, "Accepted", false, "NoSuchGroup", "no group a", noon(0));
    set_condition(&mut status.conditions, "Healthy", true, "Healthy", "all in service", noon(0));
    fixture.pools[0].status = Some(status);
    let web = fixture.get("/api/v1/pools/web").await;
    assert_eq!(web["hints"], json!({ "NoSuchGroup": "Correct the name in the pool." }));
}

/// What is shown of a group is what the metrics have.
#[actix_web::test]
async fn the_baseline_and_what_is_owed_are_those_of_the_metrics() {
    let share = |name: &str, balance: &str| json!({ "replacement": name, "balance": balance, "attempt": 0, "since": noon(-90) });
    let request = |group: &str, shares: Value| {
        json!({
            "id": group, "group": group, "groupName": group, "desiredBefore": 3, "target": 4, "instancesBefore": [],
            "requestedAt": noon(-90), "state": "Applied", "shares": shares,
        })
    };
    let owes = [share("a", "OwedByUs"), share("b", "OwedByGroup"), share("c", "Raised"), share("d", "Even")];
    let requests = json!([request("Spot", json!(owes)), request("OnDemand", json!([share("a", "Raised")]))]);
    let fixture = || {
        let mut fixture = Fixture { leader: true, ..Fixture::with_a_fallback() };
        let status = fixture.pools[0].status.as_mut().unwrap();
        status.ledger.scaling_requests = serde_json::from_value(requests.clone()).unwrap();
        fixture
    };
    let web = fixture().get("/api/v1/pools/web").await;
    assert_eq!(web["spotStanding"], json!({ "baseline": 3, "owed": 2 }));
    assert_eq!(web["onDemandStanding"], json!({ "baseline": 0, "owed": 0 }));
    let (_, _, metrics) = fixture().ask(Method::GET, "/metrics").await;
    for (group, standing) in [("Spot", "spotStanding"), ("OnDemand", "onDemandStanding")] {
        for name in ["baseline", "owed"] {
            let value = &web[standing][name];
            let line = format!("spot_guard_pool_{name}{{pool=\"web\",group=\"{group}\"}} {value}\n");
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
    }
}
