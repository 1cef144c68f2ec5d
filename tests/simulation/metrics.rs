//! What the metrics say of a replacement, beside what happens in the simulated cloud.

use crate::play::Play;
use spot_guard::sim::scenario::Scenario;
use spot_guard_core::record::Phase;

/// The value of a series.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
}

/// Spot is out of capacity, and an on-demand instance stands in.
#[test]
fn a_fallback_is_in_the_metrics_of_the_leader() {
    let played = Play::plot("metrics of a fallback", Scenario::DrySpot.plot()).beside(|stage| async move {
        stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
        stage.pass(30).await;
        let metrics = stage.metrics();
        for (series, expected) in [
            (r#"spot_guard_pool_fallbacks{pool="workers"}"#, 1.0),
            (r#"spot_guard_replacements{pool="workers",phase="OnFallback"}"#, 1.0),
            (r#"spot_guard_fallbacks_total{pool="workers"}"#, 1.0),
            (r#"spot_guard_pool_desired{pool="workers",group="OnDemand"}"#, 1.0),
            (r#"spot_guard_pool_in_service{pool="workers",group="OnDemand"}"#, 1.0),
            (r#"spot_guard_pool_baseline{pool="workers",group="OnDemand"}"#, 0.0),
            (r#"spot_guard_pool_baseline{pool="workers",group="Spot"}"#, 3.0),
            (r#"spot_guard_pool_owed{pool="workers",group="Spot"}"#, 1.0),
            (r#"spot_guard_pool_condition{pool="workers",condition="Accepted"}"#, 1.0),
            (r#"spot_guard_notice_to_ready_seconds_count{pool="workers"}"#, 1.0),
            (r#"spot_guard_notice_to_drained_seconds_count{pool="workers"}"#, 1.0),
            (r#"spot_guard_notice_to_record_seconds_count{pool="workers"}"#, 1.0),
            (r#"spot_guard_drains_incomplete_total{pool="workers",why="Deadline"}"#, 0.0),
            ("spot_guard_leader", 1.0),
        ] {
            let found = value(&metrics, series);
            assert!((found - expected).abs() < f64::EPSILON, "{series} is {found}, not {expected}");
        }
        let refused = r#"spot_guard_aws_calls_total{operation="LaunchInstances",result="OutOfCapacity"}"#;
        assert!(value(&metrics, refused) >= 1.0, "{metrics}");
        let record = stage.record(&stage.spot[0]).and_then(|record| record.status).expect("a record");
        let since = record.capacity.taken().expect("an instance that stands in").ready_at.as_second();
        let series = r#"spot_guard_pool_oldest_fallback_timestamp_seconds{pool="workers"}"#;
        assert!(metrics.contains(&format!("{series} {since}\n")), "no {series} {since} in\n{metrics}");
    });
    played.play().assert_ok();
}
