//! Deliberate faults, for the proof that the simulation finds them: chosen per thread by a test, and only in a build with debug assertions.
//!
//! In a release build [`is`] is a constant `false` and there is nothing that could choose one: no key, no argument, no variable.

/// One of the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The log is reported synced when it has only been handed over.
    AcknowledgeBeforeSync,
    /// What Raft has ready once the disk has an append is forgotten.
    ForgetLightReady,
    /// A copy in a directory that its node does not have in service is counted (rule R9).
    CountStaleCopy,
    /// Garbage is judged by what this node has applied, however old (rule R6).
    CollectWithoutRead,
    /// An emptied voter takes part at once, with its vote (rule R13).
    WipedVoterVotes,
    /// A copy job that failed is dropped, and its object with it.
    DropQueuedJob,
}

impl Canary {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::AcknowledgeBeforeSync,
        Self::ForgetLightReady,
        Self::CountStaleCopy,
        Self::CollectWithoutRead,
        Self::WipedVoterVotes,
        Self::DropQueuedJob,
    ];
}

#[cfg(debug_assertions)]
mod switch {
    use super::Canary;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Canary>> = const { Cell::new(None) };
    }

    /// Whether this thread runs with the fault.
    pub fn is(canary: Canary) -> bool {
        CHOSEN.get() == Some(canary)
    }

    /// From now on this thread runs with this fault, or with none.
    pub fn choose(canary: Option<Canary>) {
        CHOSEN.set(canary);
    }
}

#[cfg(debug_assertions)]
pub use switch::{choose, is};

/// Whether this thread runs with the fault: never in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn is(_canary: Canary) -> bool {
    false
}
