//! What a local attempt's place is, beside the launcher's name: the state folder, and the machine where that does not
//! follow from it.

use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

/// Filesystems that several machines may have mounted at a time: NFS, AFS, SMB (1, 2 and CIFS), Ceph, Lustre, GPFS.
const SHARED: [i64; 8] =
    [0x6969, 0x5346_414f, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x00c3_6400, 0x0bd0_0bd0, 0x4750_4653];

/// The scope of agents whose run folders are below this folder. On a filesystem of one machine the kernel that has it
/// mounted knows all locks, whatever the host is called: a container has another name each time it is created. On a
/// shared one only the machine of the agents can tell for certain.
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
    fn the_host_counts_where_the_folder_is_shared() {
        let dir = Path::new("/state");
        assert_eq!(scope(dir, Some("one".into())), "one:/state");
        assert_eq!(scope(dir, None), "/state");
        assert!(is_shared(nix::sys::statfs::NFS_SUPER_MAGIC));
        assert!(!is_shared(nix::sys::statfs::TMPFS_MAGIC));
    }
}
