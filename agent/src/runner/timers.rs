//! Timers of the supervisor: one of each kind. Setting a timer again moves it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::supervisor::{Event, Timer};

/// Thirty years, far below the limit of the clock.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Sends [`Event::TimeUp`] when a timer expires.
#[derive(Debug)]
pub(super) struct Timers {
    set: HashMap<Timer, Due>,
    events: mpsc::UnboundedSender<Event>,
}

/// A running timer.
#[derive(Debug)]
struct Due {
    at: Instant,
    task: AbortHandle,
}

impl Timers {
    pub(super) fn new(events: mpsc::UnboundedSender<Event>) -> Self {
        Self { set: HashMap::new(), events }
    }

    pub(super) fn set(&mut self, timer: Timer, after: Duration) {
        let events = self.events.clone();
        // Without an overflow, also for a grace period of centuries.
        let at = Instant::now() + after.min(LONGEST);
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            let _ = events.send(Event::TimeUp(timer));
        });
        if let Some(earlier) = self.set.insert(timer, Due { at, task: task.abort_handle() }) {
            earlier.task.abort();
        }
    }

    /// Whether the event belongs to a timer that was set again after it expired. Aborting its task does not remove an
    /// event from the queue.
    pub(super) fn is_stale(&self, event: &Event, now: Instant) -> bool {
        match event {
            Event::TimeUp(timer) => self.set.get(timer).is_some_and(|due| now < due.at),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::CommandEvent;

    const GRACE: Event = Event::TimeUp(Timer::Grace);

    #[tokio::test]
    async fn event_of_a_reset_timer_is_stale() {
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut timers = Timers::new(events);
        timers.set(Timer::Grace, Duration::ZERO);
        assert_eq!(inbox.recv().await, Some(GRACE));
        assert!(!timers.is_stale(&GRACE, Instant::now()));

        // It expired, and was set again before the event was handled.
        let hour = Duration::from_secs(3600);
        timers.set(Timer::Grace, hour);
        assert!(timers.is_stale(&GRACE, Instant::now()));
        assert!(!timers.is_stale(&GRACE, Instant::now() + hour));
        assert!(!timers.is_stale(&Event::TimeUp(Timer::Drain), Instant::now()), "another timer");
        assert!(!timers.is_stale(&Event::Command(CommandEvent::AllExited), Instant::now()));
    }

    #[tokio::test]
    async fn reset_timer_fires_once() {
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut timers = Timers::new(events);
        timers.set(Timer::Grace, Duration::from_millis(5));
        timers.set(Timer::Grace, Duration::from_millis(10));
        timers.set(Timer::Drain, Duration::from_millis(20));
        assert_eq!(inbox.recv().await, Some(GRACE));
        assert_eq!(inbox.recv().await, Some(Event::TimeUp(Timer::Drain)));
    }

    #[tokio::test]
    async fn huge_grace_period_does_not_overflow() {
        let (events, _inbox) = mpsc::unbounded_channel();
        let mut timers = Timers::new(events);
        timers.set(Timer::Grace, Duration::MAX);
        assert!(timers.is_stale(&GRACE, Instant::now()));
    }
}
