//! Floors that need no program of ours: a pass of each hash, a loopback transfer, plain writes, and `dd` beside them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use md5::{Digest, Md5};
use sha2::Sha256;

use crate::usage::{Cost, timed};

/// Bytes moved by one call, as in the store.
pub const BLOCK: usize = 256 * 1024;
/// Memory that is touched before a measurement, in sizes of what it moves: three copies, one read back, and some room.
const TOUCHED: u64 = 5;

/// Makes the file that every large figure moves: bytes that no layer can shorten, in the page cache.
pub fn make_source(path: &Path, bytes: u64) {
    let mut file = File::create(path).expect("source file");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0_u8; BLOCK];
    let mut left = bytes;
    while left > 0 {
        for chunk in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        file.write_all(&block[..part]).expect("source file");
        left -= part as u64;
    }
    file.sync_all().expect("source file");
}

fn each_block(path: &Path, mut with: impl FnMut(&[u8])) {
    let mut file = File::open(path).expect("source file");
    let mut block = vec![0_u8; BLOCK];
    loop {
        match file.read(&mut block).expect("source file") {
            0 => return,
            count => with(&block[..count]),
        }
    }
}

/// One MD5 pass over a file, on one core.
pub fn md5_pass(path: &Path) -> Cost {
    timed(|| {
        let mut hash = Md5::new();
        each_block(path, |block| hash.update(block));
        std::hint::black_box(hash.finalize());
    })
}

/// One SHA-256 pass over a file, on one core.
pub fn sha256_pass(path: &Path) -> Cost {
    timed(|| {
        let mut hash = Sha256::new();
        each_block(path, |block| hash.update(block));
        std::hint::black_box(hash.finalize());
    })
}

/// As many bytes over one loopback connection, read and forgotten.
pub fn loopback(bytes: u64) -> Cost {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("loopback");
    timed(|| {
        let sender = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("loopback");
            let block = vec![7_u8; BLOCK];
            let mut left = bytes;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
                stream.write_all(&block[..part]).expect("loopback");
                left -= part as u64;
            }
        });
        let (mut stream, _) = listener.accept().expect("loopback");
        let mut block = vec![0_u8; BLOCK];
        let mut got = 0_u64;
        loop {
            match stream.read(&mut block).expect("loopback") {
                0 => break,
                count => got += count as u64,
            }
        }
        assert_eq!(got, bytes);
        sender.join().expect("sender");
    })
}

fn write_plain(path: &Path, bytes: u64, sync: bool) {
    let mut file = File::create(path).expect("floor file");
    let block = vec![7_u8; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        file.write_all(&block[..part]).expect("floor file");
        left -= part as u64;
    }
    if sync {
        file.sync_all().expect("floor file");
    }
}

/// Names for files of a floor, none of which exists, and a disk with nothing left to write.
fn fresh(folder: &Path, bytes: u64, count: usize) -> Vec<PathBuf> {
    let paths: Vec<PathBuf> = (0..count)
        .map(|index| folder.join(format!("plain-{index}")))
        .collect();
    remove(&paths);
    settle(bytes);
    paths
}

fn remove(paths: &[PathBuf]) {
    for path in paths {
        let _ = fs::remove_file(path);
    }
}

/// Brings the machine to where every measurement of so many bytes starts: what earlier work left in the page cache is on the disk,
/// and there is free memory that has been touched. (In a virtual machine the first touch of a page is the host's work and can cost
/// more than the write that is measured; without this whoever comes first would pay for all.)
pub fn settle(bytes: u64) {
    rustix::fs::sync();
    let available = fs::read_to_string("/proc/meminfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024);
    let touched = (bytes * TOUCHED).min(available / 2);
    let mut memory = vec![0_u8; usize::try_from(touched).unwrap_or(0)];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}

/// A plain write without a sync.
pub fn plain_write(folder: &Path, bytes: u64) -> Cost {
    let paths = fresh(folder, bytes, 1);
    let cost = timed(|| write_plain(&paths[0], bytes, false));
    remove(&paths);
    cost
}

/// Plain synced writes, `count` at once.
pub fn synced_writes(folder: &Path, bytes: u64, count: usize) -> Cost {
    let paths = fresh(folder, bytes, count);
    let cost = timed(|| {
        thread::scope(|scope| {
            for path in &paths {
                scope.spawn(move || write_plain(path, bytes, true));
            }
        });
    });
    remove(&paths);
    cost
}

/// Files written and synced one after another, each under its name: what a store of small parts cannot be faster than with one writer.
pub fn synced_files(folder: &Path, count: u64, bytes: u64) -> Cost {
    settle(count * bytes);
    let paths: Vec<PathBuf> = (0..count)
        .map(|index| folder.join(format!("synced-{index}")))
        .collect();
    let cost = timed(|| {
        for path in &paths {
            write_plain(path, bytes, true);
        }
    });
    remove(&paths);
    cost
}

/// `dd conv=fsync` of the same bytes, `count` at once.
pub fn dd(folder: &Path, bytes: u64, count: usize) -> Cost {
    let paths = fresh(folder, bytes, count);
    let cost = timed(|| {
        let children: Vec<Child> = paths
            .iter()
            .map(|path| {
                Command::new("dd")
                    .arg("if=/dev/zero")
                    .arg(format!("of={}", path.display()))
                    .arg(format!("bs={BLOCK}"))
                    .arg(format!("count={}", bytes / BLOCK as u64))
                    .arg("conv=fsync")
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("dd")
            })
            .collect();
        for mut child in children {
            assert!(child.wait().expect("dd").success(), "dd failed");
        }
    });
    remove(&paths);
    cost
}
