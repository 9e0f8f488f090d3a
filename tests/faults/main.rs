//! Random fault schedules on one machine, with a checker of the whole history.
//!
//! Two servers on one state folder run several jobs at once while servers, agents, submitters, links, the disk and the
//! limit of open files fail. `schedule` chooses jobs and faults, `world` carries them out, `reader` follows the jobs
//! meanwhile, and `check` verifies the histories.
//!
//! A seed repeats the choice of faults and their times, not the timing of the programs: the same seed may fail only
//! sometimes. Repeat it often (`SQLFLOW_FAULT_REPEAT`).
//!
//! - `SQLFLOW_FAULT_SEED=n` runs only this seed.
//! - `SQLFLOW_FAULT_REPEAT=n` runs it n times.
//! - `SQLFLOW_FAULT_SCHEDULES=n` runs the seeds from 1 to n. Default: 100, and at most 240 seconds.
//!
//! A failed schedule prints its seed, the faults, its notes, and the histories. The state folder is copied to the
//! target folder's `tmp/faults-<seed>`. The test runs itself in its own mount and process namespace: it mounts small
//! disks, and leaves no process behind, however it ends.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::print_stderr, reason = "shows a failed schedule at once")]

mod check;
mod observed;
mod processes;
mod program;
mod reader;
mod run;
mod schedule;
mod world;

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schedule::Schedule;

/// Set inside the test's own namespaces.
const INSIDE: &str = "SQLFLOW_TEST_FAULTS_INSIDE";
/// Default of `SQLFLOW_FAULT_SCHEDULES`.
const SCHEDULES: u64 = 100;
/// Time after which no schedule begins, unless their number was given.
const BOUND: Duration = Duration::from_secs(240);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The seeds to run, and the time limit for starting one.
struct Plan {
    seeds: Vec<u64>,
    bound: Option<Duration>,
}

fn plan() -> Plan {
    let repeat = number("SQLFLOW_FAULT_REPEAT").unwrap_or(1);
    match (number("SQLFLOW_FAULT_SEED"), number("SQLFLOW_FAULT_SCHEDULES")) {
        (Some(seed), _) => Plan { seeds: (0..repeat).map(|_| seed).collect(), bound: None },
        (None, Some(count)) => Plan { seeds: (1..=count).collect(), bound: None },
        (None, None) => Plan { seeds: (1..=SCHEDULES).collect(), bound: Some(BOUND) },
    }
}

#[test]
fn random_fault_schedules_pass_the_checker() {
    if std::env::var_os(INSIDE).is_some() {
        return run_all(&plan());
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    // A shell, as process 1, reaps orphans.
    command.args(["sh", "-c", "\"$@\"; exit $?", "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "random_fault_schedules_pass_the_checker", "--nocapture"]).env(INSIDE, "1");
    let status = command.status().unwrap();
    assert!(status.success(), "a schedule failed, or this test may not mount a small disk, which needs root");
}

fn run_all(plan: &Plan) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let worker = async || {
        let (mut count, mut failed) = (0_u64, Vec::new());
        while plan.bound.is_none_or(|bound| begun.elapsed() < bound) {
            let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            let Some(seed) = plan.seeds.get(index).copied() else { break };
            count += 1;
            // In a task of its own, since it blocks while programs end.
            let ran = tokio::spawn(async move { run::run(&Schedule::of(seed)).await });
            if let Err(report) = ran.await.unwrap() {
                eprintln!("{report}");
                failed.push(seed);
            }
        }
        (count, failed)
    };
    let results = runtime.block_on(async { tokio::join!(worker(), worker(), worker()) });
    runtime.shutdown_background();
    let results = [results.0, results.1, results.2];
    let count: u64 = results.iter().map(|(count, _)| count).sum();
    let failed: Vec<u64> = results.into_iter().flat_map(|(_, failed)| failed).collect();
    eprintln!("{count} of {} schedules in {:?}", plan.seeds.len(), begun.elapsed());
    assert!(failed.is_empty(), "{} schedules failed; their seeds: {failed:?}", failed.len());
    assert!(count > 0, "no schedule was run");
}
