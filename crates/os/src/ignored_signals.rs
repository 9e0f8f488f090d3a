//! Signals that a process ignores, as proc_pid_status(5) lists them.

/// Whether the process with this `/proc/<pid>/status` ignores the signal. Its line `SigIgn:\t0000000000001002` has a bit
/// for each signal, from 1.
#[must_use]
pub fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_has_a_bit_for_each_signal() {
        let status = "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001002\n";
        assert!(is_ignored(status, 2) && is_ignored(status, 13) && !is_ignored(status, 1));
        assert!(!is_ignored("SigIgn:\t0000000000001000\n", 2) && !is_ignored("", 2));
    }
}
