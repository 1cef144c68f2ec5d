//! What the nodes of a pool cost.

use super::*;

#[actix_web::test]
async fn the_hours_of_each_pool_are_told_by_day_with_what_they_cost() {
    let mut web = pool("web");
    let prices = json!({ "spot": "0.04", "onDemand": "0.10" });
    web.spec.hourly_prices = Some(serde_json::from_value(prices).unwrap());
    let account = json!({
        "countedAt": noon(0),
        "total": { "spot": 999_999, "onDemand": 99_999, "fallbacks": 9_999 },
        "days": [
            { "day": "2026-01-01", "spot": 36_000, "onDemand": 3_600, "fallbacks": 0 },
            { "day": "2026-01-02", "spot": 36_000, "onDemand": 7_200, "fallbacks": 3_600 },
        ],
    });
    let node_account = Some(serde_json::from_value(account).unwrap());
    web.status = Some(SpotPoolStatus { node_account, ..empty() });
    let pools = vec![pool("batch"), web];
    let answer = Fixture { pools, ..Fixture::empty() }.get("/api/v1/savings").await;
    let none = json!({ "spotHours": 0.0, "onDemandHours": 0.0, "fallbackHours": 0.0 });
    assert_eq!(answer["items"][0], json!({ "pool": "batch", "total": none, "days": [] }));
    let told = &answer["items"][1];
    assert_eq!(told["countedAt"], json!(noon(0)));
    assert_eq!((&told["total"]["spotHours"], &told["total"]["fallbackHours"]), (&json!(20.0), &json!(1.0)));
    let cents = |part: &Value, name: &str| (part["cost"][name].as_f64().unwrap() * 100.0).round();
    assert_eq!((cents(&told["total"], "paid"), cents(&told["total"], "allOnDemand")), (110.0, 230.0));
    assert_eq!((cents(&told["total"], "saved"), cents(&told["days"][1], "fallbacks")), (120.0, 6.0));
    assert_eq!(told["days"][0]["day"], "2026-01-01");
}
