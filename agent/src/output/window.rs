//! Flow control window: bytes of records in flight on one stream. A heartbeat or PING waits behind them, so they are
//! what the link transfers in a few seconds. Pure: the caller provides the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Target time from sending to acknowledgement. Less than a heartbeat's period, and more than the round trip of a link
/// and the sync of a server.
const TARGET: Duration = Duration::from_secs(3);
/// Smallest and first window.
const SMALLEST: u64 = 64 << 10;
/// Number of batches in a window, so that the server gets a complete message about once a second.
const BATCHES: u64 = 3;
/// Largest batch, in bytes of uncompressed records.
const LARGEST_BATCH: u64 = 1 << 20;

/// Grows with early acknowledgements, and shrinks with late ones. It needs no other measure of the link: if `n` bytes
/// were in flight after a batch was sent, and its acknowledgement came after `t`, the link transferred `n` bytes in
/// `t`.
#[derive(Debug)]
pub(super) struct Window {
    bytes: u64,
    /// Oldest first.
    batches: VecDeque<Batch>,
    in_flight: u64,
}

/// A batch in flight.
#[derive(Debug)]
struct Batch {
    last_seq: u64,
    bytes: u64,
    sent: Instant,
    /// Bytes in flight, including this batch.
    in_flight: u64,
}

impl Window {
    /// For a new stream, whose link may differ from the last one.
    pub(super) fn new() -> Self {
        Self { bytes: SMALLEST, batches: VecDeque::new(), in_flight: 0 }
    }

    /// Whether a batch may be sent. It may exceed the window, so at most the window and one batch are in flight.
    pub(super) fn is_open(&self) -> bool {
        self.in_flight < self.bytes
    }

    /// Maximum size of the next batch. Its records count uncompressed, since the next ones may not shrink.
    pub(super) fn batch_bytes(&self) -> usize {
        usize::try_from((self.bytes / BATCHES).min(LARGEST_BATCH)).unwrap_or(usize::MAX)
    }

    /// A batch up to this record was sent as this number of bytes.
    pub(super) fn sent(&mut self, now: Instant, last_seq: u64, bytes: u64) {
        self.in_flight += bytes;
        self.batches.push_back(Batch { last_seq, bytes, sent: now, in_flight: self.in_flight });
    }

    /// A server holds everything up to this record.
    pub(super) fn acked(&mut self, now: Instant, seq: u64) {
        while let Some(batch) = self.batches.pop_front_if(|it| it.last_seq <= seq) {
            self.in_flight -= batch.bytes;
            let took = now.saturating_duration_since(batch.sent);
            let aim = batch.in_flight as f64 * TARGET.as_secs_f64() / took.as_secs_f64().max(1e-6);
            let aim = (aim as u64).max(SMALLEST);
            if took > TARGET {
                self.bytes = self.bytes.min(aim);
            } else {
                // At most doubles in a round trip: a link may be faster for the first bytes.
                self.bytes = self.bytes.max(aim.min(self.bytes + batch.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A link to a server, in virtual time.
    #[derive(Debug, Clone, Copy)]
    struct Link {
        bytes_per_second: f64,
        /// Including the server's sync.
        round_trip: f64,
    }

    struct Simulation {
        window: Window,
        begun: Instant,
        now: f64,
        /// Time at which the link has transferred everything.
        idle_at: f64,
        last_seq: u64,
        /// Times and records of acknowledgements.
        acks: VecDeque<(f64, u64)>,
        /// Longest delay of a heartbeat behind a batch.
        longest_wait: f64,
        acked_bytes: f64,
    }

    impl Simulation {
        fn new() -> Self {
            Self {
                window: Window::new(),
                begun: Instant::now(),
                now: 0.0,
                idle_at: 0.0,
                last_seq: 0,
                acks: VecDeque::new(),
                longest_wait: 0.0,
                acked_bytes: 0.0,
            }
        }

        /// Sends without pause until then. Records of `size` shrink by `ratio`.
        fn run(&mut self, link: Link, until: f64, size: usize, ratio: f64) {
            while self.now < until {
                while self.window.is_open() {
                    let raw = (self.window.batch_bytes() / size).max(1) * size;
                    let bytes = (raw as f64 * ratio) as u64 + 1;
                    self.last_seq += 1;
                    self.window.sent(self.at(), self.last_seq, bytes);
                    self.idle_at = self.idle_at.max(self.now) + bytes as f64 / link.bytes_per_second;
                    self.longest_wait = self.longest_wait.max(self.idle_at - self.now);
                    self.acks.push_back((self.idle_at + link.round_trip, self.last_seq));
                }
                let (at, seq) = self.acks.pop_front().expect("a closed window waits for something");
                self.now = self.now.max(at);
                let before = self.window.in_flight;
                self.window.acked(self.at(), seq);
                self.acked_bytes += (before - self.window.in_flight) as f64;
            }
        }

        fn at(&self) -> Instant {
            self.begun + Duration::from_secs_f64(self.now)
        }
    }

    #[test]
    fn window_fills_a_fast_link_with_a_long_round_trip() {
        let mut simulation = Simulation::new();
        let link = Link { bytes_per_second: 10e6, round_trip: 0.4 };
        simulation.run(link, 5.0, 64 << 10, 1.0);
        let before = simulation.acked_bytes;
        simulation.run(link, 10.0, 64 << 10, 1.0);
        assert!(simulation.acked_bytes - before > 0.95 * 50e6, "{} bytes", simulation.acked_bytes - before);
    }

    #[test]
    fn new_stream_starts_with_the_smallest_window() {
        let window = Window::new();
        assert_eq!((window.is_open(), window.batch_bytes()), (true, (64 << 10) / 3));
    }

    #[test]
    fn record_larger_than_the_window_is_sent_alone() {
        let (mut window, now) = (Window::new(), Instant::now());
        window.sent(now, 1, 16 << 20);
        assert!(!window.is_open());
        window.acked(now + Duration::from_secs(400), 1);
        assert_eq!((window.is_open(), window.bytes), (true, SMALLEST));
    }

    proptest! {
        /// For any link, also one that became slower, a heartbeat waits for the target time, one batch and a smallest
        /// window.
        #[test]
        fn heartbeat_delay_is_bounded_and_the_link_is_used(
            rate in 4.0f64..8.0,
            round_trip in 0.0005f64..0.5,
            size in 100usize..(64 << 10),
            ratio in 0.05f64..1.0,
        ) {
            let link = Link { bytes_per_second: 10f64.powf(rate), round_trip };
            let mut simulation = Simulation::new();
            simulation.run(link, 30.0, size, ratio);
            let smallest = (2 * SMALLEST) as f64 / link.bytes_per_second;
            let bound = TARGET.as_secs_f64() * (1.0 + 1.0 / BATCHES as f64) + smallest;
            prop_assert!(simulation.longest_wait < bound, "{} > {bound}", simulation.longest_wait);
            let used = simulation.acked_bytes / simulation.now / link.bytes_per_second;
            prop_assert!(used > 0.5, "{used}");

            // Incompressible records on the same link.
            simulation.longest_wait = 0.0;
            simulation.run(link, 60.0, size, 1.0);
            prop_assert!(simulation.longest_wait < bound, "{} > {bound}", simulation.longest_wait);

            // A link that is ten times slower, after the window has adapted.
            let slower = Link { bytes_per_second: link.bytes_per_second / 10.0, ..link };
            simulation.run(slower, 200.0, size, 1.0);
            simulation.longest_wait = 0.0;
            simulation.run(slower, 300.0, size, 1.0);
            let smallest = (2 * SMALLEST) as f64 / slower.bytes_per_second;
            let bound = TARGET.as_secs_f64() * (1.0 + 1.0 / BATCHES as f64) + smallest;
            prop_assert!(simulation.longest_wait < bound, "{} > {bound}", simulation.longest_wait);
        }
    }
}
