//! Resources of a process, as the kernel counts them.

use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Clock ticks per second, the kernel's unit of a process's time. The same on every supported Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The counters of a process at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    at: Instant,
    cpu_seconds: f64,
    write_calls: f64,
    disk_bytes: f64,
}

/// Average resources of a process over some time.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Time of all its threads, in percent of one core.
    pub cpu_percent: f64,
    /// Calls of write and similar per second, to files and sockets.
    pub write_calls: f64,
    /// Kilobytes per second written to files on a disk.
    pub disk_kilobytes: f64,
}

impl Usage {
    /// Of the process now.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name before may hold spaces.
        let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
        let ticks = |index: usize| -> anyhow::Result<f64> {
            Ok(fields.split_whitespace().nth(index).context("a field is missing")?.parse()?)
        };
        let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
        let counter = |name: &str| -> anyhow::Result<f64> {
            let value = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            Ok(value.with_context(|| format!("no {name}"))?.parse()?)
        };
        Ok(Self {
            at: Instant::now(),
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            write_calls: counter("syscw")?,
            disk_bytes: counter("write_bytes")?,
        })
    }

    /// Of the process over the next while.
    pub async fn over(pid: u32, time: Duration) -> anyhow::Result<Rates> {
        let begin = Self::of(pid)?;
        tokio::time::sleep(time).await;
        Ok(Self::of(pid)?.since(begin))
    }

    /// Time of all its threads, in seconds.
    pub fn cpu_seconds_since(&self, earlier: &Self) -> f64 {
        self.cpu_seconds - earlier.cpu_seconds
    }

    fn since(self, earlier: Self) -> Rates {
        let seconds = (self.at - earlier.at).as_secs_f64();
        Rates {
            cpu_percent: (self.cpu_seconds - earlier.cpu_seconds) / seconds * 100.0,
            write_calls: (self.write_calls - earlier.write_calls) / seconds,
            disk_kilobytes: (self.disk_bytes - earlier.disk_bytes) / seconds / 1e3,
        }
    }
}
