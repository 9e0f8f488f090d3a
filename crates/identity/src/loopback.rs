//! The user at the other end of a TCP connection within this machine. The kernel knows it: both ends are in one table of
//! sockets.
//!
//! Asked with a netlink message of `sock_diag(7)`, which finds one connection by its addresses, however many there are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

/// The kernel answers before `sendto` returns.
const ANSWER_SECONDS: i64 = 1;
/// Type of a request and of its answer.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// State of a connection that is open in both directions. Later states have no user, or the number 0.
const ESTABLISHED: u8 = 1;
/// State of a socket that waits for connections.
const LISTEN: u8 = 10;
/// Lengths of the headers, and places in the answer after its header.
const NETLINK_HEADER: usize = 16;
const REQUEST: usize = 56;
const STATE_AT: usize = 1;
const PORTS_AT: usize = 4;
const SOURCE_AT: usize = 8;
const DESTINATION_AT: usize = 24;
const UID_AT: usize = 64;
const INODE_AT: usize = 68;
const ANSWER: usize = 72;
/// Numbers of families of addresses and of the protocol.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;

/// The id of the user whose socket is the client's end of a connection, of which the server sees `client` as the peer's
/// address and `server` as its own. `None`: it is not a connection within this machine's network namespace, or it is
/// not open any more.
///
/// # Errors
/// The kernel does not tell.
pub fn user_of(client: SocketAddr, server: SocketAddr) -> io::Result<Option<u32>> {
    let (client, server) = (canonical(client), canonical(server));
    if !(client.ip().is_loopback() && server.ip().is_loopback() && client.is_ipv4() == server.is_ipv4()) {
        return Ok(None);
    }
    Ok(user_in(&answer(client, server)?, client, server))
}

/// The users who serve an open connection, of which the client sees `client` as its own address and `server` as the
/// peer's: who listens at the address, and who has accepted the connection. `None`: nobody in this machine's network
/// namespace listens there, or the connection has not been accepted yet.
///
/// A connection that has not been accepted belongs to who listens: it ends with their socket. The listener is looked up
/// first, so a connection that another user accepted meanwhile is seen too.
///
/// # Errors
/// The kernel does not tell.
pub fn servers_of(client: SocketAddr, server: SocketAddr) -> io::Result<[Option<u32>; 2]> {
    Ok([listener_of(server)?, user_of(server, client)?])
}

/// The id of the user whose socket waits for connections at a loopback address.
fn listener_of(server: SocketAddr) -> io::Result<Option<u32>> {
    let server = canonical(server);
    if !server.ip().is_loopback() {
        return Ok(None);
    }
    let nobody = match server {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    Ok(listener_in(&answer(server, nobody)?, server))
}

/// The kernel's answer about the socket at `local` that is connected with `remote`, or about one that waits at `local`.
fn answer(local: SocketAddr, remote: SocketAddr) -> io::Result<Vec<u8>> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&netlink, ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
    let request = request(local, remote);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&netlink);
    sendto(fd, &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = vec![0; 1024];
    let length = recv(fd, &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

/// An IPv4 address that is written as an IPv6 one is the former.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn request(client: SocketAddr, server: SocketAddr) -> [u8; NETLINK_HEADER + REQUEST] {
    let mut bytes = Vec::with_capacity(NETLINK_HEADER + REQUEST);
    bytes.extend(u32::try_from(NETLINK_HEADER + REQUEST).unwrap_or(0).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([if client.is_ipv4() { IPV4 } else { IPV6 }, TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(server.port().to_be_bytes());
    for address in [client.ip(), server.ip()] {
        match address {
            IpAddr::V4(address) => {
                bytes.extend(address.octets());
                bytes.extend([0; 12]);
            }
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    // Any interface, no cookie.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([0xff; 8]);
    bytes.try_into().expect("both headers are as long as this says")
}

/// The user in the answer, if it is about the connection between these.
fn user_in(answer: &[u8], client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let found = found(answer)?;
    // For a connection that has ended, the kernel may find the listening socket of the same address.
    let is_it = found[STATE_AT] == ESTABLISHED
        && address(found, SOURCE_AT, PORTS_AT)? == client
        && address(found, DESTINATION_AT, PORTS_AT + 2)? == server;
    if is_it { owner(found) } else { None }
}

/// The user in the answer, if it is about a socket that waits for connections to this address, perhaps among others.
fn listener_in(answer: &[u8], server: SocketAddr) -> Option<u32> {
    let found = found(answer)?;
    let is_it = found[STATE_AT] == LISTEN && address(found, SOURCE_AT, PORTS_AT)?.port() == server.port();
    if is_it { owner(found) } else { None }
}

/// The part of the answer about a socket.
fn found(answer: &[u8]) -> Option<&[u8]> {
    let is_answer = answer.get(4..6)? == SOCK_DIAG_BY_FAMILY.to_ne_bytes();
    answer.get(NETLINK_HEADER..).filter(|it| is_answer && it.len() >= ANSWER)
}

/// Whose socket it is. One that nobody has open has no inode, and the number 0.
fn owner(found: &[u8]) -> Option<u32> {
    let number = |at: usize| Some(u32::from_ne_bytes(found.get(at..at + 4)?.try_into().ok()?));
    if number(INODE_AT)? == 0 { None } else { number(UID_AT) }
}

/// An address and a port in the answer. A socket for IPv6 may have a connection of IPv4.
fn address(found: &[u8], at: usize, port_at: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(found.get(port_at..port_at + 2)?.try_into().ok()?);
    let bytes: [u8; 16] = found.get(at..at + 16)?.try_into().ok()?;
    let ip = match found[0] {
        IPV4 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
        _ => IpAddr::from(bytes).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::unistd::Uid;

    use super::*;

    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn client_of_this_process_is_its_user() {
        for address in ["127.0.0.1:0", "[::1]:0", "127.8.7.6:0"] {
            let (_client, server) = pair(address);
            let user = user_of(server.peer_addr().unwrap(), server.local_addr().unwrap()).unwrap();
            assert_eq!(user, Some(Uid::effective().as_raw()), "{address}");
        }
    }

    #[test]
    fn mapped_address_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let user = user_of(client.local_addr().unwrap(), server.local_addr().unwrap()).unwrap();
        assert_eq!(user, Some(Uid::effective().as_raw()));
    }

    /// A socket that nobody has open has the number 0 in the kernel's table, which must not make it root's.
    #[test]
    fn closed_client_has_no_user() {
        let (client, server) = pair("127.0.0.1:0");
        let (peer, own) = (server.peer_addr().unwrap(), server.local_addr().unwrap());
        drop(client);
        assert_eq!(user_of(peer, own).unwrap(), None);
        drop(server);
        assert_eq!(user_of(peer, own).unwrap(), None);
    }

    #[test]
    fn servers_of_a_connection_are_who_listens_and_who_accepted() {
        let own = Some(Uid::effective().as_raw());
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let loopback: IpAddr =
                if address.starts_with("[::1") { "::1" } else { "127.0.0.1" }.parse().unwrap();
            let client = TcpStream::connect((loopback, port)).unwrap();
            let servers = || servers_of(client.local_addr().unwrap(), client.peer_addr().unwrap()).unwrap();
            assert_eq!(servers(), [own, None], "{address}: it is not accepted yet");
            let accepted = listener.accept().unwrap();
            assert_eq!(servers(), [own, own], "{address}");
            drop(listener);
            assert_eq!(servers(), [None, own], "{address}: nobody listens");
            drop(accepted);
            assert_eq!(servers(), [None, None], "{address}");
        }
        let far = "192.0.2.1:5".parse().unwrap();
        assert_eq!(servers_of("192.0.2.2:5".parse().unwrap(), far).unwrap(), [None, None]);
    }

    #[test]
    fn listener_is_not_a_client() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        assert_eq!(user_of(own, SocketAddr::new(own.ip(), 1)).unwrap(), None);
    }

    #[test]
    fn other_machine_has_no_user() {
        let (_client, server) = pair("127.0.0.1:0");
        let far = "192.0.2.1:5".parse().unwrap();
        assert_eq!(user_of(far, server.local_addr().unwrap()).unwrap(), None);
    }
}
