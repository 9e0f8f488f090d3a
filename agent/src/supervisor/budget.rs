//! Divides the time between TERM and the end among the command, the models and the last records. Pure.

use std::time::Duration;

/// Assumed speed of a server before it is measured, in bytes per second. That of a poor link, so that records rather
/// get too much time than too little.
const ASSUMED_LINK: u64 = 1 << 20;
/// Assumed speed of the storage before it is measured, including packing.
const ASSUMED_STORE: u64 = 16 << 20;
/// Minimum shares of the whole, as divisors: of the command, of the records.
const LEAST_COMMAND: u32 = 5;
const LEAST_RECORDS: u32 = 20;
/// Maximum share of the records, as a divisor.
const MOST_RECORDS: u32 = 4;
/// Bounds on the time for records, and minimum for outputs, after a grace period that belongs to the command alone.
const LEAST_AFTER: Duration = Duration::from_secs(1);
const MOST_AFTER: Duration = Duration::from_secs(5);

/// Remaining work, and measured speeds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Bytes that no server has acknowledged.
    pub unacked_bytes: u64,
    /// Bytes per second that servers acknowledged while there was something to send; 0: not known.
    pub link_speed: u64,
    /// Bytes in the folders that will be published; `None`: nothing is published.
    pub output_bytes: Option<u64>,
    /// Bytes per second that were packed and stored; 0: not known.
    pub store_speed: u64,
}

/// Deadlines after the TERM, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The command is killed.
    pub command: Duration,
    /// Publishing gives up.
    pub publish: Duration,
    /// The agent exits, even if no server has taken everything.
    pub leave: Duration,
}

impl Budget {
    /// Gives the command all of its `grace`. Records follow within a few seconds, outputs within as long as the grace.
    pub fn after(grace: Duration, load: &Load) -> Self {
        let records = need(load.unacked_bytes, load.link_speed, ASSUMED_LINK).clamp(LEAST_AFTER, MOST_AFTER);
        let publish = match load.output_bytes {
            None => Duration::ZERO,
            Some(bytes) => (need(bytes, load.store_speed, ASSUMED_STORE) * 5 / 4)
                .clamp(LEAST_AFTER, grace.max(MOST_AFTER)),
        };
        let publish = grace.saturating_add(publish);
        Self { command: grace, publish, leave: publish.saturating_add(records) }
    }

    /// Divides `total`. The next part gets what one part does not need.
    pub fn divide(total: Duration, load: &Load) -> Self {
        let records = need(load.unacked_bytes, load.link_speed, ASSUMED_LINK)
            .clamp(total / LEAST_RECORDS, total / MOST_RECORDS);
        let rest = total - records;
        let publish = match load.output_bytes {
            None => Duration::ZERO,
            // A quarter more, for sync, grant and rename after the last byte.
            Some(bytes) => (need(bytes, load.store_speed, ASSUMED_STORE) * 5 / 4)
                .clamp(total / 10, rest - total / LEAST_COMMAND),
        };
        Self { command: rest - publish, publish: rest, leave: total }
    }
}

fn need(bytes: u64, speed: u64, assumed: u64) -> Duration {
    let speed = if speed == 0 { assumed } else { speed };
    // The result is clamped to a share later, and must not overflow before.
    Duration::from_secs_f64((bytes as f64 / speed as f64).min(1e15))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOTAL: Duration = Duration::from_secs(30);

    #[test]
    fn command_without_outputs_gets_most_of_the_time() {
        let budget = Budget::divide(TOTAL, &Load::default());
        assert_eq!(budget.command, budget.publish);
        assert!(budget.command > TOTAL * 9 / 10 && budget.leave == TOTAL, "{budget:?}");
    }

    #[test]
    fn large_model_leaves_the_command_its_minimum() {
        let load = Load { output_bytes: Some(10 << 30), store_speed: 50 << 20, ..Load::default() };
        let budget = Budget::divide(TOTAL, &load);
        assert_eq!(budget.command, TOTAL / LEAST_COMMAND);
        let small = Load { output_bytes: Some(50 << 20), store_speed: 50 << 20, ..Load::default() };
        assert!(Budget::divide(TOTAL, &small).command > TOTAL * 3 / 4);
    }

    #[test]
    fn records_get_at_most_a_quarter() {
        let load = Load { unacked_bytes: 1 << 30, link_speed: 1 << 20, ..Load::default() };
        let budget = Budget::divide(TOTAL, &load);
        assert_eq!(budget.leave - budget.publish, TOTAL / MOST_RECORDS);
    }

    proptest! {
        #[test]
        fn deadlines_are_ordered_for_any_load(
            total_ms in 0_u64..600_000,
            unacked_bytes in any::<u64>(),
            link_speed in any::<u64>(),
            output_bytes in prop::option::of(any::<u64>()),
            store_speed in any::<u64>(),
        ) {
            let total = Duration::from_millis(total_ms);
            let load = Load { unacked_bytes, link_speed, output_bytes, store_speed };
            let budget = Budget::divide(total, &load);
            prop_assert!(budget.command <= budget.publish && budget.publish <= budget.leave);
            prop_assert!(budget.leave == total);
            let after = Budget::after(total, &load);
            prop_assert!(after.command == total && total <= after.publish && after.publish < after.leave);
            prop_assert!(after.leave <= total + total.max(MOST_AFTER) + MOST_AFTER);
            prop_assert!(budget.command >= total / LEAST_COMMAND - Duration::from_nanos(10).min(total / LEAST_COMMAND));
        }
    }
}
