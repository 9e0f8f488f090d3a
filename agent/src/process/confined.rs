//! What the command must not reach, by its assignment.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use sqlflow_confinement::{Confinement, Support};
use sqlflow_os::run_as::RunAs;
use sqlflow_proto::agent;

use super::private_files::private_files;

/// Where cgroups are. A process of the agent's user may otherwise kill, freeze or move others by their files.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Name of the folder for temporary files, in a run folder.
const TEMPORARY: &str = "tmp";
/// Maximum length of a path of it: Python makes sockets below it, with names of 33 bytes, and a socket's path has at
/// most 107 bytes. If it is longer, the command has the machine's folder, as without a confinement.
const MAX_TEMPORARY: usize = 74;

/// How a command is confined.
#[derive(Debug)]
pub struct Confined {
    paths: Confinement,
    /// Only if the kernel can do all of it.
    is_required: bool,
    temporary: Option<PathBuf>,
}

impl Confined {
    /// As `assigned`, with access to the workspace and, where others may be closed, to a new folder for temporary files in
    /// the run folder. `own` are files of the agent's options, and `user` is the command's, if that is another one.
    ///
    /// # Errors
    /// The file system fails.
    pub fn new(
        assigned: &agent::Confinement,
        own: &[PathBuf],
        run_folder: Option<&Path>,
        workspace: &Path,
        user: Option<RunAs>,
    ) -> anyhow::Result<Self> {
        let assigned_paths = assigned.denied_paths.iter().map(|path| PathBuf::from(OsStr::from_bytes(path)));
        let mut denied: Vec<PathBuf> = assigned_paths.collect();
        if assigned.agent_files {
            denied.extend(private_files(own.iter().map(PathBuf::as_path)));
        }
        let own_folder =
            run_folder.map(|it| it.join(TEMPORARY)).filter(|it| it.as_os_str().len() <= MAX_TEMPORARY);
        // In a Pod the folder for all is open, unless credentials are in it.
        let may_be_closed =
            !assigned.denied_paths.is_empty() || denied.iter().any(|it| it.starts_with("/tmp"));
        let temporary = own_folder.filter(|_| may_be_closed);
        let mut allowed = vec![workspace.to_owned()];
        if let Some(folder) = &temporary {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            let given = made.and_then(|()| match user {
                Some(user) => lchown(folder, Some(user.uid), Some(user.gid)),
                None => Ok(()),
            });
            given.with_context(|| format!("cannot create {}", folder.display()))?;
            allowed.push(folder.clone());
        }
        let paths = Confinement { denied, readable: vec![CGROUPS.into()], allowed };
        Ok(Self { paths, is_required: assigned.required, temporary })
    }

    /// Its TMPDIR.
    pub(super) fn temporary_folder(&self) -> Option<&Path> {
        self.temporary.as_deref()
    }

    /// Checks that the program does not lie where the command must not reach: Python would start without its packages.
    pub(super) fn check_program(&self, file: &Path) -> anyhow::Result<()> {
        let Some(denied) = self.paths.covering(file) else { return Ok(()) };
        Err(anyhow!(
            "{} lies in {}, which is closed to it; move it, or turn the confinement off",
            file.display(),
            denied.display()
        ))
    }

    /// The rules. `None`: the kernel has none.
    pub(super) fn rules(&self) -> anyhow::Result<Option<OwnedFd>> {
        const WHAT: &str = "cannot confine the command";
        ensure!(
            !self.is_required || Support::of_kernel() == Support::Complete,
            "{WHAT}: the kernel has no Landlock that keeps it from files, memory and signals (Linux 6.12 and newer)"
        );
        self.paths.rules().context(WHAT)
    }
}
