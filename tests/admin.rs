//! What an operator does, on real daemons: see the members, drain, take out, declare dead, copy the catalog; and who may not.

#[path = "harness/mod.rs"]
mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use harness::{Cluster, Shape, content, eventually, write_file};
use serde_json::Value;

fn run(cluster: &Cluster, args: &[&str]) -> Output {
    cluster.client(args).output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[track_caller]
fn ends(output: &Output, code: i32, words: &str) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "{words:?} is not in {text}");
    assert!(!text.contains("panicked"), "{text}");
}

fn put(cluster: &Cluster, name: &str, bytes: &[u8]) {
    let file = cluster.folder().join("put");
    write_file(&file, bytes);
    let path = file.to_string_lossy().into_owned();
    ends(&run(cluster, &["put", &path, "--name", name]), 0, name);
}

fn nodes(cluster: &Cluster) -> Value {
    let output = run(cluster, &["node", "list", "--json"]);
    ends(&output, 0, "nodes");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn node(cluster: &Cluster, id: usize) -> Value {
    nodes(cluster)["nodes"][id].clone()
}

#[test]
fn the_list_tells_of_each_node_how_it_stands_and_a_death_and_a_return_are_seen_and_logged() {
    let mut cluster = Cluster::three();
    put(&cluster, "a", &content(1, 10_000));
    cluster.eventually("figures of every node", |cluster| {
        let list = nodes(cluster);
        (0..3).all(|id| list["nodes"][id]["health"]["figures"]["total_bytes"].as_u64() > Some(0))
    });
    let list = nodes(&cluster);
    for id in 0..3 {
        let node = &list["nodes"][id];
        let figures = &node["health"]["figures"];
        assert_eq!(node["alive"], true, "{node}");
        assert_eq!(node["votes"], true);
        assert_eq!(figures["version"], env!("CARGO_PKG_VERSION"));
        assert!(figures["term"].as_u64() > Some(0), "{figures}");
        assert!(figures["memory_used"].as_f64().is_some());
        assert_eq!(node["administrative"], "alive");
    }
    let table = text(&run(&cluster, &["node", "list"]));
    assert!(
        table.contains("leader") && table.contains("NODE"),
        "{table}"
    );
    cluster.daemons[2].kill();
    cluster.eventually("the death is seen", |cluster| {
        node(cluster, 2)["alive"] == false
    });
    let dead = node(&cluster, 2);
    assert!(dead["health"]["since_ms"].as_u64().is_some(), "{dead}");
    let logged = |cluster: &Cluster, event: &str| {
        cluster
            .daemons
            .iter()
            .any(|daemon| daemon.logged().contains(event))
    };
    cluster.eventually("it is in the log", |cluster| {
        logged(cluster, "heartbeat_monitor_failure")
    });
    cluster.daemons[2].start();
    cluster.eventually("the return is seen", |cluster| {
        node(cluster, 2)["alive"] == true
    });
    cluster.eventually("that is in the log", |cluster| {
        logged(cluster, "nm_ss_recovery")
    });
}

#[test]
fn a_killed_node_is_found_dead_long_before_its_heartbeats_run_out() {
    let mut cluster = Cluster::start(&Shape {
        extra: "[heartbeat]\ninterval=20000\ntimeout=60000\n\n".to_owned(),
        fast: false,
        ..Shape::default()
    });
    eventually("heartbeats came in", || {
        let list = nodes(&cluster);
        (0..3).all(|id| list["nodes"][id]["health"]["heard_ms"].is_u64())
    });
    let leader = nodes(&cluster)["leader"].as_u64().expect("a leader");
    let victim = (0..3).find(|id| *id as u64 != leader).expect("a follower");
    cluster.daemons[victim].kill();
    // The timeout is a minute: only the refused connection can tell within the patience of this test.
    cluster.eventually("it is found dead", |cluster| {
        node(cluster, victim)["alive"] == false
    });
}

#[test]
fn without_the_secret_nothing_is_told_or_changed() {
    let cluster = Cluster::three();
    let secret = cluster.folder().join("other.secret");
    write_file(&secret, b"0123456789abcdef0123456789abcdef\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("mode");
    let conf = fs::read_to_string(&cluster.conf).expect("configuration");
    let other = cluster.folder().join("other.conf");
    let text = format!("[cluster]\nsecret_file={}\n{conf}", secret.display());
    write_file(&other, text.as_bytes());
    for args in [&["node", "list"][..], &["node", "dead", "1", "--yes"]] {
        let mut command = std::process::Command::new(harness::BINARY);
        let output = command.args(args).arg("--conf").arg(&other).output();
        ends(&output.expect("the binary runs"), 1, "");
    }
    assert_eq!(node(&cluster, 1)["administrative"], "alive");
}

#[test]
fn what_an_operator_says_of_a_node_holds_and_declaring_it_dead_wants_a_yes() {
    let cluster = Cluster::three();
    for state in ["readonly", "down", "drain", "alive"] {
        ends(&run(&cluster, &["node", state, "2"]), 0, state);
        assert_eq!(node(&cluster, 2)["administrative"], state);
    }
    ends(&run(&cluster, &["node", "drain", "daemon.1"]), 0, "node 1");
    ends(&run(&cluster, &["node", "undrain", "1"]), 0, "alive");
    ends(&run(&cluster, &["node", "drain", "9"]), 1, "no node 9");
    ends(&run(&cluster, &["node", "dead", "2"]), 2, "--yes");
    assert_eq!(node(&cluster, 2)["administrative"], "alive");
    ends(&run(&cluster, &["node", "dead", "2", "--yes"]), 0, "dead");
    assert_eq!(node(&cluster, 2)["administrative"], "dead");
}

#[test]
fn a_voter_that_nobody_can_stand_in_for_is_taken_out_only_by_force_and_what_is_lost_is_said() {
    let mut cluster = Cluster::three();
    put(&cluster, "a", &content(5, 20_000));
    ends(
        &run(&cluster, &["node", "remove", "2"]),
        1,
        "drain it first",
    );
    let drained = run(
        &cluster,
        &["node", "drain", "2", "--wait", "--within", "60s"],
    );
    ends(&drained, 0, "node 2: safe to stop");
    let status = text(&run(&cluster, &["status"]));
    assert!(status.contains("drain 2 safe to stop"), "{status}");
    ends(
        &run(&cluster, &["node", "remove", "2"]),
        1,
        "--force leaves one voter less",
    );
    cluster.daemons[2].terminate(harness::PATIENCE);
    ends(
        &run(&cluster, &["node", "remove", "2", "--force"]),
        2,
        "taken out of the cluster",
    );
    ends(
        &run(&cluster, &["node", "remove", "2", "--force", "--yes"]),
        0,
        "removed",
    );
    ends(&run(&cluster, &["node", "remove", "2"]), 1, "no node 2");
    assert_eq!(cluster.get(1, "a"), content(5, 20_000));
}

#[test]
fn nothing_new_goes_to_a_node_that_is_drained() {
    let cluster = Cluster::start(&Shape {
        daemons: 4,
        ..Shape::default()
    });
    ends(&run(&cluster, &["node", "drain", "1"]), 0, "drain");
    let bytes = content(3, 50_000);
    put(&cluster, "new", &bytes);
    cluster.eventually("three copies elsewhere", |cluster| {
        cluster.durable(&bytes) == 3
    });
    assert!(!cluster.daemons[1].holds(&bytes));
}

#[test]
fn a_drained_node_is_told_to_be_safe_to_stop_once_all_lies_elsewhere_and_only_then_it_may_go() {
    let mut cluster = Cluster::start(&Shape {
        daemons: 5,
        extra: "[cluster]\nvoters=3\n\n".to_owned(),
        ..Shape::default()
    });
    let files: Vec<(String, Vec<u8>)> = (0..6)
        .map(|i| (format!("f{i}"), content(i, 30_000)))
        .collect();
    for (name, bytes) in &files {
        put(&cluster, name, bytes);
    }
    let held = node(&cluster, 1)["holdings"]["objects"].as_u64();
    assert!(held > Some(0), "it has copies");
    ends(
        &run(&cluster, &["node", "remove", "1"]),
        1,
        "drain it first",
    );
    let drained = run(
        &cluster,
        &["node", "drain", "1", "--wait", "--within", "60s"],
    );
    ends(&drained, 0, "safe to stop");
    for (_, bytes) in &files {
        let elsewhere = cluster
            .daemons
            .iter()
            .filter(|d| d.id != 1 && d.holds(bytes));
        assert!(elsewhere.count() >= 3);
    }
    cluster.daemons[1].kill();
    ends(&run(&cluster, &["node", "remove", "1"]), 0, "removed");
    for (name, bytes) in &files {
        assert_eq!(&cluster.get(0, name), bytes);
    }
    assert!(
        nodes(&cluster)["nodes"]
            .as_array()
            .is_some_and(|all| all.len() == 4)
    );
}

#[test]
fn a_copy_of_the_catalog_names_every_file_and_goes_only_into_an_empty_one() {
    let cluster = Cluster::start(&Shape {
        extra: "[gc]\ngrace=86400000\n\n".to_owned(),
        ..Shape::default()
    });
    let copy = cluster.folder().join("copy.jsonl");
    let copy = copy.to_string_lossy().into_owned();
    for i in 0..40 {
        put(&cluster, &format!("dir/{i:02}"), &content(i, 500));
    }
    put(&cluster, "dir/07", b"another version");
    put(&cluster, "empty", b"");
    ends(&run(&cluster, &["catalog", "export", &copy]), 0, "");
    let lines = fs::read_to_string(&copy).expect("a copy");
    let parsed: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    assert!(parsed[0]["catalog"]["index"].as_u64() > Some(0));
    let names: Vec<&str> = parsed
        .iter()
        .filter_map(|line| line["file"]["path"].as_str())
        .collect();
    assert_eq!(names.len(), 41);
    assert_eq!(parsed.last().expect("an end")["end"]["versions"], 42);
    // The same on standard output.
    let printed = run(&cluster, &["catalog", "export"]);
    assert_eq!(
        printed.stdout.split(|b| *b == b'\n').count(),
        parsed.len() + 1
    );

    ends(
        &run(&cluster, &["catalog", "import", &copy]),
        1,
        "not empty",
    );
    let resumed = run(
        &cluster,
        &["catalog", "import", &copy, "--resume", "--json"],
    );
    ends(&resumed, 0, "\"same\":41");
    // What was deleted comes back while its objects are there still.
    for name in ["dir/07", "dir/11", "empty"] {
        ends(&run(&cluster, &["rm", name]), 0, "deleted");
    }
    let dry = run(
        &cluster,
        &["catalog", "import", &copy, "--resume", "--dry-run"],
    );
    ends(&dry, 0, "3 would be taken in, 38 there already, 0 lost");
    let resumed = run(&cluster, &["catalog", "import", &copy, "--resume"]);
    ends(&resumed, 0, "3 taken in, 38 there already, 0 lost");
    assert_eq!(cluster.get(1, "dir/07"), b"another version");
    assert_eq!(cluster.get(2, "dir/11"), content(11, 500));
    let stat = text(&run(&cluster, &["stat", "dir/07", "--json"]));
    assert!(stat.contains("earlier"), "{stat}");

    // A copy that was cut off is refused before anything is changed.
    let cut = cluster.folder().join("cut.jsonl");
    let whole: Vec<&str> = lines.lines().collect();
    write_file(&cut, (whole[..20].join("\n") + "\n").as_bytes());
    let cut = cut.to_string_lossy().into_owned();
    let refused = run(&cluster, &["catalog", "import", &cut, "--resume"]);
    ends(&refused, 1, "is not whole");
}

#[test]
fn an_import_is_refused_while_objects_without_a_name_go_too_soon() {
    let cluster = Cluster::three();
    put(&cluster, "a", b"some bytes");
    let copy = cluster.folder().join("copy.jsonl");
    let copy = copy.to_string_lossy().into_owned();
    ends(&run(&cluster, &["catalog", "export", &copy]), 0, "");
    ends(&run(&cluster, &["rm", "a"]), 0, "deleted");
    ends(
        &run(&cluster, &["catalog", "import", &copy]),
        1,
        "[gc] grace",
    );
}

#[test]
fn a_cluster_that_lost_every_catalog_is_born_again_with_its_bytes_and_a_copy_of_the_catalog() {
    let mut cluster = Cluster::start(&Shape {
        extra: "[gc]\ngrace=86400000\n\n".to_owned(),
        ..Shape::default()
    });
    let copy = cluster.folder().join("copy.jsonl");
    let copy = copy.to_string_lossy().into_owned();
    let files: Vec<(String, Vec<u8>)> = (0..12)
        .map(|i| (format!("dir/{i:02}"), content(i, 70_000)))
        .collect();
    for (name, bytes) in &files {
        put(&cluster, name, bytes);
    }
    let before = nodes(&cluster)["cluster"].clone();
    ends(&run(&cluster, &["catalog", "export", &copy]), 0, "");
    ends(
        &run(&cluster, &["catalog", "release", "--id", "0", "--yes"]),
        1,
        "use",
    );
    for daemon in &mut cluster.daemons {
        daemon.terminate(harness::PATIENCE);
    }
    for id in ["0", "1", "2"] {
        ends(
            &run(&cluster, &["catalog", "release", "--id", id]),
            2,
            "--yes",
        );
        let released = run(&cluster, &["catalog", "release", "--id", id, "--yes"]);
        ends(&released, 0, "released, its state is in");
    }
    for daemon in &mut cluster.daemons {
        daemon.start();
    }
    cluster.wait_ready();
    assert_ne!(nodes(&cluster)["cluster"], before);
    cluster.eventually("every directory is in service", |cluster| {
        let list = nodes(cluster);
        (0..3).all(|id| {
            list["nodes"][id]["dirs"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        })
    });
    let dry = run(&cluster, &["catalog", "import", &copy, "--dry-run"]);
    ends(&dry, 0, "12 would be taken in");
    ends(
        &run(&cluster, &["catalog", "import", &copy]),
        0,
        "12 taken in",
    );
    for (name, bytes) in &files {
        assert_eq!(&cluster.get(1, name), bytes);
    }
    cluster.eventually("no copy is missing", |cluster| {
        nodes(cluster)["under_replicated"] == 0
    });
}
