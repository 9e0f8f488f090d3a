//! Space on disks.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

/// Free bytes for this user on the disk of a folder. `None`: the file system does not report them.
///
/// # Errors
/// The folder cannot be queried.
pub fn free_bytes(folder: &Path) -> nix::Result<Option<u64>> {
    let found = statvfs(folder)?;
    if found.blocks() == 0 {
        return Ok(None);
    }
    // Some file systems keep a reserve for root.
    let blocks = if Uid::effective().is_root() { found.blocks_free() } else { found.blocks_available() };
    Ok(Some(blocks.saturating_mul(found.fragment_size())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_reports_its_free_bytes_and_proc_has_none() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap().is_some_and(|it| it > 0));
        assert_eq!(free_bytes(Path::new("/proc")), Ok(None));
        assert!(free_bytes(Path::new("/no/such/folder")).is_err());
    }
}
