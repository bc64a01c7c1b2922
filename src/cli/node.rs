//! `momo node`: the members, and what an operator says about them.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use super::admin::{Client, Kind, nonsense};
use super::dial::DialFlags;
use super::exit::Failure;
use super::print;
use crate::base::id::NodeId;
use crate::base::path::FilePath;
use crate::config::field::{address, time};
use crate::config::{Config, HostPort};
use crate::wire::admin::{Answer, NodeState, Nodes, Request};
use crate::wire::record::Administrative;

/// Time between two looks while a node is drained.
const LOOK: Duration = Duration::from_secs(1);
/// For so long nobody need be able to say how far it is.
const BLIND: Duration = Duration::from_mins(1);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo node list
  momo node add 3 --address 10.0.0.4:3333
  momo node drain 2 --wait           copy everything elsewhere, and say when it is safe to stop
  momo node remove 2                 refused while others need what it holds
  momo node undrain 2                back to full use
  momo node down 1                   it is away for a while, and known to be
  momo node dead 1 --yes             it never comes back: its copies count no more

A node is meant by its number or by its name. With --server an address is a peer door's.

Exit codes: 0 done (with --wait: safe to stop), 1 refused or failed, 2 wrong usage,
3 outcome unknown (ask `momo node list`).")]
pub(super) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the members, how they stand, and which may be stopped for good
    List(List),
    /// Make a node a member; then start it with an empty directory
    Add(Add),
    /// Take a node out for good; refused while the others need what it holds
    Remove(Remove),
    /// Let nothing new go there, and copy everything elsewhere
    Drain(Drain),
    /// Back to full use
    Undrain(One),
    /// Take nothing new there; what it has is served
    Readonly(One),
    /// In full use
    Alive(One),
    /// Away for a while, and known to be: nothing new goes there
    Down(One),
    /// Gone for good: none of its copies counts any more
    Dead(Dead),
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
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

#[derive(Args, Debug)]
struct Drain {
    #[command(flatten)]
    one: One,
    /// Wait until it is safe to stop, and tell how far it is
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "TIME", value_parser = time, requires = "wait")]
    within: Option<Duration>,
}

#[derive(Args, Debug)]
struct Dead {
    #[command(flatten)]
    one: One,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Args, Debug)]
struct Remove {
    #[command(flatten)]
    one: One,
    /// Also while the others need what it holds, and when nobody can take over its vote
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, requires = "force")]
    yes: bool,
}

#[derive(Args, Debug)]
struct Add {
    /// Its number
    #[arg(value_name = "N")]
    node: u16,
    /// Where its peer door listens; otherwise as the configuration has it
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    address: Option<HostPort>,
    /// Its name; otherwise as the configuration has it, or `daemon.N`
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What it does; otherwise as the configuration has it, or both
    #[arg(long, value_name = "ROLE", value_delimiter = ',', value_parser = ["manage", "store"])]
    roles: Vec<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    match &flags.command {
        Command::List(list) => show(list),
        Command::Add(add) => self::add(add),
        Command::Remove(remove) => self::remove(remove),
        Command::Drain(drain) => self::drain(drain),
        Command::Undrain(one) | Command::Alive(one) => say(one, Administrative::Alive),
        Command::Readonly(one) => say(one, Administrative::Readonly),
        Command::Down(one) => say(one, Administrative::Down),
        Command::Dead(dead) => self::dead(dead),
    }
}

/// The word for a state, as it is said on the command line.
fn word(state: Administrative) -> &'static str {
    match state {
        Administrative::Alive => "alive",
        Administrative::Readonly => "readonly",
        Administrative::Drain => "drain",
        Administrative::Down => "down",
        Administrative::Dead => "dead",
    }
}

fn nodes(client: &mut Client, since: u64) -> Result<Nodes, Failure> {
    match client.ask(&Request::Nodes { since }, Kind::Question)? {
        Answer::Nodes(nodes) => Ok(nodes),
        other => Err(nonsense(&other)),
    }
}

/// The member of this number or name.
fn find<'a>(nodes: &'a Nodes, word: &str) -> Result<&'a NodeState, Failure> {
    let number = word.parse().ok().map(NodeId);
    let members = || nodes.nodes.iter();
    let numbered = members().find(|state| Some(state.record.id) == number);
    let named = || members().find(|state| state.record.name == word);
    numbered.or_else(named).ok_or_else(|| {
        let there: Vec<String> = members().map(|state| state.record.id.to_string()).collect();
        Failure::Failed(format!("no node {word}; there are {}", there.join(", ")))
    })
}

/// Has a change committed; its place in the log.
fn change(client: &mut Client, request: &Request) -> Result<u64, Failure> {
    match client.ask(request, Kind::Change)? {
        Answer::Done { index } => Ok(index),
        other => Err(nonsense(&other)),
    }
}

fn done(one: &One, node: NodeId, state: &str, index: u64) -> Result<(), Failure> {
    if one.json {
        return print::json(&json!({ "node": node, "state": state, "index": index }));
    }
    print::out(&format!("node {node}: {state}\n"))
}

fn say(one: &One, state: Administrative) -> Result<(), Failure> {
    let mut client = Client::new(&one.dial)?;
    let node = find(&nodes(&mut client, 0)?, &one.node)?.record.id;
    let index = change(&mut client, &Request::Administer { node, state })?;
    done(one, node, word(state), index)
}

fn add(add: &Add) -> Result<(), Failure> {
    let config = add.dial.conf.load()?;
    let request = addition(add, &config)?;
    let mut client = Client::new(&add.dial)?;
    let index = change(&mut client, &request)?;
    let id = add.node;
    if add.json {
        return print::json(&json!({ "node": id, "state": "added", "index": index }));
    }
    print::out(&format!(
        "node {id}: added; start it now with an empty directory: momo server --id {id} --join HOST:PORT of any other\n"
    ))
}

/// What is to be added, by the flags and the configuration.
fn addition(add: &Add, config: &Config) -> Result<Request, Failure> {
    let node = NodeId(add.node);
    let known = config.daemon(node);
    let address = match (&add.address, known) {
        (Some(address), _) => address.to_string(),
        (None, Some(daemon)) => daemon.peer().to_string(),
        (None, None) => {
            let file = config.file.display();
            return Err(Failure::Usage(format!(
                "{file} has no [daemon.{node}]: say where it listens with --address"
            )));
        }
    };
    let name = match (&add.name, known) {
        (Some(name), _) => name.clone(),
        (None, Some(daemon)) => daemon.name.clone(),
        (None, None) => format!("daemon.{node}"),
    };
    let said = |role: &str| add.roles.iter().any(|word| word == role);
    let (manages, stores) = match (add.roles.as_slice(), known) {
        ([_, ..], _) => (said("manage"), said("store")),
        ([], Some(daemon)) => (daemon.roles.manage, daemon.roles.store),
        ([], None) => (true, true),
    };
    Ok(Request::Add {
        node,
        name,
        address,
        stores,
        manages,
    })
}

fn remove(remove: &Remove) -> Result<(), Failure> {
    let one = &remove.one;
    let mut client = Client::new(&one.dial)?;
    let known = nodes(&mut client, 0)?;
    let state = find(&known, &one.node)?;
    let node = state.record.id;
    if remove.force && !remove.yes {
        print::confirm(&format!(
            "node {node} is taken out of the cluster. {}",
            loss(state)
        ))?;
    }
    let force = remove.force;
    let index = change(&mut client, &Request::Remove { node, force })?;
    done(one, node, "removed", index)
}

fn dead(dead: &Dead) -> Result<(), Failure> {
    let one = &dead.one;
    let mut client = Client::new(&one.dial)?;
    let known = nodes(&mut client, 0)?;
    let state = find(&known, &one.node)?;
    let node = state.record.id;
    if !dead.yes {
        print::confirm(&format!("node {node} is declared dead. {}", loss(state)))?;
    }
    let state = Administrative::Dead;
    let index = change(&mut client, &Request::Administer { node, state })?;
    done(one, node, word(state), index)
}

/// What is lost with a node, for people.
fn loss(state: &NodeState) -> String {
    let held = &state.holdings;
    let names: Vec<&str> = held.examples.iter().map(FilePath::as_str).collect();
    let among = match names.as_slice() {
        [] => String::new(),
        names => format!(" (among them parts of {})", names.join(", ")),
    };
    match (held.only_here, held.needed) {
        (0, 0) => format!(
            "None of its {} copies counts any more; all have others.",
            held.objects
        ),
        (0, needed) => format!(
            "None of its {} copies counts any more; {needed} objects have fewer copies than they should until they are made again{among}.",
            held.objects
        ),
        (only, _) => format!(
            "None of its {} copies counts any more; {only} objects have NO OTHER COPY within reach and may be LOST{among}.",
            held.objects
        ),
    }
}

fn drain(drain: &Drain) -> Result<(), Failure> {
    let one = &drain.one;
    let mut client = Client::new(&one.dial)?;
    let node = find(&nodes(&mut client, 0)?, &one.node)?.record.id;
    let state = Administrative::Drain;
    let index = change(&mut client, &Request::Administer { node, state })?;
    if !drain.wait {
        return done(one, node, word(state), index);
    }
    let until = drain
        .within
        .and_then(|within| Instant::now().checked_add(within));
    let mut said = String::new();
    let mut seen = Instant::now();
    loop {
        match nodes(&mut client, index) {
            Ok(now) => {
                seen = Instant::now();
                let Some(state) = now.nodes.iter().find(|state| state.record.id == node) else {
                    return Err(Failure::Failed(format!(
                        "node {node} is no member any more"
                    )));
                };
                if state.record.administrative != Administrative::Drain {
                    let why = format!(
                        "node {node} is not being drained any more: its state is {}",
                        word(state.record.administrative)
                    );
                    return Err(Failure::Failed(why));
                }
                progress(one, &now, state, &mut said)?;
                let is_told = now.counted >= index && !now.stale;
                if is_told && state.unsafe_to_stop.is_none() {
                    return Ok(());
                }
            }
            Err(failure @ (Failure::Failed(_) | Failure::Unknown(_))) => {
                if seen.elapsed() > BLIND {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(Failure::Failed(format!("not safe to stop yet: {said}")));
        }
        thread::sleep(LOOK);
    }
}

/// Tells how far a drain is whenever that has changed.
fn progress(one: &One, nodes: &Nodes, state: &NodeState, said: &mut String) -> Result<(), Failure> {
    let (id, held) = (state.record.id, &state.holdings);
    let line = match &state.unsafe_to_stop {
        None => format!("node {id}: safe to stop"),
        Some(why) => format!("node {id}: {why} ({} left)", size(held.needed_bytes)),
    };
    if *said == line {
        return Ok(());
    }
    said.clone_from(&line);
    if one.json {
        return print::json(&json!({
            "node": id, "needed": held.needed, "needed_bytes": held.needed_bytes,
            "safe_to_stop": state.unsafe_to_stop.is_none(), "why": state.unsafe_to_stop,
            "under_replicated": nodes.under_replicated,
        }));
    }
    print::out(&(line + "\n"))
}

fn show(list: &List) -> Result<(), Failure> {
    let mut client = Client::new(&list.dial)?;
    let nodes = nodes(&mut client, 0)?;
    if list.json {
        let value =
            serde_json::to_value(&nodes).map_err(|error| Failure::Failed(error.to_string()))?;
        return print::json(&value);
    }
    print::out(&screen(&nodes))
}

const HEAD: [&str; 15] = [
    "NODE", "NAME", "ADDRESS", "ROLE", "STATE", "LIFE", "FREE", "IO", "CPU", "MEM", "CONN", "JOBS",
    "VERSION", "HOLDS", "STOP",
];

/// The members for people.
fn screen(nodes: &Nodes) -> String {
    let dash = || "-".to_owned();
    let mut text = String::new();
    let cluster = nodes.cluster.map_or_else(dash, |id| id.to_string());
    let leader = nodes.leader.map_or_else(dash, |id| id.to_string());
    let _ = writeln!(
        text,
        "cluster {cluster}, leader {leader}, term {}, applied {}, {} objects under-replicated{}",
        nodes.term,
        nodes.applied,
        nodes.under_replicated,
        if nodes.stale {
            ", STALE: no leader confirmed this"
        } else {
            ""
        },
    );
    if let Some(repair) = nodes.repair.filter(|_| nodes.under_replicated > 0) {
        let _ = writeln!(
            text,
            "repair: {} left, {} jobs, {} copies made, {} a second",
            size(nodes.bytes_left),
            repair.jobs,
            repair.copies_done,
            size(repair.bytes_per_s),
        );
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(nodes.nodes.iter().map(|state| row(nodes, state)));
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for state in &nodes.nodes {
        let told = state.record.administrative == Administrative::Drain;
        match &state.unsafe_to_stop {
            Some(why) if told => {
                let _ = writeln!(text, "node {} is being drained: {why}", state.record.id);
            }
            None if told => {
                let _ = writeln!(text, "node {} is drained: safe to stop", state.record.id);
            }
            _ => {}
        }
    }
    text
}

fn row(nodes: &Nodes, state: &NodeState) -> [String; HEAD.len()] {
    let dash = || "-".to_owned();
    let record = &state.record;
    let role = if nodes.leader == Some(record.id) {
        "leader"
    } else if state.votes {
        "voter"
    } else {
        "learner"
    };
    let health = state.health.as_ref();
    let figures = health.and_then(|health| health.figures.as_ref());
    let of =
        |value: &dyn Fn(&crate::wire::peer::Figures) -> String| figures.map_or_else(dash, value);
    let share = |share: f64| format!("{:.0}%", share * 100.0);
    [
        record.id.to_string(),
        record.name.clone(),
        record.address.clone(),
        role.to_owned(),
        word(record.administrative).to_owned(),
        life(state),
        of(&|f| format!("{} of {}", size(f.free_bytes), size(f.total_bytes))),
        of(&|f| share(f.io_busy)),
        of(&|f| share(f.cpu_used)),
        of(&|f| share(f.memory_used)),
        of(&|f| f.connections.to_string()),
        of(&|f| f.jobs.to_string()),
        of(&|f| f.version.clone()),
        format!(
            "{} ({})",
            state.holdings.objects,
            size(state.holdings.bytes)
        ),
        if state.unsafe_to_stop.is_none() {
            "safe"
        } else {
            "no"
        }
        .to_owned(),
    ]
}

/// Alive or dead and since when, or heard of how long ago.
fn life(state: &NodeState) -> String {
    let health = state.health.as_ref();
    let word = match (state.record.alive, health) {
        (true, Some(health)) if !health.up => "silent",
        (true, Some(health)) if health.suspected => "suspect",
        (true, _) => "up",
        (false, _) => "dead",
    };
    let since = health.and_then(|health| match word {
        "silent" => health.heard_ms,
        _ => health.since_ms,
    });
    since.map_or_else(
        || word.to_owned(),
        |since| format!("{word} {}", span(since)),
    )
}

/// Milliseconds in one unit.
fn span(millis: u64) -> String {
    match millis / 1_000 {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Bytes in one unit.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1_024;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1_024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_said_in_one_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (millis, text) in [
            (900, "0s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_200_000, "2h"),
            (400_000_000, "4d"),
        ] {
            assert_eq!(span(millis), text);
        }
    }
}
