//! `momo node`: the members, and what an operator says about them.

use clap::{Args, Subcommand};

use super::admin::{Client, Kind, nonsense};
use super::dial::DialFlags;
use super::exit::Failure;
use super::print;
use crate::base::id::NodeId;
use crate::wire::admin::{Answer, NodeState, Nodes, Request};
use crate::wire::record::Administrative;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo node list
  momo node drain 2 --wait           copy everything elsewhere, and say when it is safe to stop
  momo node undrain 2
  momo node down 1                   it is away for a while, and known to be
  momo node dead 1 --yes             it never comes back

A node is meant by its number or by its name.")]
pub(super) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the members, how they stand, and which may be stopped
    List(List),
    /// Take nothing new there; what it has is served
    Readonly(One),
    /// Back to full use
    #[command(alias = "undrain")]
    Alive(One),
}

#[derive(Args, Debug)]
struct List {
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

#[derive(Args, Debug)]
struct One {
    /// Number or name of the node
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    dial: DialFlags,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    match &flags.command {
        Command::List(list) => show(list),
        Command::Readonly(one) => say(one, Administrative::Readonly),
        Command::Alive(one) => say(one, Administrative::Alive),
    }
}

fn nodes(client: &mut Client) -> Result<Nodes, Failure> {
    match client.ask(&Request::Nodes { since: 0 }, Kind::Question)? {
        Answer::Nodes(nodes) => Ok(nodes),
        other => Err(nonsense(&other)),
    }
}

/// The member of this number or name.
fn find<'a>(nodes: &'a Nodes, word: &str) -> Result<&'a NodeState, Failure> {
    let number = word.parse().ok().map(NodeId);
    let mut found = nodes
        .nodes
        .iter()
        .filter(|state| Some(state.record.id) == number);
    let mut named = nodes.nodes.iter().filter(|state| state.record.name == word);
    found.next().or_else(|| named.next()).ok_or_else(|| {
        let there: Vec<String> = nodes
            .nodes
            .iter()
            .map(|state| state.record.id.to_string())
            .collect();
        Failure::Failed(format!("no node {word}; there are {}", there.join(", ")))
    })
}

fn show(list: &List) -> Result<(), Failure> {
    let mut client = Client::new(&list.dial)?;
    let nodes = nodes(&mut client)?;
    let value = serde_json::to_value(&nodes).map_err(|error| Failure::Failed(error.to_string()))?;
    print::json(&value)
}

fn say(one: &One, state: Administrative) -> Result<(), Failure> {
    let mut client = Client::new(&one.dial)?;
    let known = nodes(&mut client)?;
    let node = find(&known, &one.node)?.record.id;
    match client.ask(&Request::Administer { node, state }, Kind::Change)? {
        Answer::Done { .. } => print::out(&format!("node {node}: {state:?}\n")),
        other => Err(nonsense(&other)),
    }
}
