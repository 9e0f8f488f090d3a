//! Positions as readers see them: pure.
//!
//! In its files the positions of a log are 1, 2, 3 and so on. A log that was restored from an older copy gives some of
//! them again, to other records, and nothing in it shows that. A reader who had read further would skip those records. So
//! readers see positions that are given only once: the one in the files, plus a *shift* that never falls.
//!
//! Nobody restores a copy below a running server, so every server that appends to it has started after the last record that
//! was lost. When a server appends to a log for the first time, positions therefore go on at its *floor*: the microseconds
//! from the creation of the job to the start of the server. If they were higher already, nothing changes. A job says less
//! than one record per microsecond, so whatever was given before the start of the server is lower. A cursor that points
//! into the lost part is then before all new records. A job whose servers are older than the job sees 1, 2, 3.
//!
//! This holds as long as no clock is set back by more than the time between the starts of two servers.

/// From a position on, what readers see is higher by this.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Shift {
    /// The first position in the files.
    #[prost(uint64, tag = "1")]
    pub(super) from: u64,
    #[prost(uint64, tag = "2")]
    pub(super) by: u64,
}

/// No shift is higher: 285 years in microseconds. What seems to be one may be what a program printed.
pub(super) const MAX_SHIFT: u64 = 1 << 53;

/// Whether a log can have these. What seems to be a summary may be what a program printed.
pub(super) fn are_possible(shifts: &[Shift]) -> bool {
    let each = |shift: &Shift| shift.from > 0 && shift.by <= MAX_SHIFT;
    let rise = |both: &[Shift]| both[0].from < both[1].from && both[0].by < both[1].by;
    shifts.iter().all(each) && shifts.windows(2).all(rise)
}

/// What readers see of a position in the files. Of the shifts both numbers rise.
pub(super) fn shown(shifts: &[Shift], position: u64) -> u64 {
    let begun = shifts.partition_point(|shift| shift.from <= position);
    position.saturating_add(last_of(&shifts[..begun]))
}

/// The last position in the files that readers see no higher than this. It may be behind the end of the log.
pub(super) fn stored(shifts: &[Shift], shown: u64) -> u64 {
    let begun = shifts.partition_point(|shift| shift.from.saturating_add(shift.by) <= shown);
    let position = shown - last_of(&shifts[..begun]);
    // Between two shifts there are positions that no record has.
    shifts.get(begun).map_or(position, |next| position.min(next.from - 1))
}

/// The shift of a record that is appended at this position by a server of this floor.
pub(super) fn of_next(shifts: &[Shift], position: u64, floor: u64) -> u64 {
    last_of(shifts).max(floor.saturating_sub(position))
}

/// Notes that a record has this shift; 0: nothing is known of it.
pub(super) fn note(shifts: &mut Vec<Shift>, from: u64, by: u64) {
    if by > last_of(shifts) {
        // A repair may have noted one for the position before there was a record.
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
    fn a_cursor_between_two_shifts_is_before_the_second() {
        let shifts = [Shift { from: 11, by: 1_000 }, Shift { from: 21, by: 5_000 }];
        let seen = [0, 1, 10, 11, 20, 21].map(|position| shown(&shifts, position));
        assert_eq!(seen, [0, 1, 10, 1_011, 1_020, 5_021]);
        let found =
            [0, 1, 10, 11, 1_010, 1_011, 1_020, 1_021, 5_020, 5_021, 9_999].map(|it| stored(&shifts, it));
        assert_eq!(found, [0, 1, 10, 10, 10, 11, 20, 20, 20, 21, 4_999]);
        assert_eq!([0, u64::MAX].map(|it| stored(&[], it)), [0, u64::MAX]);
    }

    #[test]
    fn of_two_shifts_from_one_position_the_higher_stays() {
        let mut shifts = vec![Shift { from: 3, by: 5 }];
        note(&mut shifts, 11, 1_000);
        note(&mut shifts, 11, 5_000);
        assert_eq!(shifts, [Shift { from: 3, by: 5 }, Shift { from: 11, by: 5_000 }]);
        assert!(are_possible(&shifts));
    }

    /// A log, and the clock that its servers go by.
    #[derive(Default)]
    struct World {
        now: u64,
        /// What its server calls its floor.
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
            let by = of_next(&self.shifts, self.last, self.floor);
            note(&mut self.shifts, self.last, by);
            shown(&self.shifts, self.last)
        }
    }

    #[derive(Debug, Clone)]
    enum Act {
        Append(u64),
        Restart,
        /// As it was after so many of its records (of 1000), under another server.
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
        /// However often servers start and older copies are restored, also copies of restored logs.
        #[test]
        fn no_position_is_seen_twice_and_all_are_found(acts in prop::collection::vec(any_act(), 1..40)) {
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
                        // A reader who has seen everything is before all that comes now.
                        let after = stored(&world.shifts, highest).min(world.last);
                        prop_assert_eq!(after, world.last);
                    }
                }
                for position in 0..=world.last {
                    let seen = shown(&world.shifts, position);
                    prop_assert_eq!(stored(&world.shifts, seen), position);
                    if seen + 1 < shown(&world.shifts, position + 1) {
                        prop_assert_eq!(stored(&world.shifts, seen + 1).min(world.last), position);
                    }
                }
            }
        }
    }
}
