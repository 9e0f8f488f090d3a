//! Reads stdout, stderr and channels of the programs, and makes records. Each turn reads the channels first, so that output
//! belongs to the statement that was just started. Output of a statement precedes the record of its end.
//!
//! When the outbox is full, the command waits, or its output is dropped and a gap record counts it, by the policy.
//! Frames of the channel are never dropped.
//!
//! `output_pipe` is one output stream, and `channel` the channel of one program with what it may send.

mod channel;
mod output_pipe;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlflow_proto::agent::Failure;
use sqlflow_proto::record::record::Payload;
use sqlflow_sync::lock;
use tokio::sync::{mpsc, watch};

use super::link::Link;
use crate::channel::codec::{Content, ReceivedFrame, next_frame};
use crate::channel::replies::Answer;
use crate::output::WhenFull;
use crate::supervisor::{CommandEvent, Event};
use crate::trace::SharedTrace;

pub use channel::{Channel, Rights};
pub use output_pipe::OutputPipe;

/// Maximum length of one record of output.
const CHUNK: usize = 64 << 10;
/// Number of reads that empty a pipe, if nothing is written meanwhile.
const PIPE_READS: usize = 16;
/// Time without output after which the pipes are empty, once reading has to stop.
const QUIET: Duration = Duration::from_millis(250);
/// Bytes that are still read once reading has to stop, beyond the outbox's limit. More than pipes and socket hold.
const LAST_BYTES: usize = 8 << 20;

/// The agent's ends of the command's pipes and channel.
#[derive(Debug)]
pub struct Reader {
    /// Takes the records.
    pub link: Arc<Link>,
    /// Takes other frames. Unbounded, but emptied after every turn, since all tasks run on one thread.
    pub events: mpsc::UnboundedSender<Event>,
    /// The command's stdout.
    pub stdout: OutputPipe,
    /// The command's stderr.
    pub stderr: OutputPipe,
    /// The submitter channels of the programs, without those that have ended.
    pub channels: Vec<Channel>,
    /// Policy for output when the outbox is full.
    pub when_full: WhenFull,
    /// Takes the submitter's spans; `None`: spans are not sent.
    pub trace: Option<SharedTrace>,
    /// Becomes true when reading has to stop after what the pipes hold.
    pub stop: watch::Receiver<bool>,
}

/// Whether something still holds one of the command's pipes open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pipes {
    Closed,
    HeldOpen,
}

impl Reader {
    /// Reads until everything has ended, or until it has to stop and nothing more comes. Sends an event at the end.
    pub async fn run(mut self) {
        let pipes = self.read_all().await;
        for pipe in [&mut self.stdout, &mut self.stderr] {
            pipe.show_progress(&self.link, &mut self.stop).await;
            pipe.record_dropped(&self.link);
        }
        let _ =
            self.events.send(Event::Command(CommandEvent::StreamsEnded { open: pipes == Pipes::HeldOpen }));
    }

    async fn read_all(&mut self) -> Pipes {
        let mut last_bytes = LAST_BYTES;
        loop {
            let stopping = *self.stop.borrow_and_update();
            if self.all_ended() {
                return Pipes::Closed;
            }
            let is_full = !stopping && !self.link.outbox.has_room();
            let drops = is_full && self.when_full == WhenFull::Drop;
            if is_full && !drops {
                // The command waits too.
                tokio::select! {
                    () = self.link.outbox.room() => {}
                    _ = self.stop.changed() => {}
                }
                continue;
            }
            let read = self.turn(drops).await;
            if read > 0 {
                if stopping {
                    match last_bytes.checked_sub(read) {
                        Some(left) => last_bytes = left,
                        None => return Pipes::HeldOpen,
                    }
                }
                tokio::task::yield_now().await;
                continue;
            }
            if self.all_ended() {
                return Pipes::Closed;
            }
            let (mut stop, mut stopped) = (self.stop.clone(), self.stop.clone());
            tokio::select! {
                () = self.readable(drops) => {}
                () = self.link.outbox.room(), if drops => {}
                () = self.stdout.progress_due() => self.stdout.show_progress(&self.link, &mut stop).await,
                () = self.stderr.progress_due() => self.stderr.show_progress(&self.link, &mut stop).await,
                _ = stopped.changed(), if !stopping => {}
                () = tokio::time::sleep(QUIET), if stopping => return Pipes::HeldOpen,
            }
        }
    }

    fn all_ended(&self) -> bool {
        self.stdout.pipe.is_none() && self.stderr.pipe.is_none() && self.channels.is_empty()
    }

    async fn turn(&mut self, drops: bool) -> usize {
        let mut stop = self.stop.clone();
        let mut read = if drops { 0 } else { self.channels_turn().await };
        read += self.stdout.turn(&self.link, drops, &mut stop).await;
        read += self.stderr.turn(&self.link, drops, &mut stop).await;
        read
    }

    async fn readable(&self, drops: bool) {
        let channel = async |index: usize| match self.channels.get(index) {
            Some(channel) if !drops => {
                let _ = channel.incoming.readable().await;
            }
            Some(_) | None => std::future::pending().await,
        };
        tokio::select! {
            () = channel(0) => {}
            () = channel(1) => {}
            () = self.stdout.readable() => {}
            () = self.stderr.readable() => {}
        }
    }

    async fn channels_turn(&mut self) -> usize {
        let mut read = 0;
        let mut channels = std::mem::take(&mut self.channels);
        let mut next = 0;
        while let Some(channel) = channels.get_mut(next) {
            match self.channel_turn(channel).await {
                Some(bytes) => {
                    read += bytes;
                    next += 1;
                }
                None => drop(channels.remove(next)),
            }
        }
        self.channels = channels;
        read
    }

    /// Returns the number of bytes that were read; `None`: the channel has ended.
    async fn channel_turn(&mut self, channel: &mut Channel) -> Option<usize> {
        channel.buffer.reserve(CHUNK);
        match channel.incoming.try_read_buf(&mut channel.buffer) {
            Ok(0) => {
                if !channel.buffer.is_empty() {
                    let _ = self.events.send(Event::Command(CommandEvent::ChannelCut));
                }
                None
            }
            Ok(read) => match self.take_frames(channel).await {
                Ok(()) => Some(read),
                Err(why) => {
                    let _ = self.events.send(Event::Command(CommandEvent::ChannelBroken(why)));
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
            // The program closed its end without reading all answers.
            Err(_) => None,
        }
    }

    async fn take_frames(&mut self, channel: &mut Channel) -> Result<(), String> {
        let Channel { program, rights, frames, buffer, answers, .. } = channel;
        let mut stop = self.stop.clone();
        // Once per read of the channel, so that many short statements do not make it read more than there is room for.
        let mut may_drain = true;
        while let Some(frame) = next_frame(buffer).map_err(|bad| rights.blame(&bad.to_string()))? {
            let ReceivedFrame { statement, ack_id, content } = frame;
            frames.fetch_add(1, Ordering::Relaxed);
            rights.check(&content)?;
            // The message of a consequence would hide that of the cause.
            let is_printed_now = |failure: &Failure| failure.unprinted && !failure.peer_lost;
            let follows_output = match &content {
                Content::Record(Payload::Ended(_)) => std::mem::take(&mut may_drain),
                Content::Failure(failure) => is_printed_now(failure),
                Content::Record(_) | Content::Commit | Content::Span(_) => false,
            };
            if follows_output {
                for pipe in [&mut self.stdout, &mut self.stderr] {
                    for _ in 0..PIPE_READS {
                        if pipe.turn(&self.link, false, &mut stop).await == 0 {
                            break;
                        }
                    }
                }
            }
            let seq = match content {
                Content::Record(payload) => self.link.outbox.push(statement, payload),
                Content::Failure(failure) => {
                    if is_printed_now(&failure) {
                        self.stderr.append_line(&failure.message, &self.link, &mut stop).await;
                    }
                    let _ = self
                        .events
                        .send(Event::Command(CommandEvent::SubmitterFailed { program: *program, failure }));
                    self.link.outbox.last_seq()
                }
                Content::Span(span) => {
                    if let Some(trace) = &self.trace {
                        lock(trace).add(*program, statement, span);
                    }
                    self.link.outbox.last_seq()
                }
                Content::Commit => {
                    let _ = self.events.send(Event::Command(CommandEvent::CommitAsked));
                    self.link.outbox.last_seq()
                }
            };
            if ack_id != 0 {
                answers.try_send(Answer::AckAt { seq, ack_id }).or_else(|error| match error {
                    mpsc::error::TrySendError::Full(_) => Err(rights.blame(
                        "the submitter channel is broken: the submitter does not read its acknowledgements",
                    )),
                    // It closed its end, so it does not wait for acknowledgements.
                    mpsc::error::TrySendError::Closed(_) => Ok(()),
                })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
