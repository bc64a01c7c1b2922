//! The administrative connection (rule R21): what an operator asks of any node, carried out there or by the leader.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::NodeId;
use crate::base::table::TableError;
use crate::core::catalog::query;
use crate::core::holdings::obstacle;
use crate::engine::census;
use crate::engine::frame::FrameStream;
use crate::engine::roster;
use crate::engine::serve;
use crate::engine::shared::{Engine, tables_failed};
use crate::engine::verbs::Failure;
use crate::wire::admin::{Answer, Keeper, NodeState, Nodes, Request};
use crate::wire::command::{Code, Operation};
use crate::wire::record::{Administrative, NodeRecord};

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
        Request::Nodes { since } => nodes(engine, *since).map(Answer::Nodes),
        Request::Roster => roster::roster(engine).map(Answer::Roster),
        Request::Administer { node, state } => administer(engine, *node, *state),
        Request::Scrub { begin } => scrub(engine, *begin),
    }
}

fn scrub(engine: &Arc<Engine>, begin: bool) -> Result<Answer, Failure> {
    if !engine.report().born {
        let why = "this node is not a member yet";
        return Err(Failure::refused(Code::Unavailable, why));
    }
    if begin {
        engine.scrub.begin_now();
    }
    let records = query::nodes(&engine.tables).map_err(tables_failed)?;
    let keepers = records.into_iter().filter(|record| record.stores);
    let members: Vec<Keeper> = keepers
        .map(|record| Keeper {
            node: record.id,
            name: record.name,
            address: record.address,
        })
        .collect();
    let keeps = members.iter().any(|member| member.node == engine.node());
    Ok(Answer::Scrub {
        scrub: keeps.then(|| Box::new(engine.scrub.status())),
        members,
    })
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

fn nodes(engine: &Arc<Engine>, since: u64) -> Result<Nodes, Failure> {
    let stale = !engine.fresh();
    let report = engine.report();
    let catalog = engine.catalog()?;
    let counted = census::count(engine, since)?;
    let overview = census::overview(engine);
    let list = || -> Result<Nodes, TableError> {
        let members = query::nodes(&catalog)?;
        let member = |record: &NodeRecord| {
            let held = counted.holdings.get(&record.id);
            let holdings = held.cloned().unwrap_or_default();
            let mut healths = overview.iter().flat_map(|overview| &overview.nodes);
            NodeState {
                votes: report.voters.contains(&record.id),
                health: healths.find(|health| health.node == record.id).cloned(),
                unsafe_to_stop: obstacle(record.id, &members, &report.voters, &holdings),
                holdings,
                record: record.clone(),
            }
        };
        Ok(Nodes {
            node: engine.node(),
            cluster: report.cluster,
            leader: report.leader,
            term: report.term,
            applied: report.applied,
            under_replicated: query::debts(&catalog)?,
            stale,
            counted: counted.index,
            nodes: members.iter().map(member).collect(),
        })
    };
    list().map_err(tables_failed)
}
