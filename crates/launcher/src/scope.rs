//! Scope of a local launcher's id: the state folder, and the machine if several machines may share that folder.

use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

/// Filesystems that several machines may mount at the same time: NFS, AFS, SMB (1, 2 and CIFS), Ceph, Lustre, GPFS.
const SHARED: [i64; 8] =
    [0x6969, 0x5346_414f, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x00c3_6400, 0x0bd0_0bd0, 0x4750_4653];

/// The scope of agents whose run folders are below this folder. On a filesystem of one machine, the kernel that mounted
/// it knows all locks, also of containers, whose host name changes with each start. On a shared one, only the agents'
/// own machine knows them.
pub(super) fn of(state_dir: &Path) -> String {
    let is_shared = statfs(state_dir).is_ok_and(|found| is_shared(found.filesystem_type()));
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    scope(state_dir, is_shared.then(host))
}

fn is_shared(FsType(magic): FsType) -> bool {
    SHARED.iter().any(|shared| i128::from(*shared) == i128::from(magic))
}

fn scope(state_dir: &Path, host: Option<String>) -> String {
    match host {
        Some(host) => format!("{host}:{}", state_dir.display()),
        None => state_dir.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_has_host_on_shared_filesystems() {
        let dir = Path::new("/state");
        assert_eq!(scope(dir, Some("one".into())), "one:/state");
        assert_eq!(scope(dir, None), "/state");
        assert!(is_shared(nix::sys::statfs::NFS_SUPER_MAGIC));
        assert!(!is_shared(nix::sys::statfs::TMPFS_MAGIC));
    }
}
