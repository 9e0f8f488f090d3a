//! When an append is acknowledged.

/// When an append is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it survives a power failure.
    Synced,
    /// When it survives the death of this process. The next synced one makes it durable too.
    Unsynced,
}
