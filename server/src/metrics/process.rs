//! Standard metrics of the process, such as `process_cpu_seconds_total`. They are read on request. Values that cannot
//! be read are left out.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::param::{clock_ticks_per_second, page_size};

/// This process, as the kernel reports it.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut tell = |name: &str, help: &str, unit: Option<Unit>, metric: &dyn EncodeMetric| {
            let kind = metric.metric_type();
            metric.encode(encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)
        };
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let spent = (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6;
            let spent = ConstCounter::new(spent);
            tell("process_cpu", "User and system CPU time", Some(Unit::Seconds), &spent)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them belongs to this read.
            let open = gauge(open.count().saturating_sub(1) as f64);
            tell("process_open_fds", "Open file descriptors", None, &open)?;
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let most = gauge(soft as f64);
            tell("process_max_fds", "Limit of open file descriptors", None, &most)?;
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_AS) {
            let most = gauge(soft as f64);
            tell("process_virtual_memory_max", "Limit of virtual memory", Some(Unit::Bytes), &most)?;
        }
        let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) else {
            return Ok(());
        };
        let (resident, virtual_memory) = (gauge(stat.resident), gauge(stat.virtual_memory));
        tell("process_resident_memory", "Resident memory", Some(Unit::Bytes), &resident)?;
        tell("process_virtual_memory", "Virtual memory", Some(Unit::Bytes), &virtual_memory)?;
        tell("process_threads", "Threads", None, &gauge(stat.threads))?;
        if let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
            let start = gauge(boot + stat.started);
            tell(
                "process_start_time",
                "When the process started, since the epoch",
                Some(Unit::Seconds),
                &start,
            )?;
        }
        Ok(())
    }
}

fn gauge(value: f64) -> ConstGauge<f64> {
    ConstGauge::new(value)
}

/// From `/proc/self/stat`, in bytes and in seconds since the boot: see proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    threads: f64,
    started: f64,
    virtual_memory: f64,
    resident: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name, in parentheses, may contain any character. The first field after it is the third.
        let fields: Vec<f64> =
            text.rsplit_once(')')?.1.split_whitespace().map(|it| it.parse().unwrap_or(f64::NAN)).collect();
        let field = |number: usize| fields.get(number - 3).copied().filter(|it| it.is_finite());
        Some(Self {
            threads: field(20)?,
            started: field(22)? / clock_ticks_per_second() as f64,
            virtual_memory: field(23)?,
            resident: field(24)? * page_size() as f64,
        })
    }
}

/// Boot time of the machine, in seconds since the epoch.
fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_metrics_are_parsed() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 17 0 300 4096000 250 18446744073709551615 1 1";
        let page = page_size() as f64;
        let ticks = clock_ticks_per_second() as f64;
        let expected = Stat {
            threads: 17.0,
            started: 300.0 / ticks,
            virtual_memory: 4_096_000.0,
            resident: 250.0 * page,
        };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("42 (a) S 1"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000.0));
    }
}
