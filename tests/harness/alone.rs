//! A cluster of one whose engine runs in this process: no listeners, nothing but the threads below the doors.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use momo::base::id::NodeId;
use momo::base::path::FilePath;
use momo::config::Config;
use momo::engine::handle::Handle;
use momo::engine::handshake::Secret;
use momo::engine::start::{Running, StartError, start};
use momo::engine::verbs::{Failure, Kept, Put, Strategy, Verbs};
use momo::server::settings;
use momo::wire::command::Expect;

/// What a node knows its peers by.
pub const SECRET: &[u8] = b"the cluster's secret";
/// Patience with a crowded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Starts node 0 of a cluster of one in `folder`. `extra` are further lines of its configuration.
pub fn start_in(folder: &Path, extra: &str) -> Result<Running, StartError> {
    let text = format!(
        "[global]\nreplication_order=2\n{extra}\n\
         [daemon.0]\nhost=127.0.0.1:3333\nchange_replication=127.0.0.1:2223\ndata={}\ndrive=/dev/sda\n",
        folder.join("data").display()
    );
    let config = Config::parse(&text, &folder.join("momo.conf")).expect("a configuration");
    let mut settings = settings::engine(&config, NodeId(0)).expect("settings");
    settings.secret = Secret(SECRET.to_vec());
    fs::create_dir_all(folder).expect("a folder");
    start(settings)
}

/// Waits until it leads itself and answers.
pub fn wait_ready(running: &Running) {
    let began = Instant::now();
    while !(running.engine.report().born && running.engine.report().leader.is_some()) {
        if let Ok(why) = running.failed.try_recv() {
            panic!("the node ended: {why}");
        }
        assert!(
            began.elapsed() < PATIENCE,
            "not ready: {:?}",
            running.engine.report()
        );
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// Keeps a file.
pub fn put(running: &Running, name: &str, bytes: &[u8]) -> Result<Kept, Failure> {
    let request = Put {
        path: FilePath::new(name).expect("a name"),
        size: bytes.len() as u64,
        strategy: Strategy::Current,
        class: "default".to_owned(),
        sha256: None,
        md5: None,
        expect: Expect::Any,
    };
    let mut body = bytes;
    Handle(running.engine.clone()).put(&request, &mut body)
}

/// The newest version of a file; `None` when there is no such name.
pub fn get(running: &Running, name: &str) -> Option<Vec<u8>> {
    let path = FilePath::new(name).expect("a name");
    let mut content = match Handle(running.engine.clone()).get(&path, None) {
        Ok(content) => content,
        Err(Failure::Refused {
            code: momo::wire::command::Code::NotFound,
            ..
        }) => return None,
        Err(failure) => panic!("{name}: {failure}"),
    };
    let size = content.record().size;
    let mut bytes = Vec::new();
    content
        .copy_to(0, size, &mut bytes)
        .unwrap_or_else(|failure| panic!("{name}: {failure}"));
    bytes.flush().expect("a vector");
    Some(bytes)
}
