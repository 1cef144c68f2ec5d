//! When Spot is asked again for what it owes.

use super::*;

/// A fallback whose Spot instance was refused.
fn owed() -> Stage {
    let mut stage = Stage::on_fallback();
    stage.share(GroupKind::Spot, None, Some(FailureClass::Capacity));
    stage.ledger.scaling_requests.last_mut().expect("its share").shares[0].balance = Balance::OwedByUs;
    stage.assessment = Some(ReturnAssessment::default());
    stage
}

fn next_probe(stage: &Stage) -> Timestamp {
    stage.status.fallback.open().and_then(|open| open.next_probe_at).expect("a time")
}

/// Spot gives another replacement of the pool an instance.
fn spot_gives_another_one(stage: &mut Stage) {
    let (claimed_at, replacement) = (Some(stage.now), "another".into());
    let shares = &mut stage.ledger.scaling_requests.last_mut().expect("a request").shares;
    let other = Share {
        replacement,
        claimed_at,
        instance_id: Some("i-5".into()),
        failure: None,
        ..shares[0].clone()
    };
    shares.push(other);
}

#[test]
fn spot_is_not_asked_for_an_instance_that_would_be_of_no_use() {
    let mut stage = owed();
    let pinned = vec![Reason::NodeCordoned { node: "pinned".into() }];
    stage.assessment = Some(ReturnAssessment { unsafe_with_spot: pinned, ..ReturnAssessment::default() });
    stage.go().pass(3600).go();
    assert_eq!(stage.status.probes, 0);
    assert_eq!(stage.status.blocking[0].flow_box, FlowBox::Safety);
    let other = ReturnAssessment { of: Some("another".into()), ..stage.assessment.clone().expect("one") };
    stage.assessment = Some(other);
    stage.go();
    assert_eq!(stage.status.probes, 0, "it was about another instance");
    stage.assessment = None;
    stage.go();
    assert_eq!(stage.status.probes, 0, "nobody knows yet");
    stage.assessment = Some(ReturnAssessment::default());
    stage.go().pass(40).go();
    assert_eq!(stage.status.probes, 1);
}

#[test]
fn the_replacements_of_a_group_ask_at_the_same_moments() {
    let mut early = owed();
    early.go();
    let marks: BTreeSet<Timestamp> = (0..40)
        .map(|late| {
            let mut stage = owed();
            stage.pass(late).go();
            let next = next_probe(&stage);
            assert!(next > stage.now && next <= stage.now + Duration::from_secs(40), "{late}");
            next
        })
        .collect();
    assert_eq!(marks.len(), 2, "forty seconds have one mark: {marks:?}");
    assert!(marks.contains(&next_probe(&early)));
}

#[test]
fn the_pace_is_kept_for_a_while_and_then_halved_again_and_again() {
    let mut stage = owed();
    let mut pauses = Vec::new();
    for _ in 0..51 {
        stage.go();
        let pause = crate::time::since(stage.now, next_probe(&stage));
        stage.now = next_probe(&stage);
        pauses.push(pause.as_secs());
    }
    assert_eq!(pauses[1..46], [40; 45]);
    assert_eq!(pauses[46..], [80, 160, 280, 280, 280]);
}

#[test]
fn once_spot_has_given_another_one_an_instance_it_is_asked_at_once() {
    let mut stage = owed();
    stage.go().pass(5);
    spot_gives_another_one(&mut stage);
    stage.go();
    assert_eq!(stage.status.probes, 1);
    stage.go().pass(1).go();
    assert_eq!(stage.status.probes, 1, "the answer is awaited");
    let (asked, now) = (stage.status.requests_made(), stage.now);
    let own = &mut stage.ledger.scaling_requests.last_mut().expect("a request").shares[0];
    own.attempt = asked;
    own.failure.as_mut().expect("a failure").at = now;
    stage.go();
    assert_eq!(stage.status.probes, 1, "it was refused since then");
}

#[test]
fn a_share_that_rests_after_an_unusable_instance_is_not_asked_again_and_again() {
    let mut stage = owed();
    stage.go().pass(5);
    spot_gives_another_one(&mut stage);
    let (asked, now) = (stage.status.requests_made(), stage.now);
    let own = &mut stage.ledger.scaling_requests.last_mut().expect("a request").shares[0];
    own.failure.as_mut().expect("a failure").class = FailureClass::Unusable;
    own.discarded = Some(Discarded {
        instance_id: "i-3".into(),
        zone: "a".to_owned(),
        earlier_zones: Vec::new(),
        why: NodeTrouble::NotJoined,
        waited_seconds: 900,
        at: now,
        times: 3,
    });
    own.attempt = asked;
    for _ in 0..20 {
        stage.go().pass(1);
        let asked = stage.status.requests_made();
        stage.ledger.scaling_requests.last_mut().expect("a request").shares[0].attempt = asked;
    }
    assert!(stage.status.probes <= 1, "its own time alone: {}", stage.status.probes);
}

#[test]
fn what_spot_gave_is_released_when_the_return_stays_unsafe_for_half_an_hour() {
    let pinned = Reason::NodeCordoned { node: "pinned".into() };
    let under_way = Reason::ReturnUnderWay { replacement: "another".into() };
    for (reason, is_released) in [(pinned.clone(), true), (under_way, false)] {
        let mut stage = owed();
        stage.share(GroupKind::Spot, Some("i-4"), None);
        let (successor, unsafe_) = (Some("i-4".into()), vec![reason.clone()]);
        stage.assessment = Some(ReturnAssessment { successor, unsafe_, ..ReturnAssessment::default() });
        stage.go().pass(1799).go();
        assert!(stage.commands().misfits.is_empty(), "{reason:?}: it has its time");
        stage.pass(1).go();
        let idle = stage.commands().misfits.get("i-4").copied();
        assert_eq!(idle, is_released.then_some(NodeTrouble::StandsIdle), "{reason:?}");
        if !is_released {
            stage.assessment.as_mut().expect("one").unsafe_ = vec![pinned.clone()];
            stage.go();
            assert!(stage.commands().misfits.is_empty(), "it has waited for its turn, and not been unsafe");
        }
    }
}
