//! Listening sockets: tuned before they bind, one thread each to accept.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Pause after accept failed (descriptors used up): others may free some.
const PAUSE: Duration = Duration::from_millis(50);
/// Data on the way to a client that is gone is given up after so long.
const USER_TIMEOUT: Duration = Duration::from_mins(1);

/// Options of accepted sockets.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Connections the kernel queues.
    pub backlog: i32,
    /// `SO_RCVBUF` in bytes; 0 leaves it to the kernel.
    pub receive_buffer: usize,
    /// `SO_SNDBUF` in bytes; 0 leaves it to the kernel.
    pub send_buffer: usize,
    /// Bound on every write.
    pub write_timeout: Duration,
}

/// Binds `address` (`host:port`; port 0 lets the kernel choose).
pub fn bind(address: &str, tuning: Tuning) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match bind_one(candidate, tuning) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr, tuning: Tuning) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // On Linux accepted sockets inherit all of this from their listener, so that a connection costs no call of its own; the
    // buffers must be set before listening to widen the window.
    tune(&socket)?;
    socket.set_write_timeout(Some(tuning.write_timeout))?;
    if tuning.receive_buffer > 0 {
        socket.set_recv_buffer_size(tuning.receive_buffer)?;
    }
    if tuning.send_buffer > 0 {
        socket.set_send_buffer_size(tuning.send_buffer)?;
    }
    socket.bind(&address.into())?;
    socket.listen(tuning.backlog)?;
    Ok(socket.into())
}

/// No delay, and early notice of a client that is gone.
fn tune(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10))
            .with_retries(3),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Accepts until `stopping` is set and the listener is woken by a connection of [`wake`].
pub fn accept(
    listener: TcpListener,
    stopping: Arc<AtomicBool>,
    mut serve: impl FnMut(TcpStream, SocketAddr) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("listener".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || {
            while !stopping.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((socket, from)) if !stopping.load(Ordering::Acquire) => serve(socket, from),
                    Ok(_) => return,
                    Err(error) => {
                        log::warn!(target: "momo::accept", "{error}");
                        thread::park_timeout(PAUSE);
                    }
                }
            }
        })
}

/// Wakes a listener that waits in accept, so that it sees that it should stop.
pub fn wake(address: SocketAddr) {
    let mut address = address;
    if address.ip().is_unspecified() {
        match &mut address {
            SocketAddr::V4(v4) => v4.set_ip(std::net::Ipv4Addr::LOCALHOST),
            SocketAddr::V6(v6) => v6.set_ip(std::net::Ipv6Addr::LOCALHOST),
        }
    }
    let _ = TcpStream::connect_timeout(&address, Duration::from_millis(200));
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;

    #[test]
    fn an_accepted_socket_has_the_options_of_its_listener() {
        let write_timeout = Duration::from_secs(7);
        let tuning = Tuning {
            backlog: 8,
            receive_buffer: 0,
            send_buffer: 0,
            write_timeout,
        };
        let listener = bind("127.0.0.1:0", tuning).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        assert_eq!(socket.write_timeout().unwrap(), Some(write_timeout));
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(30)
        );
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
