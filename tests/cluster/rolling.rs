//! A restart of all daemons, one after another, under load: no operation of a client that asks the next daemon fails.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::text::Text;
use crate::harness::{Cluster, PATIENCE, Shape, content, write_file};
use crate::ledger::Stop;

/// Longest that one operation may take, all its tries together.
const OPERATION: Duration = Duration::from_secs(20);

/// Does one thing with a daemon, or with the next one, until it is done.
fn with_next<T>(
    hosts: &[SocketAddr],
    first: usize,
    mut work: impl FnMut(&mut Text) -> std::io::Result<Result<T, String>>,
) -> Result<T, String> {
    let start = Instant::now();
    let mut tried = Vec::new();
    for host in hosts.iter().cycle().skip(first) {
        match Text::dial(*host).and_then(|mut text| work(&mut text)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(why)) => tried.push(format!("{host}: {why}")),
            Err(error) => tried.push(format!("{host}: {error}")),
        }
        if start.elapsed() > OPERATION {
            break;
        }
        if tried.len().is_multiple_of(hosts.len()) {
            thread::sleep(Duration::from_millis(20));
        }
    }
    tried.truncate(20);
    Err(tried.join("; "))
}

#[test]
fn a_rolling_restart_under_load_fails_no_operation_of_a_client() {
    let mut cluster = Cluster::start(&Shape {
        extra: "[server]\ndrain=8000\n\n".to_owned(),
        ..Shape::default()
    });
    let hosts: Vec<SocketAddr> = cluster.daemons.iter().map(|daemon| daemon.host).collect();
    let (stop, done, stale) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let conf = cluster.conf.clone();
    let folder = cluster.folder().to_path_buf();
    let failures: Vec<String> = thread::scope(|scope| {
        let mut workers = Vec::new();
        for worker in 0..3_usize {
            let (hosts, stop, done, stale) = (&hosts, &stop, &done, &stale);
            workers.push(scope.spawn(move || {
                let mut failures = Vec::new();
                for count in 0_usize.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("rolling-{worker}-{}.bin", count % 20);
                    let body = content((worker * 10_000 + count) as u64, 100 + count % 7 * 20_000);
                    let first = count % hosts.len();
                    if let Err(why) = with_next(hosts, first, |text| {
                        text.put(&name, "strategy=splay", &body)
                    }) {
                        failures.push(format!("put {name}: {why}"));
                    }
                    // Names are not shared between workers: what was kept last is what is there.
                    // An answer that says that it may be old is none: the next daemon is asked.
                    let fresh = |text: &mut Text| {
                        Ok(text.get_whole(&name)?.and_then(|got| {
                            if got.stale {
                                stale.fetch_add(1, Ordering::Relaxed);
                                return Err("stale".to_owned());
                            }
                            Ok(got.body)
                        }))
                    };
                    match with_next(hosts, first + 1, fresh) {
                        Ok(got) if got == body => {}
                        Ok(got) => failures.push(format!("{name}: {} other bytes", got.len())),
                        Err(why) => failures.push(format!("get {name}: {why}")),
                    }
                    done.fetch_add(2, Ordering::Relaxed);
                }
                failures
            }));
        }
        // Our own client, as an operator's script would call it.
        let (conf, folder, stop_client, done_client) = (&conf, &folder, &stop, &done);
        workers.push(scope.spawn(move || {
            let mut failures = Vec::new();
            let body = content(77, 60_000);
            let path = folder.join("script.bin");
            write_file(&path, &body);
            let back = folder.join("script.back");
            for count in 0_usize.. {
                if stop_client.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("script-{}.bin", count % 5);
                let from = path.display().to_string();
                let to = back.display().to_string();
                for args in [
                    vec!["put", &from, "--name", &name],
                    vec!["get", &name, "-o", &to],
                ] {
                    let output = std::process::Command::new(crate::harness::BINARY)
                        .args(&args)
                        .arg("--conf")
                        .arg(conf)
                        .output()
                        .expect("a client");
                    if !output.status.success() {
                        failures.push(format!(
                            "momo {}: {}: {}",
                            args.join(" "),
                            output.status,
                            String::from_utf8_lossy(&output.stderr)
                        ));
                    }
                }
                if fs::read(&back).ok().as_ref() != Some(&body) {
                    failures.push(format!("{name} came back different"));
                }
                done_client.fetch_add(2, Ordering::Relaxed);
            }
            failures
        }));
        {
            let _stop = Stop(&stop);
            for id in [1, 2, 0] {
                let before = done.load(Ordering::Relaxed);
                let status = cluster.daemons[id].terminate(PATIENCE);
                assert!(
                    status.is_some_and(|status| status.success()),
                    "daemon {id} ended with {status:?}\n{}",
                    cluster.tails()
                );
                cluster.eventually("work goes on without it", |_| {
                    done.load(Ordering::Relaxed) > before + 20
                });
                cluster.daemons[id].start();
                cluster.wait_ready();
                let before = done.load(Ordering::Relaxed);
                cluster.eventually("work goes on with it", |_| {
                    done.load(Ordering::Relaxed) > before + 20
                });
            }
        }
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a client"))
            .collect()
    });
    let done = done.load(Ordering::Relaxed);
    assert!(
        failures.is_empty(),
        "{} of {done} operations failed:\n{}\n{}",
        failures.len(),
        failures.join("\n"),
        cluster.tails()
    );
    let stale = stale.load(Ordering::Relaxed);
    eprintln!("{done} operations, none failed; {stale} answers marked stale");
}
