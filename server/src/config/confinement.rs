//! Whether the Python of submitters is confined.

use std::path::Path;

use anyhow::bail;
use sqlflow_confinement::Support;

use super::{ConfineOption, LauncherOption, Options};
use crate::codegen::ConfinementOptions;

/// What is missing without it, and how to get it.
const UNCONFINED: &str = "code of users in Python can read and change the state folder, SQLite files and other jobs, \
                          as far as this server's user can; see docs/running-a-server.md";

impl Options {
    /// What submitters must not reach, and a warning. `None`: they are not confined.
    ///
    /// # Errors
    /// It is required, and the kernel cannot.
    pub fn confinement(
        &self,
        state_dir: &Path,
    ) -> anyhow::Result<(Option<ConfinementOptions>, Option<String>)> {
        self.confinement_by(state_dir, Support::of_kernel())
    }

    fn confinement_by(
        &self,
        state_dir: &Path,
        kernel: Support,
    ) -> anyhow::Result<(Option<ConfinementOptions>, Option<String>)> {
        let from = self.origin("confine");
        let required = self.confine == ConfineOption::Require;
        if self.launcher != LauncherOption::Local {
            // Each node has a kernel of its own: its agent finds out.
            let confinement = ConfinementOptions { denied: Vec::new(), required };
            let is_on = self.confine != ConfineOption::Off;
            return Ok((is_on.then_some(confinement), None));
        }
        let denied = std::iter::once(state_dir.to_owned()).chain(self.private_files()?).collect();
        let confinement = ConfinementOptions { denied, required };
        match (self.confine, kernel) {
            (ConfineOption::Off, _) => {
                Ok((None, Some(format!("submitters are not confined ({from}): {UNCONFINED}"))))
            }
            (ConfineOption::Require, Support::FilesOnly | Support::None) => bail!(
                "cannot confine submitters ({from}): this kernel has no Landlock that keeps them from files, memory \
                 and signals (Linux 6.12 and newer, with landlock in the boot option lsm=); use --confine auto"
            ),
            (ConfineOption::Auto, Support::None) => Ok((
                None,
                Some(format!("submitters are not confined: this kernel has no Landlock; {UNCONFINED}")),
            )),
            (ConfineOption::Auto, Support::FilesOnly) => {
                let warning = "submitters are kept from files and from the memory of other processes, but not from \
                               signals to them: this kernel is older than Linux 6.12";
                Ok((Some(confinement), Some(warning.to_owned())))
            }
            (ConfineOption::Auto | ConfineOption::Require, Support::Complete) => {
                Ok((Some(confinement), None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn kernel_without_landlock_is_reported() {
        let confinement = |flag: &str, kernel| {
            let options =
                Options::parse_from(["sqlflow-server", "--datasource=sqlite:////data/iris.db", flag]);
            options.confinement_by(Path::new("/state"), kernel).map_err(|error| error.to_string())
        };
        let (all, warning) = confinement("--confine=auto", Support::Complete).unwrap();
        let all = all.unwrap();
        assert_eq!((all.denied, warning), (vec!["/state".into(), "/data/iris.db".into()], None));
        let (nothing, warning) = confinement("--confine=auto", Support::None).unwrap();
        assert!(nothing.is_none(), "the agent would fail an attempt for what the kernel cannot do");
        assert!(warning.unwrap().contains("this kernel has no Landlock"));
        let (_, warning) = confinement("--confine=auto", Support::FilesOnly).unwrap();
        assert!(warning.unwrap().contains("not from signals"));
        let (none, warning) = confinement("--confine=off", Support::Complete).unwrap();
        assert!(none.is_none() && warning.unwrap().contains("--confine"));
        for kernel in [Support::None, Support::FilesOnly] {
            let error = confinement("--confine=require", kernel).unwrap_err();
            assert!(error.contains("Linux 6.12") && error.contains("--confine auto"), "{error}");
        }
        assert!(confinement("--confine=require", Support::Complete).unwrap().0.unwrap().required);
    }

    #[test]
    fn files_that_say_who_may_do_what_are_denied() {
        let files = [
            ("--config", "/etc/server.toml"),
            ("--token-file", "/etc/tokens"),
            ("--model-rights", "/etc/rights"),
            ("--tls-cert", "/tls/cert"),
            ("--tls-key", "/tls/key"),
            ("--client-ca", "/tls/ca"),
            ("--client-crl", "/tls/crl"),
            ("--oidc-ca", "/oidc/ca"),
            ("--oidc-client-secret-file", "/oidc/secret"),
        ];
        let others = [
            "sqlflow-server",
            "--oidc-issuer=https://login.example.com",
            "--oidc-audience=sqlflow",
            "--oidc-client-id=sqlflow",
            "--public-url=https://sqlflow.example.com",
        ];
        let flags = files.iter().map(|(flag, file)| format!("{flag}={file}"));
        let options = Options::parse_from(others.map(str::to_owned).into_iter().chain(flags));
        let (confinement, _) = options.confinement_by(Path::new("/state"), Support::Complete).unwrap();
        let denied = confinement.unwrap().denied;
        for (flag, file) in files {
            assert!(denied.contains(&file.into()), "{flag}: {denied:?}");
        }
    }

    /// Its own kernel is not theirs.
    #[test]
    fn server_of_pods_leaves_it_to_their_agents() {
        for (confine, expected) in
            [("--confine=off", None), ("--confine=auto", Some(false)), ("--confine=require", Some(true))]
        {
            let options = Options::parse_from(["sqlflow-server", "--launcher=kubernetes", confine]);
            let (confinement, warning) = options.confinement_by(Path::new("/state"), Support::None).unwrap();
            assert_eq!(confinement.map(|it| (it.denied.len(), it.required)), expected.map(|it| (0, it)));
            assert_eq!(warning, None);
        }
    }
}
