//! The four replication modes, by digit: what the operator orders, the protocols say and the core decides by.

use serde::{Deserialize, Serialize};

/// A mode digit of the Momo protocol, and the code of a whole-file strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Mode {
    /// 0: the entry node keeps the only copy.
    None,
    /// 1: each daemon passes the bytes on to the next.
    Chain,
    /// 2: the entry node sends to all others at once.
    Splay,
    /// 3: the client sends to each daemon itself.
    PrimarySplay,
}

impl Mode {
    /// All modes, by digit.
    pub const ALL: [Self; 4] = [Self::None, Self::Chain, Self::Splay, Self::PrimarySplay];

    /// The digit on the wire, 0 to 3.
    pub const fn digit(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Chain => 1,
            Self::Splay => 2,
            Self::PrimarySplay => 3,
        }
    }

    /// The mode behind a digit; only 0 to 3 exist.
    pub fn from_digit(digit: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(digit).ok()?).copied()
    }

    /// The mode's name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Chain => "chain",
            Self::Splay => "splay",
            Self::PrimarySplay => "primary-splay",
        }
    }
}

impl TryFrom<u8> for Mode {
    type Error = &'static str;

    fn try_from(digit: u8) -> Result<Self, Self::Error> {
        Self::from_digit(digit.into()).ok_or("a mode is 0, 1, 2 or 3")
    }
}

impl From<Mode> for u8 {
    fn from(mode: Mode) -> Self {
        mode.digit()
    }
}
