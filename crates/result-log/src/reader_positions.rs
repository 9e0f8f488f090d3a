//! Conversion between positions in files and positions that readers see: pure.
//!
//! In the files of a log, positions are 1, 2, 3 and so on. A log that was restored from an older copy uses some of them
//! again, for other records, and its files do not show it. A reader with a later cursor would skip those records.
//! Therefore readers see positions that are used only once: the position in the file plus a *shift* that never
//! decreases.
//!
//! Nobody restores a copy while a server runs on it. So a server that appends to the copy has started after the last
//! lost record was appended. At a server's first append to a log, positions continue at its *floor*: the microseconds
//! between the creation of the job and the start of the server. If they are higher already, they do not change. A job
//! has fewer than one record per microsecond, so all positions from before the start of the server are lower. A cursor
//! into the lost part is therefore before all new records. A job that is newer than its servers has the positions 1, 2,
//! 3.
//!
//! This requires that no clock is set back by more than the time between the starts of two servers.

/// An offset of the positions that readers see, from a position on.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Shift {
    /// The first position in the files.
    #[prost(uint64, tag = "1")]
    pub(super) from: u64,
    #[prost(uint64, tag = "2")]
    pub(super) by: u64,
}

/// Maximum shift: 285 years in microseconds. A higher one is printed text that looks like a summary.
pub(super) const MAX_SHIFT: u64 = 1 << 53;

/// Whether these shifts are valid. Printed text may look like a summary.
pub(super) fn are_valid(shifts: &[Shift]) -> bool {
    let each = |shift: &Shift| shift.from > 0 && shift.by <= MAX_SHIFT;
    let rise = |both: &[Shift]| both[0].from < both[1].from && both[0].by < both[1].by;
    shifts.iter().all(each) && shifts.windows(2).all(rise)
}

/// The position that readers see, for a position in the files. In `shifts` both numbers increase.
pub(super) fn to_readers(shifts: &[Shift], position: u64) -> u64 {
    let begun = shifts.partition_point(|shift| shift.from <= position);
    position.saturating_add(last_of(&shifts[..begun]))
}

/// The last position in the files that readers see at or before this position. It may be after the end of the log.
pub(super) fn to_files(shifts: &[Shift], shown: u64) -> u64 {
    let begun = shifts.partition_point(|shift| shift.from.saturating_add(shift.by) <= shown);
    let position = shown - last_of(&shifts[..begun]);
    // No record has a position between two shifts.
    shifts.get(begun).map_or(position, |next| position.min(next.from - 1))
}

/// The shift of a record that a server with this floor appends at this position.
pub(super) fn next_shift(shifts: &[Shift], position: u64, floor: u64) -> u64 {
    last_of(shifts).max(floor.saturating_sub(position))
}

/// Adds the shift of a record; 0: not known.
pub(super) fn add_shift(shifts: &mut Vec<Shift>, from: u64, by: u64) {
    if by > last_of(shifts) {
        // A repair may have added one for this position before there was a record.
        shifts.pop_if(|last| last.from == from);
        shifts.push(Shift { from, by });
    }
}

fn last_of(shifts: &[Shift]) -> u64 {
    shifts.last().map_or(0, |shift| shift.by)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cursor_between_shifts_is_before_the_second() {
        let shifts = [Shift { from: 11, by: 1_000 }, Shift { from: 21, by: 5_000 }];
        let seen = [0, 1, 10, 11, 20, 21].map(|position| to_readers(&shifts, position));
        assert_eq!(seen, [0, 1, 10, 1_011, 1_020, 5_021]);
        let found =
            [0, 1, 10, 11, 1_010, 1_011, 1_020, 1_021, 5_020, 5_021, 9_999].map(|it| to_files(&shifts, it));
        assert_eq!(found, [0, 1, 10, 10, 10, 11, 20, 20, 20, 21, 4_999]);
        assert_eq!([0, u64::MAX].map(|it| to_files(&[], it)), [0, u64::MAX]);
    }

    #[test]
    fn higher_shift_of_one_position_wins() {
        let mut shifts = vec![Shift { from: 3, by: 5 }];
        add_shift(&mut shifts, 11, 1_000);
        add_shift(&mut shifts, 11, 5_000);
        assert_eq!(shifts, [Shift { from: 3, by: 5 }, Shift { from: 11, by: 5_000 }]);
        assert!(are_valid(&shifts));
    }

    /// A log, and its servers' clock.
    #[derive(Default)]
    struct World {
        now: u64,
        /// The floor of its server.
        floor: u64,
        last: u64,
        shifts: Vec<Shift>,
    }

    impl World {
        fn start_server(&mut self, after: u64) {
            self.now += after;
            self.floor = self.now;
        }

        /// Appends a record, and returns what readers see as its position.
        fn append(&mut self) -> u64 {
            self.now += 1;
            self.last += 1;
            let by = next_shift(&self.shifts, self.last, self.floor);
            add_shift(&mut self.shifts, self.last, by);
            to_readers(&self.shifts, self.last)
        }
    }

    #[derive(Debug, Clone)]
    enum Act {
        Append(u64),
        Restart,
        /// Restores the state after a part of its records (in 1/1000), under another server.
        Restore(u64),
    }

    fn any_act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (1_u64..20).prop_map(Act::Append),
            Just(Act::Restart),
            (0_u64..1000).prop_map(Act::Restore)
        ]
    }

    proptest! {
        /// After any number of server starts and restores, also of copies of restored logs.
        #[test]
        fn positions_are_unique_and_convertible(acts in prop::collection::vec(any_act(), 1..40)) {
            let mut world = World::default();
            let mut highest = 0;
            for act in acts {
                match act {
                    Act::Append(count) => for _ in 0..count {
                        let seen = world.append();
                        prop_assert!(seen > highest, "{seen} after {highest}");
                        highest = seen;
                    },
                    Act::Restart => world.start_server(1),
                    Act::Restore(part) => {
                        world.last = world.last * part / 1000;
                        world.shifts.retain(|shift| shift.from <= world.last);
                        world.start_server(1);
                        // The cursor of a reader of all records is before all new ones.
                        let after = to_files(&world.shifts, highest).min(world.last);
                        prop_assert_eq!(after, world.last);
                    }
                }
                for position in 0..=world.last {
                    let seen = to_readers(&world.shifts, position);
                    prop_assert_eq!(to_files(&world.shifts, seen), position);
                    if seen + 1 < to_readers(&world.shifts, position + 1) {
                        prop_assert_eq!(to_files(&world.shifts, seen + 1).min(world.last), position);
                    }
                }
            }
        }
    }
}
