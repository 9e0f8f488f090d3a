//! Locations of data: the data source, and the model storage.

use std::path::Path;

use anyhow::{Context as _, bail};

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

    /// Warning about the data source.
    #[must_use]
    pub fn doubtful_data_source(&self) -> Option<String> {
        let is_local = self.launcher == LauncherOption::Local;
        let absent =
            sqlflow_data_source::absent_sqlite_file(self.datasource.expose()).filter(|_| is_local)?;
        let from = self.origin("datasource");
        let what = match absent.is_created {
            true => "it is created by the first program that creates a table",
            false => "its mode does not create it: correct the path, or create the file first",
        };
        Some(format!("SQLite file {} (from {from}) does not exist; {what}", absent.path.display()))
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
