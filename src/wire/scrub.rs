//! What a scrub found and how far it is, in the codes that stores of this kind use for it.

use serde::{Deserialize, Serialize};

use crate::base::id::NodeId;
use crate::base::time::Wall;

/// What can be wrong with a copy or an object, and that it was put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Finding {
    /// Policy violated: it lies on fewer nodes than wanted.
    Povi,
    /// A copy is missing.
    Miss,
    /// A copy has a bad length.
    Blen,
    /// A copy has a bad checksum, or its disk does not give its bytes.
    Bsum,
    /// No copy is left anywhere.
    Gone,
    /// A copy that was lost or bad has been made again.
    Repl,
    /// Wrong count: more copies than wanted, or one that nobody counts.
    Bcnt,
}

impl Finding {
    /// Each, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Povi,
        Self::Miss,
        Self::Blen,
        Self::Bsum,
        Self::Gone,
        Self::Repl,
        Self::Bcnt,
    ];

    /// The code.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Povi => "POVI",
            Self::Miss => "MISS",
            Self::Blen => "BLEN",
            Self::Bsum => "BSUM",
            Self::Gone => "GONE",
            Self::Repl => "REPL",
            Self::Bcnt => "BCNT",
        }
    }

    /// What it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Povi => "objects on fewer nodes than wanted",
            Self::Miss => "copies that were missing",
            Self::Blen => "copies of a bad length",
            Self::Bsum => "copies with a bad checksum",
            Self::Gone => "objects of which no copy is left",
            Self::Repl => "copies made again",
            Self::Bcnt => "copies too many, or counted by nobody",
        }
    }
}

/// How often each was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", default)]
pub struct Findings {
    povi: u64,
    miss: u64,
    blen: u64,
    bsum: u64,
    gone: u64,
    repl: u64,
    bcnt: u64,
}

impl Findings {
    /// One more.
    pub const fn add(&mut self, finding: Finding) {
        let count = match finding {
            Finding::Povi => &mut self.povi,
            Finding::Miss => &mut self.miss,
            Finding::Blen => &mut self.blen,
            Finding::Bsum => &mut self.bsum,
            Finding::Gone => &mut self.gone,
            Finding::Repl => &mut self.repl,
            Finding::Bcnt => &mut self.bcnt,
        };
        *count = count.saturating_add(1);
    }

    /// How often.
    pub const fn of(&self, finding: Finding) -> u64 {
        match finding {
            Finding::Povi => self.povi,
            Finding::Miss => self.miss,
            Finding::Blen => self.blen,
            Finding::Bsum => self.bsum,
            Finding::Gone => self.gone,
            Finding::Repl => self.repl,
            Finding::Bcnt => self.bcnt,
        }
    }
}

/// What a node's scrub does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// `scrub.period` is 0, and nobody asked for a pass.
    Off,
    /// Between two passes, or the node is not ready.
    #[default]
    Waiting,
    /// Reading, spread over its time.
    Running,
    /// Reading as fast as `scrub.bandwidth` allows: somebody asked for it.
    Hurrying,
    /// Reading slowly: clients have much to write or read.
    Yielding,
}

impl State {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Hurrying => "hurrying",
            Self::Yielding => "yielding",
        }
    }
}

/// A pass over all copies of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Its number, from 1.
    pub number: u64,
    /// When it began, by the node's clock.
    pub began: Wall,
    /// When it ended; `None` while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Wall>,
    /// Somebody asked for it: it is as fast as the bandwidth allows.
    #[serde(default)]
    pub hurried: bool,
    /// Copies looked at.
    pub objects: u64,
    /// Copies there were when it began.
    pub objects_total: u64,
    /// Bytes of the copies looked at.
    pub bytes: u64,
    /// Bytes of all copies when it began.
    pub bytes_total: u64,
    /// What was found meanwhile, also by reads.
    pub found: Findings,
}

/// How a node's scrub stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// The node.
    pub node: NodeId,
    /// What it does.
    pub state: State,
    /// Time in which every copy is read again, in seconds; 0 when it is off.
    pub period_s: u64,
    /// Most bytes a second it reads.
    pub bandwidth: u64,
    /// The pass under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<Pass>,
    /// The last complete pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Pass>,
    /// What was found since the node's process began, by scrub and by reads.
    pub found: Findings,
    /// Damaged copies kept aside until there are enough good ones.
    pub aside: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_each_by_its_own_code_and_travel_by_it() {
        let mut found = Findings::default();
        for (times, finding) in Finding::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| found.add(finding));
        }
        for (times, finding) in Finding::ALL.into_iter().enumerate() {
            assert_eq!(found.of(finding), times as u64 + 1);
            assert_eq!(
                serde_json::to_value(finding).unwrap(),
                serde_json::json!(finding.word())
            );
        }
        let text = serde_json::to_string(&found).unwrap();
        assert!(text.contains("\"BSUM\":4"), "{text}");
        assert_eq!(serde_json::from_str::<Findings>(&text).unwrap(), found);
        let older: Findings = serde_json::from_str("{\"MISS\":2,\"LATER\":1}").unwrap();
        assert_eq!(older.of(Finding::Miss), 2);
    }
}
