//! The transitions as a diagram, and which of them the tests have taken.

use super::{CapacityState, FallbackState, OldNodeState, Region};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

thread_local! {
    static TAKEN: RefCell<BTreeSet<[&'static str; 3]>> = RefCell::default();
}

/// Remembers that this thread has taken a transition of that region.
pub(super) fn note(region: &'static str, from: &'static str, to: &'static str) {
    TAKEN.with_borrow_mut(|taken| taken.insert([region, from, to]));
}

/// The transitions that no test of this thread has taken.
pub(crate) fn not_taken() -> Vec<String> {
    fn left<R: Region>(taken: &BTreeSet<[&'static str; 3]>) -> impl Iterator<Item = String> {
        let left = R::TABLE.iter().filter(|way| !taken.contains(&[R::NAME, way.from, way.to]));
        left.map(|way| format!("{}: {} -> {}: {}", R::NAME, way.from, way.to, way.when))
    }
    let taken = TAKEN.with_borrow(Clone::clone);
    left::<CapacityState>(&taken)
        .chain(left::<OldNodeState>(&taken))
        .chain(left::<FallbackState>(&taken))
        .collect()
}

/// A region as a composite state. Its states have its name before theirs, for names are global in Mermaid.
fn draw<R: Region + Default>(diagram: &mut String) {
    let region = R::NAME;
    let start = R::default();
    let _ = writeln!(diagram, "  state {region} {{\n    [*] --> {region}_{}", start.name());
    let mut named = BTreeSet::new();
    for way in R::TABLE {
        for name in [way.from, way.to] {
            if named.insert(name) {
                let _ = writeln!(diagram, "    state \"{name}\" as {region}_{name}");
            }
        }
        let number = way.flow_box.number();
        let _ =
            writeln!(diagram, "    {region}_{} --> {region}_{} : {number} {}", way.from, way.to, way.when);
    }
    diagram.push_str("  }\n");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "whoever changes the tables asks for a new drawing")]
fn the_diagram_is_drawn_from_the_tables() {
    let mut drawn =
        "%% Written by a test from crates/core/src/record/regions.rs: UPDATE_STATES=1 cargo test -p \
                     spot-guard-core diagram\nstateDiagram-v2\n"
            .to_owned();
    draw::<CapacityState>(&mut drawn);
    draw::<OldNodeState>(&mut drawn);
    draw::<FallbackState>(&mut drawn);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.mmd");
    if std::env::var_os("UPDATE_STATES").is_some() {
        std::fs::write(&path, &drawn).expect("docs/states.mmd can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("docs/states.mmd");
    assert!(
        committed == drawn,
        "docs/states.mmd is old: UPDATE_STATES=1 cargo test -p spot-guard-core diagram"
    );
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let text = std::fs::read_to_string(&page).expect("ARCHITECTURE.md");
    let (begin, end) = ("<!-- states -->\n", "<!-- end of states -->");
    let (before, rest) = text.split_once(begin).expect("where the states begin");
    let (_, after) = rest.split_once(end).expect("where the states end");
    let shown = format!("{before}{begin}```mermaid\n{drawn}```\n{end}{after}");
    if std::env::var_os("UPDATE_STATES").is_some() {
        std::fs::write(&page, &shown).expect("ARCHITECTURE.md can be written");
    }
    assert!(
        shown == std::fs::read_to_string(&page).expect("ARCHITECTURE.md"),
        "ARCHITECTURE.md is old: UPDATE_STATES=1 cargo test -p spot-guard-core diagram"
    );
}

#[test]
fn every_way_is_told_once() {
    for table in [CapacityState::TABLE, OldNodeState::TABLE, FallbackState::TABLE] {
        let ways: BTreeSet<_> = table.iter().map(|way| (way.from, way.to)).collect();
        assert_eq!(ways.len(), table.len());
    }
}
