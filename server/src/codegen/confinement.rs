//! How the Python of submitters is confined.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use sqlflow_job::LauncherKind;
use sqlflow_proto::agent::Confinement;

/// How the Python of submitters is confined.
#[derive(Debug, Clone, Default)]
pub struct ConfinementOptions {
    /// Folders and files of this machine that it must not reach, besides the data source of its job. In a Pod, where there
    /// are none of them, it is kept from the agent's files.
    pub denied: Vec<PathBuf>,
    /// Whether it is not started where the kernel cannot confine it.
    pub required: bool,
}

impl ConfinementOptions {
    /// The confinement of a job with this data source, by the kind of its launcher.
    pub(super) fn of_job(&self, kind: &LauncherKind, data_source: &str) -> Option<Confinement> {
        let required = self.required;
        match kind {
            LauncherKind::Local => {
                let own = sqlflow_data_source::local_paths(data_source);
                let bytes = |path: &PathBuf| Bytes::copy_from_slice(path.as_os_str().as_bytes());
                let denied_paths = self.denied.iter().chain(&own).map(bytes).collect();
                Some(Confinement { denied_paths, required, agent_files: false })
            }
            LauncherKind::Kubernetes => {
                Some(Confinement { denied_paths: Vec::new(), required, agent_files: true })
            }
            LauncherKind::Other(_) => None,
        }
    }
}
