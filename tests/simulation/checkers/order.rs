//! Names are linearizable, each a register of its own and all of them together: what ended before something else began stands before it in the log.

use crate::clients::{Done, Outcome};

/// What ended before something else began stands before it in the log.
pub fn judge(history: &[Done]) -> Result<(), String> {
    // In the log a change stands at its index, and a read behind everything applied where it was made.
    let mut ended: Vec<(u64, u64, &Done)> = Vec::new();
    let mut begun: Vec<(u64, u64, &Done)> = Vec::new();
    for done in history {
        match &done.outcome {
            Outcome::Committed { index, .. } => {
                ended.push((done.ended, *index, done));
                begun.push((done.begun, *index, done));
            }
            Outcome::Fresh { applied, .. } => {
                ended.push((done.ended, *applied, done));
                begun.push((done.begun, *applied, done));
            }
            _ => {}
        }
    }
    ended.sort_by_key(|(at, ..)| *at);
    begun.sort_by_key(|(at, ..)| *at);
    let mut next = ended.into_iter().peekable();
    let mut highest: Option<(u64, &Done)> = None;
    for (at, index, done) in begun {
        while let Some((_, index, before)) = next.next_if(|(ended, ..)| *ended < at) {
            if highest.is_none_or(|(high, _)| high < index) {
                highest = Some((index, before));
            }
        }
        if let Some((high, before)) = highest
            && index < high
        {
            return Err(format!("{done:?} is behind {before:?}, which ended before"));
        }
    }
    Ok(())
}
