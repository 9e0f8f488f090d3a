//! `login` and `logout`.

use std::io::{IsTerminal as _, Read as _, Write as _};

use anyhow::Context as _;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use sqlflow_cli::ctrl_c::CtrlC;
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
    let token = ask(&connection).await?;
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
async fn ask(connection: &Connection) -> Result<String, Failure> {
    let mut text = String::new();
    if std::io::stdin().is_terminal() {
        text = ask_on_terminal(&connection.server).await?;
    } else {
        std::io::stdin().lock().take(1 << 16).read_to_string(&mut text).context(UNREADABLE)?;
    }
    Ok(text.trim().to_owned())
}

const UNREADABLE: &str = "cannot read the access token";

/// Ctrl+C exits, and leaves the terminal as it was.
async fn ask_on_terminal(server: &str) -> Result<String, Failure> {
    let mut interrupts = CtrlC::listen().context("cannot listen for Ctrl+C")?;
    let hidden = HiddenInput::begin().context(UNREADABLE)?;
    let _ = write!(std::io::stderr(), "Access token for {server}: ");
    let reading = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        std::io::stdin().read_line(&mut text).map(|_| text)
    });
    let read = tokio::select! {
        read = reading => read,
        () = interrupts.recv() => {
            drop(hidden);
            // The other thread is still reading: the end of the runtime would wait for it.
            std::process::exit(130)
        }
    };
    drop(hidden);
    Ok(read.context(UNREADABLE)?.context(UNREADABLE)?)
}

/// What is typed on the terminal is not shown until this is dropped.
struct HiddenInput {
    shown: Termios,
}

impl HiddenInput {
    fn begin() -> nix::Result<Self> {
        let stdin = std::io::stdin();
        let shown = tcgetattr(&stdin)?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { shown })
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &self.shown);
        let _ = writeln!(std::io::stderr());
    }
}
