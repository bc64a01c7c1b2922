//! `momo scrub`: how far every node's re-reading of its copies is, what it found, and a pass now.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::admin::{Client, Kind, nonsense};
use super::dial::DialFlags;
use super::exit::Failure;
use super::print;
use crate::base::time::Wall;
use crate::config::field::{address, time};
use crate::wire::admin::{Answer, Keeper, Request};
use crate::wire::scrub::{Finding, Pass, ScrubStatus, State};

/// How often a waiting command asks.
const AGAIN: Duration = Duration::from_millis(250);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo scrub                         how far every node is, and what was found
  momo scrub --now --wait            read everything now, and say what was found
  momo scrub --now --node 2
  momo scrub --json | jq '.nodes[].found'

Codes: POVI objects on fewer nodes than wanted, MISS copies that were missing, BLEN of a bad length, BSUM with a bad
checksum, GONE objects of which no copy is left, REPL copies made again, BCNT copies too many or counted by nobody.
They are counted since each daemon began. A bad copy is kept in .momo/aside until there are enough good ones.")]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(super) struct Flags {
    /// Begin a pass over everything, as fast as scrub.bandwidth allows
    #[arg(long, conflicts_with = "status")]
    now: bool,
    /// With --now: wait until it has ended
    #[arg(long, requires = "now")]
    wait: bool,
    /// With --wait: no longer than this
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    patience: Duration,
    /// Only this node, by its number or name
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Show how it stands (what is done anyway)
    #[arg(long)]
    status: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

/// A node and what it said, or why it said nothing.
struct Told {
    keeper: Keeper,
    scrub: Result<ScrubStatus, String>,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let mut client = Client::new(&flags.dial)?;
    let (_, mut keepers) = ask(&mut client, false)?;
    if let Some(word) = &flags.node {
        let there: Vec<String> = keepers.iter().map(|k| k.node.to_string()).collect();
        keepers.retain(|keeper| keeper.node.to_string() == *word || keeper.name == *word);
        if keepers.is_empty() {
            let why = format!(
                "no node {word} keeps copies; there are {}",
                there.join(", ")
            );
            return Err(Failure::Failed(why));
        }
    }
    let mut told = question(&client, &keepers, flags.now);
    if flags.wait {
        wait(&client, &mut told, flags.patience)?;
    }
    if flags.json {
        print::json(&value(&told))?;
    } else {
        print::out(&table(&told))?;
    }
    silent(&told, flags)
}

fn ask(client: &mut Client, begin: bool) -> Result<(Option<ScrubStatus>, Vec<Keeper>), Failure> {
    let kind = if begin { Kind::Change } else { Kind::Question };
    match client.ask(&Request::Scrub { begin }, kind)? {
        Answer::Scrub { scrub, members } => Ok((scrub.map(|scrub| *scrub), members)),
        other => Err(nonsense(&other)),
    }
}

/// Asks every node itself: nobody else knows.
fn question(client: &Client, keepers: &[Keeper], begin: bool) -> Vec<Told> {
    keepers
        .iter()
        .map(|keeper| Told {
            keeper: keeper.clone(),
            scrub: one(client, keeper, begin),
        })
        .collect()
}

fn one(client: &Client, keeper: &Keeper, begin: bool) -> Result<ScrubStatus, String> {
    let mut only = client.only(address(&keeper.address)?);
    match ask(&mut only, begin) {
        Ok((Some(scrub), _)) if scrub.node == keeper.node => Ok(scrub),
        Ok(_) => Err("another daemon answers there".to_owned()),
        Err(failure) => Err(failure.to_string()),
    }
}

/// Waits until every node that was told to begin has ended.
fn wait(client: &Client, told: &mut [Told], patience: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    let number = |pass: Option<Pass>| pass.map_or(0, |pass| pass.number);
    let before: Vec<u64> = told
        .iter()
        .map(|told| told.scrub.as_ref().map_or(0, |scrub| number(scrub.last)))
        .collect();
    loop {
        let mut waiting = 0;
        for (told, before) in told.iter_mut().zip(&before) {
            let ended = |scrub: &ScrubStatus| {
                let last = scrub.last.filter(|last| last.hurried);
                number(last) > *before
            };
            if told.scrub.as_ref().is_ok_and(|scrub| !ended(scrub)) {
                told.scrub = one(client, &told.keeper, false);
                waiting += 1;
            }
        }
        if waiting == 0 {
            return Ok(());
        }
        if start.elapsed() >= patience {
            let why = format!("{waiting} nodes have not ended in {} s", patience.as_secs());
            return Err(Failure::Unknown(why));
        }
        thread::sleep(AGAIN);
    }
}

/// A node that did not answer is a failure for who wanted something of it, and for who heard nothing at all.
fn silent(told: &[Told], flags: &Flags) -> Result<(), Failure> {
    let silent: Vec<String> = told
        .iter()
        .filter(|told| told.scrub.is_err())
        .map(|told| told.keeper.node.to_string())
        .collect();
    let all = silent.len() == told.len();
    if silent.is_empty() || !(flags.now || flags.node.is_some() || all) {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "no answer from node {}",
        silent.join(", ")
    )))
}

fn value(told: &[Told]) -> Value {
    let nodes: Vec<Value> = told
        .iter()
        .map(|told| {
            let mut value = match &told.scrub {
                Ok(scrub) => json!(scrub),
                Err(why) => json!({"error": why}),
            };
            if let Value::Object(fields) = &mut value {
                fields.insert("node".to_owned(), json!(told.keeper.node));
                fields.insert("name".to_owned(), json!(told.keeper.name));
            }
            value
        })
        .collect();
    json!({"nodes": nodes})
}

fn table(told: &[Told]) -> String {
    let mut text = format!(
        "{:<5} {:<12} {:<9} {:>5} {:>6} {:>20}",
        "node", "name", "state", "pass", "done", "last complete"
    );
    for finding in Finding::ALL {
        let _ = write!(text, " {:>6}", finding.word());
    }
    let _ = writeln!(text, " {:>6}", "aside");
    for told in told {
        let keeper = &told.keeper;
        let scrub = match &told.scrub {
            Ok(scrub) => scrub,
            Err(why) => {
                let _ = writeln!(text, "{:<5} {:<12} {why}", keeper.node, keeper.name);
                continue;
            }
        };
        let number = scrub
            .pass
            .map_or_else(|| "-".to_owned(), |p| p.number.to_string());
        let last = scrub.last.and_then(|last| last.ended);
        let _ = write!(
            text,
            "{:<5} {:<12} {:<9} {number:>5} {:>6} {:>20}",
            keeper.node,
            keeper.name,
            scrub.state.word(),
            scrub.pass.map_or_else(|| "-".to_owned(), done),
            last.map_or_else(|| "never".to_owned(), Wall::rfc3339)
        );
        for finding in Finding::ALL {
            let _ = write!(text, " {:>6}", scrub.found.of(finding));
        }
        let _ = writeln!(text, " {:>6}", scrub.aside);
    }
    if told.iter().any(|told| {
        told.scrub
            .as_ref()
            .is_ok_and(|scrub| scrub.state == State::Off)
    }) {
        text.push_str("off: scrub.period is 0; `momo scrub --now` reads everything once\n");
    }
    text
}

/// How far a pass is, in per cent of its bytes (of its copies when they are empty of bytes).
fn done(pass: Pass) -> String {
    let (done, total) = match pass.bytes_total {
        0 => (pass.objects, pass.objects_total),
        total => (pass.bytes, total),
    };
    let percent = (u128::from(done) * 100)
        .checked_div(u128::from(total))
        .unwrap_or(100);
    format!("{} %", percent.min(100))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::NodeId;
    use crate::wire::scrub::Findings;

    fn told(scrub: Result<ScrubStatus, String>) -> Told {
        Told {
            keeper: Keeper {
                node: NodeId(1),
                name: "ss1".to_owned(),
                address: "127.0.0.1:3333".to_owned(),
            },
            scrub,
        }
    }

    #[test]
    fn the_table_shows_how_far_it_is_and_what_was_found_and_a_silent_node_by_name() {
        let mut found = Findings::default();
        found.add(Finding::Bsum);
        let pass = Pass {
            number: 7,
            bytes: 30,
            bytes_total: 40,
            ended: Some(Wall(1_000_000_000)),
            ..Pass::default()
        };
        let scrub = ScrubStatus {
            node: NodeId(1),
            state: State::Running,
            period_s: 5,
            bandwidth: 1,
            pass: Some(pass),
            last: Some(pass),
            found,
            aside: 3,
        };
        let text = table(&[told(Ok(scrub)), told(Err("no answer in time".to_owned()))]);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(
            lines[1].join(" "),
            "1 ss1 running 7 75 % 1970-01-01T00:00:01Z 0 0 0 1 0 0 0 3"
        );
        assert_eq!(lines[2].join(" "), "1 ss1 no answer in time");
        let value = value(&[told(Ok(scrub)), told(Err("gone".to_owned()))]);
        assert_eq!(value["nodes"][0]["found"]["BSUM"], 1);
        assert_eq!(value["nodes"][1]["error"], "gone");
    }

    #[test]
    fn a_pass_over_nothing_is_done() {
        assert_eq!(done(Pass::default()), "100 %");
    }
}
