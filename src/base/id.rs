//! Names of things: nodes, directories, clusters, boots, uploads, commands.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::random::mix;

/// A node's number: `N` of its `[daemon.N]` section, 0 to 65,533. The Raft id is one more, because Raft forbids 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The id this node has inside Raft.
    pub const fn raft(self) -> u64 {
        self.0 as u64 + 1
    }

    /// The node behind a Raft id; `None` for 0 and for ids no node can have.
    pub fn from_raft(id: u64) -> Option<Self> {
        u16::try_from(id.checked_sub(1)?).ok().map(Self)
    }

    /// The key under which tables keep this node, in numeric order.
    pub const fn key(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $width:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $width, "x}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if text.len() != $width || !text.bytes().all(lower) {
                    return Err(NotHex);
                }
                <$int>::from_str_radix(text, 16).map(Self).map_err(|_| NotHex)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// A data directory's random id, given at format time and kept in its mark (rule R9: a copy is a node *and* a directory).
    DirId, u64, 16
);
hex_id!(
    /// A cluster's random id, given once at its birth (rule R13).
    ClusterId, u128, 32
);

impl ClusterId {
    /// The id of the cluster that one member goes on with when the others are lost for good: it remembers whose it was, and `chance` makes it another each time.
    #[must_use]
    pub fn successor(self, chance: u64) -> Self {
        let descent = u128::from(self.descent(chance));
        Self(u128::from(chance) << 64 | descent)
    }

    /// Whether this id was made as a successor of `former`.
    pub fn succeeds(self, former: Self) -> bool {
        let [chance, descent] = self.halves();
        self != former && former.descent(chance) == descent
    }

    fn halves(self) -> [u64; 2] {
        let low = u128::from(u64::MAX);
        [self.0 >> 64, self.0 & low].map(|half| u64::try_from(half).unwrap_or_default())
    }

    fn descent(self, chance: u64) -> u64 {
        let [high, low] = self.halves();
        mix(mix(mix(high) ^ low) ^ mix(chance ^ 0x7e_c0_7e_4e_d0))
    }
}

/// Text that is not lowercase hexadecimal of the expected length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHex;

impl fmt::Display for NotHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not lowercase hexadecimal of the right length")
    }
}

impl std::error::Error for NotHex {}

/// One start of one node's process: a counter kept in the state directory and raised, durably, before anything else is done. Later starts have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(pub u64);

/// Something a node started once: unique over the cluster's life because `boot` never repeats on a node and `sequence` never repeats in a boot.
///
/// Used for uploads (rule R5) and for commands (rule R4); the two count separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId {
    /// The node that started it.
    #[serde(rename = "n")]
    pub node: NodeId,
    /// Which start of that node.
    #[serde(rename = "b")]
    pub boot: Boot,
    /// Which operation of that start, from 1.
    #[serde(rename = "s")]
    pub sequence: u64,
}

impl OperationId {
    /// The id as a table key: ordered by node, then boot, then sequence.
    pub fn key(self) -> [u8; 18] {
        let mut key = [0; 18];
        key[..2].copy_from_slice(&self.node.key());
        key[2..10].copy_from_slice(&self.boot.0.to_be_bytes());
        key[10..].copy_from_slice(&self.sequence.to_be_bytes());
        key
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.node, self.boot.0, self.sequence)
    }
}

impl FromStr for OperationId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        let mut fields = text.splitn(3, '.');
        let mut next = || fields.next().ok_or(NotHex);
        Ok(Self {
            node: NodeId(next()?.parse().map_err(|_| NotHex)?),
            boot: Boot(next()?.parse().map_err(|_| NotHex)?),
            sequence: next()?.parse().map_err(|_| NotHex)?,
        })
    }
}

/// A version of a file: the Raft index of the command that made it, so versions of all files stand in commit order and never repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A thread's claim on an answer from the driver; never leaves the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_to_the_same_value() {
        let id = OperationId {
            node: NodeId(2),
            boot: Boot(7),
            sequence: 99,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("00000000000000ff".parse(), Ok(DirId(255)));
        assert_eq!("00000000000000FF".parse::<DirId>(), Err(NotHex));
        assert_eq!("ff".parse::<DirId>(), Err(NotHex));
    }

    #[test]
    fn a_successor_knows_its_cluster_and_no_other() {
        let [old, other] = [ClusterId(7), ClusterId(8)];
        let new = old.successor(99);
        assert!(new.succeeds(old));
        assert!(!new.succeeds(other) && !old.succeeds(new) && !old.succeeds(old));
        assert!(!new.successor(1).succeeds(old));
        assert_ne!(new, old.successor(100));
    }

    #[test]
    fn keys_of_operations_sort_as_the_operations_do() {
        let id = |node, boot, sequence| OperationId {
            node: NodeId(node),
            boot: Boot(boot),
            sequence,
        };
        let sorted = [id(0, 1, 300), id(0, 2, 1), id(1, 0, 0), id(256, 0, 0)];
        assert!(sorted.windows(2).all(|pair| pair[0].key() < pair[1].key()));
    }
}
