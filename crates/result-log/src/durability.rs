//! Durability of an append.

/// When an append is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it survives a power failure.
    Synced,
    /// When it survives the end of this process. The next synced append makes it durable.
    Unsynced,
}
