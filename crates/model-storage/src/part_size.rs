//! Part sizes of multipart uploads.

/// Part size of models up to 52 GB. The last part may be twice as large.
pub(super) const PART: usize = 6 << 20;
/// S3 allows 10,000. A model may grow by a tenth while it is packed.
const MAX_PARTS: u64 = 9_000;

/// Part size of a model of this length. All parts have the same size, as some stores require.
pub(super) fn part_of(bytes: u64) -> usize {
    const MIB: u64 = 1 << 20;
    let part = bytes.div_ceil(MAX_PARTS).div_ceil(MIB) * MIB;
    usize::try_from(part).unwrap_or(usize::MAX).max(PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_parts_is_within_the_limit_for_any_size() {
        for bytes in [0, 1, 20 << 30, 52 << 30, 60 << 30, 5 << 40] {
            let part = part_of(bytes) as u64;
            assert!((bytes + bytes / 10).div_ceil(part) <= 10_000 && part >= PART as u64, "{bytes}: {part}");
        }
        assert_eq!(part_of(52 << 30), PART, "a usual model needs no more memory");
    }
}
