//! Keeps a program from certain files and from other processes, by Landlock. The rules are made here, and take effect
//! when a process restricts itself with them before it executes the program.
//!
//! Landlock can only allow. So each file beside a denied path, and beside each of its folders, is allowed, with all
//! that is below it. What is created beside them later is not reachable.

mod denied;

use std::fs::{self, DirEntry};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use denied::{Denied, Folder};

/// Maximum number of rules. Each takes a few microseconds, and some hundred bytes of the kernel.
const MAX_RULES: usize = 20_000;

/// The newest version of Landlock that is used; of an older kernel, what it has.
const NEWEST: ABI = ABI::V10;
/// The version that restricts connections to sockets by their path (Linux 7.1).
const SOCKETS: ABI = ABI::V9;
/// The version that closes all that is promised: files, memory, signals, and abstract sockets (Linux 6.12).
const COMPLETE: ABI = ABI::V6;

/// What a kernel can keep a program from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Nothing: it has no Landlock, or was booted without it.
    None,
    /// Files and the memory of other processes, but not signals and abstract sockets; files may be truncated before
    /// Linux 6.2.
    FilesOnly,
    /// Everything.
    Complete,
}

impl Support {
    /// That of the running kernel.
    #[must_use]
    pub fn of_kernel() -> Self {
        match (kernel_has(COMPLETE), kernel_has(ABI::V1)) {
            (true, _) => Self::Complete,
            (false, true) => Self::FilesOnly,
            (false, false) => Self::None,
        }
    }
}

fn kernel_has(abi: ABI) -> bool {
    let create = || {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let ruleset = ruleset.handle_access(AccessFs::from_all(abi))?;
        let scopes = Scope::from_all(abi);
        let ruleset = if scopes.is_empty() { ruleset } else { ruleset.scope(scopes)? };
        ruleset.create()
    };
    create().is_ok()
}

/// Why no rules could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    /// A folder above a denied path has too many entries.
    #[error(
        "there are more than {MAX_RULES} files and folders beside {} and in the folders above it; move it out of {}, \
         to a folder of its own",
        .denied.display(), .folder.display()
    )]
    TooManyFiles {
        /// The denied path.
        denied: PathBuf,
        /// The folder whose entries exceeded the maximum.
        folder: PathBuf,
    },
    /// A path is no path of a file, or cannot be read.
    #[error("cannot look at {}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused the rules.
    #[error("the kernel refuses rules of Landlock")]
    Kernel(#[from] RulesetError),
}

/// What a program must not reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Files and folders that it must not open, create, change or remove. They need not exist. Beside a file, also
    /// those files that continue its name with `-` are denied, such as a database's journal. A socket is denied only by
    /// kernels that restrict connections to it (Linux 7.1).
    pub denied: Vec<PathBuf>,
    /// Folders that it may read, and not change. They need not exist.
    pub readable: Vec<PathBuf>,
    /// Folders below a denied one that it may use.
    pub allowed: Vec<PathBuf>,
}

impl Confinement {
    /// The rules, for `landlock_restrict_self`. `None`: the kernel has no Landlock.
    ///
    /// # Errors
    /// See [`ConfinementError`].
    pub fn rules(&self) -> Result<Option<OwnedFd>, ConfinementError> {
        self.rules_up_to(MAX_RULES)
    }

    /// The denied path that a file lies in, under the name that is given or its real one; `None`: it is not denied.
    #[must_use]
    pub fn covering(&self, file: &Path) -> Option<&Path> {
        let in_real_folder = || Some(denied::resolve(file.parent()?).ok()?.join(file.file_name()?));
        let names = [Some(file.to_owned()), in_real_folder(), denied::resolve(file).ok()];
        let is_in = |denied: &Path| names.iter().flatten().any(|name| name.starts_with(denied));
        let is_allowed =
            names.iter().flatten().any(|name| self.allowed.iter().any(|it| name.starts_with(it)));
        if is_allowed {
            return None;
        }
        let covers = |it: &&PathBuf| is_in(it) || denied::resolve(it).is_ok_and(|real| is_in(&real));
        self.denied.iter().find(covers).map(PathBuf::as_path)
    }

    fn rules_up_to(&self, most: usize) -> Result<Option<OwnedFd>, ConfinementError> {
        let mut denied = Denied::default();
        let closes_sockets = kernel_has(SOCKETS);
        for path in &self.denied {
            let real = denied::resolve(path)
                .map_err(|source| ConfinementError::Path { path: path.clone(), source })?;
            // Without an effect on a socket, the rules would only keep files from being created beside it.
            if closes_sockets || !is_socket(&real) {
                denied.insert(&real);
            }
        }
        let mut readable = Vec::new();
        for path in &self.readable {
            let fault = |source| ConfinementError::Path { path: path.clone(), source };
            let real = denied::resolve(path).map_err(fault)?;
            match open_path(&real) {
                Ok(opened) => {
                    denied.insert(&real);
                    readable.push(opened);
                }
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
                Err(error) => return Err(fault(error.into())),
            }
        }
        // Listing a folder is not restricted: a right to list the folders above a denied one would extend to it.
        let rights = AccessFs::from_all(NEWEST) & !AccessFs::ReadDir;
        let ruleset = Ruleset::default().handle_access(rights)?.scope(Scope::from_all(NEWEST))?.create()?;
        let mut rules = Rules { denied: &denied, ruleset, rights, left: most };
        rules.allow_beside(Path::new("/"), denied.root())?;
        for opened in readable {
            (&mut rules.ruleset).add_rule(PathBeneath::new(opened, AccessFs::ReadFile))?;
        }
        for folder in &self.allowed {
            let fault = |source| ConfinementError::Path { path: folder.clone(), source };
            let opened = open_path(folder).map_err(|error| fault(error.into()))?;
            (&mut rules.ruleset).add_rule(PathBeneath::new(opened, rights))?;
        }
        Ok(rules.ruleset.into())
    }
}

struct Rules<'a> {
    denied: &'a Denied,
    ruleset: RulesetCreated,
    rights: BitFlags<AccessFs>,
    /// Number of further rules.
    left: usize,
}

impl Rules<'_> {
    /// Allows everything below a folder but what is denied.
    fn allow_beside(&mut self, folder: &Path, denied: &Folder) -> Result<(), ConfinementError> {
        let fault = |source| ConfinementError::Path { path: folder.to_owned(), source };
        match fs::read_dir(folder) {
            Ok(entries) => {
                for entry in entries {
                    self.allow_entry(&entry.map_err(fault)?, denied).map_err(|error| match error {
                        EntryError::File(error) => fault(error),
                        EntryError::Rule(error) => error.into(),
                        EntryError::TooMany => ConfinementError::TooManyFiles {
                            denied: denied.example(folder),
                            folder: folder.to_owned(),
                        },
                    })?;
                }
            }
            Err(error) if is_gone(&error) => return Ok(()),
            // The program may use those names that lead to denied paths, and cannot list others.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(fault(error)),
        }
        denied.folders().try_for_each(|(name, below)| self.allow_beside(&folder.join(name), below))
    }

    fn allow_entry(&mut self, entry: &DirEntry, denied: &Folder) -> Result<(), EntryError> {
        let kind = entry.file_type()?;
        // The target of a link has its own rule, or none.
        if kind.is_symlink() || denied.covers(&entry.file_name(), kind.is_dir()) {
            return Ok(());
        }
        self.left = self.left.checked_sub(1).ok_or(EntryError::TooMany)?;
        match open_path(&entry.path()) {
            Ok(opened) => self.allow(opened),
            // It was removed meanwhile, or belongs to somebody else.
            Err(Errno::ENOENT | Errno::EACCES | Errno::ESTALE) => Ok(()),
            Err(error) => Err(EntryError::File(error.into())),
        }
    }

    fn allow(&mut self, opened: OwnedFd) -> Result<(), EntryError> {
        let found = fstat(&opened).map_err(io::Error::from)?;
        let rights = match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => self.rights,
            _ => self.rights & AccessFs::from_file(NEWEST),
        };
        if !self.denied.is_file(found.st_dev, found.st_ino) {
            (&mut self.ruleset).add_rule(PathBeneath::new(opened, rights))?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Rule(#[from] RulesetError),
    #[error("there are too many rules")]
    TooMany,
}

/// A descriptor of the file itself, which gives no access to its content; links are not followed.
fn open_path(path: &Path) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn file_below_a_denied_path_is_covered() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(dir.join("state/venv/bin")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", dir.join("state/venv/bin/python")).unwrap();
        std::os::unix::fs::symlink("state/venv", dir.join("env")).unwrap();
        let state = dir.join("state");
        let confinement = Confinement {
            denied: vec![state.clone()],
            allowed: vec![state.join("run/workspace")],
            ..Confinement::default()
        };
        let is_covered = |path: &str| confinement.covering(&dir.join(path)) == Some(&*state);
        assert!(is_covered("state/venv/bin/python") && is_covered("state/other"), "also a link to elsewhere");
        assert!(is_covered("env/bin/python"), "also by a link from elsewhere");
        assert!(!is_covered("state2/python") && !is_covered("state/run/workspace/tool"));
    }

    #[test]
    fn number_of_rules_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        (0..600).for_each(|number| drop(File::create(dir.join(number.to_string())).unwrap()));
        let confinement =
            |denied: &str| Confinement { denied: vec![dir.join(denied)], ..Confinement::default() };
        // Other tests create files beside it meanwhile.
        let above: usize = dir.ancestors().skip(1).map(|it| fs::read_dir(it).unwrap().count()).sum();
        let error = confinement("0").rules_up_to(above + 300).unwrap_err().to_string();
        let [file, folder] = [dir.join("0"), dir.clone()].map(|it| it.display().to_string());
        assert!(error.contains(&format!("beside {file} and")), "{error}");
        assert!(error.contains(&format!("move it out of {folder}, to a folder of its own")), "{error}");
        confinement("0").rules().unwrap();
        let relative = Confinement { denied: vec!["x".into()], ..Confinement::default() };
        assert!(relative.rules().unwrap_err().to_string().contains("cannot look at x"));
    }
}
