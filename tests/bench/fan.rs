//! The floor program: the same bytes over `std::net` into three directories with the same syncs; no hash, no catalog.
//!
//! ```text
//! P name_len(2) size(8) name body   ->  K        kept: file synced, renamed, directory synced
//! G name_len(2) size(8) name        ->  size(8) body
//! ```

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::floor::BLOCK;
use crate::usage::{Cost, client};

/// Servers of the floor program, one a directory.
pub struct Fan {
    servers: Vec<Child>,
    addresses: Vec<SocketAddr>,
}

impl Fan {
    /// Starts `count` servers under `folder`.
    pub fn start(folder: &Path, count: usize) -> Self {
        let mut fan = Self {
            servers: Vec::new(),
            addresses: Vec::new(),
        };
        for index in 0..count {
            let data = folder.join(format!("fan-{index}"));
            fs::create_dir_all(&data).expect("floor directory");
            let mut child = Command::new(std::env::current_exe().expect("own name"))
                .args(["--role", "fan-server"])
                .arg(&data)
                .stdout(Stdio::piped())
                .spawn()
                .expect("floor server");
            let mut line = String::new();
            BufReader::new(child.stdout.take().expect("stdout"))
                .read_line(&mut line)
                .expect("floor server's address");
            fan.servers.push(child);
            fan.addresses.push(line.trim().parse().expect("an address"));
        }
        fan
    }

    /// The servers' process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(Child::id).collect()
    }

    fn run(&self, verb: &str, what: &str, size: u64, count: u64, clients: u64) -> Cost {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let mut command = Command::new(std::env::current_exe().expect("own name"));
        command
            .args(["--role", verb, what])
            .args([size.to_string(), count.to_string(), clients.to_string()])
            .args(addresses);
        client(&mut command, &self.pids())
    }

    /// One file to all servers.
    pub fn put_file(&self, source: &Path) -> Cost {
        self.run("fan-put-file", &source.display().to_string(), 0, 1, 1)
    }

    /// `count` files of `size` bytes to all servers, by `clients` at once on kept connections.
    pub fn put_many(&self, prefix: &str, size: u64, count: u64, clients: u64) -> Cost {
        self.run("fan-put", prefix, size, count, clients)
    }

    /// The same files back from the first server.
    pub fn get_many(&self, prefix: &str, size: u64, count: u64, clients: u64) -> Cost {
        self.run("fan-get", prefix, size, count, clients)
    }
}

impl Drop for Fan {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A server: prints its address and serves until it is killed.
pub fn serve(data: &Path) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let folder = File::open(data)?;
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for stream in listener.incoming() {
            let stream = stream?;
            let (folder, next) = (&folder, &next);
            scope.spawn(move || serve_one(stream, data, folder, next));
        }
        Ok(())
    })
}

fn serve_one(
    mut stream: TcpStream,
    data: &Path,
    folder: &File,
    next: &AtomicU64,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut block = vec![0_u8; BLOCK];
    loop {
        let mut head = [0_u8; 11];
        stream.read_exact(&mut head)?;
        let mut name = vec![0_u8; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        let size = u64::from_be_bytes([
            head[3], head[4], head[5], head[6], head[7], head[8], head[9], head[10],
        ]);
        stream.read_exact(&mut name)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        if head[0] == b'P' {
            let tmp = data.join(format!(".tmp-{}", next.fetch_add(1, Ordering::Relaxed)));
            let mut file = File::create(&tmp)?;
            let mut left = size;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
                let count = stream.read(&mut block[..part])?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                file.write_all(&block[..count])?;
                left -= count as u64;
            }
            file.sync_data()?;
            fs::rename(&tmp, data.join(name))?;
            folder.sync_data()?;
            stream.write_all(b"K")?;
        } else {
            let mut file = File::open(data.join(name))?;
            let size = file.metadata()?.len();
            let first = file.read(&mut block[8..])?;
            block[..8].copy_from_slice(&size.to_be_bytes());
            stream.write_all(&block[..8 + first])?;
            let mut left = size - first as u64;
            while left > 0 {
                let count = file.read(&mut block)?;
                stream.write_all(&block[..count])?;
                left -= count as u64;
            }
        }
    }
}

fn head(verb: u8, name: &str, size: u64) -> Vec<u8> {
    let mut bytes = vec![verb];
    bytes.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn acknowledged(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0_u8; 1];
    stream.read_exact(&mut answer)?;
    if answer == *b"K" {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// A client: sends one file to every address, block by block.
pub fn put_file(source: &Path, addresses: &[SocketAddr]) -> io::Result<()> {
    let mut file = File::open(source)?;
    let size = file.metadata()?.len();
    let mut streams = addresses
        .iter()
        .map(|&address| dial(address))
        .collect::<io::Result<Vec<_>>>()?;
    for stream in &mut streams {
        stream.write_all(&head(b'P', "large", size))?;
    }
    let mut block = vec![0_u8; BLOCK];
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            break;
        }
        for stream in &mut streams {
            stream.write_all(&block[..count])?;
        }
    }
    streams.iter_mut().try_for_each(acknowledged)
}

/// A client: `count` small files to every address, or back from the first, by `clients` threads on kept connections.
pub fn many(
    put: bool,
    prefix: &str,
    size: u64,
    count: u64,
    clients: u64,
    addresses: &[SocketAddr],
) -> io::Result<()> {
    let addresses = if put { addresses } else { &addresses[..1] };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|own| {
                scope.spawn(move || -> io::Result<()> {
                    let mut streams = addresses
                        .iter()
                        .map(|&address| dial(address))
                        .collect::<io::Result<Vec<_>>>()?;
                    for index in (own..count).step_by(usize::try_from(clients).unwrap_or(1)) {
                        let name = format!("{prefix}-{index}");
                        if put {
                            let mut bytes = head(b'P', &name, size);
                            bytes.extend_from_slice(&crate::load::content(index, size));
                            for stream in &mut streams {
                                stream.write_all(&bytes)?;
                            }
                            streams.iter_mut().try_for_each(acknowledged)?;
                        } else {
                            streams[0].write_all(&head(b'G', &name, 0))?;
                            let mut back = vec![0_u8; 8 + usize::try_from(size).unwrap_or(0)];
                            streams[0].read_exact(&mut back)?;
                            if back[8..] != crate::load::content(index, size) {
                                return Err(io::ErrorKind::InvalidData.into());
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a client thread"))
    })
}
