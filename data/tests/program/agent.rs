//! The agent's side of the channel, for tests of the program.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message as _;
use serde_json::json;
use sqlflow_data_source::{STEP_DIGEST, step_digest};
use sqlflow_proto::agent::submitter_frame::Frame;
use sqlflow_proto::agent::{
    Ack, AgentFrame, CommandEnded, Granted, Refused, Start, SubmitterFrame, agent_frame,
};

/// A program must not inherit the channel of another one, which would never end then.
static STARTING: Mutex<()> = Mutex::new(());

/// Time in which the program answers, also on a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

/// A running step.
pub struct Agent {
    process: Child,
    channel: UnixStream,
}

impl Agent {
    /// Starts a step of these statements, each with whether it is repeatable, in the SQLite file `x.db` of a folder.
    pub fn start(folder: &Path, statements: &[(&str, bool)]) -> Self {
        Self::start_with(folder, statements, &[])
    }

    /// The same, with environment variables.
    pub fn start_with(folder: &Path, statements: &[(&str, bool)], variables: &[(&str, &str)]) -> Self {
        let statement = |(index, (sql, repeatable)): (usize, (&str, bool))| json!({ "index": index, "kind": "standard", "sql": sql, "repeatable": repeatable });
        let statements: Vec<_> = statements.iter().copied().enumerate().map(statement).collect();
        let document = json!({ "version": 1, "statements": statements });
        let document = document.to_string();
        Self::start_document(folder, [&document; 2], variables, None)
    }

    /// Starts the step of a document, with a link for a submitter.
    pub fn start_serving(folder: &Path, document: &serde_json::Value) -> (Self, Submitter) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LONGEST)).unwrap();
        let document = document.to_string();
        let agent = Self::start_document(folder, [&document; 2], &[], Some(theirs));
        (agent, Submitter(BufReader::new(ours)))
    }

    /// Starts a step whose document was changed by another program.
    pub fn start_changed(folder: &Path, assigned: &serde_json::Value, changed: &serde_json::Value) -> Self {
        Self::start_document(folder, [&assigned.to_string(), &changed.to_string()], &[], None)
    }

    fn start_document(
        folder: &Path,
        [assigned, document]: [&str; 2],
        variables: &[(&str, &str)],
        link: Option<UnixStream>,
    ) -> Self {
        std::fs::write(folder.join("step.json"), document).unwrap();
        let one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let (channel, other) = UnixStream::pair().unwrap();
        channel.set_read_timeout(Some(LONGEST)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sqlflow-data"));
        for (name, socket) in [("SQLFLOW_CHANNEL_FD", Some(&other)), ("SQLFLOW_COMPANION_FD", link.as_ref())]
        {
            let Some(socket) = socket else { continue };
            fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            command.env(name, socket.as_raw_fd().to_string());
        }
        let process = command
            .arg("step.json")
            .current_dir(folder)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        drop((other, link, one));
        let mut agent = Self { process, channel };
        let data_source = format!("sqlite://{}?mode=rwc", folder.join("x.db").display());
        let digest = step_digest(assigned.as_bytes());
        let secrets = [("db_conn_str", data_source), (STEP_DIGEST, digest)];
        let secrets = HashMap::from(secrets.map(|(name, value)| (name.to_owned(), value)));
        agent.send(agent_frame::Frame::Start(Start { secrets, ..Start::default() }));
        agent
    }

    fn send(&mut self, frame: agent_frame::Frame) {
        let bytes = AgentFrame { frame: Some(frame) }.encode_length_delimited_to_vec();
        // The program may have exited.
        let _ = self.channel.write_all(&bytes);
    }

    /// Acknowledges a frame.
    pub fn acknowledge(&mut self, ack_id: u64) {
        self.send(agent_frame::Frame::Ack(Ack { ack_id }));
    }

    /// Reports that the submitter has exited with 0.
    pub fn report_success(&mut self) {
        self.send(agent_frame::Frame::CommandEnded(CommandEnded {}));
    }

    /// Grants the request to make the statement's effect visible.
    pub fn grant(&mut self) {
        self.send(agent_frame::Frame::Granted(Granted {}));
    }

    /// Refuses it.
    pub fn refuse(&mut self, reason: &str) {
        self.send(agent_frame::Frame::Refused(Refused { reason: reason.to_owned() }));
    }

    /// The next frame; `None`: there are no more.
    pub fn receive(&mut self) -> Option<Frame> {
        let mut head = Vec::new();
        while head.last().is_none_or(|byte| byte & 0x80 != 0) {
            let mut byte = [0];
            self.channel.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let length = prost::encoding::decode_varint(&mut &head[..]).unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.channel.read_exact(&mut body).unwrap();
        SubmitterFrame::decode(&body[..]).unwrap().frame
    }

    /// Sends a signal, and waits until the program has taken it.
    pub fn signal_and_await_receipt(&self, signal: Signal) {
        let pid = self.process.id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
        let is_pending = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"))?;
            Some(u64::from_str_radix(pending.trim(), 16).ok()? >> (signal as i32 - 1) & 1 == 1)
        };
        while is_pending() == Some(true) {
            std::thread::yield_now();
        }
    }

    /// Waits until the program's main thread sleeps: in a write, if its statement needs no time.
    pub fn await_block(&self) {
        let pid = self.process.id();
        let is_asleep = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('S')
        };
        while !is_asleep() {
            std::thread::yield_now();
        }
    }

    /// The most memory that the program has had, in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Waits for the end of the program: the signal that ended it.
    pub fn ending_signal(&mut self) -> Option<Signal> {
        self.process.wait().unwrap().signal().map(|it| Signal::try_from(it).unwrap())
    }

    /// Waits for the end of the program.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The submitter's end of the link.
pub struct Submitter(BufReader<UnixStream>);

impl Submitter {
    pub fn send(&mut self, request: &serde_json::Value, bytes: &[u8]) {
        let mut message = format!("{request}\n").into_bytes();
        message.extend_from_slice(bytes);
        self.0.get_mut().write_all(&message).unwrap();
    }

    /// The next answer. Files that are passed with it are closed.
    pub fn answer(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    pub fn ask(&mut self, request: &serde_json::Value) -> serde_json::Value {
        self.send(request, b"");
        self.answer()
    }
}
