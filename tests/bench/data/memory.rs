//! Memory of a tree of processes. The sum of their PSS: pages that several of them map count once.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

/// Time between samples.
const PERIOD: Duration = Duration::from_millis(100);

/// Which processes count.
#[derive(Clone, Copy)]
pub enum Tree {
    /// The process and all below it.
    With(u32),
    /// Only those below: the attempts of a server.
    Below(u32),
}

/// A thread that samples the memory until it is asked for the largest sample.
pub struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<anyhow::Result<Option<u64>>>,
}

impl Sampler {
    /// Takes the first sample, and goes on.
    pub fn start(tree: Tree) -> anyhow::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut peak = sum(tree)?;
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                peak = peak.zip(sum(tree)?).map(|(peak, now)| peak.max(now));
            }
            Ok(peak)
        });
        Ok(Self { stop, thread })
    }

    /// The largest sum, in megabytes; `None`: this user may not see it, for example of a data process, whose memory is
    /// closed to all but root.
    pub fn peak(self) -> anyhow::Result<Option<f64>> {
        drop(self.stop);
        let peak = self.thread.join().map_err(|_| anyhow!("the sampling thread panicked"))??;
        Ok(peak.map(|kib| kib as f64 * 1024.0 / 1e6))
    }
}

/// The sum in KiB now; `None`: not to be seen.
fn sum(tree: Tree) -> anyhow::Result<Option<u64>> {
    let mut pids = match tree {
        Tree::With(root) => vec![root],
        Tree::Below(root) => children(root)?,
    };
    let mut sum = 0;
    while let Some(pid) = pids.pop() {
        pids.extend(children(pid)?);
        match std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
            Ok(text) => sum += pss(&text)?,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            // It has ended meanwhile.
            Err(_) => {}
        }
    }
    Ok(Some(sum))
}

/// In KiB; a process that is ending has no memory, and its file has no lines.
fn pss(rollup: &str) -> anyhow::Result<u64> {
    let Some(line) = rollup.lines().find_map(|line| line.strip_prefix("Pss:")) else { return Ok(0) };
    line.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("Pss is {line:?}"))
}

/// Children of all threads of the process; none if it has ended.
fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for thread in
        std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).into_iter().flatten()
    {
        let Ok(thread) = thread else { continue };
        let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for word in text.split_whitespace() {
            all.push(word.parse()?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn peak_has_the_memory_of_children_after_their_end() {
        // `tail` holds a line of 64 MB until its reader ends, which says when the line has come.
        let code = "exec 3<&0; head -c 64000000 /dev/zero | tr '\\0' x | tail -n 1 | { read -N 1; echo up; cat <&3; }";
        let mut child = Command::new("bash")
            .args(["-c", code])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        let sampler = Sampler::start(Tree::With(child.id())).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        let peak = sampler.peak().unwrap().unwrap();
        assert!((64.0..200.0).contains(&peak), "{peak} MB");
    }

    #[test]
    fn process_without_memory_has_no_pss() {
        assert_eq!(pss("").unwrap(), 0);
        assert_eq!(pss("00-ff ---p [rollup]\nRss:  9 kB\nPss:    17 kB\nPss_Dirty: 3 kB\n").unwrap(), 17);
    }
}
