//! The administrative connection (rule R21): what an operator asks of any node, carried out there or by the leader.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::id::NodeId;
use crate::base::path::FilePath;
use crate::base::table::TableError;
use crate::core::catalog::{self, query};
use crate::core::holdings::obstacle;
use crate::core::node::Event;
use crate::engine::census;
use crate::engine::frame::FrameStream;
use crate::engine::roster;
use crate::engine::serve;
use crate::engine::shared::{Engine, tables_failed};
use crate::engine::verbs::Failure;
use crate::engine::{export, import};
use crate::wire::admin::{Answer, Holdings, Keeper, NodeState, Nodes, Request};
use crate::wire::command::{Code, Operation};
use crate::wire::record::{Administrative, NodeRecord};

/// A connection without a request for so long is closed.
const IDLE: Duration = Duration::from_mins(5);
/// Time for a cluster to be born.
const INIT: Duration = Duration::from_secs(5);
/// Time between two looks whether it is.
const LOOK: Duration = Duration::from_millis(20);

/// Serves an operator's connection to its end.
pub fn serve(engine: &Arc<Engine>, mut stream: FrameStream) -> io::Result<()> {
    while serve::wait(engine, &mut stream, Some(IDLE))? {
        let request = stream.receive_value()?;
        if request == Request::Export {
            export::send(engine, &mut stream)?;
            continue;
        }
        let answer = answer(engine, &request).unwrap_or_else(refusal);
        stream.send(&answer)?;
    }
    Ok(())
}

fn answer(engine: &Arc<Engine>, request: &Request) -> Result<Answer, Failure> {
    match request {
        Request::Nodes { since } => nodes(engine, *since).map(Answer::Nodes),
        Request::Init => init(engine),
        Request::Roster => roster::roster(engine).map(Answer::Roster),
        Request::Administer { node, state } => {
            let (node, state) = (*node, *state);
            commit(engine, Operation::Administer { node, state })
        }
        Request::Add {
            node,
            name,
            address,
            stores,
            manages,
        } => commit(
            engine,
            Operation::Add {
                node: *node,
                name: name.clone(),
                address: address.clone(),
                stores: *stores,
                manages: *manages,
            },
        ),
        // Answered by more than an answer.
        Request::Export => Err(Failure::refused(Code::Internal, "not answered here")),
        Request::Import {
            files,
            begun,
            dry_run,
        } => import::take(engine, files, *begun, *dry_run)
            .map(|outcomes| Answer::Imported { outcomes }),
        Request::Remove { node, force } => remove(engine, *node, *force),
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
pub(super) fn refusal(failure: Failure) -> Answer {
    match failure {
        Failure::Refused { code, message } => Answer::Refused { code, message },
        Failure::Unknown { message } => Answer::Unknown { message },
        Failure::Body(error) => Answer::Refused {
            code: Code::Internal,
            message: error.to_string(),
        },
    }
}

/// Has the cluster born here, at an operator's word (rule R13).
fn init(engine: &Engine) -> Result<Answer, Failure> {
    let refused = |why: &str| Err(Failure::refused(Code::Conflict, why));
    if engine.report().cluster.is_some() {
        return refused("this daemon belongs to a cluster already");
    }
    if !engine.tell(Event::Init, INIT) {
        return Err(Failure::refused(Code::Unavailable, "busy, try again"));
    }
    let until = Instant::now() + INIT;
    while Instant::now() < until && !engine.is_stopping() {
        let report = engine.report();
        if report.born {
            let index = report.applied;
            return Ok(Answer::Done { index });
        }
        thread::park_timeout(LOOK);
    }
    refused(
        "no cluster was born: a daemon within reach belongs to one, or this one may not vote, or is to join another",
    )
}

fn commit(engine: &Engine, operation: Operation) -> Result<Answer, Failure> {
    let what = words(&operation);
    let committed = engine.commit(operation)?;
    log::info!(target: "momo::administered", "index {}: by an operator: {what}", committed.index);
    Ok(Answer::Done {
        index: committed.index,
    })
}

/// What is asked for, for the log.
fn words(operation: &Operation) -> String {
    match operation {
        Operation::Administer { node, state } => format!("node {node} is {state:?}").to_lowercase(),
        Operation::Add { node, address, .. } => format!("node {node} is added at {address}"),
        Operation::Remove { node, force } => format!("node {node} is removed, force={force}"),
        _ => "a command".to_owned(),
    }
}

/// Takes a node out, unless it is still needed: then says for what.
fn remove(engine: &Arc<Engine>, node: NodeId, force: bool) -> Result<Answer, Failure> {
    if !force {
        if !engine.fresh() {
            let why = "no leader confirmed in time what the node holds";
            return Err(Failure::refused(Code::Unavailable, why));
        }
        let catalog = engine.catalog()?;
        let known = query::node(&catalog, node).map_err(tables_failed)?;
        let Some(record) = known else {
            let why = format!("no node {node} in this cluster");
            return Err(Failure::refused(Code::NotFound, why));
        };
        let index = catalog::applied(&catalog).map_err(tables_failed)?;
        let counted = census::count(engine, index.map_or(0, |head| head.index))?;
        let held = counted.holdings.get(&node).cloned().unwrap_or_default();
        let leaves = matches!(
            record.administrative,
            Administrative::Drain | Administrative::Dead
        );
        // What takes new objects may be needed again before the command is applied.
        if held.needed > 0 || (record.stores && !leaves) {
            return Err(Failure::refused(Code::Conflict, still_needed(node, &held)));
        }
    }
    match commit(engine, Operation::Remove { node, force }) {
        Err(Failure::Refused {
            code: Code::Conflict,
            message,
        }) if !force => Err(Failure::refused(
            Code::Conflict,
            format!(
                "{message}: add a daemon that may vote first (--force leaves one voter less, where enough of them live)"
            ),
        )),
        other => other,
    }
}

/// Why a node may not be taken out yet, and what to do.
fn still_needed(node: NodeId, held: &Holdings) -> String {
    let names: Vec<&str> = held.examples.iter().map(FilePath::as_str).collect();
    let among = match names.as_slice() {
        [] => String::new(),
        names => format!(", among them {}", names.join(", ")),
    };
    let why = match held.needed {
        0 => format!("node {node} takes new files"),
        needed => format!(
            "node {node} holds {needed} objects ({} bytes) that have too few copies elsewhere, {} of them none{among}",
            held.needed_bytes, held.only_here
        ),
    };
    format!(
        "{why}: drain it first (momo node drain {node} --wait), or give up its copies with --force"
    )
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
            bytes_left: query::debt_bytes(&catalog)?,
            recounting: query::is_recounting(&catalog)?,
            repair: overview
                .as_ref()
                .filter(|overview| overview.leads)
                .map(|overview| overview.repair),
            stale,
            counted: counted.index,
            nodes: members.iter().map(member).collect(),
        })
    };
    list().map_err(tables_failed)
}
