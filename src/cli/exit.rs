//! How a command ends, and the exit code that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// Refused or failed; nothing changed. Exit code 1.
    Failed(String),
    /// What was asked makes no sense. Exit code 2.
    Usage(String),
    /// It may have happened, or may still happen. Exit code 3.
    Unknown(String),
    /// Whoever read the output has gone: the end, and not an error.
    Closed,
}

impl Failure {
    pub(super) fn code(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Unknown(_) => ExitCode::from(3),
        }
    }

    /// The same, with the name of what it is about.
    pub(super) fn about(self, name: &str) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{name}: {why}")),
            Self::Usage(why) => Self::Usage(format!("{name}: {why}")),
            Self::Unknown(why) => Self::Unknown(format!("{name}: {why}")),
            Self::Closed => Self::Closed,
        }
    }

    /// The same, with more words behind it.
    pub(super) fn with(self, words: &str) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{why}{words}")),
            Self::Usage(why) => Self::Usage(format!("{why}{words}")),
            Self::Unknown(why) => Self::Unknown(format!("{why}{words}")),
            Self::Closed => Self::Closed,
        }
    }

    /// The end of work on several things of which each has already said what went wrong.
    pub(super) fn of_several(self) -> Self {
        match self {
            Self::Failed(_) => Self::Failed("not everything was done".to_owned()),
            Self::Unknown(_) => Self::Unknown("for some of it".to_owned()),
            other => other,
        }
    }

    /// The worse of two ends of work on several things: unknown before failed before usage before closed.
    pub(super) fn worse(self, other: Option<Self>) -> Self {
        let rank = |failure: &Self| match failure {
            Self::Closed => 0,
            Self::Usage(_) => 1,
            Self::Failed(_) => 2,
            Self::Unknown(_) => 3,
        };
        match other {
            Some(other) if rank(&other) > rank(&self) => other,
            _ => self,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) | Self::Usage(why) => f.write_str(why),
            Self::Unknown(why) => write!(f, "outcome unknown: {why}"),
            Self::Closed => f.write_str("output closed"),
        }
    }
}

/// An error of a file, with its name.
pub(super) fn of_file(path: &std::path::Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |error| Failure::Failed(format!("{}: {error}", path.display()))
}
