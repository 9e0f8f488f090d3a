//! Shipping: what the child says becomes numbered records, kept until a server holds them safely.
//!
//! `reader` makes records from the child's pipes and channel, `outbox` keeps them (bounded; without a server its `tail`
//! goes to the `overflow` file, and comes back by `frame`, or by `starts` behind what is damaged; when all is full the child waits, or a gap stands for what is dropped), `link` shares
//! the outbox and the attempt's requests with the connection, `spool` writes what nobody took to disk, `mirror` repeats the output on the agent's own stdout and stderr, for readers of lines as `progress` shows it, `sent` is what one stream has carried, `speed` measures the link, `window` bounds what is under way on it, `marks` remembers what a verdict needs of all this, and `compress` makes a slow
//! one carry more.

pub mod compress;
mod frame;
pub mod link;
pub mod marks;
pub mod mirror;
pub mod outbox;
pub mod overflow;
mod progress;
pub mod reader;
pub mod sent;
mod speed;
pub mod spool;
mod starts;
mod tail;
mod window;
