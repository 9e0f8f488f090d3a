//! The key that encrypts data sources of live jobs in the state, from a file or from a command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use sqlflow_job_store::SecretKeys;
use sqlflow_job_store::secret_keys::SecretKey;
use sqlflow_os::short_command::{self, CommandError, Limits};
use sqlflow_text::escape::escaped;
use tokio::process::Command;

use super::Options;

/// Timeout for the command.
const COMMAND_TIME: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });
/// Maximum bytes of a key's file, or of the command's output. A key in base64 or in hexadecimal digits is much shorter.
const MAX_BYTES: u64 = 4096;
/// Maximum characters of the command's error that are quoted.
const QUOTED: usize = 300;

/// Options for the key of secrets. The doctor has them too.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Secrets")]
pub struct SecretsArgs {
    /// File with a key of 32 bytes (as bytes, hexadecimal digits or base64), outside of the state folder. It encrypts the data
    /// sources of live jobs in the state [default: they are not encrypted]
    #[arg(long, env = "SQLFLOW_SECRETS_KEY", value_name = "FILE", global = true)]
    pub secrets_key: Option<PathBuf>,

    /// Command that prints this key, such as of a key management service; in place of --secrets-key. It is split at spaces,
    /// and runs without a shell: once when the server starts, and for `doctor` and `--check`
    #[arg(long, env = "SQLFLOW_SECRETS_KEY_COMMAND", value_name = "COMMAND", global = true)]
    pub secrets_key_command: Option<String>,

    /// Files with earlier keys, after a change of the key: data sources are encrypted again when the server starts
    #[arg(long, env = "SQLFLOW_SECRETS_KEY_OLD", value_name = "FILES", value_delimiter = ',', global = true)]
    pub secrets_key_old: Vec<PathBuf>,
}

impl SecretsArgs {
    /// The files with keys.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.secrets_key.iter().chain(&self.secrets_key_old)
    }
}

impl Options {
    /// The keys. A command runs for this.
    ///
    /// # Errors
    /// A key cannot be read, or lies in the state folder. The message has no part of it.
    pub async fn secret_keys(&self, state_dir: &Path) -> anyhow::Result<SecretKeys> {
        let args = &self.secrets;
        for file in args.files() {
            // Anyone with a copy of the folder would have the key.
            ensure!(
                !is_below(file, state_dir),
                "cannot use the key {}: it lies in the state folder, whose copies it is to protect; move it elsewhere",
                file.display()
            );
        }
        let old = || args.secrets_key_old.iter().map(|file| read(file)).collect::<anyhow::Result<_>>();
        let current = match (&args.secrets_key, &args.secrets_key_command) {
            (None, None) => {
                ensure!(
                    args.secrets_key_old.is_empty(),
                    "cannot use {} without a key for new secrets; add --secrets-key or --secrets-key-command",
                    self.origin("secrets-key-old")
                );
                return Ok(SecretKeys::default());
            }
            (Some(_), Some(_)) => bail!(
                "cannot use two keys for new secrets ({} and {}); leave one out",
                self.origin("secrets-key"),
                self.origin("secrets-key-command")
            ),
            (Some(file), None) => read(file)?,
            (None, Some(command)) => {
                let from = self.origin("secrets-key-command");
                let printed = printed_by(command).await;
                let printed =
                    printed.with_context(|| format!("cannot get the key of secrets (from {from})"))?;
                SecretKey::read(&printed)
                    .with_context(|| format!("cannot use what the command of {from} prints"))?
            }
        };
        Ok(SecretKeys::new(current, old()?))
    }
}

/// Whether a file lies below a folder, also by links.
fn is_below(file: &Path, folder: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path));
    real(file).is_ok_and(|file| real(folder).is_ok_and(|folder| file.starts_with(folder)))
}

fn read(file: &Path) -> anyhow::Result<SecretKey> {
    use std::io::Read as _;

    let cannot = || format!("cannot use the key {}", file.display());
    let mut content = Vec::new();
    let opened = std::fs::File::open(file).with_context(cannot)?;
    opened.take(MAX_BYTES).read_to_end(&mut content).with_context(cannot)?;
    SecretKey::read(&content).with_context(cannot)
}

/// What a command prints.
async fn printed_by(command: &str) -> anyhow::Result<Vec<u8>> {
    let mut words = command.split_whitespace();
    let program = words.next().ok_or_else(|| anyhow!("the command is empty; name a program"))?;
    let mut process = Command::new(program);
    process.args(words);
    let ended = short_command::run(process, Limits { timeout: COMMAND_TIME, bytes: MAX_BYTES }).await;
    let ended = ended.map_err(|error| match error {
        CommandError::NotStarted(error) => anyhow!(error).context(format!("cannot start {program}")),
        CommandError::NotAwaited(error) => anyhow!(error).context(format!("cannot wait for {program}")),
        CommandError::Late => anyhow!("{program} has not ended within {} s", COMMAND_TIME.as_secs()),
    })?;
    if ended.status.success() {
        return Ok(ended.stdout);
    }
    let said = ended.last_error(QUOTED).unwrap_or_else(|| "it said nothing".to_owned());
    bail!("{program} ended with {}: {}", ended.status, escaped(&said))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    async fn keys(dir: &Path, flags: &[&str]) -> Result<SecretKeys, String> {
        let options = Options::parse_from([&["sqlflow-server"], flags].concat());
        options.secret_keys(&dir.join("state")).await.map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn key_is_that_of_the_file_or_of_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        std::fs::create_dir(dir.join("state")).unwrap();
        for name in ["key", "state/key"] {
            std::fs::write(dir.join(name), format!("{KEY}\n")).unwrap();
        }
        std::os::unix::fs::symlink("state/key", dir.join("link")).unwrap();
        std::fs::write(dir.join("short"), &KEY[2..]).unwrap();
        let file = |name: &str| dir.join(name).display().to_string();
        let of_file = |name: &str| format!("--secrets-key={}", file(name));
        let of_command = |command: &str| format!("--secrets-key-command={command}");
        let old = format!("--secrets-key-old={}", file("key"));
        assert!(keys(dir, &[]).await.unwrap().is_empty());
        for flags in [
            vec![of_file("key")],
            vec![of_command(&format!("cat {}", file("key")))],
            vec![of_file("key"), old.clone()],
        ] {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            assert!(!keys(dir, &flags).await.unwrap().is_empty(), "{flags:?}");
        }
        for (flags, expected) in [
            (vec![of_file("none")], "No such file"),
            (vec![of_file("short")], "it is no key of 32 bytes"),
            (vec![of_file("state/key")], "it lies in the state folder"),
            (vec![of_file("link")], "it lies in the state folder"),
            (vec![old.clone()], "without a key for new secrets"),
            (vec![of_file("key"), of_command("true")], "two keys for new secrets"),
            (vec![of_command(" ")], "the command is empty"),
            (vec![of_command("true")], "it is no key of 32 bytes"),
            (vec![of_command("/no/such/program")], "cannot start /no/such/program"),
            (vec![of_command(&format!("cat {}", file("none")))], "exit status: 1: cat: "),
            (vec![of_command("sleep 100")], "sleep has not ended within 2 s"),
            (vec![of_command("yes")], ""),
        ] {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let error = keys(dir, &flags).await.unwrap_err();
            assert!(error.contains(expected) && !error.contains(&KEY[2..]), "{flags:?}: {error}");
        }
    }
}
