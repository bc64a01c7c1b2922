//! The administrative connection (rule R21): what an operator asks of any node, carried out there or by the leader.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::NodeId;
use crate::base::table::TableError;
use crate::core::catalog::query;
use crate::engine::frame::FrameStream;
use crate::engine::serve;
use crate::engine::shared::{Engine, tables_failed};
use crate::engine::verbs::Failure;
use crate::wire::admin::{Answer, NodeState, Nodes, Request};
use crate::wire::command::{Code, Operation};
use crate::wire::record::Administrative;

/// A connection without a request for so long is closed.
const IDLE: Duration = Duration::from_mins(5);

/// Serves an operator's connection to its end.
pub fn serve(engine: &Arc<Engine>, mut stream: FrameStream) -> io::Result<()> {
    while serve::wait(engine, &mut stream, Some(IDLE))? {
        let request = stream.receive_value()?;
        let answer = answer(engine, &request).unwrap_or_else(refusal);
        stream.send(&answer)?;
    }
    Ok(())
}

fn answer(engine: &Arc<Engine>, request: &Request) -> Result<Answer, Failure> {
    match request {
        Request::Nodes => nodes(engine).map(Answer::Nodes),
        Request::Administer { node, state } => administer(engine, *node, *state),
    }
}

/// A failure as it is told to the operator.
fn refusal(failure: Failure) -> Answer {
    match failure {
        Failure::Refused { code, message } => Answer::Refused { code, message },
        Failure::Unknown { message } => Answer::Unknown { message },
        Failure::Body(error) => Answer::Refused {
            code: Code::Internal,
            message: error.to_string(),
        },
    }
}

fn administer(
    engine: &Arc<Engine>,
    node: NodeId,
    state: Administrative,
) -> Result<Answer, Failure> {
    let committed = engine.commit(Operation::Administer { node, state })?;
    Ok(Answer::Done {
        index: committed.index,
    })
}

fn nodes(engine: &Arc<Engine>) -> Result<Nodes, Failure> {
    let report = engine.report();
    let stale = !engine.fresh();
    let list = || -> Result<Nodes, TableError> {
        let nodes = query::nodes(&engine.tables)?
            .into_iter()
            .map(|record| NodeState {
                votes: report.voters.contains(&record.id),
                figures: None,
                record,
            })
            .collect();
        Ok(Nodes {
            node: engine.node(),
            cluster: report.cluster,
            leader: report.leader,
            term: report.term,
            applied: report.applied,
            under_replicated: query::debts(&engine.tables)?,
            stale,
            nodes,
        })
    };
    list().map_err(tables_failed)
}
