//! From the operator's configuration to what the engine is told.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::base::id::NodeId;
use crate::config::{Config, Durability as Word};
use crate::engine::handshake::Secret;
use crate::engine::settings::{MemberSettings, Settings};
use crate::store::objects::Durability;

/// Why a configuration that parses cannot be used here.
#[derive(Debug)]
pub enum Unusable {
    /// No such `[daemon.N]`.
    NoDaemon(NodeId, PathBuf),
    /// Addresses beyond this machine, and no secret.
    NoSecret(PathBuf, PathBuf),
    /// The secret is not a regular file.
    NoFile(PathBuf),
    /// The secret's file can be read by others.
    OpenSecret(PathBuf, u32),
    /// The secret's file holds too little.
    ShortSecret(PathBuf),
    /// The secret's file cannot be read.
    UnreadableSecret(PathBuf, io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDaemon(id, file) => {
                write!(f, "{} has no section [daemon.{id}]", file.display())
            }
            Self::NoSecret(file, config) => write!(
                f,
                "{}: no such file, and not every address is loopback: daemons could not tell each \
                 other from strangers; make it with: momo secret new --conf {}",
                file.display(),
                config.display()
            ),
            Self::NoFile(file) => write!(f, "{}: is not a file", file.display()),
            Self::OpenSecret(file, mode) => write!(
                f,
                "{0}: others can read it (mode {mode:o}); mend it with: chmod 600 {0}",
                file.display()
            ),
            Self::ShortSecret(file) => write!(
                f,
                "{}: is too short to be a secret (16 bytes at least)",
                file.display()
            ),
            Self::UnreadableSecret(file, error) => write!(f, "{}: {error}", file.display()),
        }
    }
}

impl std::error::Error for Unusable {}

/// Reads the secret (rule R20): required unless every address is loopback, refused when others can read it.
pub fn secret(config: &Config) -> Result<Secret, Unusable> {
    let file = config.secret_file();
    match fs::metadata(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if config.all_loopback() {
                return Ok(Secret(Vec::new()));
            }
            return Err(Unusable::NoSecret(file, config.file.clone()));
        }
        Err(error) => return Err(Unusable::UnreadableSecret(file, error)),
        Ok(meta) if !meta.is_file() => return Err(Unusable::NoFile(file)),
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            return Err(Unusable::OpenSecret(file, meta.mode() & 0o777));
        }
        Ok(_) => {}
    }
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) => return Err(Unusable::UnreadableSecret(file, error)),
    };
    let text = bytes.trim_ascii();
    if text.len() < 16 {
        return Err(Unusable::ShortSecret(file));
    }
    Ok(Secret(text.to_vec()))
}

/// The engine's settings for daemon `id`.
pub fn engine(config: &Config, id: NodeId) -> Result<Settings, Unusable> {
    let Some(daemon) = config.daemon(id) else {
        return Err(Unusable::NoDaemon(id, config.file.clone()));
    };
    let members = config
        .daemons
        .iter()
        .map(|(id, daemon)| MemberSettings {
            id: *id,
            name: daemon.name.clone(),
            peer: daemon.peer().to_string(),
            text: daemon.text().to_string(),
            stores: daemon.roles.store,
            manages: daemon.roles.manage,
        })
        .collect();
    let small = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Ok(Settings {
        node: id,
        members,
        join: None,
        fixed_addresses: config.membership.fixed_addresses,
        membership_grace: config.membership.grace,
        voters: config.voters().len(),
        data: daemon.data.clone(),
        drive: daemon.drive.clone(),
        state_dir: Some(daemon.state_dir()),
        secret: secret(config)?,
        durability: match config.write.durability {
            Word::Full => Durability::Full,
            Word::Data => Durability::Data,
            Word::None => Durability::None,
        },
        replicas: small(config.cluster.replicas),
        min_copies: small(config.cluster.min_copies.unwrap_or(2)),
        modes: config.global.replication_order.clone(),
        polymorphic: config.global.polymorphic_system,
        sample_interval: config.metrics.interval,
        fallback_interval: config.metrics.fallback_interval,
        min_threshold: config.metrics.min_threshold,
        max_threshold: config.metrics.max_threshold,
        heartbeat_interval: config.heartbeat.interval,
        heartbeat_timeout: config.heartbeat.timeout,
        raft_tick: config.raft.tick,
        election_ticks: number(config.raft.election_ticks),
        raft_heartbeat_ticks: number(config.raft.heartbeat_ticks),
        read_fresh: config.read.fresh,
        commit_deadline: config.write.deadline,
        hop_stall: config.write.hop_stall,
        body_pause: config.server.read_timeout,
        leg_wait: config.write.leg_wait,
        garbage_grace: config.gc.grace,
        scrub_period: config.scrub.period,
        scrub_bandwidth: config.scrub.bandwidth,
        repair_grace: config.repair.grace,
        repair_in: number(config.repair.incoming),
        repair_out: number(config.repair.outgoing),
        repair_bandwidth: config.repair.bandwidth,
    })
}
