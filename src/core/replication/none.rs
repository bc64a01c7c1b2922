//! none (0): the entry node keeps the only copy, or, when it takes nothing new, the next node that does.

use super::{Choice, Plan, Reach, Refusal, Strategy, View};
use crate::wire::peer::Hop;

/// One copy.
pub(super) struct None;

impl Strategy for None {
    fn name(&self) -> &'static str {
        "none"
    }

    fn code(&self) -> u8 {
        0
    }

    fn plan(&self, view: &View) -> Result<Plan, Refusal> {
        let choice = Choice::new(view, Reach::Around, 1)?;
        let hops = choice
            .others
            .iter()
            .map(|node| Hop {
                node: *node,
                next: Vec::new(),
            })
            .collect();
        Ok(choice.plan(hops, Vec::new()))
    }
}
