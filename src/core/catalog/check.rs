//! Refusals that can be foreseen before a command is proposed.

use crate::base::table::{TableError, Tables};
use crate::wire::command::{Operation, Reply};

/// Some(reply): refuse before proposing.
pub fn check(_tables: &dyn Tables, _operation: &Operation) -> Result<Option<Reply>, TableError> {
    Ok(None)
}
