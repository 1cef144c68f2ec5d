use super::*;
use crate::cluster::Node;
use crate::flow::Event;
use crate::ids::{InstanceId, NodeName, ReplacementName};
use crate::record::{NoticeKind, OldDrain, OldNodeState, ReplacementStatus};
use crate::testing::leaked;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

const OWN: &str = "i-0123456789abcdef0";
const FOREIGN: &str = "i-0123456789abcdef1";

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a time")
}

fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

/// A notice of node `a` that was stored so many seconds ago.
fn seen(name: &str, instance_id: &str, deadline: Option<Timestamp>, age: i64) -> Judged {
    Judged {
        name: name.to_owned(),
        node: "a".into(),
        instance_id: instance_id.into(),
        deadline,
        created: after(-age),
    }
}

struct Judged {
    name: String,
    node: NodeName,
    instance_id: InstanceId,
    deadline: Option<Timestamp>,
    created: Timestamp,
}

impl Judged {
    fn seen(&self) -> Seen<'_> {
        Seen {
            name: &self.name,
            node: &self.node,
            instance_id: &self.instance_id,
            kind: NoticeKind::SpotInterruption,
            deadline: self.deadline,
            detected: self.created,
            created: self.created,
        }
    }
}

fn named(instance: &str, deadline: Option<Timestamp>, age: i64) -> Judged {
    seen(&notice_name(&"a".into(), &instance.into(), NoticeKind::SpotInterruption), instance, deadline, age)
}

#[test]
fn a_node_and_its_instance_are_bound_both_ways() {
    use Judgement::{Accepted, Over, Refused, Wait};
    use NodeState::{Foreign, Has, Missing, WithoutInstance};
    let (soon, open) =
        (Some(after(120)), |node| Some(Recorded { node: leaked(node), open: true, disbelieved: false }));
    let over = |node| Some(Recorded { node: leaked(node), open: false, disbelieved: false });
    let cases = [
        // The Node says it.
        (named(OWN, None, 0), Has(OWN.into()), Some(NodeName::from("a")), None, Accepted(Proof::Node)),
        (named(OWN, soon, 900), Has(OWN.into()), Some(NodeName::from("a")), over("a"), Accepted(Proof::Node)),
        // It says something else.
        (
            named(FOREIGN, soon, 60),
            Has(OWN.into()),
            None,
            None,
            Refused(NoticeRefusal::NodeHasAnotherInstance),
        ),
        (
            named(FOREIGN, soon, 60),
            Has(OWN.into()),
            None,
            open("a"),
            Refused(NoticeRefusal::NodeHasAnotherInstance),
        ),
        // It names no EC2 instance: only before a deadline its own pods leave.
        (named(OWN, None, 0), Foreign, None, None, Refused(NoticeRefusal::ForeignProviderId)),
        (named(OWN, soon, 0), Foreign, None, None, Accepted(Proof::Reporter)),
        (
            named(FOREIGN, soon, 60),
            Foreign,
            Some("b".into()),
            None,
            Refused(NoticeRefusal::InstanceOfAnotherNode),
        ),
        // Another node has the instance, or had it.
        (
            named(FOREIGN, soon, 60),
            Has(OWN.into()),
            Some("b".into()),
            None,
            Refused(NoticeRefusal::InstanceOfAnotherNode),
        ),
        (
            named(FOREIGN, soon, 60),
            Missing,
            Some("b".into()),
            open("b"),
            Refused(NoticeRefusal::InstanceOfAnotherNode),
        ),
        (
            named(FOREIGN, soon, 60),
            WithoutInstance,
            Some("b".into()),
            None,
            Refused(NoticeRefusal::InstanceOfAnotherNode),
        ),
        (named(FOREIGN, soon, 60), Missing, None, open("b"), Refused(NoticeRefusal::InstanceOfAnotherNode)),
        (
            named(FOREIGN, soon, 60),
            WithoutInstance,
            None,
            open("b"),
            Refused(NoticeRefusal::InstanceOfAnotherNode),
        ),
        (named(FOREIGN, soon, 60), Missing, None, over("b"), Refused(NoticeRefusal::InstanceOfAnotherNode)),
        // The picture may be a little older than the notice without being known as old.
        (named(FOREIGN, soon, 59), Has(OWN.into()), None, None, Wait),
        (named(FOREIGN, soon, 59), Missing, Some("b".into()), None, Wait),
        // Nobody has it: its Node may be on its way, but not for long, whatever presses.
        (named(FOREIGN, soon, 59), Missing, None, None, Wait),
        (named(FOREIGN, soon, 60), Missing, None, None, Refused(NoticeRefusal::NoSuchNode)),
        (named(FOREIGN, Some(after(-9)), 0), Missing, None, None, Wait),
        // Its Node is gone, and the story goes on or is over.
        (named(OWN, soon, 900), Missing, None, open("a"), Accepted(Proof::Record)),
        (named(OWN, None, 900), Missing, None, over("a"), Over),
        // The Node does not say it yet.
        (named(OWN, None, 599), WithoutInstance, None, None, Wait),
        (named(OWN, None, 600), WithoutInstance, None, None, Refused(NoticeRefusal::NodeWithoutInstance)),
        (named(OWN, soon, 0), WithoutInstance, None, None, Accepted(Proof::Reporter)),
        (named(OWN, Some(after(3600)), 0), WithoutInstance, None, None, Wait),
        (named(OWN, None, 0), WithoutInstance, None, open("a"), Accepted(Proof::Record)),
        // The name of another node's notice, whole or as a prefix, and one of no meaning.
        (
            seen("b.i-0123456789abcdef0-spot-interruption", OWN, soon, 0),
            Has(OWN.into()),
            Some("a".into()),
            None,
            Refused(NoticeRefusal::Misnamed),
        ),
        (
            seen("a.b.i-0123456789abcdef0-spot-interruption", OWN, soon, 0),
            Has(OWN.into()),
            Some("a".into()),
            None,
            Refused(NoticeRefusal::Misnamed),
        ),
        (
            seen("a.i-0123456789abcdef0-spot-interruption-2", OWN, soon, 0),
            Has(OWN.into()),
            Some("a".into()),
            None,
            Refused(NoticeRefusal::Misnamed),
        ),
        (
            seen("lie", OWN, soon, 0),
            Has(OWN.into()),
            Some(NodeName::from("a")),
            None,
            Refused(NoticeRefusal::Misnamed),
        ),
    ];
    for (number, (notice, node, holder, record, expected)) in cases.into_iter().enumerate() {
        let holder = holder.as_ref().map_or(Holder::Nobody, Holder::One);
        let known = Known { node, holder, record, marked: false, nodes_are_current: true, now: now() };
        assert_eq!(judge(&notice.seen(), &known), expected, "case {number}: {known:?}");
        // On an old picture of the Nodes nothing is refused but a name.
        let expected = match expected {
            Refused(refusal) if refusal != NoticeRefusal::Misnamed => Wait,
            other => other,
        };
        let old = Known { nodes_are_current: false, ..known };
        assert_eq!(judge(&notice.seen(), &old), expected, "case {number}: {old:?}");
    }
}

#[test]
fn an_instance_that_several_nodes_say_they_have_is_the_proof_of_none() {
    use Judgement::{Accepted, Refused, Wait};
    use NodeState::{Has, Missing, WithoutInstance};
    let soon = Some(after(120));
    let open = |node| Some(Recorded { node: leaked(node), open: true, disbelieved: false });
    let other = Refused(NoticeRefusal::InstanceOfAnotherNode);
    for (notice, node, record, expected) in [
        (named(OWN, soon, 0), Has(OWN.into()), None, Accepted(Proof::Reporter)),
        (named(OWN, soon, 100), Has(OWN.into()), open("b"), Accepted(Proof::Reporter)),
        (named(OWN, soon, 100), Has(OWN.into()), open("a"), Accepted(Proof::Reporter)),
        (named(OWN, None, 900), Has(OWN.into()), None, Wait),
        (named(OWN, None, 900), Has(OWN.into()), open("b"), Wait),
        (named(FOREIGN, soon, 60), Has(OWN.into()), None, other),
        (named(OWN, soon, 60), WithoutInstance, None, other),
        (named(OWN, soon, 60), Missing, None, other),
    ] {
        let known = Known {
            node,
            holder: Holder::Several,
            record,
            marked: false,
            nodes_are_current: true,
            now: now(),
        };
        assert_eq!(judge(&notice.seen(), &known), expected, "{known:?}");
    }
}

#[test]
fn a_deadline_outside_its_bounds_is_none_and_waiting_does_not_make_it_one() {
    let far: Timestamp = "9998-01-01T00:00:00Z".parse().expect("a time");
    for (left, age, counts, implausible) in [
        (120, 0, true, false),
        (-30, 0, true, false),
        (-31, 0, false, true),
        (600, 0, true, false),
        (601, 0, false, true),
        // It was two hours away when it was stored.
        (120, 7080, false, true),
        // It was good when it was stored, and has passed since.
        (-31, 151, false, false),
        // The API server's clock is behind ours by some seconds.
        (120, 5, true, false),
    ] {
        let notice = named(OWN, Some(after(left)), age);
        let taken = deadline(&notice.seen(), now());
        assert_eq!(taken.is_some(), counts, "{left} s left, stored {age} s ago");
        assert_eq!(was_implausible(&notice.seen()), implausible, "{left} s left, stored {age} s ago");
    }
    let notice = named(OWN, Some(far), 0);
    assert_eq!(deadline(&notice.seen(), now()), None);
    assert!(was_implausible(&notice.seen()) && is_too_far(far, now()));
    let least = named(OWN, Some(Timestamp::MIN), 0);
    assert_eq!(deadline(&least.seen(), Timestamp::MAX), None, "no arithmetic overflows");
    assert!(!is_too_far(after(600), now()));
}

#[test]
fn the_longest_name_fits_an_object() {
    let node = "n".repeat(MAX_NODE_NAME).into();
    let instance = format!("i-{}", "0".repeat(17)).into();
    // The last second that a notice can hold.
    let last = "2199-12-31T23:59:59Z".parse().ok();
    let named = |kind| dated_notice_name(&node, &instance, kind, last).len();
    let longest = NoticeKind::REPORTED.map(named).into_iter().max();
    assert_eq!(longest, Some(253));
}

#[test]
fn of_each_node_a_few_notices_are_looked_at_and_its_own_instance_first() {
    let names: Vec<(String, InstanceId)> = (0..100)
        .map(|number| {
            let instance = format!("i-{number:017x}").into();
            (notice_name(&"flood".into(), &instance, NoticeKind::SpotInterruption), instance)
        })
        .collect();
    let make = |(name, instance): &'static (String, InstanceId), age: i64| Seen {
        name,
        node: leaked("flood"),
        instance_id: instance,
        kind: NoticeKind::SpotInterruption,
        deadline: None,
        detected: after(-age),
        created: after(-age),
    };
    let names: &'static Vec<(String, InstanceId)> = Box::leak(Box::new(names));
    let mut notices: Vec<Seen<'static>> = names.iter().map(|held| make(held, 10)).collect();
    // The node's own instance was reported last.
    notices[99].created = now();
    notices.push(Seen { node: leaked("other"), ..notices[0] });
    let (picked, surplus) = pick(&notices, |node| (node == "flood").then(|| names[99].1.clone()));
    assert_eq!((picked.len(), surplus.len()), (LOOKED_AT + 1, 100 - LOOKED_AT));
    assert!(picked.contains(&99) && picked.contains(&100), "{picked:?}");
}

const POOLS: KnownPools<'_> = KnownPools {
    owner: None,
    owner_last_seen: None,
    all_read: true,
    all_known: true,
    may_be_unread: false,
    drain_outside: true,
    some_observe: false,
    goes_back: false,
};

fn believed(proof: Proof, deadline: Option<Timestamp>) -> Believed<'static> {
    Believed {
        node: leaked("a"),
        instance_id: leaked(OWN),
        kind: NoticeKind::SpotInterruption,
        proof,
        says_so: proof == Proof::Node,
        deadline,
        created: Some(now()),
    }
}

#[test]
fn what_a_notice_begins_depends_on_what_was_read_of_the_pools() {
    use Beginning::{Refused, Replacement, Wait};
    let (advice, soon) = (believed(Proof::Node, None), believed(Proof::Node, Some(after(120))));
    let unproven = believed(Proof::Reporter, Some(after(120)));
    let doubtful = Believed { says_so: true, ..unproven };
    let (read, seen) = (
        KnownPools { owner: Some(leaked("p")), ..POOLS },
        KnownPools { owner_last_seen: Some(leaked("q")), ..POOLS },
    );
    let unread = KnownPools { all_read: false, ..seen };
    let left_alone = KnownPools { drain_outside: false, ..POOLS };
    let cases = [
        (advice, read, Replacement(Some(leaked("p")))),
        (advice, seen, Replacement(Some(leaked("q")))),
        (advice, KnownPools { owner: Some(leaked("p")), ..seen }, Replacement(Some(leaked("p")))),
        (advice, POOLS, Replacement(None)),
        // Another replacement sends it back.
        (advice, KnownPools { goes_back: true, ..read }, Wait),
        (soon, KnownPools { goes_back: true, ..read }, Replacement(Some(leaked("p")))),
        // Not every pool was read.
        (advice, unread, Wait),
        (soon, unread, Replacement(Some(leaked("q")))),
        (soon, KnownPools { owner_last_seen: None, ..unread }, Wait),
        (soon, KnownPools { owner: Some(leaked("p")), owner_last_seen: None, ..unread }, Wait),
        // The node may be younger than the reading.
        (soon, KnownPools { may_be_unread: true, ..POOLS }, Wait),
        (soon, KnownPools { may_be_unread: true, ..read }, Replacement(Some(leaked("p")))),
        (unproven, KnownPools { may_be_unread: true, ..POOLS }, Replacement(None)),
        // What only the reporter says puts no node into a pool.
        (unproven, read, Replacement(None)),
        (doubtful, read, Replacement(Some(leaked("p")))),
        // Nodes outside all pools may be left alone.
        (soon, left_alone, Refused(NoticeRefusal::OutsidePools)),
        (soon, KnownPools { all_known: false, ..left_alone }, Wait),
        (unproven, left_alone, Refused(NoticeRefusal::OutsidePools)),
        (unproven, KnownPools { may_be_unread: true, ..left_alone }, Wait),
        // Its providerID may come late, so that its pods are moved.
        (unproven, KnownPools { owner: Some(leaked("p")), ..left_alone }, Replacement(None)),
    ];
    for (number, (notice, pools, expected)) in cases.into_iter().enumerate() {
        assert_eq!(notice.begins(&OWN.into(), &pools, now()), expected, "case {number}");
    }
    assert_eq!(
        doubtful.begins(&"a.i".into(), &read, now()),
        Replacement(None),
        "nothing is terminated by a doubtful record"
    );
}

#[test]
fn before_a_deadline_pods_are_moved_though_nobody_knows_whose_the_instance_is() {
    let (soon, advice) = (believed(Proof::Node, Some(after(120))), believed(Proof::Node, None));
    let unread = KnownPools { all_read: false, ..POOLS };
    let young = KnownPools { may_be_unread: true, ..POOLS };
    for pools in [unread, young] {
        let begins = |notice: Believed<'_>, at| notice.begins(&OWN.into(), &pools, after(at));
        assert_eq!(begins(soon, 14), Beginning::Wait, "the next reading may show it");
        assert_eq!(begins(soon, 15), Beginning::Drain);
        assert_eq!(begins(advice, 15), Beginning::Wait, "nothing presses");
        let left_alone = KnownPools { drain_outside: false, ..pools };
        assert_eq!(soon.begins(&OWN.into(), &left_alone, after(15)), Beginning::Wait);
        let observed = KnownPools { some_observe: true, ..pools };
        assert_eq!(soon.begins(&OWN.into(), &observed, after(15)), Beginning::Wait);
    }
    let seen = KnownPools { owner_last_seen: Some(leaked("q")), ..unread };
    assert_eq!(
        soon.begins(&OWN.into(), &seen, after(15)),
        Beginning::Replacement(Some(leaked("q"))),
        "an earlier process has read it"
    );
}

#[test]
fn a_record_that_was_begun_before_the_pools_were_read_ends_also_if_the_next_one_does_not_drain() {
    let begun = |old_node: OldNodeState| ReplacementStatus {
        started_at: Some(now()),
        old_node: old_node.into(),
        ..ReplacementStatus::default()
    };
    let left = begun(OldNodeState::Kept {});
    assert!(!takes_over(&left, after(14)), "it may be about to begin");
    assert!(takes_over(&left, after(15)), "it only observes, or is left to another tool");
    assert!(takes_over(&begun(OldNodeState::Draining(OldDrain::begun(now()))), now()));
}

#[test]
fn the_record_of_an_instance_is_for_the_node_that_has_shown_it() {
    let name = |proof, taken| believed(proof, None).record_name(taken);
    assert_eq!((name(Proof::Node, false), name(Proof::Record, false)), (OWN.into(), OWN.into()));
    let unproven = ReplacementName::from(format!("a.{OWN}"));
    assert_eq!((name(Proof::Node, true), name(Proof::Reporter, false)), (unproven.clone(), unproven.clone()));

    let found = |records: &[(&str, &str)], node: &str| {
        let records: BTreeMap<ReplacementName, (&str, NodeName)> =
            records.iter().map(|(name, node)| ((*name).into(), (*name, (*node).into()))).collect();
        let record = record_of(&node.into(), &OWN.into(), |name| records.get(name), |(_, node)| node);
        record.map(|(name, _)| ReplacementName::from(*name))
    };
    assert_eq!(found(&[(OWN, "a"), (&unproven, "a")], "a").as_deref(), Some(OWN));
    assert_eq!(found(&[(OWN, "b"), (&unproven, "a")], "a"), Some(unproven.clone()));
    assert_eq!(found(&[(OWN, "b")], "a").as_deref(), Some(OWN), "another node's");
    assert_eq!(found(&[], "a"), None);
}

#[test]
fn a_cancelled_replacement_begins_anew_with_a_deadline_or_with_later_advice() {
    let begins = |proof, deadline, cancelled| believed(proof, deadline).begins_anew(Some(cancelled));
    assert!(begins(Proof::Node, Some(after(120)), after(1)));
    assert!(begins(Proof::Node, None, after(-1)));
    assert!(!begins(Proof::Node, None, now()), "it was cancelled since");
    let mut ended = believed(Proof::Node, Some(after(120)));
    ended.kind = NoticeKind::GroupTermination;
    assert!(ended.begins_anew(Some(after(-1))), "what its group ends is drained");
    assert!(!begins(Proof::Record, Some(after(120)), after(-1)) && !begins(Proof::Reporter, None, after(-1)));
}

#[test]
fn after_a_false_interruption_the_next_one_of_that_instance_is_refused_for_an_hour() {
    let mut status = ReplacementStatus::default();
    assert!(!is_disbelieved(&status, now()));
    let event = Event::NoticeFalse { instance_id: OWN.into(), deadline: after(-300) };
    event.add_to(&mut status, &"a".into(), now());
    assert!(is_disbelieved(&status, after(3599)) && !is_disbelieved(&status, after(3600)));

    let name = |kind| notice_name(&"a".into(), &OWN.into(), kind);
    for (kind, believed) in [
        (NoticeKind::SpotInterruption, false),
        (NoticeKind::RebalanceRecommendation, true),
        (NoticeKind::GroupTermination, true),
        (NoticeKind::ScheduledMaintenance, true),
    ] {
        let notice = seen(&name(kind), OWN, Some(after(120)), 1);
        let known = Known {
            node: NodeState::Has(OWN.into()),
            holder: Holder::One(leaked("a")),
            record: Some(Recorded { node: leaked("a"), open: false, disbelieved: true }),
            marked: false,
            nodes_are_current: true,
            now: now(),
        };
        let refused =
            judge(&Seen { kind, ..notice.seen() }, &known) == Judgement::Refused(NoticeRefusal::Disbelieved);
        assert_eq!(refused, !believed, "{kind}");
    }
}

#[test]
fn the_oldest_of_several_pools_owns_what_they_claim() {
    let claim = |at, pool| GroupClaim { created: Some(after(at)), pool };
    assert_eq!(
        owner_of([claim(1, leaked("a")), claim(0, leaked("c")), claim(0, leaked("b"))]),
        Some(&"b".into())
    );
    assert_eq!(owner_of([]), None);
}

#[test]
fn a_node_may_be_unread_until_a_group_was_read_after_it_came() {
    let node = Node { created: Some(now()), ..Node::default() };
    assert!(may_be_unread(&node, [after(-10)]) && may_be_unread(&node, [after(29)]), "clocks differ");
    assert!(!may_be_unread(&node, [after(30)]) && !may_be_unread(&node, []));
    assert!(may_be_unread(&node, [after(30), after(0)]), "one of several");
    assert!(!may_be_unread(&Node::default(), [after(-10)]));
}

#[test]
fn a_flood_of_notices_takes_little_room_and_none_from_others() {
    let mut room = NoticeRoom::default();
    let others = notice_name(&"b".into(), &FOREIGN.into(), NoticeKind::SpotInterruption);
    let foreign = named(FOREIGN, Some(after(120)), 0);
    let other = Seen { name: &others, node: &"b".into(), ..foreign.seen() };
    assert_eq!(room.take(&other, |_| None), None);
    let own = named(OWN, None, 0);
    assert_eq!(room.take(&own.seen(), |_| Some(OWN.into())), None);
    let mut out = 0;
    for number in 0..100_000 {
        let name = format!("a.i-{number:017x}-spot-interruption");
        // Each deadline is earlier than the last one.
        let flood = seen(&name, FOREIGN, Some(after(600 - number / 200)), 0);
        out += usize::from(room.take(&flood.seen(), |_| Some(OWN.into())).is_some());
        assert!(room.len() <= KEPT + 1);
    }
    assert_eq!((room.len(), out), (KEPT + 1, 100_000 + 1 - KEPT));
    assert_eq!(room.take(&own.seen(), |_| None), None, "it was kept: it is about the node's own instance");
    room.leave(&"b".into(), &others);
    assert_eq!(room.len(), KEPT);
}

#[test]
fn of_a_node_with_too_many_notices_the_earliest_deadlines_stay() {
    let mut room = NoticeRoom::default();
    for number in 0..KEPT {
        let name = number.to_string();
        let at = 60 + i64::try_from(number).expect("a small number");
        assert_eq!(room.take(&seen(&name, FOREIGN, Some(after(at)), 0).seen(), |_| None), None);
    }
    let gone = |room: &mut NoticeRoom, name: &str, deadline| {
        room.take(&seen(name, FOREIGN, deadline, 0).seen(), |_| None)
    };
    assert_eq!(gone(&mut room, "advice", None).as_deref(), Some("advice"));
    assert_eq!(gone(&mut room, "later", Some(after(500))).as_deref(), Some("later"));
    assert_eq!(
        gone(&mut room, "past", Some(after(-3600))).as_deref(),
        Some("past"),
        "EC2 gave no such deadline"
    );
    assert_eq!(gone(&mut room, "sooner", Some(after(10))).as_deref(), Some("15"));
    assert_eq!(gone(&mut room, "sooner", Some(after(10))), None, "the same again");
}

/// A notice of node `a` of that kind, stored so many seconds ago.
fn of_kind<'a>(name: &'a str, kind: NoticeKind, deadline: Option<Timestamp>, age: i64) -> Seen<'a> {
    let (created, instance_id) = (after(-age), leaked(OWN));
    Seen { name, node: leaked("a"), instance_id, kind, deadline, detected: created, created }
}

#[test]
fn maintenance_is_advice_until_its_time_is_near() {
    let kind = NoticeKind::ScheduledMaintenance;
    let week = 7 * 24 * 3600;
    let announced = of_kind("a", kind, Some(after(week)), 0);
    assert_eq!((deadline(&announced, now()), was_implausible(&announced)), (None, false));
    assert!(is_to_come(&announced, now()));
    assert_eq!(deadline(&announced, after(week - 300)), Some(after(week)));
    assert!(!is_to_come(&announced, after(week - 300)));
    let over = of_kind("a", kind, Some(after(-week)), 0);
    assert_eq!((deadline(&over, now()), was_implausible(&over)), (None, true));
    // What EC2 takes, it takes in two minutes.
    let taken = of_kind("a", NoticeKind::SpotInterruption, Some(after(week)), 0);
    assert_eq!((deadline(&taken, after(week - 300)), was_implausible(&taken)), (None, true));
}

#[test]
fn maintenance_counts_until_its_time_is_over() {
    let of = |kind, at| is_scheduled(kind, at, now());
    let kind = NoticeKind::ScheduledMaintenance;
    assert!(of(kind, Some(after(7 * 24 * 3600))) && of(kind, Some(after(300))), "also when it is near");
    assert!(!of(kind, Some(now())) && !of(kind, None));
    assert!(!of(NoticeKind::SpotInterruption, Some(after(60))));
}

#[test]
fn each_time_of_maintenance_has_a_name_of_its_own() {
    let kind = NoticeKind::ScheduledMaintenance;
    let (week, day) = (after(7 * 24 * 3600), after(24 * 3600));
    let name = |kind, at| dated_notice_name(&"a".into(), &OWN.into(), kind, at);
    let plain = notice_name(&"a".into(), &OWN.into(), kind);
    assert_eq!(name(kind, Some(week)), format!("{plain}-{}", week.as_second()));
    assert_ne!(name(kind, Some(week)), name(kind, Some(day)));
    assert_eq!(name(kind, None), plain);
    let other = NoticeKind::SpotInterruption;
    assert_eq!(name(other, Some(day)), notice_name(&"a".into(), &OWN.into(), other), "a mock changes it");

    let known = Known {
        node: NodeState::Has(OWN.into()),
        holder: Holder::One(leaked("a")),
        record: None,
        marked: false,
        nodes_are_current: true,
        now: now(),
    };
    let judged = |name: &str, kind, at| judge(&of_kind(name, kind, at, 1), &known);
    let (accepted, misnamed) =
        (Judgement::Accepted(Proof::Node), Judgement::Refused(NoticeRefusal::Misnamed));
    assert_eq!(judged(&name(kind, Some(day)), kind, Some(day)), accepted);
    assert_eq!(judged(&plain, kind, Some(day)), accepted, "as an earlier version names it");
    assert_eq!(judged(&name(kind, Some(week)), kind, Some(day)), misnamed, "of another time");
    assert_eq!(judged(&name(kind, Some(day)), kind, None), misnamed, "of no time");
    let dated = format!("{}-{}", name(other, None), day.as_second());
    assert_eq!(judged(&dated, other, Some(day)), misnamed, "of another kind");
}

#[test]
fn what_a_group_ends_is_left_alone_where_it_is_drained_already_or_gone() {
    use NodeState::{Has, Missing};
    let name = notice_name(&"a".into(), &OWN.into(), NoticeKind::GroupTermination);
    let judged = |node: &NodeState, marked, record, age| {
        let seen = of_kind(&name, NoticeKind::GroupTermination, Some(after(120)), age);
        let (holder, node) = (Holder::Nobody, node.clone());
        judge(&seen, &Known { node, holder, record, marked, nodes_are_current: true, now: now() })
    };
    let (there, own) =
        (Has(OWN.into()), Some(Recorded { node: leaked("a"), open: true, disbelieved: false }));
    assert_eq!(judged(&there, false, None, 0), Judgement::Accepted(Proof::Node));
    assert_eq!(judged(&there, true, None, 0), Judgement::Over);
    assert_eq!(judged(&there, true, own, 0), Judgement::Accepted(Proof::Node));
    assert_eq!(judged(&Missing, false, None, 0), Judgement::Wait);
    assert_eq!(judged(&Missing, false, None, 90), Judgement::Refused(NoticeRefusal::EndedByItsGroup));
}

#[test]
fn a_deadline_is_earlier_by_a_clock_that_is_behind_and_never_later() {
    let at = |detected: i64| {
        let seen = of_kind("a", NoticeKind::SpotInterruption, Some(after(120)), 0);
        deadline(&Seen { detected: after(detected), ..seen }, now()).expect("a deadline")
    };
    assert_eq!(at(0), after(120));
    assert_eq!(at(2), after(120), "whole seconds");
    assert_eq!(at(30), after(90), "the API server is 30 s behind the instance");
    assert_eq!(at(-30), after(120), "it took 30 s to store the notice");
    assert_eq!(at(1_000_000), after(60), "a lie gains a minute at most");
}
