//! Applying a command.

use super::Applied;
use crate::base::table::{Overlay, TableError};
use crate::wire::command::{Code, Command, Reply};

/// Applies.
pub fn apply(
    _tables: &mut Overlay<'_>,
    _index: u64,
    _command: &Command,
) -> Result<Applied, TableError> {
    let reply = Reply::Rejected {
        code: Code::Internal,
        message: String::new(),
    };
    Ok(Applied {
        reply,
        notes: Vec::new(),
    })
}
