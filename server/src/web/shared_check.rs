//! A check that costs something elsewhere: requests that wait for it share one, and its result is used again for a while.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// The last result of a check.
pub(super) struct SharedCheck<T> {
    lifetime: Duration,
    last: Mutex<Option<Last<T>>>,
}

struct Last<T> {
    begun: Instant,
    result: T,
}

impl<T: Clone> SharedCheck<T> {
    /// A result is used for this time after its check began; with 0, only for requests that were waiting by then.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, last: Mutex::new(None) }
    }

    /// A result that is new enough, by this check if there is none. If its request is given up, the next one checks.
    pub(super) async fn result(&self, check: impl Future<Output = T>) -> T {
        let arrived = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(Last { begun, result }) = &*last
            && arrived <= *begun + self.lifetime
        {
            return result.clone();
        }
        let begun = Instant::now();
        let result = check.await;
        *last = Some(Last { begun, result: result.clone() });
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Counts checks, which end when they are let through.
    struct Gate {
        begun: AtomicUsize,
        open: Semaphore,
    }

    impl Gate {
        fn letting_through(count: usize) -> Self {
            Self { begun: AtomicUsize::new(0), open: Semaphore::new(count) }
        }

        /// A check, whose result is its number.
        async fn check(&self) -> usize {
            let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
            self.open.acquire().await.unwrap().forget();
            number
        }
    }

    #[tokio::test]
    async fn concurrent_requests_share_a_check_and_later_ones_its_result() {
        let (check, gate) = (SharedCheck::new(HOUR), Gate::letting_through(1));
        assert_eq!(join_all((0..100).map(|_| check.result(gate.check()))).await, [1; 100]);
        assert_eq!(check.result(gate.check()).await, 1);
    }

    #[tokio::test]
    async fn check_that_is_given_up_is_begun_again() {
        let (check, gate) = (SharedCheck::new(HOUR), Gate::letting_through(0));
        assert_eq!(check.result(gate.check()).now_or_never(), None);
        gate.open.add_permits(1);
        assert_eq!(check.result(gate.check()).await, 2);
    }

    #[tokio::test]
    async fn without_a_lifetime_only_waiting_requests_share_a_check() {
        let (check, gate) = (SharedCheck::new(Duration::ZERO), Gate::letting_through(0));
        let first = check.result(gate.check());
        let later = join_all((0..100).map(|_| check.result(gate.check())));
        // Polled in this order: the first check has begun, and the others wait for it.
        let open = async { gate.open.add_permits(2) };
        let (first, later, ()) = tokio::join!(first, later, open);
        assert_eq!((first, later), (1, vec![2; 100]), "what changed meanwhile is seen");
        gate.open.add_permits(1);
        assert_eq!(check.result(gate.check()).await, 3);
    }
}
