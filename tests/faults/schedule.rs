//! Which jobs run and which faults hit them, as a pure function of a seed.

use std::fmt;

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    A,
    B,
}

/// What a job's program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Many rows at once, then some slow ones.
    Select,
    /// One row after a while: until then the step may be repeated.
    SlowAnswer,
    /// Rows one by one.
    Trickle,
    /// Inserts, quick and slow, with a query between them.
    Insert,
    /// Only inserts.
    OnlyInsert,
}

/// How the job is read while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// With the cursors that the server gives.
    Cursor,
    /// With cursors, and at the same time by the plain token.
    CursorAndPlain,
}

/// A job to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedJob {
    pub at_ms: u64,
    pub kind: Kind,
    pub first: Slot,
    pub reading: Reading,
    /// Time of the cancel after its `Run`, if it still runs.
    pub cancel_after_ms: Option<u64>,
}

/// A fault. Each ends by itself after a bounded time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillServer {
        slot: Slot,
        down_ms: u64,
    },
    TermServer {
        slot: Slot,
        down_ms: u64,
    },
    PauseServer {
        slot: Slot,
        for_ms: u64,
    },
    PauseAgent {
        job: usize,
        for_ms: u64,
    },
    KillAgent {
        job: usize,
    },
    KillSubmitter {
        job: usize,
    },
    CutLinks {
        slot: Slot,
    },
    HoldLinks {
        slot: Slot,
        for_ms: u64,
    },
    FillDisk {
        for_ms: u64,
    },
    /// The soft limit of open files is the number of open ones, and `spare`.
    FewFiles {
        slot: Slot,
        spare: u64,
        for_ms: u64,
    },
}

impl Fault {
    /// The server that it hits, or the links to it.
    pub const fn slot(self) -> Option<Slot> {
        match self {
            Self::KillServer { slot, .. }
            | Self::TermServer { slot, .. }
            | Self::PauseServer { slot, .. }
            | Self::CutLinks { slot }
            | Self::HoldLinks { slot, .. }
            | Self::FewFiles { slot, .. } => Some(slot),
            Self::PauseAgent { .. }
            | Self::KillAgent { .. }
            | Self::KillSubmitter { .. }
            | Self::FillDisk { .. } => None,
        }
    }
}

/// A fault and its time since the start of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedFault {
    pub at_ms: u64,
    pub fault: Fault,
}

/// Everything that one run does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub jobs: Vec<PlannedJob>,
    pub faults: Vec<TimedFault>,
}

/// SplitMix64: a seed gives the same schedule with every version of every library.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    fn slot(&mut self) -> Slot {
        if self.next().is_multiple_of(2) { Slot::A } else { Slot::B }
    }
}

impl Schedule {
    /// The schedule of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let jobs: Vec<_> = (0..random.between(2, 4)).map(|_| planned_job(&mut random)).collect();
        let mut faults: Vec<_> = (0..random.between(1, 5))
            .map(|_| TimedFault { at_ms: random.between(50, 2500), fault: fault(&mut random, jobs.len()) })
            .collect();
        faults.sort_by_key(|fault| fault.at_ms);
        Self { seed, jobs, faults }
    }

    /// Whether the disk of the state folder is full at some time.
    pub fn fills_the_disk(&self) -> bool {
        self.faults.iter().any(|it| matches!(it.fault, Fault::FillDisk { .. }))
    }
}

fn planned_job(random: &mut Random) -> PlannedJob {
    PlannedJob {
        at_ms: random.between(0, 800),
        kind: match random.between(0, 6) {
            0 => Kind::Select,
            1 => Kind::SlowAnswer,
            2 => Kind::Trickle,
            3 | 4 => Kind::Insert,
            _ => Kind::OnlyInsert,
        },
        first: random.slot(),
        reading: if random.between(0, 2) == 0 { Reading::CursorAndPlain } else { Reading::Cursor },
        cancel_after_ms: (random.between(0, 5) == 0).then(|| random.between(100, 1800)),
    }
}

fn fault(random: &mut Random, jobs: usize) -> Fault {
    let slot = random.slot();
    let job = usize::try_from(random.next() % jobs as u64).expect("it is less than the number of jobs");
    let time = random.between(50, 1500);
    match random.between(0, 15) {
        0..=3 => Fault::KillServer { slot, down_ms: time / 2 },
        4 => Fault::TermServer { slot, down_ms: time / 2 },
        // Also beyond the lease, which is two seconds.
        5 | 6 => Fault::PauseServer { slot, for_ms: time * 2 },
        7 => Fault::PauseAgent { job, for_ms: time },
        8 | 9 => Fault::KillAgent { job },
        10 | 11 => Fault::KillSubmitter { job },
        12 => Fault::CutLinks { slot },
        13 => Fault::HoldLinks { slot, for_ms: time * 2 },
        14 => Fault::FillDisk { for_ms: time },
        _ => Fault::FewFiles { slot, spare: random.between(0, 6), for_ms: time },
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for (index, job) in self.jobs.iter().enumerate() {
            writeln!(f, "  {:>5} ms  job {index}: {job:?}", job.at_ms)?;
        }
        for TimedFault { at_ms, fault } in &self.faults {
            writeln!(f, "  {at_ms:>5} ms  {fault:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_depends_on_the_seed_only() {
        assert_eq!(Schedule::of(7), Schedule::of(7));
        assert_ne!(Schedule::of(7).faults, Schedule::of(8).faults);
    }

    #[test]
    fn hundred_seeds_cover_every_fault_and_kind() {
        let schedules: Vec<_> = (1..=100).map(Schedule::of).collect();
        let mut faults: Vec<_> = schedules
            .iter()
            .flat_map(|schedule| &schedule.faults)
            .map(|it| std::mem::discriminant(&it.fault))
            .collect();
        let mut distinct = Vec::new();
        faults.retain(|fault| {
            if distinct.contains(fault) {
                false
            } else {
                distinct.push(*fault);
                true
            }
        });
        assert_eq!(faults.len(), 10);
        for kind in [Kind::Select, Kind::SlowAnswer, Kind::Trickle, Kind::Insert, Kind::OnlyInsert] {
            assert!(schedules.iter().flat_map(|it| &it.jobs).any(|job| job.kind == kind), "{kind:?}");
        }
    }
}
