//! Output of the command: it becomes numbered records, which are kept until a control plane has them durably.
//!
//! - `reader` makes records of the command's pipes and channel; `tee` copies the bytes to the agent's own stdout and stderr,
//!   and `progress` condenses progress bars for readers of lines.
//! - `outbox` holds unacknowledged records, within a bound. Without a server its `overflow_queue` moves to the `overflow` file and
//!   is decoded again by `frame`. After a damaged part, reading resumes at one of the `resync_points`. When all is full, the
//!   command waits, or output is dropped and a gap record stands for it.
//! - `link` shares the outbox and the attempt's requests with the control plane. `stream_progress` is the state of one stream, `ack_rate`
//!   measures the link, `window` bounds the bytes in flight, `compress` compresses for slow links.
//! - `spool` writes unacknowledged records to disk at the end; `terminal_records` keeps those for the termination message.

mod ack_rate;
pub mod compress;
mod frame;
pub mod link;
pub mod outbox;
pub mod overflow;
mod overflow_queue;
mod progress;
pub mod reader;
mod resync_points;
pub mod spool;
pub mod stream_progress;
pub mod tee;
pub mod terminal_records;
mod window;

use clap::ValueEnum;

/// Policy for output that exceeds all buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// The command waits
    Block,
    /// Output is dropped, and a gap record counts it
    Drop,
}
