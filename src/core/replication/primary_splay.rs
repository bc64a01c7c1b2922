//! primary-splay (3): the client sends to each node itself, and the entry node counts the legs (rule R22).

use super::{Choice, Plan, Reach, Refusal, Strategy, View};

/// The client to each.
pub(super) struct PrimarySplay;

impl Strategy for PrimarySplay {
    fn name(&self) -> &'static str {
        "primary-splay"
    }

    fn code(&self) -> u8 {
        3
    }

    fn plan(&self, view: &View) -> Result<Plan, Refusal> {
        let choice = Choice::new(view, Reach::Around, view.replicas)?;
        let legs = choice.others.clone();
        Ok(choice.plan(Vec::new(), legs))
    }
}
