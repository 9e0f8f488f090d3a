//! Memory limits and OOM kills of the agent's cgroup, version 1 or 2.

use std::fs;
use std::path::{Path, PathBuf};

/// Folder with the memory files of the cgroup, which are read on each call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryGroup {
    /// Version 1: a folder of the memory controller.
    V1(PathBuf),
    /// Version 2.
    V2(PathBuf),
}

impl MemoryGroup {
    /// The cgroup of this process; `None` when there is none with a memory controller.
    pub fn of_self() -> Option<Self> {
        Self::find(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup"))
    }

    /// From the text of `/proc/self/cgroup` and the mount point of cgroups. In a container the path may be that of the
    /// host, while only the container's cgroup is mounted: then it is the root of the mount.
    fn find(text: &str, root: &Path) -> Option<Self> {
        let path_of = |controller: &str| {
            text.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (controllers, path) = (fields.next()?, fields.next()?);
                controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/'))
            })
        };
        let pick = |base: PathBuf, path: &str, file: &str| {
            [base.join(path), base].into_iter().find(|folder| folder.join(file).exists())
        };
        if let Some(path) = path_of("memory")
            && let Some(folder) = pick(root.join("memory"), path, "memory.oom_control")
        {
            return Some(Self::V1(folder));
        }
        pick(root.to_owned(), path_of("")?, "memory.events").map(Self::V2)
    }

    /// OOM kills since the cgroup was created.
    pub fn oom_kills(&self) -> u32 {
        let file = match self {
            Self::V1(folder) => folder.join("memory.oom_control"),
            Self::V2(folder) => folder.join("memory.events"),
        };
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Peak since the cgroup was created, in bytes; 0: not known (version 2 before Linux 5.19).
    pub fn peak_bytes(&self) -> u64 {
        let file = match self {
            Self::V1(folder) => folder.join("memory.max_usage_in_bytes"),
            Self::V2(folder) => folder.join("memory.peak"),
        };
        fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Limit in bytes; 0: none.
    pub fn limit_bytes(&self) -> u64 {
        let file = match self {
            Self::V1(folder) => folder.join("memory.limit_in_bytes"),
            Self::V2(folder) => folder.join("memory.max"),
        };
        // `max`, or a number near 2^63 in version 1, means none.
        let limit = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if limit > 1 << 60 { 0 } else { limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(root: &Path, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn cgroup_v1_files_are_read() {
        let root = tempfile::tempdir().unwrap();
        lay(
            root.path(),
            &[
                ("memory/pod/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
                ("memory/pod/c/memory.limit_in_bytes", "67108864\n"),
                ("memory/pod/c/memory.max_usage_in_bytes", "67104768\n"),
            ],
        );
        let group = MemoryGroup::find("5:devices:/\n4:memory:/pod/c\n0::/\n", root.path()).unwrap();
        assert_eq!((group.oom_kills(), group.limit_bytes(), group.peak_bytes()), (2, 64 << 20, 67_104_768));
    }

    #[test]
    fn cgroup_v2_with_an_unmounted_host_path() {
        let root = tempfile::tempdir().unwrap();
        lay(
            root.path(),
            &[
                ("memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n"),
                ("memory.max", "max\n"),
            ],
        );
        let group = MemoryGroup::find("0::/kubepods/burstable/pod1/c1\n", root.path()).unwrap();
        assert_eq!((group.oom_kills(), group.limit_bytes(), group.peak_bytes()), (1, 0, 0));
    }
}
