//! Liveness of agents: when a silent agent, and its return, are reported to the user. Pure; the caller passes the
//! time.

use std::time::{Duration, Instant};

/// Period of heartbeats.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// Silence after which an agent is reported: three heartbeats.
pub const SILENCE: Duration = HEARTBEAT.saturating_mul(3);

/// Number of checks until a silence is reported. Between two checks at most one period counts: a stopped server
/// received nothing.
const CHECKS: u32 = 3;

/// Time without a message from an agent.
#[derive(Debug)]
pub struct AgentLiveness {
    /// Silence that is not reported yet.
    allowed: Duration,
    silent_for: Duration,
    checked: Instant,
    is_reported: bool,
}

/// What to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LivenessChange {
    /// The agent has been silent for longer than allowed.
    Silent,
    /// The agent is heard again.
    HeardAgain,
}

impl AgentLiveness {
    /// Starts with an agent that was heard just now.
    #[must_use]
    pub fn begin(allowed: Duration, now: Instant) -> Self {
        Self { allowed, silent_for: Duration::ZERO, checked: now, is_reported: false }
    }

    /// The agent sent a message.
    pub fn heard(&mut self, now: Instant) -> Option<LivenessChange> {
        self.silent_for = Duration::ZERO;
        self.checked = now;
        std::mem::take(&mut self.is_reported).then_some(LivenessChange::HeardAgain)
    }

    /// The agent sent nothing since the last check.
    pub fn check(&mut self, now: Instant) -> Option<LivenessChange> {
        self.silent_for += now.saturating_duration_since(self.checked).min(self.period());
        self.checked = now;
        if self.is_reported || self.silent_for < self.allowed {
            return None;
        }
        self.is_reported = true;
        Some(LivenessChange::Silent)
    }

    /// Whether the silence was reported and continues.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        self.is_reported
    }

    /// Period of checks.
    #[must_use]
    pub fn period(&self) -> Duration {
        Self::period_of(self.allowed)
    }

    /// Period of checks for an allowed silence.
    #[must_use]
    pub fn period_of(allowed: Duration) -> Duration {
        allowed / CHECKS
    }

    /// Time without a message to the agent after which a heartbeat is answered. That is every second heartbeat,
    /// earlier than the agent asks for an answer itself.
    #[must_use]
    pub fn answer_after(&self) -> Duration {
        self.period() * 9 / 5
    }

    /// Silence that is not reported.
    #[must_use]
    pub fn allowed(&self) -> Duration {
        self.allowed
    }
}

/// Detects messages that were received while the server was stopped (SIGSTOP) and are read afterwards. The agent may
/// have stopped by then.
#[derive(Debug)]
pub struct Backlog {
    period: Duration,
    /// Last time the server was observed running.
    ran: Instant,
    /// Messages read before this time may be old.
    until: Instant,
}

impl Backlog {
    /// For a running server that checks at least once per period.
    #[must_use]
    pub fn begin(period: Duration, now: Instant) -> Self {
        Self { period, ran: now, until: now }
    }

    /// Whether a message that is read now was sent now. One period is enough to read the rest, since buffers are
    /// small.
    pub fn is_read(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.ran) > self.period * 2 {
            self.until = now + self.period;
        }
        self.ran = now;
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_secs(15);

    /// The seconds with reports, with one check per second; the agent is heard at the given seconds.
    fn news(heard: impl Fn(u64) -> bool) -> Vec<(u64, LivenessChange)> {
        let begin = Instant::now();
        let mut silence = AgentLiveness::begin(ALLOWED, begin);
        let at = |second| {
            let now = begin + Duration::from_secs(second);
            let news = if heard(second) { silence.heard(now) } else { silence.check(now) };
            news.map(|it| (second, it))
        };
        (1..=60).filter_map(at).collect()
    }

    #[test]
    fn silence_and_its_end_are_reported_once() {
        assert_eq!(news(|_| false), [(15, LivenessChange::Silent)]);
        assert_eq!(
            news(|second| second >= 40),
            [(15, LivenessChange::Silent), (40, LivenessChange::HeardAgain)]
        );
    }

    #[test]
    fn late_heartbeats_are_not_reported() {
        assert_eq!(news(|second| second % 12 == 0), []);
    }

    #[test]
    fn messages_read_after_a_stop_are_old() {
        let begin = Instant::now();
        let mut backlog = Backlog::begin(Duration::from_secs(5), begin);
        let mut is_read = |second| backlog.is_read(begin + Duration::from_secs(second));
        assert_eq!([0, 5, 12].map(&mut is_read), [true; 3], "a late look is no standstill");
        assert_eq!([100, 101, 104].map(&mut is_read), [false; 3]);
        assert_eq!([105, 110].map(&mut is_read), [true; 2]);
    }

    #[test]
    fn stopped_server_reports_no_silence() {
        let begin = Instant::now();
        let mut silence = AgentLiveness::begin(ALLOWED, begin);
        assert_eq!(silence.check(begin + Duration::from_secs(1000)), None);
        assert_eq!(silence.check(begin + Duration::from_secs(1005)), None);
        assert_eq!(silence.heard(begin + Duration::from_secs(1000)), None);
    }
}
