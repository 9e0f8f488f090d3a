//! Access tokens of the users of a server under test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::server::program;

/// A token file, and the tokens of its users.
#[derive(Debug)]
pub struct Tokens {
    file: PathBuf,
    tokens: BTreeMap<String, String>,
}

impl Tokens {
    /// Makes tokens for these users, as an operator does, in a file of this folder.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn at(dir: &Path, users: &[&str]) -> Self {
        let file = dir.join("tokens.toml");
        let mut tokens = BTreeMap::new();
        for user in users {
            tokens.insert((*user).to_owned(), added(&file, user));
        }
        Self { file, tokens }
    }

    /// Makes another token for a user; the one of before stays in the file.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn add(&self, user: &str) -> String {
        added(&self.file, user)
    }

    /// The server's flag.
    pub fn flag(&self) -> String {
        format!("--token-file={}", self.file.display())
    }

    /// Path of the file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A user's token.
    ///
    /// # Panics
    /// There is no such user.
    pub fn of(&self, user: &str) -> &str {
        &self.tokens[user]
    }

    /// Sends a user's token with each call.
    pub fn interceptor(&self, user: &str) -> Bearer {
        Bearer(self.of(user).to_owned())
    }
}

/// A new token of this user, whose entry is in the file afterwards.
fn added(file: &Path, user: &str) -> String {
    let mut command = Command::new(program("sqlflow-server"));
    let made = command.args(["token", user, "--token-file"]).arg(file).output();
    let made = made.expect("the program can be started");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

/// Sends an access token with each call.
#[derive(Debug, Clone)]
pub struct Bearer(pub String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = format!("Bearer {}", self.0).parse().expect("tokens are ASCII");
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// A command as another user of this machine, who has no rights. Only root can start it.
pub fn as_nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
    command
}

/// Makes an authority (`ca.crt`), a server's certificate by it, and a client's for `ana` of the group `ml`; and another
/// authority (`other.crt`) with a client's certificate (`eve`).
///
/// # Panics
/// openssl is missing.
pub fn certificates(dir: &Path) {
    let script = r#"
        set -e
        authority() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=$1" \
            -addext basicConstraints=critical,CA:TRUE -keyout $1.key -out $1.crt; }
        signed() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$3" -keyout $2.key -out $2.csr
            printf 'basicConstraints=CA:FALSE\n%s\n' "$4" > $2.ext
            openssl x509 -req -in $2.csr -CA $1.crt -CAkey $1.key -CAcreateserial -days 30 -extfile $2.ext -out $2.crt; }
        authority ca; authority other
        signed ca server /CN=server subjectAltName=DNS:localhost,DNS:sqlflow.example.com,IP:127.0.0.1,IP:192.0.2.7
        signed ca ana /O=ml/CN=ana extendedKeyUsage=clientAuth
        signed other eve /O=ml/CN=ana extendedKeyUsage=clientAuth
    "#;
    let made = Command::new("sh").args(["-c", script]).current_dir(dir).output();
    let made = made.expect("sh can be started");
    assert!(made.status.success(), "{made:?}");
}
