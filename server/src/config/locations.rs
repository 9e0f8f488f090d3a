//! Locations of data: the data source, and the model storage.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use sqlflow_data_source::{Reach, Refusal};

use super::{LauncherOption, Options};

/// Schemes of model storages.
const MODEL_STORAGES: [&str; 7] = ["file", "hdfs", "webhdfs", "s3", "oss", "gs", "azblob"];

impl Options {
    /// Checks the form of `--datasource`, if it is given.
    ///
    /// # Errors
    /// Submitters do not support it.
    pub fn check_data_source(&self) -> anyhow::Result<()> {
        if self.datasource.expose().is_empty() {
            return Ok(());
        }
        let checked = sqlflow_data_source::dialect(self.datasource.expose()).map(drop);
        checked.with_context(|| format!("cannot use the data source (from {})", self.origin("datasource")))
    }

    /// Why every job without its own data source would fail on this machine; `None`: no reason is known.
    #[must_use]
    pub fn missing_data_source(&self) -> Option<String> {
        let is_local = self.launcher == LauncherOption::Local;
        let why = sqlflow_data_source::missing_sqlite_file(self.datasource.expose()).filter(|_| is_local)?;
        Some(format!("cannot use the data source (from {}): {why}", self.origin("datasource")))
    }

    /// Warning about the data source, if [`Options::missing_data_source`] has no error.
    #[must_use]
    pub fn doubtful_data_source(&self) -> Option<String> {
        let is_local = self.launcher == LauncherOption::Local;
        let absent = sqlflow_data_source::absent_sqlite_file(self.datasource.expose());
        let absent = absent.filter(|it| is_local && it.is_created)?;
        Some(format!(
            "SQLite file {} (from {}) does not exist; it is created by the first program that creates a table",
            absent.path.display(),
            self.origin("datasource")
        ))
    }

    /// What jobs may reach by a data source of the operator. In a Pod the container is the border, and the server's
    /// files are not there.
    ///
    /// # Errors
    /// A path is relative where no folder is known, or is not UTF-8; or the file with data sources cannot be read.
    pub fn reach(&self, state_dir: &Path) -> anyhow::Result<Reach> {
        let given = &self.access.sqlite_folder;
        let from = self.origin("sqlite-folder");
        let is_local = self.launcher == LauncherOption::Local;
        let mut folders = Vec::new();
        for folder in given {
            ensure!(
                is_local || folder.is_absolute(),
                "cannot use the folder {} for SQLite files (from {from}): it is one of the Pods; write an absolute path",
                folder.display()
            );
            folders.push(std::path::absolute(folder)?);
        }
        let is_shared = is_local && self.access.is_shared();
        let private = match is_shared {
            true => self.private_files()?,
            false => Vec::new(),
        };
        let reach = Reach {
            is_clients: false,
            sqlite_folders: (is_shared || !given.is_empty()).then_some(folders),
            state_folder: is_local.then(|| state_dir.to_owned()),
            private,
        };
        let own = sqlflow_data_source::database_file(self.datasource.expose());
        if let Some(refusal @ Refusal::State) = own.as_ref().and_then(|it| reach.own_file(it).err()) {
            let (path, from) = (own.unwrap_or_default(), self.origin("datasource"));
            bail!("cannot use the database file {} (from {from}): {refusal}", path.display());
        }
        let all = reach.sqlite_folders.iter().flatten().chain(&reach.state_folder).chain(&reach.private);
        for path in all {
            // The data process gets them as texts.
            ensure!(path.to_str().is_some(), "cannot use the path {}: it is not UTF-8", path.display());
        }
        Ok(reach)
    }

    /// Files that no session names and no user code reads: secrets, and the files of data sources with a name and of the
    /// default.
    ///
    /// # Errors
    /// The file with data sources cannot be read.
    pub(super) fn private_files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let own = sqlflow_data_source::local_paths(self.datasource.expose());
        Ok(self.private_paths()?.into_iter().chain(own).collect())
    }

    /// URI of the model storage.
    ///
    /// # Errors
    /// The agent does not support the URI; or there is none, and agents do not share this machine's files.
    pub fn models_uri(&self, state_dir: &Path) -> anyhow::Result<String> {
        let uri = match (&self.models, self.launcher) {
            (Some(uri), _) => uri.trim_end_matches('/').to_owned(),
            (None, LauncherOption::Local) => format!("file://{}/models", state_dir.display()),
            // Otherwise the error would appear only after a training, when its model cannot be saved.
            (None, LauncherOption::Kubernetes) => bail!(
                "--launcher kubernetes needs --models (SQLFLOW_MODELS): Pods do not see the server's files; name a storage \
                 such as s3://bucket/models, or file:///path of a shared volume that --pod-template mounts"
            ),
        };
        let from = self.origin("models");
        let (scheme, rest) = uri.split_once("://").unwrap_or(("", &uri));
        if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
            bail!("{from} holds no credentials; agents have them from their environment");
        }
        if !MODEL_STORAGES.contains(&scheme) {
            let known = MODEL_STORAGES.map(|scheme| format!("{scheme}://")).join(", ");
            bail!("{from} {uri} is not supported: it begins with one of {known}");
        }
        if scheme == "file" && !rest.starts_with('/') {
            bail!("{from} {uri}: file:// needs an absolute path");
        }
        Ok(uri)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn files_of_sqlite_lie_where_the_operator_says() {
        let reach = |flags: &[&str]| {
            let options = Options::parse_from([&["sqlflow-server"], flags].concat());
            options.reach(Path::new("/state")).map_err(|error| error.to_string())
        };
        let state: Option<PathBuf> = Some("/state".into());
        let own = "--datasource=sqlite:////data/own.db";
        assert_eq!(reach(&[own]).unwrap(), Reach { state_folder: state.clone(), ..Reach::default() });
        let found = reach(&[own, "--sqlite-folder=/a,/b", "--sqlite-folder=/c/d"]).unwrap();
        assert_eq!(found.sqlite_folders, Some(vec!["/a".into(), "/b".into(), "/c/d".into()]));
        let dir = tempfile::tempdir().unwrap();
        let in_state = format!("--datasource=sqlite:///{}/x.db", dir.path().display());
        let options = Options::parse_from(["sqlflow-server", &in_state]);
        let error = options.reach(dir.path()).unwrap_err().to_string();
        assert!(error.contains("(from --datasource): it belongs to the state of the server"), "{error}");
        // Of several users, none may name the files of the operator.
        for shared in ["--allow=unix:ana", "--token-file=/tokens"] {
            let found = reach(&[own, shared]).unwrap();
            assert_eq!((found.sqlite_folders, &found.state_folder), (Some(Vec::new()), &state), "{shared}");
            assert!(found.private.contains(&"/data/own.db".into()), "{shared}");
        }
        assert!(reach(&["--token-file=/tokens"]).unwrap().private.contains(&"/tokens".into()));
        let pods = ["--launcher=kubernetes", "--token-file=/tokens"];
        assert!(reach(&pods).unwrap().is_unlimited(), "the container is the border");
        let found = reach(&[&pods[..], &["--sqlite-folder=/data"][..]].concat()).unwrap();
        assert_eq!(found, Reach { sqlite_folders: Some(vec!["/data".into()]), ..Reach::default() });
        assert!(
            reach(&[&pods[..], &["--sqlite-folder=data"][..]].concat()).unwrap_err().contains("absolute")
        );
    }

    #[test]
    fn models_uri_is_required_for_pods() {
        let uri = |flags: &[&str]| {
            let options = Options::parse_from([&["sqlflow-server"], flags].concat());
            options.models_uri(Path::new("/state")).map_err(|error| error.to_string())
        };
        assert_eq!(uri(&["--launcher=local"]).as_deref(), Ok("file:///state/models"));
        let error = uri(&["--launcher=kubernetes"]).unwrap_err();
        assert!(error.contains("--models") && error.contains("SQLFLOW_MODELS"), "{error}");
        let shared = uri(&["--launcher=kubernetes", "--models=file:///shared/models"]);
        assert_eq!(shared.as_deref(), Ok("file:///shared/models"));
    }
}
