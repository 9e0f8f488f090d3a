//! `login` and `logout`.

use std::io::{IsTerminal as _, Read as _, Write as _};

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use sqlflow_proto::v1::ListJobsRequest;

use crate::client::Client;
use crate::connection::{AccessToken, Connection, ConnectionArgs, Login};
use crate::console::Console;
use crate::failure::Failure;
use crate::render::{Screen as _, Tone};

/// Stores the server's address and the access token, once the server has accepted them.
pub(super) async fn login(args: &ConnectionArgs, console: &mut Console) -> Result<(), Failure> {
    let mut connection = args.without_login()?;
    if args.server.is_none() {
        return Err(Failure::Usage(
            "cannot log in: no server is named; write --server https://HOST:PORT".to_owned(),
        ));
    }
    // Before the token is typed.
    connection.token = AccessToken::Text(String::new());
    connection.check()?;
    let token = ask(&connection)?;
    if token.is_empty() {
        return Err(Failure::Usage("cannot log in: there is no access token on standard input".to_owned()));
    }
    connection.token = AccessToken::Text(token.clone());
    let mut client = Client::new(&connection)?;
    let request = ListJobsRequest { page_size: 1, ..ListJobsRequest::default() };
    client.list(request).await.map_err(|status| Failure::from_status(&status, client.server()))?;
    let absolute = |path: &std::path::PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let login = Login {
        server: connection.server,
        access_token: token,
        ca: args.ca.as_ref().map(absolute),
        server_user: args.server_user.clone(),
    };
    let file = login.store()?;
    console.line(Tone::Plain, &format!("logged in to {}; stored in {}", login.server, file.display()));
    console.flush()
}

/// Forgets the stored login.
pub(super) fn logout(console: &mut Console) -> Result<(), Failure> {
    let said = if Login::remove()? { "logged out" } else { "there was no login" };
    console.line(Tone::Plain, said);
    console.flush()
}

/// The access token, from standard input. A terminal does not show what is typed.
fn ask(connection: &Connection) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let fault = |error: std::io::Error| {
        Failure::Other(anyhow::Error::new(error).context("cannot read the access token"))
    };
    let mut text = String::new();
    if !stdin.is_terminal() {
        stdin.lock().take(1 << 16).read_to_string(&mut text).map_err(fault)?;
        return Ok(text.trim().to_owned());
    }
    let _ = write!(std::io::stderr(), "Access token for {}: ", connection.server);
    let shown = tcgetattr(&stdin).map_err(|error| fault(error.into()))?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden).map_err(|error| fault(error.into()))?;
    let read = stdin.read_line(&mut text);
    let _ = tcsetattr(&stdin, SetArg::TCSAFLUSH, &shown);
    let _ = writeln!(std::io::stderr());
    read.map_err(fault)?;
    Ok(text.trim().to_owned())
}
