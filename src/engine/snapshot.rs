//! Fetching another member's catalog: its rows are staged in a file first, and only a whole one is put in place of the tables.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::base::digest::Sha256;
use crate::base::id::NodeId;
use crate::base::limit::BLOCK_BYTES;
use crate::base::table::{Table, TableError};
use crate::engine::serve::rows;
use crate::engine::shared::Engine;
use crate::wire::peer::{Answer, BodyEnd, Kind, Request, SnapshotHead};

/// Longest pause of the sender.
const PACE: Duration = Duration::from_secs(10);

/// What staging files are named by.
const STAGED: &str = "staged-";

/// Where the rows of the snapshot that stands for `head` lie once they are whole.
fn staged(engine: &Engine, head: &SnapshotHead) -> PathBuf {
    let name = format!("{STAGED}{}-{}", head.term, head.index);
    engine.state.path().join(name)
}

/// Removes what earlier attempts have left.
fn clear(engine: &Engine) -> io::Result<()> {
    for entry in std::fs::read_dir(engine.state.path())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(STAGED) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Fetches the catalog from `node` into the staging file; what it stands for.
pub fn fetch(engine: &Arc<Engine>, node: NodeId) -> io::Result<SnapshotHead> {
    let mut lent = engine.peers.lend(node)?;
    lent.stream.set_read_timeout(PACE)?;
    lent.stream.send(&Request::Snapshot)?;
    let head = match lent.stream.receive_value()? {
        Answer::Snapshot(head) => head,
        Answer::Error { message } => return Err(io::Error::other(message)),
        _ => return Err(io::Error::other("an answer to another question")),
    };
    clear(engine)?;
    // Under a name of its own until it is whole: what is being put in place is never written to.
    let coming = engine
        .state
        .path()
        .join(format!("{STAGED}{:?}", thread::current().id()));
    let mut file = BufWriter::new(File::create(&coming)?);
    let mut hash = sha2::Sha256::default();
    let mut block = Vec::new();
    let end: BodyEnd = loop {
        match lent.stream.receive(&mut block)?.kind {
            Kind::Block => {
                sha2::Digest::update(&mut hash, &block);
                let length = u32::try_from(block.len()).map_err(io::Error::other)?;
                file.write_all(&length.to_le_bytes())?;
                file.write_all(&block)?;
            }
            Kind::Control => break serde_json::from_slice(&block)?,
            Kind::Raft => return Err(io::ErrorKind::InvalidData.into()),
        }
    };
    file.flush()?;
    if end.sha256 != Some(Sha256(sha2::Digest::finalize(hash).into())) {
        return Err(io::Error::other("the snapshot's digest is wrong"));
    }
    lent.keep();
    std::fs::rename(&coming, staged(engine, &head))?;
    Ok(head)
}

/// Puts the staged rows in place of the tables, durably and at once.
pub fn install(engine: &Engine, head: &SnapshotHead) -> Result<(), TableError> {
    let failed = |error: io::Error| TableError(format!("staged snapshot: {error}"));
    let file = File::open(staged(engine, head)).map_err(failed)?;
    let rows = Staged {
        file: BufReader::new(file),
        rows: Vec::new().into_iter(),
    };
    engine.tables.replace(rows)?;
    clear(engine).map_err(failed)
}

struct Staged {
    file: BufReader<File>,
    rows: std::vec::IntoIter<(Table, Vec<u8>, Vec<u8>)>,
}

impl Staged {
    fn refill(&mut self) -> io::Result<bool> {
        let mut length = [0; 4];
        match self.file.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > BLOCK_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut block = vec![0; length];
        self.file.read_exact(&mut block)?;
        let mut rest = block.as_slice();
        let mut rows = Vec::new();
        while !rest.is_empty() {
            let (row, after) = rows::parse(rest).ok_or(io::ErrorKind::InvalidData)?;
            rows.push(row);
            rest = after;
        }
        self.rows = rows.into_iter();
        Ok(true)
    }
}

impl Iterator for Staged {
    type Item = Result<(Table, Vec<u8>, Vec<u8>), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(TableError(format!("staged snapshot: {error}")))),
            }
        }
    }
}
