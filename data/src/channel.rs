//! The channel to the agent: frames over a socket that this process inherits. Each is preceded by its length as a
//! varint.

use std::collections::HashMap;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use prost::Message as _;
use sqlflow_proto::agent::{
    AgentFrame, Commit, Failure, SubmitterFrame, agent_frame, submitter_frame::Frame,
};
use sqlflow_proto::submitter_channel::{CHANNEL_FD, MAX_FRAME};

use crate::console::Console;

/// Maximum size of what a frame contains, in bytes.
pub const MAX_CONTENT: usize = MAX_FRAME - 64;

/// The agent's answer to a request that this attempt cannot go on.
#[derive(Debug)]
pub enum ChannelError {
    /// The agent has exited, or sent something else than a frame.
    Io(io::Error),
    /// The attempt must not go on.
    Refused(String),
    /// The statement's effect must not become visible.
    NotGranted(String),
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Where a step is reported to.
pub enum Channel {
    /// The agent.
    Agent(AgentChannel),
    /// The terminal, if the program is run by hand.
    Console(Console),
}

/// The channel to an agent.
pub struct AgentChannel {
    socket: UnixStream,
    last_ack_id: u64,
    buffer: Vec<u8>,
}

impl Channel {
    /// Opens the channel that the agent left in the environment.
    ///
    /// # Errors
    /// In one line.
    pub fn open() -> Result<Self, String> {
        let Ok(descriptor) = std::env::var(CHANNEL_FD) else { return Ok(Self::Console(Console::default())) };
        let broken =
            |cause: &str| format!("cannot open the agent's channel: {CHANNEL_FD}={descriptor}: {cause}");
        let number = descriptor.parse().map_err(|_| broken("not a number"))?;
        let socket = crate::descriptor::take(number).map_err(|error| broken(&error.to_string()))?;
        Ok(Self::Agent(AgentChannel { socket, last_ack_id: 0, buffer: Vec::new() }))
    }

    /// The assignment's secrets by name. Must be called once, first.
    ///
    /// # Errors
    /// The agent has exited, or is another program.
    pub fn secrets(&mut self) -> io::Result<HashMap<String, String>> {
        match self {
            Self::Console(_) => Console::secrets(),
            Self::Agent(channel) => match channel.receive()? {
                Some(agent_frame::Frame::Start(start)) => {
                    check_version(&start.agent_version).map_err(io::Error::other)?;
                    Ok(start.secrets)
                }
                _ => Err(io::Error::other("the agent's first frame is not a start frame")),
            },
        }
    }

    /// Sends a frame without waiting for a reply.
    ///
    /// # Errors
    /// The agent has exited.
    pub fn send(&mut self, statement: Option<u32>, frame: Frame) -> io::Result<()> {
        match self {
            Self::Console(console) => console.show(&frame),
            Self::Agent(channel) => {
                channel.send(&SubmitterFrame { statement, ack_id: 0, frame: Some(frame) })
            }
        }
    }

    /// Sends a frame and waits until a server has acknowledged it as durable.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub fn send_durable(&mut self, statement: u32, frame: Frame) -> Result<(), ChannelError> {
        match self {
            Self::Console(console) => Ok(console.show(&frame)?),
            Self::Agent(channel) => channel.send_durable(statement, frame),
        }
    }

    /// Sends rows, as an encoded `Rows` message.
    ///
    /// # Errors
    /// The agent has exited.
    pub fn send_rows(&mut self, statement: u32, rows: &[u8]) -> io::Result<()> {
        match self {
            Self::Console(console) => console.show_rows(rows),
            Self::Agent(channel) => channel.send_rows(statement, rows),
        }
    }

    /// Waits until the agent reports that the submitter has exited with 0.
    ///
    /// # Errors
    /// The agent has exited.
    pub fn wait_for_submitter(&mut self) -> io::Result<()> {
        let Self::Agent(channel) = self else { return Ok(()) };
        while !matches!(channel.receive()?, Some(agent_frame::Frame::CommandEnded(_))) {}
        Ok(())
    }

    /// Waits for the grant to make a statement's effect visible.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub fn commit(&mut self, statement: u32) -> Result<(), ChannelError> {
        let Self::Agent(channel) = self else { return Ok(()) };
        let commit = Frame::Commit(Commit {});
        channel.send(&SubmitterFrame { statement: Some(statement), ack_id: 0, frame: Some(commit) })?;
        loop {
            match channel.receive()? {
                Some(agent_frame::Frame::Granted(_)) => return Ok(()),
                Some(agent_frame::Frame::Refused(refused)) => {
                    return Err(ChannelError::NotGranted(refused.reason));
                }
                _ => {}
            }
        }
    }

    /// Ends a wait for the agent from another thread.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn canceller(&self) -> io::Result<Option<Box<dyn Fn() + Send>>> {
        let Self::Agent(channel) = self else { return Ok(None) };
        let socket = channel.socket.try_clone()?;
        Ok(Some(Box::new(move || {
            let _ = socket.shutdown(Shutdown::Read);
        })))
    }

    /// Another handle, to report a panic, or the end by a signal. `None`: there is no agent.
    pub fn spare(&self) -> Option<SpareChannel> {
        match self {
            Self::Console(_) => None,
            Self::Agent(channel) => channel.socket.try_clone().ok().map(SpareChannel),
        }
    }

    /// Sends the failure with which the process is about to exit. Returns whether the agent will print it.
    pub fn send_failure(&mut self, statement: Option<u32>, failure: Failure) -> bool {
        match self {
            Self::Console(_) => false,
            Self::Agent(_) => self.send(statement, Frame::Failure(failure)).is_ok(),
        }
    }
}

/// The channel to an agent, to report a failure at any time.
pub struct SpareChannel(UnixStream);

impl SpareChannel {
    /// Returns whether the agent will print the failure.
    pub fn send_failure(&self, failure: Failure) -> bool {
        let frame = SubmitterFrame { statement: None, ack_id: 0, frame: Some(Frame::Failure(failure)) };
        (&self.0).write_all(&frame.encode_length_delimited_to_vec()).is_ok()
    }
}

/// Agents of earlier versions do not say theirs.
fn check_version(agent: &str) -> Result<(), String> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    if agent.is_empty() || agent == VERSION {
        return Ok(());
    }
    Err(format!(
        "sqlflow-data has version {VERSION}, and its agent has version {agent}; install both from the same release"
    ))
}

impl AgentChannel {
    fn send(&mut self, frame: &SubmitterFrame) -> io::Result<()> {
        self.socket.write_all(&frame.encode_length_delimited_to_vec())
    }

    fn send_durable(&mut self, statement: u32, frame: Frame) -> Result<(), ChannelError> {
        self.last_ack_id += 1;
        let ack_id = self.last_ack_id;
        self.send(&SubmitterFrame { statement: Some(statement), ack_id, frame: Some(frame) })?;
        loop {
            match self.receive()? {
                Some(agent_frame::Frame::Ack(ack)) if ack.ack_id == ack_id => return Ok(()),
                Some(agent_frame::Frame::Refused(refused)) => {
                    return Err(ChannelError::Refused(refused.reason));
                }
                _ => {}
            }
        }
    }

    fn send_rows(&mut self, statement: u32, rows: &[u8]) -> io::Result<()> {
        use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

        // Fields 1 and 5 of SubmitterFrame.
        let length = rows.len() as u64;
        let body =
            key_len(1) + encoded_len_varint(statement.into()) + key_len(5) + encoded_len_varint(length);
        let mut head = Vec::with_capacity(32);
        encode_varint((body + rows.len()) as u64, &mut head);
        encode_key(1, WireType::Varint, &mut head);
        encode_varint(statement.into(), &mut head);
        encode_key(5, WireType::LengthDelimited, &mut head);
        encode_varint(length, &mut head);
        write_both(&mut self.socket, &head, rows)
    }

    fn receive(&mut self) -> io::Result<Option<agent_frame::Frame>> {
        let mut length = 0_usize;
        for shift in (0..).step_by(7) {
            let mut byte = [0];
            self.socket.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            if length > MAX_FRAME || shift > 28 {
                return Err(io::Error::other("the agent's frame is malformed or too long"));
            }
            if byte[0] < 0x80 {
                break;
            }
        }
        self.buffer.resize(length, 0);
        self.socket.read_exact(&mut self.buffer)?;
        let frame = AgentFrame::decode(&self.buffer[..]).map_err(io::Error::other)?;
        Ok(frame.frame)
    }
}

/// Writes two parts, if possible at once: the agent need not wake for the first one alone.
fn write_both(out: &mut impl io::Write, head: &[u8], body: &[u8]) -> io::Result<()> {
    let written = loop {
        match out.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    match written.checked_sub(head.len()) {
        Some(written) => out.write_all(&body[written..]),
        None => {
            out.write_all(&head[written..])?;
            out.write_all(body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time.
    struct Narrow(Vec<u8>, usize);

    impl io::Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.1);
            self.0.extend(&bytes[..count]);
            Ok(count)
        }

        fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(&parts.iter().flat_map(|part| part.to_vec()).collect::<Vec<_>>())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn both_parts_are_written_however_much_is_taken() {
        for most in 1..8 {
            let mut out = Narrow(Vec::new(), most);
            write_both(&mut out, b"abc", b"defg").unwrap();
            assert_eq!(out.0, b"abcdefg", "{most} at a time");
        }
    }

    #[test]
    fn agent_of_another_version_is_named() {
        assert_eq!(check_version(""), Ok(()));
        assert_eq!(check_version(env!("CARGO_PKG_VERSION")), Ok(()));
        let error = check_version("9.9.9").unwrap_err();
        assert!(error.contains("version 9.9.9") && error.contains("same release"), "{error}");
    }
}
