//! Answers were true: what was acknowledged is in the log with that answer, what was refused is not, and fresh reads saw what the name held.

use std::collections::BTreeMap;

use momo::base::id::OperationId;
use momo::wire::command::{Command, Operation, Reply};

use super::truth::Truth;
use crate::clients::{Done, Outcome, Request};

/// Looks at everything that clients saw.
pub fn judge(truth: &Truth, history: &[Done]) -> Result<(), String> {
    let mut uploads: BTreeMap<OperationId, u64> = BTreeMap::new();
    let mut stamps: BTreeMap<u64, u64> = BTreeMap::new();
    for (index, (command, _)) in &truth.commands {
        match &command.operation {
            Operation::Put(put) => {
                uploads.entry(put.upload).or_insert(*index);
            }
            Operation::SetMode { timestamp, .. } => {
                stamps.entry(*timestamp).or_insert(*index);
            }
            _ => {}
        }
    }
    let place = |operation: &Operation| match operation {
        Operation::Put(put) => uploads.get(&put.upload).copied(),
        Operation::SetMode { timestamp, .. } => stamps.get(timestamp).copied(),
        _ => None,
    };
    for done in history {
        match (&done.request, &done.outcome) {
            (
                Request::Change(
                    operation @ (Operation::Delete { .. } | Operation::Register { .. }),
                ),
                Outcome::Committed { index, reply },
            ) => {
                // These carry nothing to tell one from another by.
                let same = |(command, answer): &(Command, Reply)| {
                    command.id.node == done.node
                        && command.operation == *operation
                        && answer == reply
                };
                if !truth.commands.range(..=index).any(|(_, both)| same(both)) {
                    return Err(format!("acknowledged and lost: {done:?}"));
                }
            }
            (Request::Change(operation), Outcome::Committed { index, reply }) => {
                // The index may be that of a second entry, or of where the leader stood when it was asked again.
                let place = place(operation).unwrap_or(*index);
                let Some((first, answer)) = truth.commands.get(&place) else {
                    return Err(format!("acknowledged and lost: {done:?}"));
                };
                if place > *index || first.operation != *operation || answer != reply {
                    return Err(format!(
                        "acknowledged {done:?}, but the log holds {first:?} with {answer:?} at {place}"
                    ));
                }
            }
            (Request::Change(operation), Outcome::Refused) => {
                if let Some(place) = place(operation) {
                    return Err(format!("refused, and in the log at {place}: {done:?}"));
                }
            }
            (Request::Read(path), Outcome::Fresh { applied, found }) => {
                let held = truth.held(path, *applied);
                if held != *found {
                    return Err(format!("read {done:?}, but it held {held:?}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
