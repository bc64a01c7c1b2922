//! The loop that runs the core: one event in, its effects out in order. The same function in production and in simulation.

use crate::base::table::Tables;
use crate::base::time::Now;
use crate::core::node::{Effect, Event, Fatal, Node};

/// What the core acts upon.
pub trait World {
    /// The tables as the effects so far have left them.
    fn tables(&self) -> &dyn Tables;

    /// Carries out one effect, or starts it where the effect says that an event answers it. An error stops the process.
    fn carry_out(&mut self, effect: Effect) -> Result<(), Fatal>;
}

/// Gives the core one event and carries out, in order, everything that follows from it.
///
/// An error means that this node must not go on: the process ends and its supervisor starts it anew.
pub fn turn<W: World>(node: &mut Node, world: &mut W, event: Event, now: Now) -> Result<(), Fatal> {
    node.handle(event, now, world.tables())?;
    while let Some(effect) = node.poll() {
        world.carry_out(effect)?;
    }
    Ok(())
}
