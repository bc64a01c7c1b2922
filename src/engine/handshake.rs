//! Rule R20: who is on the other end of a peer connection, proved by the cluster's shared secret before anything else is parsed.
//!
//! ```text
//! dialler  -> MAGIC(8) role(1) from(2) to(2) cluster(16) nonce(32)
//! listener -> id(2) cluster(16) nonce(32) mac(32)       mac = HMAC-SHA256(secret, "listener" | transcript)
//! dialler  -> mac(32)                                   mac = HMAC-SHA256(secret, "dialler"  | transcript)
//! listener -> 1
//! ```
//! The transcript is every byte of the first two lines except the MACs, so both nonces, both ids, both cluster ids and the role are proved.
//! It protects the handshake, not the stream.
//!
//! An operator's command line knows the secret and is no node: it dials as [`OPERATOR`] in the role of [`Role::Admin`],
//! to [`OPERATOR`] as well, which stands for whichever node listens there.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};

use crate::base::id::{ClusterId, NodeId};
use crate::engine::frame::{FrameStream, SharedSocket};
use crate::wire::peer::MAGIC;

/// Time to authenticate.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Who an operator's command line is in a handshake, and whom it dials: a number no node has.
pub const OPERATOR: NodeId = NodeId(u16::MAX);

/// The cluster's shared secret. Empty where every address is loopback and no file was given.
#[derive(Clone)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a peer connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Messages between cores, one way.
    Control,
    /// Requests and answers.
    Bulk,
    /// An operator's requests (rule R21), and their answers.
    Admin,
}

impl Role {
    const fn byte(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Bulk => 2,
            Self::Admin => 3,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Control),
            2 => Some(Self::Bulk),
            3 => Some(Self::Admin),
            _ => None,
        }
    }
}

/// One side of a handshake.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This node.
    pub node: NodeId,
    /// Its cluster, once born.
    pub cluster: Option<ClusterId>,
    /// The shared secret.
    pub secret: Secret,
}

const HELLO: usize = 8 + 1 + 2 + 2 + 16 + 32;
const ANSWER: usize = 2 + 16 + 32;

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

fn nonce() -> io::Result<[u8; 32]> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(nonce)
}

fn mac(secret: &Secret, side: &[u8], hello: &[u8], answer: &[u8]) -> Hmac<sha2::Sha256> {
    let mut mac =
        Hmac::<sha2::Sha256>::new_from_slice(&secret.0).expect("HMAC takes keys of any length");
    mac.update(side);
    mac.update(hello);
    mac.update(answer);
    mac
}

fn cluster_bytes(cluster: Option<ClusterId>) -> [u8; 16] {
    cluster.map_or([0; 16], |id| id.0.to_be_bytes())
}

/// It proved that it knows the secret, and belongs to another cluster.
#[derive(Clone, Copy, Debug)]
struct OtherCluster {
    node: NodeId,
    cluster: ClusterId,
}

impl std::fmt::Display for OtherCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, cluster } = self;
        write!(f, "node {node} belongs to another cluster, {cluster}")
    }
}

impl std::error::Error for OtherCluster {}

/// The cluster that the other side belongs to, when that is why a handshake failed; proved by the secret. And which node it is.
pub fn other_cluster(error: &io::Error) -> Option<(NodeId, ClusterId)> {
    let other = error.get_ref()?.downcast_ref::<OtherCluster>()?;
    Some((other.node, other.cluster))
}

fn same_cluster(ours: Option<ClusterId>, node: NodeId, theirs: [u8; 16]) -> io::Result<()> {
    let cluster = ClusterId(u128::from_be_bytes(theirs));
    match ours {
        Some(id) if cluster.0 != 0 && cluster != id => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            OtherCluster { node, cluster },
        )),
        _ => Ok(()),
    }
}

/// Proves who we are to `to`, and has it prove who it is; each answer may take `patience`.
pub fn dial(
    socket: TcpStream,
    us: &Identity,
    to: NodeId,
    role: Role,
    patience: Duration,
) -> io::Result<FrameStream> {
    dial_any(socket, us, to, role, patience).map(|(stream, _)| stream)
}

/// Proves to whichever node listens there that an operator calls who knows the secret; which node it is. Each answer may
/// take `patience`.
pub fn dial_as_operator(
    socket: TcpStream,
    secret: Secret,
    patience: Duration,
) -> io::Result<(FrameStream, NodeId)> {
    let us = Identity {
        node: OPERATOR,
        cluster: None,
        secret,
    };
    dial_any(socket, &us, OPERATOR, Role::Admin, patience)
}

fn dial_any(
    socket: TcpStream,
    us: &Identity,
    to: NodeId,
    role: Role,
    patience: Duration,
) -> io::Result<(FrameStream, NodeId)> {
    let mut hello = Vec::with_capacity(HELLO);
    hello.extend_from_slice(&MAGIC);
    hello.push(role.byte());
    hello.extend_from_slice(&us.node.key());
    hello.extend_from_slice(&to.key());
    hello.extend_from_slice(&cluster_bytes(us.cluster));
    hello.extend_from_slice(&nonce()?);
    let mut input =
        BufReader::with_capacity(16 * 1024, SharedSocket::new(Arc::new(socket), Vec::new()));
    input.get_mut().set_read_timeout(patience)?;
    input.get_mut().set_write_timeout(patience)?;
    input.get_mut().write_all(&hello)?;

    let mut answer = [0; ANSWER];
    let mut proof = [0; 32];
    input.read_exact(&mut answer)?;
    input.read_exact(&mut proof)?;
    mac(&us.secret, b"listener", &hello, &answer)
        .verify_slice(&proof)
        .map_err(|_| refused("it does not know the cluster's secret".to_owned()))?;
    let [high, low, rest @ ..] = answer;
    let answered = NodeId(u16::from_be_bytes([high, low]));
    if answered != to && to != OPERATOR {
        return Err(refused(format!("it is node {answered}")));
    }
    let mut theirs = [0; 16];
    theirs.copy_from_slice(&rest[..16]);
    same_cluster(us.cluster, answered, theirs)?;
    let ours: [u8; 32] = mac(&us.secret, b"dialler", &hello, &answer)
        .finalize()
        .into_bytes()
        .into();
    input.get_mut().write_all(&ours)?;
    let mut last = [0];
    input.read_exact(&mut last)?;
    Ok((FrameStream::new(input), answered))
}

fn read_until(
    input: &mut BufReader<SharedSocket>,
    mut to: &mut [u8],
    deadline: Instant,
) -> io::Result<()> {
    while !to.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        input
            .get_mut()
            .set_read_timeout(left.max(Duration::from_millis(1)))?;
        let count = input.read(to)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to = &mut to[count..];
    }
    Ok(())
}

/// The listening side; [`MAGIC`] is still in `input`. Gives the peer and what the connection is for. All of it may take
/// `patience`, however slowly the bytes drip in.
pub fn accept(
    mut input: BufReader<SharedSocket>,
    us: &Identity,
    patience: Duration,
) -> io::Result<(FrameStream, NodeId, Role)> {
    let deadline = Instant::now() + patience;
    input.get_mut().set_write_timeout(patience)?;
    let mut hello = [0; HELLO];
    read_until(&mut input, &mut hello, deadline)?;
    let [magic @ .., _, _, _, _, _] = *hello.first_chunk::<13>().expect("longer");
    let [role, from_high, from_low, to_high, to_low] = [8, 9, 10, 11, 12].map(|i| hello[i]);
    if magic != MAGIC {
        return Err(refused("it speaks another protocol".to_owned()));
    }
    let role = Role::of(role)
        .ok_or_else(|| refused("it wants a connection of an unknown kind".to_owned()))?;
    let from = NodeId(u16::from_be_bytes([from_high, from_low]));
    let to = NodeId(u16::from_be_bytes([to_high, to_low]));

    let mut answer = Vec::with_capacity(ANSWER + 32);
    answer.extend_from_slice(&us.node.key());
    answer.extend_from_slice(&cluster_bytes(us.cluster));
    answer.extend_from_slice(&nonce()?);
    let ours: [u8; 32] = mac(&us.secret, b"listener", &hello, &answer)
        .finalize()
        .into_bytes()
        .into();
    let owed = mac(&us.secret, b"dialler", &hello, &answer);
    answer.extend_from_slice(&ours);
    input.get_mut().write_all(&answer)?;

    let mut proof = [0; 32];
    read_until(&mut input, &mut proof, deadline)?;
    owed.verify_slice(&proof)
        .map_err(|_| refused("it does not know the cluster's secret".to_owned()))?;
    let expected = match role {
        Role::Admin => to == OPERATOR && from == OPERATOR,
        Role::Control | Role::Bulk => to == us.node && from != us.node && from != OPERATOR,
    };
    if !expected {
        return Err(refused(format!("node {from} took this node for node {to}")));
    }
    let mut theirs = [0; 16];
    theirs.copy_from_slice(&hello[13..29]);
    same_cluster(us.cluster, from, theirs)?;
    input.get_mut().write_all(&[1])?;
    Ok((FrameStream::new(input), from, role))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn identity(node: u16, secret: &str, cluster: Option<u128>) -> Identity {
        Identity {
            node: NodeId(node),
            cluster: cluster.map(ClusterId),
            secret: Secret(secret.as_bytes().to_vec()),
        }
    }

    fn shake(a: &Identity, to: u16, b: Identity) -> (io::Result<FrameStream>, io::Result<NodeId>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            accept(
                BufReader::new(SharedSocket::new(Arc::new(socket), Vec::new())),
                &b,
                PATIENCE,
            )
            .map(|(_, from, _)| from)
        });
        let ours = dial(
            TcpStream::connect(address).unwrap(),
            a,
            NodeId(to),
            Role::Bulk,
            PATIENCE,
        );
        (ours, other.join().unwrap())
    }

    #[test]
    fn two_who_know_the_secret_meet() {
        let (ours, theirs) = shake(&identity(0, "s", Some(1)), 2, identity(2, "s", None));
        ours.unwrap();
        assert_eq!(theirs.unwrap(), NodeId(0));
    }

    #[test]
    fn a_stranger_that_drips_is_cut_off_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let dripping = thread::spawn(move || {
            // Each byte in time for a bound that begins anew with every read.
            for byte in MAGIC.iter().cycle() {
                thread::park_timeout(Duration::from_millis(50));
                if stranger.write_all(&[*byte]).is_err() {
                    return;
                }
            }
        });
        let input = BufReader::new(SharedSocket::new(Arc::new(socket), Vec::new()));
        let began = Instant::now();
        let patience = Duration::from_millis(300);
        let error = accept(input, &identity(0, "s", None), patience).map(drop);
        assert!(error.is_err());
        assert!(began.elapsed() < Duration::from_secs(2));
        dripping.join().unwrap();
    }

    #[test]
    fn an_operator_who_knows_the_secret_learns_which_node_answers_and_no_node_passes_for_one() {
        let call = |secret: &'static str, node: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let other = thread::spawn(move || {
                let (socket, _) = listener.accept().unwrap();
                let input = BufReader::new(SharedSocket::new(Arc::new(socket), Vec::new()));
                accept(input, &identity(2, node, Some(7)), PATIENCE)
                    .map(|(_, from, role)| (from, role))
            });
            let secret = Secret(secret.as_bytes().to_vec());
            let ours = dial_as_operator(socket, secret, PATIENCE).map(|(_, node)| node);
            (ours, other.join().unwrap())
        };
        let (ours, theirs) = call("s", "s");
        assert_eq!(ours.unwrap(), NodeId(2));
        assert_eq!(theirs.unwrap(), (OPERATOR, Role::Admin));
        let (ours, theirs) = call("wrong", "s");
        assert!(ours.is_err() && theirs.is_err());
        let (ours, theirs) = shake(
            &identity(OPERATOR.0, "s", None),
            2,
            identity(2, "s", Some(7)),
        );
        assert!(ours.is_err() && theirs.is_err());
    }

    #[test]
    fn strangers_wrong_numbers_and_other_clusters_are_refused() {
        let us = identity(0, "s", Some(1));
        for (to, other) in [
            (2, identity(2, "wrong", Some(1))),
            (1, identity(2, "s", Some(1))),
            (2, identity(2, "s", Some(9))),
        ] {
            let (ours, theirs) = shake(&us, to, other);
            assert!(ours.is_err() || theirs.is_err());
        }
    }
}
