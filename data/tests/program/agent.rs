//! The agent's side of the channel, for tests of the program.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message as _;
use serde_json::json;
use sqlflow_proto::agent::submitter_frame::Frame;
use sqlflow_proto::agent::{Ack, AgentFrame, Start, SubmitterFrame, agent_frame};

/// A program must not inherit the channel of another one, which would never end then.
static STARTING: Mutex<()> = Mutex::new(());

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
        std::fs::write(
            folder.join("step.json"),
            json!({ "version": 1, "statements": statements }).to_string(),
        )
        .unwrap();
        let one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let (channel, other) = UnixStream::pair().unwrap();
        fcntl(&other, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_sqlflow-data"))
            .arg("step.json")
            .current_dir(folder)
            .env("SQLFLOW_CHANNEL_FD", other.as_raw_fd().to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        drop((other, one));
        let mut agent = Self { process, channel };
        let data_source = format!("sqlite://{}", folder.join("x.db").display());
        let secrets = HashMap::from([("db_conn_str".to_owned(), data_source)]);
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
