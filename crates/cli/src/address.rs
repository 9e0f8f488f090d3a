//! Addresses from the command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use sqlflow_os::paths::{is_below_own_folder, is_own_folder};

/// Default ports, for messages.
const CLIENTS: u16 = 50051;
const BROWSERS: u16 = 50080;
const AGENTS: u16 = 7443;

/// An address to listen on: `127.0.0.1:50051`, `[::1]:50051`, `localhost:50051`, a name of this machine, or `:50051` for all
/// addresses of it (IPv4).
///
/// # Errors
/// The address is invalid; one sentence with a fix.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    listen_on(text, CLIENTS)
}

/// The same for browsers and probes.
///
/// # Errors
/// The address is invalid; one sentence with a fix.
pub fn http_listen(text: &str) -> Result<SocketAddr, String> {
    listen_on(text, BROWSERS)
}

/// The same for agents in Pods.
///
/// # Errors
/// The address is invalid; one sentence with a fix.
pub fn agent_listen(text: &str) -> Result<SocketAddr, String> {
    listen_on(text, AGENTS)
}

fn listen_on(text: &str, usual_port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = host_and_port(text, usual_port)?;
    match host {
        "" => Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
        "localhost" => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        name => {
            let found = (name, port).to_socket_addrs().map_err(|error| {
                format!(
                    "cannot find the address of {name:?}: {error}; write 127.0.0.1:{port} or localhost:{port}"
                )
            })?;
            let found: Vec<SocketAddr> = found.collect();
            let first = found.iter().find(|it| it.is_ipv4()).or(found.first());
            first.copied().ok_or_else(|| format!("{name:?} has no address"))
        }
    }
}

/// Where a server of this user listens without being told to: `$XDG_RUNTIME_DIR/sqlflow/server.sock`. `None`: that
/// variable is not set, as for services and in containers, or it names no folder of this user. `sudo -E` and `su` keep the
/// variable of another user, whose server it would be.
#[must_use]
pub fn default_socket() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    // What is checked is what is used, wherever a link leads later.
    let folder = folder.is_absolute().then(|| folder.canonicalize().ok())??;
    is_own_folder(&folder).then(|| folder.join("sqlflow/server.sock"))
}

/// Name of a server of the user's own, in place of an address.
pub const OWN: &str = "own";

/// Folder of a server of the user's own: `$XDG_DATA_HOME/sqlflow/own` or `~/.local/share/sqlflow/own`. `None`: the
/// variables name no folder of this user.
#[must_use]
pub fn own_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
    let folder = data.join("sqlflow/own");
    let is_own = if folder.exists() { is_own_folder(&folder) } else { is_below_own_folder(&folder) };
    is_own.then_some(folder)
}

/// Where it listens. Not in `$XDG_RUNTIME_DIR`: a user's sessions may have several, or none.
#[must_use]
pub fn own_socket_in(own_folder: &Path) -> PathBuf {
    own_folder.join("server.sock")
}

/// Whether a server listens on this socket. A socket's file may be left of one that was killed.
#[must_use]
pub fn is_listening(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// A server to connect to, as a URL: `http://HOST:PORT`, `https://HOST:PORT`, `HOST:PORT`, `:PORT` for this machine, or
/// `unix:///PATH` for a socket.
///
/// # Errors
/// The address is invalid; one sentence with a fix.
pub fn server_url(text: &str) -> Result<String, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        let is_whole = path.starts_with('/') && path.len() > 1;
        return if is_whole { Ok(format!("unix://{path}")) } else { Err("write unix:///PATH".to_owned()) };
    }
    let (scheme, address) = match text.split_once("://") {
        None => ("http", text),
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest.trim_end_matches('/')),
        Some((scheme, _)) => {
            return Err(format!(
                "{scheme}:// is not supported; write http://HOST:PORT, https://HOST:PORT or unix:///PATH"
            ));
        }
    };
    if address.parse::<IpAddr>().is_ok_and(|it| it.is_ipv6()) {
        return Err(format!("the port is missing; write [{address}]:{CLIENTS}"));
    }
    match host_and_port(address, CLIENTS)? {
        ("", port) => Ok(format!("{scheme}://localhost:{port}")),
        (host, port) => Ok(format!("{scheme}://{host}:{port}")),
    }
}

fn host_and_port(text: &str, usual_port: u16) -> Result<(&str, u16), String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        let is_port = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let example =
            if is_port { format!(":{text}") } else { format!("{}:{usual_port}", or_localhost(text)) };
        return Err(format!("the port is missing; write {example}"));
    };
    if host.contains(['/', '@', ' ']) || port.contains('/') {
        return Err("it has the form HOST:PORT".to_owned());
    }
    let port = port.parse().map_err(|_| format!("{port:?} is not a port; write HOST:PORT, with a number"))?;
    Ok((host, port))
}

fn or_localhost(host: &str) -> &str {
    if host.is_empty() { "localhost" } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_parsed() {
        let listen = |text| listen(text).map(|it| it.to_string());
        for (text, address) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:1", "[::1]:1"),
            ("localhost:50051", "127.0.0.1:50051"),
            (":50051", "0.0.0.0:50051"),
            ("localhost:0", "127.0.0.1:0"),
        ] {
            assert_eq!(listen(text).as_deref(), Ok(address));
        }
        for (text, part) in [
            ("localhost", "write localhost:50051"),
            ("50051", "write :50051"),
            ("", "write localhost:50051"),
            ("localhost:http", "\"http\" is not a port"),
            ("localhost:70000", "\"70000\" is not a port"),
            ("http://localhost:1", "HOST:PORT"),
        ] {
            let error = listen(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(http_listen("localhost").unwrap_err().ends_with("write localhost:50080"));
        assert!(agent_listen("server").unwrap_err().ends_with("write server:7443"));
    }

    #[test]
    fn server_addresses_are_parsed() {
        for (text, url) in [
            ("localhost:50051", "http://localhost:50051"),
            (":50051", "http://localhost:50051"),
            ("http://[::1]:1", "http://[::1]:1"),
            ("http://server:50051/", "http://server:50051"),
            ("https://server:50051", "https://server:50051"),
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("unix:/run/x.sock", "unix:///run/x.sock"),
        ] {
            assert_eq!(server_url(text).as_deref(), Ok(url));
        }
        for (text, part) in [
            ("localhost", "write localhost:50051"),
            ("ftp://a:1", "not supported"),
            ("unix:x", "write unix:///PATH"),
            ("unix://", "write unix:///PATH"),
            ("::1", "write [::1]:50051"),
            ("a:1/path", "HOST:PORT"),
        ] {
            let error = server_url(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
