//! Whether a notice is believed.
//!
//! The admission policy has proved which node reports: it stands in the notice, and in its name. Which
//! instance the node has, the policy cannot see. So node and instance are bound here, both ways, before a
//! notice may begin, escalate or reopen anything. The judgement is made anew each turn, from the notice and
//! what is known now.

mod begin;
mod judge;
mod room;
#[cfg(test)]
mod tests;

pub use begin::{
    Beginning, Believed, GroupClaim, KnownPools, may_be_unread, owner_of, record_of, takes_over,
};
pub use judge::{
    Holder, Judgement, Known, LOOKED_AT, MAX_NODE_NAME, NodeState, NoticeRefusal, Proof, Recorded, Seen,
    dated_notice_name, deadline, is_disbelieved, is_scheduled, is_to_come, is_too_far, judge, notice_name,
    pick, was_implausible,
};
pub use room::{KEPT, NoticeRoom};
