//! Real processes: killed at any time, concurrent, and without disk space. A test starts itself again as a child, whose
//! environment says what to do.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

const ROLE: &str = "SQLFLOW_LOG_TEST_ROLE";
const DIR: &str = "SQLFLOW_LOG_TEST_DIR";
const JOB: &str = "SQLFLOW_LOG_TEST_JOB";

fn durable(dir: &Path) -> SegmentLog {
    let limits = LogOptions { segment_bytes: 20_000, retain_output_bytes_per_job: 200_000, ..options(dir) };
    SegmentLog::open(LogOptions { fsync: true, ..limits }).unwrap()
}

/// A process that runs the test `act` of this file with this role.
fn child(role: &str, dir: &Path, job: &JobId, wrapper: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(test),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(test);
            command
        }
    };
    // The module path without the crate, as the test harness names tests.
    let (_, module) = module_path!().split_once("::").unwrap();
    command.args(["--exact", &format!("{module}::act"), "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(DIR, dir).env(JOB, job.as_str()).stdout(Stdio::piped());
    command
}

#[tokio::test]
async fn act() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = std::path::PathBuf::from(std::env::var(DIR).unwrap());
    let job: JobId = std::env::var(JOB).unwrap().parse().unwrap();
    match role.as_str() {
        "endless" => append_in_a_loop(&dir, &job, 1, u64::MAX).await,
        "first" => append_in_a_loop(&dir, &job, 1, 300).await,
        "second" => append_in_a_loop(&dir, &job, 2, 300).await,
        "without space" => run_out_of_space(&dir, &job).await,
        other => panic!("no such role: {other}"),
    }
}

/// Appends three records at a time, one of them a row, and prints the acknowledged seq.
async fn append_in_a_loop(dir: &Path, job: &JobId, number: u32, until: u64) {
    let log = durable(dir);
    let mut seq = log.last_seq(&attempt(job, 0, number), 0).await.unwrap();
    while seq < until {
        let lengths = (seq as usize * 37 % 5000, seq as usize * 71 % 300);
        let entries = vec![
            output(0, number, seq + 1, lengths.0),
            rows(0, number, seq + 2),
            output(0, number, seq + 3, lengths.1),
        ];
        log.append(job, entries).await.unwrap();
        seq += 3;
        println!("acknowledged {seq}");
    }
}

/// The seqs that the child prints as acknowledged.
fn acknowledged(child: &mut Child) -> impl Iterator<Item = u64> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| line.rsplit_once("acknowledged ")?.1.parse().ok())
}

/// Positions increase; of each attempt all rows exist, and all output exists or a gap record stands for it.
fn check_whole(records: &[StoredRecord], number: u32, last_seq: u64) {
    assert!(records.is_sorted_by_key(|stored| stored.position));
    let rows: Vec<u64> = records
        .iter()
        .filter(|it| {
            it.attempt == number && matches!(it.record.as_ref().unwrap().payload, Some(Payload::Rows(_)))
        })
        .map(|it| it.record.as_ref().unwrap().seq)
        .collect();
    assert_eq!(rows, (1..=last_seq).filter(|seq| seq % 3 == 2).collect::<Vec<_>>());
    let lost: u64 = records.iter().filter(|it| it.attempt == number).filter_map(retained_gap).sum();
    let found: usize = records
        .iter()
        .filter(|it| it.attempt == number)
        .filter_map(|it| match &it.record.as_ref()?.payload {
            Some(Payload::Output(output)) => Some(output.data.len()),
            _ => None,
        })
        .sum();
    let said: u64 = (0..last_seq)
        .map(|seq| match seq % 3 {
            0 => seq * 37 % 5000,
            1 => 0,
            _ => (seq - 2) * 71 % 300,
        })
        .sum();
    assert_eq!(lost + found as u64, said, "no byte of output is lost or doubled in silence");
}

#[tokio::test]
async fn acknowledged_records_survive_kill() {
    let dir = tempfile::tempdir().unwrap();
    let job = JobId::generate();
    for round in 0..12_usize {
        let mut process = child("endless", dir.path(), &job, &[]).spawn().unwrap();
        let mut seqs = acknowledged(&mut process);
        let seen = seqs.nth(round * 7 % 20).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        let last_told = seqs.last().unwrap_or(seen);
        let log = durable(dir.path());
        let last = log.last_seq(&attempt(&job, 0, 1), 0).await.unwrap();
        assert!(last >= last_told, "{last} of {last_told}");
        // A batch is one write, which may have been interrupted.
        log.append(&job, ((last + 1)..=last.next_multiple_of(3)).map(resend).collect()).await.unwrap();
        check_whole(&read_all(&log, &job, 10_000).await, 1, last.next_multiple_of(3));
    }
}

/// The record that the child would have sent.
fn resend(seq: u64) -> Entry {
    let start = (seq - 1) / 3 * 3;
    match seq % 3 {
        1 => output(0, 1, seq, start as usize * 37 % 5000),
        2 => rows(0, 1, seq),
        _ => output(0, 1, seq, start as usize * 71 % 300),
    }
}

#[tokio::test]
async fn two_writers_and_a_reader_share_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let job = JobId::generate();
    let mut first = child("first", dir.path(), &job, &[]).spawn().unwrap();
    let mut second = child("second", dir.path(), &job, &[]).spawn().unwrap();
    let log = durable(dir.path());
    let mut cursor = 0;
    loop {
        // Ask first: the records that are read afterwards are then complete.
        let are_done = first.try_wait().unwrap().is_some() && second.try_wait().unwrap().is_some();
        let page = log.read(&job, cursor, 5_000).await.unwrap();
        for stored in &page.records {
            assert!(stored.position > cursor);
            cursor = stored.position;
        }
        if are_done && page.records.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    assert_eq!(cursor, 600);
    let records = read_all(&log, &job, 10_000).await;
    check_whole(&records, 1, 300);
    check_whole(&records, 2, 300);
}

/// Appends until the disk is full, then frees space and continues.
async fn run_out_of_space(dir: &Path, job: &JobId) {
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 20_000]).unwrap();
    let log = SegmentLog::open(LogOptions { segment_bytes: 1 << 20, fsync: true, ..options(dir) }).unwrap();
    let mut seq = 0;
    let error = loop {
        match log.append(job, vec![output(0, 1, seq + 1, 3000)]).await {
            Ok(appended) => seq = appended.last_seqs[&agent(0, 1)],
            Err(error) => break error,
        }
        assert!(seq < 1000, "the space never ended");
    };
    let LogError::Io { source, .. } = &error else { panic!("{error}") };
    let kinds = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::FileTooLarge];
    assert!(kinds.contains(&source.kind()), "{source}");
    assert!(seq > 3);
    for log in [&log, &SegmentLog::open(options(dir)).unwrap()] {
        assert_eq!(log.last_seq(&attempt(job, 0, 1), 0).await.unwrap(), seq);
        assert_eq!(read_all(log, job, 10_000).await.len() as u64, seq);
    }
    std::fs::remove_file(ballast).unwrap();
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    let appended =
        log.append(job, vec![output(0, 1, seq + 1, 3000), notice("there is space")]).await.unwrap();
    assert_eq!(appended.last_position, seq + 2);
    println!("acknowledged {seq}");
}

#[test]
fn file_size_limit_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The signal would end the process. A server under such a limit ignores it.
    let limited = ["sh", "-c", r#"trap "" XFSZ; ulimit -S -f 100; exec "$0" "$@""#];
    let mut process = child("without space", dir.path(), &JobId::generate(), &limited).spawn().unwrap();
    assert!(acknowledged(&mut process).last().is_some());
    assert!(process.wait().unwrap().success());
}

/// A real full disk, where a test may mount one.
#[test]
fn full_disk_loses_nothing() {
    let mounts = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !mounts {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!(r#"mount -t tmpfs -o size=200k none "${DIR}" && exec "$0" "$@""#,);
    let mut process =
        child("without space", dir.path(), &JobId::generate(), &["unshare", "-m", "sh", "-c", &script])
            .spawn()
            .unwrap();
    assert!(acknowledged(&mut process).last().is_some());
    assert!(process.wait().unwrap().success());
}
