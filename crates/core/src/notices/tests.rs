use super::*;

const OWN: &str = "i-0123456789abcdef0";
const FOREIGN: &str = "i-0123456789abcdef1";

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a time")
}

fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

/// A notice of node `a` that was stored so many seconds ago.
fn seen(name: &str, instance_id: &'static str, deadline: Option<Timestamp>, age: i64) -> Judged {
    Judged { name: name.to_owned(), instance_id, deadline, created: after(-age) }
}

struct Judged {
    name: String,
    instance_id: &'static str,
    deadline: Option<Timestamp>,
    created: Timestamp,
}

impl Judged {
    fn seen(&self) -> Seen<'_> {
        Seen {
            name: &self.name,
            node: "a",
            instance_id: self.instance_id,
            kind: NoticeKind::SpotInterruption,
            deadline: self.deadline,
            created: self.created,
        }
    }
}

fn named(instance: &'static str, deadline: Option<Timestamp>, age: i64) -> Judged {
    seen(&notice_name("a", instance, NoticeKind::SpotInterruption), instance, deadline, age)
}

#[test]
fn a_node_and_its_instance_are_bound_both_ways() {
    use Judgement::{Accepted, Over, Refused, Wait};
    use NodeState::{Has, Missing, WithoutInstance};
    let (soon, open) = (Some(after(120)), |node| Some(Recorded { node, open: true }));
    let over = |node| Some(Recorded { node, open: false });
    let cases = [
        // The Node says it.
        (named(OWN, None, 0), Has(Some(OWN)), Some("a"), None, Accepted(Proof::Node)),
        (named(OWN, soon, 900), Has(Some(OWN)), Some("a"), over("a"), Accepted(Proof::Node)),
        // It says something else.
        (named(FOREIGN, soon, 60), Has(Some(OWN)), None, None, Refused(Refusal::NodeHasAnotherInstance)),
        (named(FOREIGN, soon, 60), Has(Some(OWN)), None, open("a"), Refused(Refusal::NodeHasAnotherInstance)),
        (named(OWN, soon, 60), Has(None), None, None, Refused(Refusal::NodeHasAnotherInstance)),
        // Another node has the instance, or had it.
        (named(FOREIGN, soon, 60), Has(Some(OWN)), Some("b"), None, Refused(Refusal::InstanceOfAnotherNode)),
        (named(FOREIGN, soon, 60), Missing, Some("b"), open("b"), Refused(Refusal::InstanceOfAnotherNode)),
        (named(FOREIGN, soon, 60), WithoutInstance, Some("b"), None, Refused(Refusal::InstanceOfAnotherNode)),
        (named(FOREIGN, soon, 60), Missing, None, open("b"), Refused(Refusal::InstanceOfAnotherNode)),
        (named(FOREIGN, soon, 60), WithoutInstance, None, open("b"), Refused(Refusal::InstanceOfAnotherNode)),
        (named(FOREIGN, soon, 60), Missing, None, over("b"), Refused(Refusal::InstanceOfAnotherNode)),
        // The picture may be a little older than the notice without being known as old.
        (named(FOREIGN, soon, 59), Has(Some(OWN)), None, None, Wait),
        (named(FOREIGN, soon, 59), Missing, Some("b"), None, Wait),
        // Nobody has it: its Node may be on its way, but not for long, whatever presses.
        (named(FOREIGN, soon, 59), Missing, None, None, Wait),
        (named(FOREIGN, soon, 60), Missing, None, None, Refused(Refusal::NoSuchNode)),
        (named(FOREIGN, Some(after(-9)), 0), Missing, None, None, Wait),
        // Its Node is gone, and the story goes on or is over.
        (named(OWN, soon, 900), Missing, None, open("a"), Accepted(Proof::Record)),
        (named(OWN, None, 900), Missing, None, over("a"), Over),
        // The Node does not say it yet.
        (named(OWN, None, 599), WithoutInstance, None, None, Wait),
        (named(OWN, None, 600), WithoutInstance, None, None, Refused(Refusal::NodeWithoutInstance)),
        (named(OWN, soon, 0), WithoutInstance, None, None, Accepted(Proof::Reporter)),
        (named(OWN, Some(after(3600)), 0), WithoutInstance, None, None, Wait),
        (named(OWN, None, 0), WithoutInstance, None, open("a"), Accepted(Proof::Record)),
        // The name of another node's notice, whole or as a prefix, and one of no meaning.
        (
            seen("b.i-0123456789abcdef0-spot-interruption", OWN, soon, 0),
            Has(Some(OWN)),
            Some("a"),
            None,
            Refused(Refusal::Misnamed),
        ),
        (
            seen("a.b.i-0123456789abcdef0-spot-interruption", OWN, soon, 0),
            Has(Some(OWN)),
            Some("a"),
            None,
            Refused(Refusal::Misnamed),
        ),
        (
            seen("a.i-0123456789abcdef0-spot-interruption-2", OWN, soon, 0),
            Has(Some(OWN)),
            Some("a"),
            None,
            Refused(Refusal::Misnamed),
        ),
        (seen("lie", OWN, soon, 0), Has(Some(OWN)), Some("a"), None, Refused(Refusal::Misnamed)),
    ];
    for (number, (notice, node, holder, record, expected)) in cases.into_iter().enumerate() {
        let holder = holder.map_or(Holder::Nobody, Holder::One);
        let known = Known { node, holder, record, nodes_are_current: true, now: now() };
        assert_eq!(judge(&notice.seen(), &known), expected, "case {number}: {known:?}");
        // On an old picture of the Nodes nothing is refused but a name.
        let expected = match expected {
            Refused(refusal) if refusal != Refusal::Misnamed => Wait,
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
    let open = |node| Some(Recorded { node, open: true });
    let other = Refused(Refusal::InstanceOfAnotherNode);
    for (notice, node, record, expected) in [
        (named(OWN, soon, 0), Has(Some(OWN)), None, Accepted(Proof::Reporter)),
        (named(OWN, soon, 100), Has(Some(OWN)), open("b"), Accepted(Proof::Reporter)),
        (named(OWN, soon, 100), Has(Some(OWN)), open("a"), Accepted(Proof::Reporter)),
        (named(OWN, None, 900), Has(Some(OWN)), None, Wait),
        (named(OWN, None, 900), Has(Some(OWN)), open("b"), Wait),
        (named(FOREIGN, soon, 60), Has(Some(OWN)), None, other),
        (named(OWN, soon, 60), WithoutInstance, None, other),
        (named(OWN, soon, 60), Missing, None, other),
    ] {
        let known = Known { node, holder: Holder::Several, record, nodes_are_current: true, now: now() };
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
    let node = "n".repeat(MAX_NODE_NAME);
    let instance = format!("i-{}", "0".repeat(17));
    let kinds = [NoticeKind::RebalanceRecommendation, NoticeKind::SpotInterruption];
    let longest = kinds.map(|kind| notice_name(&node, &instance, kind).len()).into_iter().max();
    assert_eq!(longest, Some(253));
}

#[test]
fn of_each_node_a_few_notices_are_looked_at_and_its_own_instance_first() {
    let names: Vec<(String, String)> = (0..100)
        .map(|number| {
            let instance = format!("i-{number:017x}");
            (notice_name("flood", &instance, NoticeKind::SpotInterruption), instance)
        })
        .collect();
    let make = |(name, instance): &'static (String, String), age: i64| Seen {
        name,
        node: "flood",
        instance_id: instance,
        kind: NoticeKind::SpotInterruption,
        deadline: None,
        created: after(-age),
    };
    let names: &'static Vec<(String, String)> = Box::leak(Box::new(names));
    let mut notices: Vec<Seen<'static>> = names.iter().map(|held| make(held, 10)).collect();
    // The node's own instance was reported last.
    notices[99].created = now();
    notices.push(Seen { node: "other", ..notices[0] });
    let (picked, surplus) = pick(&notices, |node| (node == "flood").then(|| names[99].1.as_str()));
    assert_eq!((picked.len(), surplus.len()), (LOOKED_AT + 1, 100 - LOOKED_AT));
    assert!(picked.contains(&99) && picked.contains(&100), "{picked:?}");
}
