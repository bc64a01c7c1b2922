//! The name of a file in the catalog, checked once; whoever holds a `FilePath` may use it under a data directory.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::limit::{COMPONENT_BYTES, PATH_BYTES};

/// A valid path: UTF-8, relative, `/` between components, at most [`PATH_BYTES`] long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FilePath(String);

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// Nothing left, or an empty component (`a//b`, a leading or trailing `/`).
    Empty,
    /// Over [`PATH_BYTES`], or a component over [`COMPONENT_BYTES`].
    TooLong,
    /// A component is `.` or `..`.
    Dots,
    /// A control byte or NUL.
    Control,
    /// The first component is `.momo`, where the store keeps its own.
    Reserved,
    /// The last component has the form `*.part-NNN-of-NNN`, which names parts of ring files.
    PartName,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("file name is empty or has an empty component"),
            Self::TooLong => write!(
                f,
                "file name is too long (at most {PATH_BYTES} bytes, {COMPONENT_BYTES} a component)"
            ),
            Self::Dots => f.write_str("file name has a component '.' or '..'"),
            Self::Control => f.write_str("file name has control characters"),
            Self::Reserved => f.write_str("file names under '.momo' are reserved"),
            Self::PartName => f.write_str("file name looks like a part ('.part-NNN-of-NNN')"),
        }
    }
}

impl std::error::Error for BadPath {}

impl FilePath {
    /// Checks `text` by the rules of the catalog.
    pub fn new(text: &str) -> Result<Self, BadPath> {
        if text.len() > PATH_BYTES {
            return Err(BadPath::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(BadPath::Control);
        }
        for component in text.split('/') {
            match component {
                "" => return Err(BadPath::Empty),
                "." | ".." => return Err(BadPath::Dots),
                long if long.len() > COMPONENT_BYTES => return Err(BadPath::TooLong),
                _ => {}
            }
        }
        if text.split('/').next() == Some(".momo") {
            return Err(BadPath::Reserved);
        }
        if text.rsplit('/').next().is_some_and(is_part_name) {
            return Err(BadPath::PartName);
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The paths of the folders above, nearest first: `a/b/c` gives `a/b`, `a`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.0.as_str();
        std::iter::from_fn(move || {
            rest = &rest[..rest.rfind('/')?];
            Some(rest)
        })
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

/// True for `*.part-NNN-of-NNN`.
fn is_part_name(component: &str) -> bool {
    let Some((_, tail)) = component.rsplit_once(".part-") else {
        return false;
    };
    let three = |text: &str| text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    tail.split_once("-of-")
        .is_some_and(|(index, count)| three(index) && three(count))
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&std::borrow::Cow::<'de, str>::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_the_data_directory_is_refused() {
        for (text, why) in [
            ("", BadPath::Empty),
            ("/etc/passwd", BadPath::Empty),
            ("a//b", BadPath::Empty),
            ("a/", BadPath::Empty),
            ("..", BadPath::Dots),
            ("a/../b", BadPath::Dots),
            ("./a", BadPath::Dots),
            ("a\0b", BadPath::Control),
            ("a\nb", BadPath::Control),
            (".momo/objects", BadPath::Reserved),
            (".momo", BadPath::Reserved),
            ("d/a.part-002-of-005", BadPath::PartName),
        ] {
            assert_eq!(FilePath::new(text), Err(why), "{text:?}");
        }
        assert_eq!(FilePath::new(&"a".repeat(240)), Err(BadPath::TooLong));
        assert_eq!(FilePath::new(&"a/".repeat(600)), Err(BadPath::TooLong));
    }

    #[test]
    fn ordinary_names_are_kept_as_they_are() {
        for text in [
            "a",
            "d/.momo",
            "ünïcode/Ω.txt",
            "...",
            "a.part-02-of-005",
            "a b:c|d",
        ] {
            assert_eq!(FilePath::new(text).unwrap().as_str(), text);
        }
        let path = FilePath::new("a/b/c").unwrap();
        assert_eq!(path.parents().collect::<Vec<_>>(), ["a/b", "a"]);
        assert_eq!(path.name(), "c");
    }
}
