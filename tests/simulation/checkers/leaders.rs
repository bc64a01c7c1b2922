//! One leader a term.

use std::collections::BTreeMap;

use momo::base::id::NodeId;
use momo::core::node::{Report, Role};

#[derive(Default)]
pub struct Leaders {
    terms: BTreeMap<u64, NodeId>,
}

impl Leaders {
    pub fn look(&mut self, node: NodeId, report: &Report) -> Result<(), String> {
        if report.role != Role::Leader {
            return Ok(());
        }
        let first = *self.terms.entry(report.term).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(format!(
            "nodes {first} and {node} both led in term {}",
            report.term
        ))
    }

    pub fn terms(&self) -> usize {
        self.terms.len()
    }
}
