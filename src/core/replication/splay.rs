//! splay (2): the entry node sends to all others at once.

use super::{Choice, Plan, Reach, Refusal, Strategy, View};
use crate::wire::peer::Hop;

/// All at once.
pub(super) struct Splay;

impl Strategy for Splay {
    fn name(&self) -> &'static str {
        "splay"
    }

    fn code(&self) -> u8 {
        2
    }

    fn plan(&self, view: &View) -> Result<Plan, Refusal> {
        let choice = Choice::new(view, Reach::Around, view.replicas)?;
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
