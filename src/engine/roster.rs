//! Who belongs, and where each is reached: links follow the catalog, and a node that is no member asks to be one.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::table::TableError;
use crate::core::catalog::query;
use crate::engine::bulk::connect;
use crate::engine::handshake;
use crate::engine::shared::Engine;
use crate::engine::verbs::Failure;
use crate::wire::admin::{Answer, Listed, Request, Roster};

/// How often the links are compared with what is known of the nodes.
const FOLLOW: Duration = Duration::from_millis(100);
/// Time between two questions of a node that wants to become a member.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Bound on one question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two log lines that say why nothing comes of it.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Keeps addresses and links in step with the catalog.
pub fn follow(engine: &Arc<Engine>) {
    let mut seen = None;
    while !engine.is_stopping() {
        thread::park_timeout(FOLLOW);
        let report = engine.report();
        let now = (report.born, report.applied);
        if report.born && seen != Some(now) {
            if let Err(error) = list(engine) {
                log::warn!(target: "momo::roster", "{error}");
            } else {
                seen = Some(now);
            }
        }
        if let Err(error) = engine.links.follow() {
            log::error!(target: "momo::roster", "no thread for a link: {error}");
        }
    }
}

fn list(engine: &Engine) -> Result<(), TableError> {
    let members = query::nodes(&engine.tables)?;
    // While this node is being filled it knows nothing better.
    if !members.is_empty() {
        let addresses: Vec<_> = members.into_iter().map(|m| (m.id, m.address)).collect();
        engine.peers.listed(&addresses);
    }
    Ok(())
}

/// What this node tells one that wants to become a member.
pub fn roster(engine: &Engine) -> Result<Roster, Failure> {
    let members = query::nodes(&engine.catalog()?).map_err(crate::engine::shared::tables_failed)?;
    let listed = |member: crate::wire::record::NodeRecord| Listed {
        node: member.id,
        address: member.address,
        alive: member.alive,
    };
    Ok(Roster {
        cluster: engine.report().cluster,
        members: members.into_iter().map(listed).collect(),
    })
}

/// Finds the cluster's members by one of them, at `address`, until this node is a member; once even if it is one, should
/// all the addresses it knows have changed.
pub fn find(engine: &Arc<Engine>, address: &str) {
    let mut said: Option<(String, Instant)> = None;
    while !engine.is_stopping() {
        let problem = match ask(address, engine) {
            Ok(roster) => introduce(engine, &roster),
            Err(error) => Some(error.to_string()),
        };
        let is_new = |why: &String| {
            let known = said.as_ref();
            known.is_none_or(|(old, at)| old != why || at.elapsed() > SAY_AGAIN)
        };
        if let Some(why) = problem.filter(is_new) {
            log::warn!(target: "momo::join", "{address}: {why}");
            said = Some((why, Instant::now()));
        }
        if engine.report().born {
            return;
        }
        thread::park_timeout(ASK_AGAIN);
    }
}

fn ask(address: &str, engine: &Engine) -> io::Result<Roster> {
    let socket = connect(address, PATIENCE)?;
    let secret = engine.settings.secret.clone();
    let (mut stream, _) = handshake::dial_as_operator(socket, secret, PATIENCE)?;
    stream.set_timeouts(PATIENCE, PATIENCE)?;
    stream.send(&Request::Roster)?;
    match stream.receive_value()? {
        Answer::Roster(roster) => Ok(roster),
        Answer::Refused { message, .. } | Answer::Unknown { message } => {
            Err(io::Error::other(message))
        }
        _ => Err(io::Error::other("an answer to another question")),
    }
}

/// Makes the members known to this node, or says why it cannot be one of them.
fn introduce(engine: &Engine, roster: &Roster) -> Option<String> {
    let (own, theirs) = (engine.report().cluster, roster.cluster);
    if let (Some(own), Some(theirs)) = (own, theirs)
        && own != theirs
    {
        return Some(format!(
            "it belongs to cluster {theirs}, and this node's directories to {own}"
        ));
    }
    let node = engine.node();
    let here = engine
        .settings
        .member(node)
        .map(|member| member.peer.as_str());
    let same = roster.members.iter().find(|listed| listed.node == node);
    if let Some(other) = same
        && other.alive
        && Some(other.address.as_str()) != here
        && !engine.report().born
    {
        // Its seat must not be taken by a mistake in a number.
        return Some(format!(
            "node {node} is a member already and alive, at {}: this one needs another number",
            other.address
        ));
    }
    for listed in roster.members.iter().filter(|listed| listed.node != node) {
        engine.peers.introduced(listed.node, &listed.address);
    }
    None
}
