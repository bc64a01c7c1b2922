//! The catalog as JSON lines: a copy that a person can read and a program can take in again.
//!
//! ```text
//! {"catalog":{"format":1,"cluster":"..","index":7,...}}     once, first
//! {"node":{..}}                                             each member
//! {"mode":{..}}                                             the mode in force
//! {"file":{"path":"a/b",..,"copies":[[{"n":0,"d":".."}]]}}  each file, by name, its earlier versions inside
//! {"end":{"files":1,"versions":1}}                          once, last: without it the copy is not whole
//! ```

use serde::{Deserialize, Serialize};

use super::record::{Copy, FileRecord, ModeRecord, NodeRecord};
use crate::base::id::ClusterId;
use crate::base::limit::FRAME_BYTES;
use crate::base::time::Wall;

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Longest line, in bytes: a file of a thousand parts and its earlier versions.
pub const LINE_BYTES: usize = 2 * 1024 * 1024;
const _: () = assert!(LINE_BYTES * 2 <= FRAME_BYTES);

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What this is a copy of.
    Catalog(Head),
    /// A member.
    Node(NodeRecord),
    /// The mode in force.
    Mode(ModeRecord),
    /// A file.
    File(Entry),
    /// Nothing is missing.
    End(End),
}

/// What a copy of a catalog was taken of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// See [`FORMAT`].
    pub format: u32,
    /// The cluster.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// The place in the log that it stands for.
    pub index: u64,
    /// The term of that place.
    pub term: u64,
    /// When it was taken, by the clock of the node that wrote it.
    pub time: Wall,
    /// The program that wrote it.
    pub version: String,
}

/// A file: its newest version, and the earlier ones that are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The newest version.
    #[serde(flatten)]
    pub newest: Placed,
    /// Earlier versions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Placed>,
}

impl Entry {
    /// All versions, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = &Placed> {
        self.earlier.iter().rev().chain([&self.newest])
    }
}

/// A version of a file, and where its parts lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Its row.
    #[serde(flatten)]
    pub record: FileRecord,
    /// The copies of each part.
    pub copies: Vec<Vec<Copy>>,
}

/// The end of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Files.
    pub files: u64,
    /// Their versions, the newest ones included.
    pub versions: u64,
}

impl Line {
    /// The line, with its end.
    pub fn print(&self, to: &mut Vec<u8>) {
        // A value of these types has no key that JSON cannot say.
        to.extend(serde_json::to_vec(self).unwrap_or_default());
        to.push(b'\n');
    }

    /// The line, without its end; or why it is none, for people.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let line: Self = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        match &line {
            Self::Catalog(head) if head.format > FORMAT => Err(format!(
                "written in format {}, this program reads {FORMAT}",
                head.format
            )),
            Self::File(entry) if entry.versions().any(is_odd) => {
                Err("the copies do not fit the parts".to_owned())
            }
            _ => Ok(line),
        }
    }
}

fn is_odd(placed: &Placed) -> bool {
    placed.copies.len() != placed.record.parts.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::sha256;
    use crate::base::id::{Boot, DirId, NodeId, OperationId, Version};
    use crate::base::path::FilePath;
    use crate::wire::record::Part;

    fn placed(version: u64) -> Placed {
        let digest = sha256(&version.to_be_bytes());
        Placed {
            record: FileRecord {
                path: FilePath::new("a/ü\"b").unwrap(),
                version: Version(version),
                size: 8,
                sha256: digest,
                md5: None,
                strategy: "splay".to_owned(),
                class: "default".to_owned(),
                parts: vec![Part {
                    size: 8,
                    sha256: digest,
                }],
                want: 3,
                owner: None,
                created: Wall(1),
                modified: Wall(2),
                upload: OperationId {
                    node: NodeId(1),
                    boot: Boot(2),
                    sequence: 3,
                },
            },
            copies: vec![vec![Copy {
                node: NodeId(1),
                dir: DirId(7),
            }]],
        }
    }

    #[test]
    fn a_line_parses_to_what_was_printed_and_has_one_end() {
        let entry = Entry {
            newest: placed(9),
            earlier: vec![placed(5), placed(3)],
        };
        let order: Vec<u64> = entry.versions().map(|v| v.record.version.0).collect();
        assert_eq!(order, [3, 5, 9]);
        for line in [Line::File(entry), Line::End(End::default())] {
            let mut bytes = Vec::new();
            line.print(&mut bytes);
            assert_eq!(bytes.pop(), Some(b'\n'));
            assert!(!bytes.contains(&b'\n'));
            assert_eq!(Line::parse(&bytes), Ok(line));
        }
    }

    #[test]
    fn a_later_format_and_copies_that_do_not_fit_are_refused() {
        let later = br#"{"catalog":{"format":2,"index":1,"term":1,"time":0,"version":"x"}}"#;
        assert!(Line::parse(later).unwrap_err().contains("format 2"));
        let mut entry = Entry {
            newest: placed(1),
            earlier: Vec::new(),
        };
        entry.newest.copies.clear();
        let mut bytes = Vec::new();
        Line::File(entry).print(&mut bytes);
        assert!(Line::parse(bytes.trim_ascii_end()).is_err());
        assert!(Line::parse(b"noise").is_err());
    }
}
