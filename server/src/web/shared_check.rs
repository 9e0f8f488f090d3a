//! A check that costs something elsewhere: requests that wait for it share one, and its result is used again for a while.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

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

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A check that takes a second, and how often it began.
    async fn counted(begun: &AtomicUsize) -> usize {
        let count = begun.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(SECOND).await;
        count
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_share_a_check_and_later_ones_its_result() {
        let (check, begun) = (SharedCheck::new(5 * SECOND), AtomicUsize::new(0));
        assert_eq!(join_all((0..100).map(|_| check.result(counted(&begun)))).await, [1; 100]);
        tokio::time::advance(4 * SECOND).await;
        assert_eq!(check.result(counted(&begun)).await, 1);
        tokio::time::advance(SECOND / 1000).await;
        assert_eq!(check.result(counted(&begun)).await, 2, "it is too old");
    }

    #[tokio::test(start_paused = true)]
    async fn check_that_is_given_up_is_begun_again() {
        let (check, begun) = (SharedCheck::new(5 * SECOND), AtomicUsize::new(0));
        assert!(check.result(counted(&begun)).now_or_never().is_none());
        assert_eq!(check.result(counted(&begun)).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_lifetime_only_waiting_requests_share_a_check() {
        let (check, begun) = (SharedCheck::new(Duration::ZERO), AtomicUsize::new(0));
        let first = check.result(counted(&begun));
        let later = async {
            tokio::time::sleep(SECOND / 2).await;
            join_all((0..100).map(|_| check.result(counted(&begun)))).await
        };
        assert_eq!(tokio::join!(first, later), (1, vec![2; 100]), "what changed meanwhile is seen");
    }
}
