//! Notices that come again, that change, and that become more urgent.

use crate::play::{Play, Played, Stage};
use jiff::Timestamp;
use serde_json::json;
use spot_guard::core::record::{FlowBox, NoticeKind, Outcome, Phase};
use spot_guard::crd::notice_name;
use spot_guard::sim::cloud::{Capacity, ImdsMode};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use std::time::Duration;

/// Reports a notice as an agent would, under any name.
fn report(stage: &Stage, name: &str, instance: &str, deadline: Option<Timestamp>) {
    let kind = if deadline.is_some() { "SpotInterruption" } else { "RebalanceRecommendation" };
    let node = stage.cloud.node_of(instance).map(|node| node.node_name);
    let node = node.or_else(|| Some(stage.record(instance)?.spec.node_name)).expect("a node");
    // A name that is taken refuses the report, as it does an agent's.
    let _ = stage.cluster.create_json(json!({
        "apiVersion": "spotguard.dev/v1alpha1",
        "kind": "InterruptionNotice",
        "metadata": { "name": name },
        "spec": {
            "nodeName": node,
            "instanceId": instance,
            "kind": kind,
            "noticeTime": stage.cloud.now(),
            "detectedAt": stage.cloud.now(),
            "deadline": deadline,
        },
    }));
}

fn count(played: &Played, flow_box: FlowBox, outcome: Outcome) -> usize {
    played.report.boxes.iter().filter(|step| (step.flow_box, step.outcome) == (flow_box, outcome)).count()
}

#[test]
fn a_notice_time_that_changes_with_every_read_makes_one_replacement() {
    let played = Play::of(Scenario::Rebalance)
        .beside(|stage| async move {
            for instance in &stage.spot {
                stage.cloud.set_imds_mode(instance, ImdsMode::RestlessNoticeTime).expect("an instance");
            }
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
}

#[test]
fn reports_of_the_same_notice_by_anybody_make_one_replacement() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::ScalingUp).await;
            for number in 0..40 {
                report(&stage, &notice_name(&instance, NoticeKind::RebalanceRecommendation), &instance, None);
                report(&stage, &format!("{instance}-again-{number}"), &instance, None);
                stage.pass(15).await;
            }
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
    assert_eq!(count(&played, FlowBox::Notice, Outcome::NoticeReceived), 1);
}

/// A story in which the second notice comes as soon as the first has brought the story to `phase`.
fn escalated_in(phase: Phase, plot: Plot) -> Played {
    let mut plot = Plot { steps: vec![(FlowBox::Notice, Outcome::Escalated)], ..plot };
    plot.steps.push((FlowBox::CleanUp, Outcome::CleanedUp));
    Play::plot(&format!("escalated in {phase:?}"), plot)
        .beside(move |stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, phase).await;
            if stage.cloud.interrupt(&instance).is_err() {
                // The instance is gone: a report that comes too late.
                let name = notice_name(&instance, NoticeKind::SpotInterruption);
                let deadline = stage.cloud.now() + Duration::from_secs(120);
                report(&stage, &name, &instance, Some(deadline));
            }
        })
        .play()
}

fn dry_for(seconds: u64) -> Plot {
    Plot {
        script: vec![
            (Duration::from_secs(5), Act::SpotHas(Capacity::None)),
            (Duration::from_secs(10), Act::Rebalance(0)),
            (Duration::from_secs(seconds), Act::SpotHas(Capacity::Unlimited)),
        ],
        ..Scenario::DrySpot.plot()
    }
}

#[test]
fn a_deadline_escalates_the_same_replacement_in_every_phase() {
    let cases = [
        (Phase::ScalingUp, Scenario::Rebalance.plot()),
        (Phase::FallingBack, dry_for(240)),
        (Phase::BackingOff, Scenario::AllDry.plot()),
        (Phase::Draining, Scenario::PdbBlocked.plot()),
        (Phase::Ending, Scenario::Rebalance.plot()),
        (Phase::OnFallback, dry_for(240)),
        (Phase::Returning, dry_for(240)),
        (Phase::ScalingDown, dry_for(240)),
    ];
    for (phase, plot) in cases {
        let played = escalated_in(phase, plot);
        played.assert_ok();
        assert_eq!(played.report.replacements.len(), 1, "{phase:?}");
        let at =
            |outcome| played.report.boxes.iter().find(|step| step.outcome == outcome).map(|step| step.at);
        let (escalated, tainted) = (at(Outcome::Escalated), at(Outcome::Tainted));
        let (Some(escalated), Some(tainted)) = (escalated, tainted) else { panic!("{phase:?}: no taint") };
        assert!(tainted <= escalated + 3.0, "{phase:?}: {escalated} s, tainted at {tainted} s");
    }
}

#[test]
fn both_notices_at_once_make_one_replacement() {
    let plot = Plot {
        script: vec![
            (Duration::from_secs(5), Act::Rebalance(0)),
            (Duration::from_secs(5), Act::Interrupt(0)),
        ],
        ..Scenario::TwoMinuteNotice.plot()
    };
    let played = Play::plot("both at once", plot).play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
}
