//! Nothing is left over: when all is well no node holds a lock on an object, waits for an answer, or has work it does not do.

use std::collections::BTreeMap;

use momo::base::id::NodeId;
use momo::core::node::Report;

use crate::daemon::Daemon;

/// What is left at a node; `None` when nothing is.
pub fn left<'a>(
    seats: impl IntoIterator<Item = (NodeId, Option<Report>, &'a Daemon)>,
    errands: &BTreeMap<u64, (NodeId, crate::daemon::Errand)>,
) -> Option<String> {
    for (node, report, daemon) in seats {
        let under_way = report.map_or(0, |report| report.proposals + report.reads);
        if under_way > 0 {
            return Some(format!(
                "node {node} still has {under_way} requests under way"
            ));
        }
        if !daemon.is_idle() {
            return Some(format!("node {node} is not idle: {daemon:?}"));
        }
    }
    let errand = errands.values().next();
    errand.map(|errand| format!("a thread still waits: {errand:?}"))
}
