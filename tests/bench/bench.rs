//! The figures: what momo costs beside floors measured in the same run. `make bench`; sizes by `BENCH_MB`, `BENCH_RUNS`, `BENCH_FILES`, `BENCH_NAMES`.
//! `BENCH_PART` chooses: `files` (uploads and reads), `life` (deaths, repair, many names, heartbeats), or one of the latter by name.
//!
//! Three release daemons and the floor program run beside each other, one at a time, floor and ours in turn; medians of all runs.
//! `--floors` stops after the floors. `--json` prints for programs. `BENCH_DIR` says on which disk.

#[path = "../harness/alone.rs"]
#[allow(dead_code)]
mod alone;
mod commands;
mod deaths;
mod fan;
mod floor;
#[path = "../harness/mod.rs"]
mod harness;
mod heartbeats;
mod load;
mod names;
mod refill;
mod table;
mod usage;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fan::Fan;
use harness::{Cluster, Shape};
use load::Verb;
use table::Table;
use usage::{Cost, client, median, memory_of};

/// Bytes of a small file.
const SMALL: u64 = 4096;
/// Idle connections that must cost little.
const IDLE: usize = 1000;
/// A floor further from `dd` than this counts for nothing.
const NEAR: f64 = 0.15;

/// What this run measures.
struct Plan {
    bytes: u64,
    runs: usize,
    files: u64,
    floors_only: bool,
    json: bool,
    folder: PathBuf,
    source: PathBuf,
}

/// Samples by name.
#[derive(Default)]
struct Samples(BTreeMap<String, Vec<Cost>>);

impl Samples {
    fn add(&mut self, name: &str, cost: Cost) {
        eprintln!("  {name}: {:.3} s, {:.2} CPU s", cost.wall, cost.cpu);
        self.0.entry(name.to_owned()).or_default().push(cost);
    }

    fn pick(&self, name: &str, of: impl Fn(&Cost) -> f64) -> f64 {
        let values: Vec<f64> = self
            .0
            .get(name)
            .map(|costs| costs.iter().map(of).collect())
            .unwrap_or_default();
        median(&values)
    }

    fn wall(&self, name: &str) -> f64 {
        self.pick(name, |cost| cost.wall)
    }

    fn cpu(&self, name: &str) -> f64 {
        self.pick(name, |cost| cost.cpu)
    }
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--role") {
        if let Err(error) = role(&args[1..]) {
            let _ = writeln!(io::stderr(), "{}: {error}", args[1..].join(" "));
            std::process::exit(1);
        }
        return;
    }
    let number = |name: &str, otherwise: u64| {
        env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
            .unwrap_or(otherwise)
    };
    let parent = env::var_os("BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    fs::create_dir_all(&parent).expect("folder for the bench");
    let scratch = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&parent)
        .expect("folder for the bench");
    let plan = Plan {
        bytes: number("BENCH_MB", 1024) * 1024 * 1024,
        runs: usize::try_from(number("BENCH_RUNS", 5)).unwrap_or(5).max(1),
        files: number("BENCH_FILES", 1000),
        floors_only: args.iter().any(|arg| arg == "--floors"),
        json: args.iter().any(|arg| arg == "--json"),
        folder: scratch.path().to_path_buf(),
        source: scratch.path().join("large"),
    };
    raise_file_limit();
    let part = env::var("BENCH_PART").unwrap_or_default();
    let wants = |name: &str| {
        let life = LIFE.contains(&name);
        part.is_empty() || part == "all" || part == name || (life && part == "life")
    };
    let known = ["", "all", "files", "life"];
    assert!(
        known.contains(&part.as_str()) || LIFE.contains(&part.as_str()),
        "BENCH_PART is one of {known:?} and {LIFE:?}"
    );
    let mut table = Table::default();
    if wants("files") {
        floor::make_source(&plan.source, plan.bytes);
        measure(&plan, &mut Samples::default(), &mut table);
        let _ = fs::remove_file(&plan.source);
    }
    if !plan.floors_only {
        life(&plan, wants, number("BENCH_NAMES", 1_000_000), &mut table);
    }
    let mut out = io::stdout().lock();
    let _ = if plan.json {
        writeln!(out, "{:#}", table.json())
    } else {
        writeln!(out, "{}", table.text())
    };
}

/// The parts of `life`.
const LIFE: &[&str] = &[
    "leader",
    "holder",
    "repair",
    "names",
    "commands",
    "heartbeats",
];

/// Life and death: what a fault costs those who live, and what the catalog costs in time of peace.
fn life(plan: &Plan, wants: impl Fn(&str) -> bool, names: u64, table: &mut Table) {
    let folder = &plan.folder;
    if wants("leader") {
        deaths::leader(folder, plan.runs, table);
    }
    if wants("holder") {
        deaths::holder(folder, plan.runs, table);
    }
    if wants("repair") {
        refill::figures(folder, plan.files, table);
    }
    if wants("names") {
        names::figures(folder, names, table);
    }
    if wants("commands") {
        commands::figures(folder, table);
    }
    if wants("heartbeats") {
        heartbeats::figures(table);
    }
}

/// What a process of this program does that is not the bench itself, but one of its servers or clients.
fn role(args: &[String]) -> io::Result<()> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, "arguments of a role");
    let text = |index: usize| args.get(index).map(String::as_str).ok_or_else(bad);
    let number = |index: usize| text(index)?.parse::<u64>().map_err(|_| bad());
    let addresses = |from: usize| -> io::Result<Vec<SocketAddr>> {
        args.get(from..)
            .unwrap_or_default()
            .iter()
            .map(|address| address.parse().map_err(|_| bad()))
            .collect()
    };
    match text(0)? {
        "fan-server" => fan::serve(Path::new(text(1)?)),
        "fan-put-file" => fan::put_file(Path::new(text(1)?), &addresses(5)?),
        verb @ ("fan-put" | "fan-get") => fan::many(
            verb == "fan-put",
            text(1)?,
            number(2)?,
            number(3)?,
            number(4)?,
            &addresses(5)?,
        ),
        word => load::run(
            Verb::of(word).ok_or_else(bad)?,
            text(1)?,
            number(2)?,
            number(3)?,
            number(4)?,
            *addresses(5)?.first().ok_or_else(bad)?,
        ),
    }
}

fn measure(plan: &Plan, samples: &mut Samples, table: &mut Table) {
    let fan = Fan::start(&plan.folder, 3);
    let mut ours = (!plan.floors_only).then(|| Ours::start(plan));
    for run in 0..plan.runs {
        eprintln!("run {} of {}", run + 1, plan.runs);
        // One MD5 pass is read first, so that the source is in the page cache for all.
        samples.add("md5", floor::md5_pass(&plan.source));
        samples.add("sha256", floor::sha256_pass(&plan.source));
        samples.add("loopback", floor::loopback(plan.bytes));
        samples.add("plain write", floor::plain_write(&plan.folder, plan.bytes));
        samples.add(
            "synced write",
            floor::synced_writes(&plan.folder, plan.bytes, 1),
        );
        if let Some(ours) = &mut ours {
            ours.upload(samples, 0, "none");
        }
        samples.add(
            "synced write x3",
            floor::synced_writes(&plan.folder, plan.bytes, 3),
        );
        samples.add("dd x3", floor::dd(&plan.folder, plan.bytes, 3));
        if let Some(ours) = &mut ours {
            for (mode, name) in [(1, "chain"), (2, "splay"), (3, "primary-splay")] {
                ours.upload(samples, mode, name);
            }
        }
        floor::settle(plan.bytes);
        samples.add("fan-out large", fan.put_file(&plan.source));
        if let Some(ours) = &mut ours {
            ours.put_and_get(samples);
        }
        for clients in [1, 8] {
            floor::settle(SMALL * plan.files);
            let prefix = format!("f{run}-{clients}");
            let of = |what: &str| format!("{what} c{clients}");
            samples.add(
                &of("fan-out small"),
                fan.put_many(&prefix, SMALL, plan.files, clients),
            );
            if let Some(ours) = &ours {
                samples.add(&of("put small"), ours.small(Verb::Put, &prefix, clients));
            }
            samples.add(
                &of("fan-out read"),
                fan.get_many(&prefix, SMALL, plan.files, clients),
            );
            if let Some(ours) = &ours {
                samples.add(&of("get small"), ours.small(Verb::Get, &prefix, clients));
                samples.add(&of("stat"), ours.small(Verb::Stat, &prefix, clients));
                samples.add(&of("ping"), ours.small(Verb::Ping, &prefix, clients));
            }
        }
        if let Some(ours) = &mut ours {
            floor::settle(SMALL * plan.files);
            ours.cluster.set_mode(2);
            samples.add("momo small", ours.small(Verb::Momo, &format!("m{run}"), 1));
        }
    }
    let fan_memory = fan
        .pids()
        .iter()
        .map(|&pid| memory_of(pid, "VmHWM"))
        .fold(0.0, f64::max);
    floors_into(table, samples, fan_memory);
    if let Some(ours) = ours {
        figures_into(table, samples);
        ours.memory_into(table);
    }
}

fn floors_into(table: &mut Table, samples: &Samples, fan_memory: f64) {
    for name in [
        "md5",
        "sha256",
        "loopback",
        "plain write",
        "synced write",
        "synced write x3",
        "dd x3",
        "fan-out large",
        "fan-out small c1",
        "fan-out small c8",
        "fan-out read c1",
        "fan-out read c8",
    ] {
        table.shown(&format!("floor: {name}"), "s", samples.wall(name));
    }
    table.shown(
        "floor: fan-out large",
        "CPU s",
        samples.cpu("fan-out large"),
    );
    table.shown(
        "floor: fan-out small c1",
        "CPU s",
        samples.cpu("fan-out small c1"),
    );
    table.shown("floor: fan-out server, peak RSS", "MiB", fan_memory);
    let against = samples.wall("synced write x3") / samples.wall("dd x3");
    table.remarks.push(if (against - 1.0).abs() <= NEAR {
        format!("The synced write of three counts: {against:.2} of dd conv=fsync three times at once.")
    } else {
        format!("THE SYNCED WRITE OF THREE DOES NOT COUNT: {against:.2} of dd conv=fsync three times at once (0.85 to 1.15 wanted).")
    });
}

fn figures_into(table: &mut Table, samples: &Samples) {
    let (wall, cpu) = (
        |name: &str| samples.wall(name),
        |name: &str| samples.cpu(name),
    );
    let md5 = wall("md5");
    table.ratio(
        "upload, none",
        "s",
        wall("none"),
        (
            (2.0 * md5).max(wall("synced write")),
            "max(2 MD5, synced write)",
        ),
        1.35,
    );
    for (mode, cpu_limit) in [("chain", 5.5), ("splay", 5.5), ("primary-splay", 7.5)] {
        table.ratio(
            &format!("upload, {mode}"),
            "s",
            wall(mode),
            (md5 + wall("synced write x3"), "MD5 + synced write x3"),
            1.3,
        );
        table.ratio(
            &format!("upload, {mode}"),
            "CPU s",
            cpu(mode),
            (cpu("md5"), "CPU s an MD5 pass"),
            cpu_limit,
        );
    }
    table.ratio(
        "put",
        "s",
        wall("put"),
        (wall("fan-out large"), "fan-out"),
        1.3,
    );
    table.ratio(
        "put",
        "CPU s",
        cpu("put"),
        (cpu("fan-out large"), "fan-out"),
        1.5,
    );
    let get_floor = wall("loopback")
        .max(wall("sha256"))
        .max(wall("plain write"));
    let get_name = "max(loopback, SHA-256, plain write)";
    table.ratio(
        "get, from a holder",
        "s",
        wall("get near"),
        (get_floor, get_name),
        1.4,
    );
    table.ratio(
        "get, through a node without a copy",
        "s",
        wall("get far"),
        (get_floor, get_name),
        1.8,
    );
    for (clients, limit) in [(1, 1.7), (8, 3.0)] {
        table.ratio(
            &format!("small files, FILE PUT, {clients} client(s)"),
            "s",
            wall(&format!("put small c{clients}")),
            (wall(&format!("fan-out small c{clients}")), "fan-out"),
            limit,
        );
    }
    table.ratio(
        "small files, Momo protocol",
        "s",
        wall("momo small"),
        (wall("fan-out small c1"), "fan-out"),
        2.5,
    );
    for clients in [1, 8] {
        // What a fresh look-up adds to a bare round trip is the ReadIndex round.
        let fresh =
            (wall(&format!("stat c{clients}")) - wall(&format!("ping c{clients}"))).max(0.0);
        let floor = 2.0 * wall(&format!("fan-out read c{clients}")) + fresh;
        table.ratio(
            &format!("small files, FILE GET, {clients} client(s)"),
            "s",
            wall(&format!("get small c{clients}")),
            (floor, "2 x fan-out read + ReadIndex"),
            1.0,
        );
    }
    table.shown(
        "small files, FILE PUT, 1 client",
        "CPU s",
        cpu("put small c1"),
    );
    table.shown(
        "small files, FILE PUT, 8 clients",
        "CPU s",
        cpu("put small c8"),
    );
    table.shown("small files, Momo protocol", "CPU s", cpu("momo small"));
}

/// Three daemons of ours, and what they were before any work.
struct Ours {
    cluster: Cluster,
    idle_memory: f64,
    source: PathBuf,
    back: PathBuf,
    bytes: u64,
    files: u64,
}

impl Ours {
    fn start(plan: &Plan) -> Self {
        let cluster = Cluster::start(&Shape {
            fast: false,
            parent: Some(plan.folder.clone()),
            extra: "[gc]\ngrace=30000\n".to_owned(),
            ..Shape::default()
        });
        cluster.wait_ready();
        let idle_memory = peak(&cluster, "VmRSS");
        Self {
            cluster,
            idle_memory,
            source: plan.source.clone(),
            back: plan.folder.join("back"),
            bytes: plan.bytes,
            files: plan.files,
        }
    }

    fn pids(&self) -> Vec<u32> {
        self.cluster
            .daemons
            .iter()
            .map(harness::Daemon::pid)
            .collect()
    }

    /// One upload of the large file by the Momo client in a mode.
    fn upload(&mut self, samples: &mut Samples, mode: u8, name: &str) {
        self.cluster.set_mode(mode);
        floor::settle(self.bytes);
        let source = self.source.display().to_string();
        let mut command = self.cluster.client(&["-imp", "client", "-file", &source]);
        samples.add(name, client(&mut command, &self.pids()));
        self.forget("large");
    }

    /// `momo put` of the large file, and `momo get` from a holder; then a single copy, read through a node that has none.
    fn put_and_get(&mut self, samples: &mut Samples) {
        let source = self.source.display().to_string();
        let back = self.back.display().to_string();
        self.cluster.set_mode(2);
        floor::settle(self.bytes);
        let mut put = self.cluster.client(&["put", &source]);
        samples.add("put", client(&mut put, &self.pids()));
        floor::settle(self.bytes);
        let _ = fs::remove_file(&self.back);
        let mut get = self.cluster.client(&["get", "large", "-o", &back]);
        samples.add("get near", client(&mut get, &self.pids()));
        self.forget("large");
        self.cluster.set_mode(0);
        let mut put = self.cluster.client(&["put", &source]);
        client(&mut put, &[]);
        floor::settle(self.bytes);
        let _ = fs::remove_file(&self.back);
        let far = self.cluster.daemons[2].host.to_string();
        let mut get = self
            .cluster
            .client(&["get", "large", "-o", &back, "--server", &far]);
        samples.add("get far", client(&mut get, &self.pids()));
        let _ = fs::remove_file(&self.back);
        self.forget("large");
    }

    fn small(&self, verb: Verb, prefix: &str, clients: u64) -> Cost {
        let mut command = std::process::Command::new(env::current_exe().expect("own name"));
        command
            .args(["--role", verb.word(), prefix])
            .args([
                SMALL.to_string(),
                self.files.to_string(),
                clients.to_string(),
            ])
            .arg(self.cluster.daemons[0].host.to_string());
        client(&mut command, &self.pids())
    }

    fn forget(&self, name: &str) {
        let mut command = self.cluster.client(&["rm", name]);
        client(&mut command, &[]);
    }

    fn memory_into(self, table: &mut Table) {
        table.absolute("RSS, idle daemon", "MiB", self.idle_memory, 16.0);
        table.absolute(
            "RSS, peak over all uploads",
            "MiB",
            peak(&self.cluster, "VmHWM"),
            48.0,
        );
        let pid = self.cluster.daemons[0].pid();
        let before = memory_of(pid, "VmRSS");
        let address = self.cluster.daemons[0].host;
        let idle: Vec<TcpStream> = (0..IDLE)
            .map(|_| {
                let mut stream = harness::dial(address).expect("an idle connection");
                // One answered request each: a connection that has done nothing might not even have a thread.
                stream
                    .write_all(b"NODE PING\n")
                    .expect("an idle connection");
                let mut answer = [0_u8; 5];
                io::Read::read_exact(&mut stream, &mut answer).expect("an answer");
                stream
            })
            .collect();
        table.absolute(
            "RSS, more with 1,000 idle connections",
            "MiB",
            memory_of(pid, "VmRSS") - before,
            64.0,
        );
        let start = Instant::now();
        let answer = self.cluster.daemons[0]
            .text()
            .and_then(|mut text| text.ask("NODE PING"));
        let waited = start.elapsed();
        assert_eq!(
            answer.ok().as_deref(),
            Some("PONG"),
            "a new client beside idle ones"
        );
        assert!(
            waited < Duration::from_secs(5),
            "a new client waited {waited:?}"
        );
        table.absolute(
            "a new client beside them is served after",
            "s",
            waited.as_secs_f64(),
            0.1,
        );
        drop(idle);
        self.cluster.assert_alive();
    }
}

fn peak(cluster: &Cluster, line: &str) -> f64 {
    cluster
        .daemons
        .iter()
        .map(|daemon| memory_of(daemon.pid(), line))
        .fold(0.0, f64::max)
}

/// A thousand idle connections want more descriptors than a shell allows by default.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("the limit of open files stays: {error}");
    }
}
