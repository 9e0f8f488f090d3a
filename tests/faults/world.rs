//! Two servers on one state folder, links to them, and faults that are carried out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_tests::python;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::tcp_relay::TcpRelay;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::processes;
use super::schedule::{Fault, Slot, TimedFault};

/// Time for a server to end after TERM; the documentation says three seconds.
const TERM: Duration = Duration::from_secs(10);
/// Time for a server to be ready, from its first start to the last retry.
const READY: Duration = Duration::from_secs(60);
/// Time for every job to end after the last fault.
const END: Duration = Duration::from_secs(60);
/// Time to find the process that a fault targets.
const TARGET: Duration = Duration::from_millis(700);
/// The disk of the state folder.
const DISK_MIB: usize = 64;

/// A server's soft limit of open files after a fault.
const FILES: u64 = 1024;

#[derive(Debug)]
struct Side {
    relay: TcpRelay,
    server: tokio::sync::Mutex<Option<Server>>,
}

/// What is known of a submitted job.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub job_id: Option<String>,
    pub is_killed: bool,
}

/// Everything that one schedule runs on.
#[derive(Debug)]
pub struct World {
    pub dir: PathBuf,
    pub setup: Setup,
    sides: [Side; 2],
    known: Mutex<Vec<Known>>,
    begun: Instant,
    given_up_at: Mutex<Option<Instant>>,
    notes: Mutex<Vec<String>>,
    /// Errors of the servers.
    wrong: Mutex<Vec<String>>,
}

impl Slot {
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Two servers on a small disk of their own.
    ///
    /// # Errors
    /// The disk cannot be mounted, or a server does not start.
    pub async fn start(dir: &Path, jobs: usize) -> anyhow::Result<Self> {
        let disk = dir.join("disk");
        std::fs::create_dir(&disk)?;
        let size = format!("size={DISK_MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&disk).status()?;
        ensure!(mounted.success(), "cannot mount a small disk");
        let import_path = format!("{}:{}", dir.display(), python::package_path().display());
        std::fs::write(dir.join("sitecustomize.py"), include_str!("printing.py"))?;
        let setup = Setup::new(&disk, "sqlite:///:memory:")
            .flag("--grace=2s")
            .flag("--lease=2s")
            .env("PYTHONPATH", import_path)
            // Ignored by servers that do not know it.
            .env("SQLFLOW_SERVER_MAX_RUNNING", "8");
        let side = async || -> anyhow::Result<Side> {
            Ok(Side { relay: TcpRelay::listen().await?, server: tokio::sync::Mutex::default() })
        };
        let world = Self {
            dir: dir.to_owned(),
            setup,
            sides: [side().await?, side().await?],
            known: Mutex::new(vec![Known::default(); jobs]),
            begun: Instant::now(),
            given_up_at: Mutex::default(),
            notes: Mutex::default(),
            wrong: Mutex::default(),
        };
        for slot in [Slot::A, Slot::B] {
            let server = start(world.setup.clone()).await?;
            world.side(slot).relay.lead_to(Some(server.address.clone()));
            *world.side(slot).server.lock().await = Some(server);
        }
        Ok(Self { begun: Instant::now(), ..world })
    }

    fn side(&self, slot: Slot) -> &Side {
        &self.sides[slot as usize]
    }

    /// Address of the server in this slot, across restarts.
    pub fn address(&self, slot: Slot) -> &str {
        &self.side(slot).relay.address
    }

    /// Waits until this time since the start of the schedule.
    pub async fn until(&self, at_ms: u64) {
        sleep_until(self.begun + Duration::from_millis(at_ms)).await;
    }

    /// Adds a line to the report of a failure.
    pub fn note(&self, what: String) {
        locked(&self.notes).push(format!("{:>6} ms  {what}", self.begun.elapsed().as_millis()));
    }

    /// All lines for the report.
    pub fn notes(&self) -> Vec<String> {
        locked(&self.notes).clone()
    }

    fn complain(&self, what: String) {
        self.note(what.clone());
        locked(&self.wrong).push(what);
    }

    /// Errors of the servers.
    pub fn wrong(&self) -> Vec<String> {
        locked(&self.wrong).clone()
    }

    /// What is known of a job.
    pub fn known(&self, job: usize) -> Known {
        locked(&self.known)[job].clone()
    }

    /// Records the id of a job.
    pub fn learn(&self, job: usize, job_id: &str) {
        self.note(format!("job {job} is {job_id}"));
        locked(&self.known)[job].job_id = Some(job_id.to_owned());
    }

    /// Whether the time for jobs to end has passed.
    pub fn is_given_up(&self) -> bool {
        locked(&self.given_up_at).is_some_and(|at| Instant::now() >= at)
    }

    /// Carries out all faults, those of a slot one after the other. Returns when the last is over.
    pub async fn carry_out(&self, faults: &[TimedFault]) {
        let of = |slot| faults.iter().filter(move |it| it.fault.slot() == Some(slot));
        let others = faults.iter().filter(|it| it.fault.slot().is_none());
        tokio::join!(self.in_turn(of(Slot::A)), self.in_turn(of(Slot::B)), self.in_turn(others));
        *locked(&self.given_up_at) = Some(Instant::now() + END);
        self.note("the last fault is over".to_owned());
    }

    async fn in_turn(&self, faults: impl Iterator<Item = &TimedFault>) {
        for TimedFault { at_ms, fault } in faults {
            self.until(*at_ms).await;
            self.note(format!("{fault:?}"));
            self.hit(*fault).await;
        }
    }

    async fn hit(&self, fault: Fault) {
        let pause = |ms| sleep(Duration::from_millis(ms));
        match fault {
            Fault::KillServer { slot, down_ms } => {
                let Some(server) = self.take(slot).await else { return };
                let _ = tokio::task::spawn_blocking(move || server.kill()).await;
                pause(down_ms).await;
                self.start_again(slot).await;
            }
            Fault::TermServer { slot, down_ms } => {
                let Some(server) = self.take(slot).await else { return };
                let stopped = tokio::task::spawn_blocking(move || server.stop_within(TERM)).await;
                if let Ok(Err(error)) = stopped {
                    self.complain(format!("server {slot:?}: {error:#}"));
                }
                pause(down_ms).await;
                self.start_again(slot).await;
            }
            Fault::PauseServer { slot, for_ms } => {
                let Some(pid) = self.pid(slot).await else { return };
                let _ = kill(pid, Signal::SIGSTOP);
                pause(for_ms).await;
                let _ = kill(pid, Signal::SIGCONT);
            }
            Fault::PauseAgent { job, for_ms } => {
                let Some(pid) = self.target(job, processes::agents).await else { return };
                let _ = kill(pid, Signal::SIGSTOP);
                pause(for_ms).await;
                let _ = kill(pid, Signal::SIGCONT);
            }
            Fault::KillAgent { job } => self.kill_target(job, processes::agents).await,
            Fault::KillSubmitter { job } => self.kill_target(job, processes::submitters).await,
            Fault::CutLinks { slot } => self.side(slot).relay.cut(),
            Fault::HoldLinks { slot, for_ms } => {
                self.side(slot).relay.hold();
                pause(for_ms).await;
                self.side(slot).relay.release();
            }
            Fault::FillDisk { for_ms } => {
                let ballast = self.dir.join("disk/ballast");
                if std::fs::write(&ballast, vec![1; DISK_MIB << 20]).is_ok() {
                    self.complain("the disk is not full".to_owned());
                }
                pause(for_ms).await;
                let _ = std::fs::remove_file(ballast);
            }
            Fault::FewFiles { slot, spare, for_ms } => {
                let Some(pid) = self.pid(slot).await else { return };
                let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as u64;
                self.limit_files(pid, open + spare);
                pause(for_ms).await;
                self.limit_files(pid, FILES);
            }
        }
    }

    fn limit_files(&self, pid: Pid, soft: u64) {
        let mut command = Command::new("prlimit");
        command.arg(format!("--pid={pid}")).arg(format!("--nofile={soft}:")).stdin(Stdio::null());
        if !command.status().is_ok_and(|status| status.success()) {
            self.complain(format!("cannot limit the files of process {pid}"));
        }
    }

    async fn take(&self, slot: Slot) -> Option<Server> {
        self.side(slot).relay.lead_to(None);
        self.side(slot).server.lock().await.take()
    }

    async fn pid(&self, slot: Slot) -> Option<Pid> {
        self.side(slot).server.lock().await.as_ref().map(Server::pid)
    }

    /// The processes of both servers.
    pub async fn servers(&self) -> Vec<Pid> {
        self.pid(Slot::A).await.into_iter().chain(self.pid(Slot::B).await).collect()
    }

    async fn start_again(&self, slot: Slot) {
        let begun = Instant::now();
        loop {
            match start(self.setup.clone()).await {
                Ok(server) => {
                    self.side(slot).relay.lead_to(Some(server.address.clone()));
                    *self.side(slot).server.lock().await = Some(server);
                    self.note(format!("server {slot:?} is ready"));
                    return;
                }
                // The disk may be full.
                Err(error) if begun.elapsed() < READY => self.note(format!("server {slot:?}: {error:#}")),
                Err(error) => return self.complain(format!("server {slot:?} does not start: {error:#}")),
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn kill_target(&self, job: usize, find: impl Fn(&str) -> Vec<Pid>) {
        let Some(pid) = self.target(job, find).await else { return };
        locked(&self.known)[job].is_killed = true;
        let _ = kill(pid, Signal::SIGKILL);
    }

    /// Waits at most [`TARGET`] for the process that a fault targets.
    async fn target(&self, job: usize, find: impl Fn(&str) -> Vec<Pid>) -> Option<Pid> {
        let begun = Instant::now();
        while begun.elapsed() < TARGET {
            let job_id = locked(&self.known)[job].job_id.clone();
            if let Some(pid) = job_id.and_then(|id| find(&id).first().copied()) {
                return Some(pid);
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.note(format!("job {job} has no such process"));
        None
    }

    /// Ends both servers and unmounts the disk.
    pub async fn end(self) {
        for side in &self.sides {
            drop(side.server.lock().await.take());
        }
        let _ = Command::new("umount").arg("-l").arg(self.dir.join("disk")).status();
    }
}

/// Starts a server in the background, so that a slow start blocks nothing else.
async fn start(setup: Setup) -> anyhow::Result<Server> {
    let starting = tokio::task::spawn_blocking(move || setup.start());
    timeout(READY, starting).await.context("it is not ready in time")??
}
