use super::super::wants::end_orphans;
use super::*;

#[test]
fn the_shares_of_nobody_are_done_unless_their_record_cannot_be_read() {
    let (ledger, _) = served();
    let done = wants([(GroupKind::Spot, "i-1", Want::Done)]);
    for (wanted, is_unreadable, after) in [
        (Wants::new(), false, done.clone()),
        (Wants::new(), true, Wants::new()),
        (spot("i-1"), false, spot("i-1")),
        (
            wants([(GroupKind::Spot, "i-1", Want::Nothing)]),
            true,
            wants([(GroupKind::Spot, "i-1", Want::Nothing)]),
        ),
        (spot("i-2"), false, spot("i-2").into_iter().chain(done).collect()),
    ] {
        let mut found = wanted.clone();
        end_orphans(&mut found, &ledger, &|name| is_unreadable && name == "i-1");
        assert_eq!(found, after, "{wanted:?}");
    }
}
