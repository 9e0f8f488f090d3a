//! Output of the command: it becomes numbered records, which are kept until a control plane has them durably.
//!
//! - `reader` makes records of the command's pipes and channel; `tee` copies the bytes to the agent's own stdout and stderr,
//!   and `progress` condenses progress bars for readers of lines.
//! - `outbox` holds unacknowledged records, within a bound. Without a server its `tail` moves to the `overflow` file and
//!   comes back by `frame`, or by `starts` behind what is damaged. When all is full the command waits, or a gap record
//!   stands for what is dropped.
//! - `link` shares the outbox and the attempt's requests with the control plane. `sent` is what one stream has carried,
//!   `speed` measures the link, `window` bounds the bytes in flight, `compress` makes a slow link carry more.
//! - `spool` writes what no server took to disk at the end; `terminal_records` remembers what an exit report needs of lost records.

pub mod compress;
mod frame;
pub mod link;
pub mod outbox;
pub mod overflow;
mod progress;
pub mod reader;
pub mod sent;
mod speed;
pub mod spool;
mod starts;
mod tail;
pub mod tee;
pub mod terminal_records;
mod window;

use clap::ValueEnum;

/// What to do with output that nothing can hold any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// The command waits
    Block,
    /// Output is dropped, and a record says how much
    Drop,
}
