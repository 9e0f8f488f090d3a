//! When a person is to hear that an agent is silent, and that it is heard again. Pure; the caller brings the time.

use std::time::{Duration, Instant};

/// How often agents are asked to say that they live.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// An agent that is not heard for so long is said to be silent: three heartbeats.
pub const SILENCE: Duration = HEARTBEAT.saturating_mul(3);

/// Looks that a silence lasts until it is news. Between two of them no more than a period counts: a server that stood still
/// heard nothing because of itself.
const LOOKS: u32 = 3;

/// Since when nothing was heard of an agent.
#[derive(Debug)]
pub struct AgentLiveness {
    /// So long is no news.
    allowed: Duration,
    lasted: Duration,
    looked: Instant,
    is_said: bool,
}

/// What a person is to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing was heard for as long as is allowed.
    Silent,
    /// That is over.
    HeardAgain,
}

impl AgentLiveness {
    /// Of an agent that was heard just now.
    #[must_use]
    pub fn begin(allowed: Duration, now: Instant) -> Self {
        Self { allowed, lasted: Duration::ZERO, looked: now, is_said: false }
    }

    /// The agent said something.
    pub fn heard(&mut self, now: Instant) -> Option<News> {
        self.lasted = Duration::ZERO;
        self.looked = now;
        std::mem::take(&mut self.is_said).then_some(News::HeardAgain)
    }

    /// It has said nothing since the look before.
    pub fn look(&mut self, now: Instant) -> Option<News> {
        self.lasted += now.saturating_duration_since(self.looked).min(self.period());
        self.looked = now;
        if self.is_said || self.lasted < self.allowed {
            return None;
        }
        self.is_said = true;
        Some(News::Silent)
    }

    /// Whether the silence was said, and is not over.
    #[must_use]
    pub fn is_said(&self) -> bool {
        self.is_said
    }

    /// How long after the agent was heard, or looked for, to look.
    #[must_use]
    pub fn period(&self) -> Duration {
        Self::period_of(self.allowed)
    }

    /// The same of a silence of which so long is no news.
    #[must_use]
    pub fn period_of(allowed: Duration) -> Duration {
        allowed / LOOKS
    }

    /// An agent that was told nothing for so long gets an answer to its heartbeat. That is every second heartbeat, and sooner
    /// than the agent asks by itself.
    #[must_use]
    pub fn answer_after(&self) -> Duration {
        self.period() * 9 / 5
    }

    /// How long may be silent what is no news.
    #[must_use]
    pub fn allowed(&self) -> Duration {
        self.allowed
    }
}

/// What an agent said while the server stood still (SIGSTOP), which the server reads when it goes on. By then the agent may
/// have stopped.
#[derive(Debug)]
pub struct Backlog {
    period: Duration,
    /// When the server was last seen to run.
    ran: Instant,
    /// What is read before may be old.
    until: Instant,
}

impl Backlog {
    /// Of a server that runs, and asks at least once in each period.
    #[must_use]
    pub fn begin(period: Duration, now: Instant) -> Self {
        Self { period, ran: now, until: now }
    }

    /// Whether what is read now was said now. A period is enough to read the rest: buffers are small.
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

    /// The seconds with news, when it is looked at each second and the agent is heard at these.
    fn news(heard: impl Fn(u64) -> bool) -> Vec<(u64, News)> {
        let begin = Instant::now();
        let mut silence = AgentLiveness::begin(ALLOWED, begin);
        let at = |second| {
            let now = begin + Duration::from_secs(second);
            let news = if heard(second) { silence.heard(now) } else { silence.look(now) };
            news.map(|it| (second, it))
        };
        (1..=60).filter_map(at).collect()
    }

    #[test]
    fn a_silence_is_said_once_and_so_is_its_end() {
        assert_eq!(news(|_| false), [(15, News::Silent)]);
        assert_eq!(news(|second| second >= 40), [(15, News::Silent), (40, News::HeardAgain)]);
    }

    #[test]
    fn heartbeats_that_come_are_no_news_even_when_some_are_late() {
        assert_eq!(news(|second| second % 12 == 0), []);
    }

    #[test]
    fn what_a_server_reads_after_it_stood_still_is_old() {
        let begin = Instant::now();
        let mut backlog = Backlog::begin(Duration::from_secs(5), begin);
        let mut is_read = |second| backlog.is_read(begin + Duration::from_secs(second));
        assert_eq!([0, 5, 12].map(&mut is_read), [true; 3], "a late look is no standstill");
        assert_eq!([100, 101, 104].map(&mut is_read), [false; 3]);
        assert_eq!([105, 110].map(&mut is_read), [true; 2]);
    }

    #[test]
    fn a_server_that_stood_still_says_nothing() {
        let begin = Instant::now();
        let mut silence = AgentLiveness::begin(ALLOWED, begin);
        assert_eq!(silence.look(begin + Duration::from_secs(1000)), None);
        assert_eq!(silence.look(begin + Duration::from_secs(1005)), None);
        assert_eq!(silence.heard(begin + Duration::from_secs(1000)), None);
    }
}
