//! The README is true: its session is replayed line by line against real daemons, and what it counts is what the program has.

mod harness;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::{BINARY, PATIENCE, free_addresses, has};
use momo::base::limit;

const README: &str = include_str!("../README.md");
const LOCAL_CONF: &str = include_str!("../conf/local.conf");
/// The ports of `conf/local.conf`, as the session names them.
const PORTS: [u16; 6] = [3333, 3334, 3335, 2223, 2224, 2225];

/// A command of the session and the lines below it.
struct Step {
    command: String,
    expected: Vec<String>,
}

/// The fenced block behind the marker.
fn session() -> Vec<Step> {
    let (_, rest) = README
        .split_once("<!-- session:")
        .expect("the marker of the session");
    let (_, rest) = rest.split_once("```console\n").expect("its block");
    let (block, _) = rest.split_once("```").expect("its end");
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                expected: Vec::new(),
            });
        } else {
            let step = steps.last_mut().expect("a command before its output");
            step.expected.push(line.to_owned());
        }
    }
    steps
}

/// The same text with the addresses of this run, as `host:port` and as netcat's two words.
fn with_addresses(text: &str, addresses: &[SocketAddr]) -> String {
    let mut text = text.to_owned();
    for (port, address) in PORTS.iter().zip(addresses) {
        for between in [":", " "] {
            let ours = format!("{}{between}{}", address.ip(), address.port());
            text = text.replace(&format!("127.0.0.1{between}{port}"), &ours);
        }
    }
    text
}

/// Whether a line is as expected: `<...>` stands for anything but nothing, and blanks are only blanks.
fn matches(expected: &str, line: &str) -> bool {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = Vec::new();
    let mut rest = expected.as_str();
    while let Some((literal, behind)) = rest.split_once('<') {
        parts.push(literal);
        rest = behind.split_once('>').map_or("", |(_, behind)| behind);
    }
    let (first, between) = match parts.split_first() {
        Some((first, between)) => (*first, between),
        None => return line == expected,
    };
    let Some(mut left) = line.strip_prefix(first) else {
        return false;
    };
    for literal in between {
        let Some(at) = left.get(1..).and_then(|behind| behind.find(literal)) else {
            return false;
        };
        left = &left[1 + at + literal.len()..];
    }
    left.len() > rest.len() && left.ends_with(rest)
}

/// A script that runs each command and leaves its output in a file of its own. Daemons outlive a command, so their shell stops them at its end.
fn script(steps: &[Step], addresses: &[SocketAddr]) -> String {
    let mut script = String::from("trap 'kill -9 $zero $one $two 2>/dev/null' EXIT\n");
    for (number, step) in steps.iter().enumerate() {
        let command = with_addresses(&step.command, addresses);
        let _ = writeln!(script, "{{ {command}\n}} >step-{number} 2>&1");
    }
    script
}

#[test]
fn the_session_of_the_readme_goes_as_it_is_written() {
    if !has("bash") || !has("nc") || !has("timeout") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let addresses = free_addresses(PORTS.len());
    fs::create_dir_all(at.join("conf")).expect("conf");
    fs::create_dir_all(at.join("target/release")).expect("target");
    symlink(BINARY, at.join("target/release/momo")).expect("the binary");
    fs::write(
        at.join("conf/local.conf"),
        with_addresses(LOCAL_CONF, &addresses),
    )
    .expect("the configuration");
    for name in ["README.md", "LICENSE"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        fs::copy(source, at.join(name)).expect(name);
    }
    let steps = session();
    assert!(steps.len() > 20, "the session is in the README");
    fs::write(at.join("session"), script(&steps, &addresses)).expect("the script");
    let limit = (PATIENCE * 3).as_secs().to_string();
    let status = Command::new("timeout")
        .args(["--signal=TERM", &limit, "bash", "session"])
        .current_dir(at)
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("bash");
    let mut wrong = String::new();
    for (number, step) in steps.iter().enumerate() {
        let output = fs::read(at.join(format!("step-{number}")));
        let output = output.map_or_else(
            |_| "(not reached)".to_owned(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        );
        // What the shell itself says of a job that was killed.
        let chatter = |line: &&str| line.starts_with("session: line ");
        let lines: Vec<&str> = output.lines().filter(|line| !chatter(line)).collect();
        let expected: Vec<String> = step
            .expected
            .iter()
            .map(|line| with_addresses(line, &addresses))
            .collect();
        let right = lines.len() == expected.len()
            && lines.iter().zip(&expected).all(|(l, e)| matches(e, l));
        if !right {
            let _ = writeln!(
                wrong,
                "$ {}\n--- the README\n{}\n--- the program\n{output}",
                step.command,
                expected.join("\n")
            );
        }
    }
    let logs: String = (0..3)
        .map(|id| fs::read_to_string(at.join(format!("momo-{id}.log"))).unwrap_or_default())
        .collect();
    assert!(
        wrong.is_empty() && status.success(),
        "{status}\n{wrong}\n{logs}"
    );
}

#[test]
fn a_placeholder_stands_for_something_and_blanks_are_only_blanks() {
    assert!(matches("a <n> b", "a   17 b"));
    assert!(matches("<size>  LICENSE", " 1073  LICENSE"));
    assert!(matches("x <a>, <b>", "x 1, 2, 3"));
    assert!(!matches("a <n> b", "a b"));
    assert!(!matches("v <n>", "v "));
    assert!(!matches("same", "same too"));
}

#[test]
fn the_limits_in_the_readme_are_those_of_the_program() {
    let thousands = |number: u64| {
        let digits = number.to_string();
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    };
    for (row, numbers) in [
        ("| path |", [limit::PATH_BYTES, limit::COMPONENT_BYTES]),
        (
            "| line of the text door |",
            [limit::LINE_BYTES, limit::LINE_BYTES],
        ),
        (
            "| earlier versions kept |",
            [limit::VERSIONS_KEPT, limit::VERSIONS_KEPT],
        ),
        (
            "| connections served at once |",
            [limit::CONNECTION_SLOTS, limit::PEER_SLOTS],
        ),
        (
            "| daemons, voters |",
            [usize::from(limit::NODES), limit::VOTERS],
        ),
    ] {
        let line = README
            .lines()
            .find(|line| line.starts_with(row))
            .unwrap_or_else(|| panic!("no row {row}"));
        for number in numbers {
            let number = thousands(number as u64);
            assert!(line.contains(&number), "{number} is not in: {line}");
        }
    }
    assert!(README.contains(&thousands(limit::FILE_BYTES)));
}

#[test]
fn every_target_and_file_the_readme_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let makefile = fs::read_to_string(root.join("Makefile")).expect("the Makefile");
    for (at, _) in README.match_indices("make ") {
        let rest = &README[at + 5..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
        let target = &rest[..end.unwrap_or(rest.len())];
        let code = README[..at].ends_with('`') || README[..at].ends_with("   ");
        if code && !target.is_empty() {
            assert!(
                makefile.contains(&format!("\n{target}:")),
                "make {target} is not in the Makefile"
            );
        }
    }
    for word in README.split(['`', ' ', '\n', '(', ')', ',']) {
        let folder = [
            "doors/", "engine/", "core/", "store/", "wire/", "config/", "base/",
        ]
        .iter()
        .any(|folder| word.starts_with(folder));
        let source = folder && Path::new(word).extension().is_some_and(|e| e == "rs");
        if source && !word.contains("/x.rs") {
            assert!(root.join("src").join(word).is_file(), "src/{word}");
        }
        if word.starts_with("tests/") && !word.contains('*') {
            assert!(root.join(word).exists(), "{word}");
        }
    }
}
