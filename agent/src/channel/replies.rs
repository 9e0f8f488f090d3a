//! The agent's side of the channel: the Start frame, acknowledgements once records are durable, and commit answers.

use std::collections::VecDeque;

use prost::Message as _;
use sqlflow_proto::agent::{Ack, AgentFrame, Start, agent_frame::Frame};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

/// Maximum number of answers that wait for a submitter. One with more does not read them at all.
pub const MAX_WAITING: usize = 64 << 10;

/// An answer to the submitter.
#[derive(Debug)]
pub enum Answer {
    /// Acknowledges a frame once everything up to `seq` is durable.
    AckAt {
        /// Sequence number of the frame's record.
        seq: u64,
        /// Id of the acknowledgement, from the submitter.
        ack_id: u64,
    },
    /// Granted or Refused.
    Now(Frame),
}

/// Writes `start`, then answers as they come due, until the submitter closes its end or no more answers can come.
pub async fn write_answers(
    mut channel: OwnedWriteHalf,
    start: Start,
    mut answers: mpsc::Receiver<Answer>,
    mut acked: watch::Receiver<u64>,
) -> std::io::Result<()> {
    write(&mut channel, Frame::Start(start)).await?;
    let mut waiting: VecDeque<(u64, u64)> = VecDeque::new();
    loop {
        let durable = *acked.borrow_and_update();
        while let Some((seq, ack_id)) = waiting.front().copied()
            && seq <= durable
        {
            waiting.pop_front();
            write(&mut channel, Frame::Ack(Ack { ack_id })).await?;
        }
        tokio::select! {
            answer = answers.recv() => match answer {
                Some(Answer::AckAt { seq, ack_id }) => waiting.push_back((seq, ack_id)),
                Some(Answer::Now(frame)) => write(&mut channel, frame).await?,
                None => return Ok(()),
            },
            changed = acked.changed(), if !waiting.is_empty() => if changed.is_err() { return Ok(()) },
        }
    }
}

async fn write(channel: &mut OwnedWriteHalf, frame: Frame) -> std::io::Result<()> {
    channel.write_all(&AgentFrame { frame: Some(frame) }.encode_length_delimited_to_vec()).await
}
