//! Each command of Spot Guard that a document shows can be given as it stands there.

use super::{shown, spot_guard};

#[test]
fn the_commands_of_the_documents_are_ones() {
    shown::are_ones("spot-guard", 20, spot_guard);
}
