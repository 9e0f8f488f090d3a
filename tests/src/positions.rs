//! Positions of records, as a reader sees them.

/// Less than the jump of positions when another server appends: they advance by the microseconds between the starts of
/// both, and two servers may start within a millisecond. A loss of more records is found by their content.
const JUMP: u64 = 50;

/// Whether no record is between these two. Positions rise by one, or jump where a server appended for the first time.
#[must_use]
pub fn is_next(before: u64, position: u64) -> bool {
    position == before + 1 || position > before + JUMP
}

/// Fails the test unless these are all positions from the first one on.
///
/// # Panics
/// See above.
#[track_caller]
pub fn expect_all(positions: impl IntoIterator<Item = u64>) {
    let mut before = 0;
    for position in positions {
        assert!(is_next(before, position), "position {position} came after {before}");
        before = position;
    }
}
