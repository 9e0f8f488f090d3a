//! Whose server listens at an address of this machine. While a server is down, any user can listen at its address, and would
//! get the access tokens, programs, data sources and job tokens of its clients. The kernel knows whose socket it is.

use std::net::SocketAddr;

use hyper_util::rt::TokioIo;
use sqlflow_identity::{local_user, loopback};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;

/// Number of root.
const ROOT: u32 = 0;

/// Users whose servers are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrustedUsers {
    own: u32,
    named: Option<u32>,
}

/// A server of somebody else.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use the server at {address}: it belongs to user {user}, who would get what is sent to it; if that is right, name \
     the user with --server-user {user}"
)]
pub(crate) struct ForeignServer {
    address: SocketAddr,
    user: String,
}

impl TrustedUsers {
    /// The user of this process, root, and this one.
    pub(crate) fn new(named: Option<u32>) -> Self {
        Self { own: local_user::own_id(), named }
    }

    fn include(self, user: u32) -> bool {
        user == self.own || user == ROOT || self.named == Some(user)
    }

    /// The first of those who serve a connection that is not trusted. Of one that is not seen here, such as a server in a
    /// container, nothing is known.
    fn stranger(self, servers: [Option<u32>; 2]) -> Option<u32> {
        let mut known = servers.into_iter().flatten().filter(|user| local_user::is_one_user(*user));
        known.find(|user| !self.include(*user))
    }
}

/// Connects to a server, and refuses one of a user who is not trusted.
pub(crate) async fn connect(
    uri: Uri,
    users: TrustedUsers,
) -> Result<TokioIo<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (client, address) = (stream.local_addr()?, stream.peer_addr()?);
    // A kernel that does not tell is no reason to stop.
    let servers = loopback::servers_of(client, address).unwrap_or_default();
    match users.stranger(servers) {
        None => Ok(TokioIo::new(stream)),
        Some(user) => {
            let principal = local_user::of(user);
            let user = principal.name().split_once(':').map_or("?", |(_, name)| name).to_owned();
            Err(ForeignServer { address, user }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stranger_is_who_is_neither_root_nor_named_nor_the_user() {
        let users = TrustedUsers { own: 1000, named: Some(1001) };
        for trusted in [[None, None], [Some(1000), None], [Some(ROOT), Some(ROOT)], [Some(1001), Some(1000)]]
        {
            assert_eq!(users.stranger(trusted), None, "{trusted:?}");
        }
        assert_eq!(users.stranger([Some(1002), None]), Some(1002));
        assert_eq!(users.stranger([Some(1000), Some(1002)]), Some(1002), "another one has accepted it");
        assert_eq!(users.stranger([None, Some(1002)]), Some(1002));
    }
}
