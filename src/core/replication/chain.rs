//! chain (1): each node passes the bytes on to the next while it receives them.

use super::{Choice, Plan, Refusal, Strategy, View};
use crate::wire::peer::Hop;

/// One after another.
pub(super) struct Chain;

impl Strategy for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn code(&self) -> u8 {
        1
    }

    fn plan(&self, view: &View) -> Result<Plan, Refusal> {
        let choice = Choice::new(view, view.reach, view.replicas)?;
        let hops = choice
            .others
            .iter()
            .rev()
            .fold(Vec::new(), |next, node| vec![Hop { node: *node, next }]);
        Ok(choice.plan(hops, Vec::new()))
    }
}
