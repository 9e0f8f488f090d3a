//! One schedule from its start to its report.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::{Job, ListJobsRequest};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::python;
use tokio::time::{Instant, sleep};

use super::check::check;
use super::observed::{Observed, Reader, Touched};
use super::processes;
use super::program::{Effect, program, sql};
use super::reader::{Submitted, cancel, read, submit};
use super::schedule::{PlannedJob, Reading, Schedule, Slot};
use super::world::World;

/// Time for the clean-up after a job's end. Garbage collection takes up to 30 s.
const CLEAN: Duration = Duration::from_secs(60);

/// Runs a schedule.
///
/// # Errors
/// The report of all violations.
pub async fn run(schedule: &Schedule) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    // First, since the times of the schedule count from the start of the world.
    let databases = make_databases(dir.path(), schedule.jobs.len()).map_err(|error| format!("{error:#}"))?;
    let world = World::start(dir.path(), schedule.jobs.len());
    let world = world.await.map_err(|error| format!("{schedule}cannot start: {error:#}"))?;
    let seen = observe(&world, schedule, &databases).await;
    let mut wrong = world.wrong();
    let mut histories = String::new();
    match seen {
        Err(error) => wrong.push(format!("{error:#}")),
        Ok(seen) => {
            wrong.extend(seen.wrong);
            for observed in &seen.jobs {
                let found = check(observed);
                if !found.is_empty() {
                    let _ = write!(histories, "{observed}");
                }
                wrong.extend(found.into_iter().map(|it| format!("job {}: {it}", observed.job_id)));
            }
        }
    }
    let report = (!wrong.is_empty()).then(|| {
        let notes: String = world.notes().iter().map(|note| format!("  {note}\n")).collect();
        let kept = keep(&world.dir, schedule.seed);
        format!(
            "FAILED {schedule}wrong:\n  {}\nnotes:\n{notes}{histories}kept: {}\n",
            wrong.join("\n  "),
            kept.display()
        )
    });
    world.end().await;
    report.map_or(Ok(()), Err)
}

/// Keeps a copy of the state folder.
fn keep(dir: &Path, seed: u64) -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}"));
    let _ = std::fs::remove_dir_all(&kept);
    let _ = Command::new("cp").arg("-r").arg(dir).arg(&kept).status();
    kept
}

struct Seen {
    jobs: Vec<Observed>,
    wrong: Vec<String>,
}

/// A submitted job: one `Run` that was answered, and others whose response was lost.
struct Asked {
    planned: PlannedJob,
    submitted: Submitted,
    histories: Vec<super::observed::History>,
    is_cancelled: bool,
}

async fn observe(world: &World, schedule: &Schedule, databases: &[PathBuf]) -> anyhow::Result<Seen> {
    let jobs = async {
        let asked =
            (0..).zip(&schedule.jobs).map(|(index, planned)| ask(world, index, *planned, &databases[index]));
        join_all(asked.collect()).await
    };
    let (asked, ()) = tokio::join!(jobs, world.carry_out(&schedule.faults));
    let listed = until_all_ended(world).await?;
    let mut wrong = Vec::new();
    let mut jobs = Vec::new();
    let left = until_nothing_is_left(world, &listed).await;
    let marks = marks(databases)?;
    for (index, asked) in asked.into_iter().enumerate() {
        let Asked { planned, submitted, mut histories, is_cancelled } = asked;
        for marker in &submitted.unanswered {
            let statements = program(planned.kind, marker);
            let job = listed.iter().find(|job| job.user_id == *marker);
            wrong.extend(unanswered(job, marker, &statements, &marks));
        }
        let Some(token) = submitted.token else {
            wrong.push(format!("job {index}: Run was never answered"));
            continue;
        };
        for slot in [Slot::A, Slot::B] {
            histories.push(read(world, &token, slot, Reader::AfterTheEnd).await);
        }
        let known = world.known(index);
        jobs.push(Observed {
            job_id: token.job_id.clone(),
            statements: program(planned.kind, &submitted.marker),
            histories,
            touched: Touched {
                is_killed: known.is_killed,
                is_cancelled,
                is_without_space: schedule.fills_the_disk(),
            },
            marks: executed(&marks, &submitted.marker),
            left: left.iter().filter(|it| it.contains(&token.job_id)).cloned().collect(),
        });
    }
    let others = left.into_iter().filter(|left| !jobs.iter().any(|it| left.contains(&it.job_id)));
    wrong.extend(others.map(|it| format!("left after the end: {it}")));
    Ok(Seen { jobs, wrong })
}

/// Runs all futures concurrently in this task.
async fn join_all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut pinned: Vec<_> = futures.into_iter().map(|it| (Box::pin(it), None)).collect();
    std::future::poll_fn(|context| {
        for (future, result) in &mut pinned {
            if result.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if pinned.iter().all(|(_, result)| result.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pinned.into_iter().filter_map(|(_, result)| result).collect()
}

async fn ask(world: &World, index: usize, planned: PlannedJob, database: &Path) -> Asked {
    world.until(planned.at_ms).await;
    let text = |marker: &str| sql(&program(planned.kind, marker));
    let datasource = format!("sqlite://{}?mode=rwc", database.display());
    let submitted = submit(world, planned.first, &format!("job-{index}"), text, datasource).await;
    let Some(token) = submitted.token.clone() else {
        return Asked { planned, submitted, histories: Vec::new(), is_cancelled: false };
    };
    world.learn(index, &token.job_id);
    let plain = async {
        match planned.reading {
            Reading::Cursor => None,
            Reading::CursorAndPlain => Some(read(world, &token, planned.first, Reader::Plain).await),
        }
    };
    let cancel = async {
        let Some(after) = planned.cancel_after_ms else { return };
        sleep(Duration::from_millis(after)).await;
        cancel(world, &token, planned.first).await;
    };
    let cursor = read(world, &token, planned.first.other(), Reader::Cursor);
    let (cursor, plain, ()) = tokio::join!(cursor, plain, cancel);
    let histories = std::iter::once(cursor).chain(plain).collect();
    Asked { planned, submitted, histories, is_cancelled: planned.cancel_after_ms.is_some() }
}

async fn client(world: &World, slot: Slot) -> anyhow::Result<Client> {
    Client::connect(world.address(slot)).await
}

/// All jobs, including those whose `Run` was not answered.
async fn until_all_ended(world: &World) -> anyhow::Result<Vec<Job>> {
    loop {
        let mut client = client(world, Slot::A).await.context("server A after the last fault")?;
        let request = ListJobsRequest { page_size: 1000, ..ListJobsRequest::default() };
        let jobs = client.api.list_jobs(request).await?.into_inner().jobs;
        let lives = jobs.iter().find(|job| !is_over(&job.status.clone().unwrap_or_default()));
        let Some(lives) = lives else { return Ok(jobs) };
        ensure!(!world.is_given_up(), "it did not end in time after the last fault: {lives:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn unanswered(
    job: Option<&Job>,
    marker: &str,
    statements: &[super::program::Statement],
    marks: &BTreeMap<(String, u32), u64>,
) -> Option<String> {
    let status = job.and_then(|job| job.status.clone());
    let must = status.as_ref().is_some_and(|it| it.code() == Code::Succeeded);
    let numbers = statements.iter().filter_map(|it| match it.effect {
        Effect::Mark(number) => Some(number),
        Effect::Rows(_) => None,
    });
    let executed: Vec<u64> =
        numbers.map(|number| marks.get(&(marker.to_owned(), number)).copied().unwrap_or(0)).collect();
    let is_right = executed.iter().all(|count| match (&status, must) {
        (None, _) => *count == 0,
        (Some(_), true) => *count == 1,
        (Some(_), false) => *count <= 1,
    });
    (!is_right).then(|| format!("{marker}, whose Run was not answered: {status:?}, executed {executed:?}"))
}

/// One database for each job.
fn make_databases(dir: &Path, count: usize) -> anyhow::Result<Vec<PathBuf>> {
    let files: Vec<_> = (0..count).map(|index| dir.join(format!("job-{index}.db"))).collect();
    let names: Vec<_> =
        files.iter().map(|file| file.to_str().context("a path is text")).collect::<Result<_, _>>()?;
    let code = "import sqlite3, sys
for name in sys.argv[1:]:
    c = sqlite3.connect(name); c.execute('CREATE TABLE marks (marker TEXT, number INTEGER)'); c.commit()";
    python::run(code, &names)?;
    Ok(files)
}

/// How often each insert of each marker was executed.
fn marks(databases: &[PathBuf]) -> anyhow::Result<BTreeMap<(String, u32), u64>> {
    let names: Vec<_> =
        databases.iter().map(|file| file.to_str().context("a path is text")).collect::<Result<_, _>>()?;
    let code = "import sqlite3, sys
for name in sys.argv[1:]:
    for row in sqlite3.connect(name, timeout=30).execute('SELECT marker, number, count(*) FROM marks GROUP BY 1, 2'):
        print(*row)";
    let said = python::run(code, &names)?;
    let parse = |line: &str| -> Option<_> {
        let mut words = line.split(' ');
        let marker = words.next()?.to_owned();
        Some(((marker, words.next()?.parse().ok()?), words.next()?.parse().ok()?))
    };
    said.lines().map(|line| parse(line).with_context(|| format!("{line} is no mark"))).collect()
}

fn executed(marks: &BTreeMap<(String, u32), u64>, marker: &str) -> BTreeMap<u32, u64> {
    marks.iter().filter(|((of, _), _)| of == marker).map(|((_, number), count)| (*number, *count)).collect()
}

/// Waits for the clean-up. Returns what is left then.
async fn until_nothing_is_left(world: &World, jobs: &[Job]) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let left = left(world, jobs).await;
        if left.is_empty() || begun.elapsed() > CLEAN {
            return left;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn left(world: &World, jobs: &[Job]) -> Vec<String> {
    let servers = world.servers().await;
    let state = world.setup.state_dir.display().to_string();
    let is_left = |it: &processes::Process| {
        let is_marked = |mark: &String| jobs.iter().any(|job| mark.split('/').next() == Some(&job.job_id));
        it.mark.as_ref().is_some_and(is_marked)
            || (it.arguments.contains(&state) && !servers.contains(&it.pid))
    };
    let processes = processes::all().into_iter().filter(is_left).map(|it| format!("{it:?}"));
    let folders = std::fs::read_dir(world.setup.state_dir.join("run")).into_iter().flatten().flatten();
    // `places` belongs to the server.
    let folders = folders.filter(|it| it.file_name() != "places");
    let folders = folders.map(|it| format!("the folder {}", it.path().display()));
    processes.chain(folders).collect()
}
