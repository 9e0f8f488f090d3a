//! Bounds of one pass: so many items, so much time, so many at once. What fails does not stop what follows.

use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

/// Items of one pass.
pub(super) const PASS_ITEMS: u32 = 256;
/// Time after which a pass takes no further item.
const PASS_TIME: Duration = Duration::from_secs(10);
/// Items that are worked on at the same time.
const PARALLEL: usize = 4;
/// Time for one item; then it has failed, and its turn comes again in the next round.
const ITEM_TIME: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(30) };

/// Works on the items, a few at a time, until all are done or the time is over. Gives how many were worked on.
pub(super) async fn each<T: Clone>(
    items: &[T],
    work: impl Fn(T) -> BoxFuture<'static, anyhow::Result<()>>,
    mut failed: impl FnMut(&T, anyhow::Error),
) -> usize {
    let deadline = Instant::now() + PASS_TIME;
    let mut done = 0;
    for group in items.chunks(PARALLEL) {
        if Instant::now() >= deadline {
            break;
        }
        let results =
            join_all(group.iter().map(|item| tokio::time::timeout(ITEM_TIME, work(item.clone())))).await;
        for (item, result) in group.iter().zip(results) {
            let late = || anyhow::anyhow!("it took longer than {} s", ITEM_TIME.as_secs());
            if let Err(error) = result.map_err(|_| late()).flatten() {
                failed(item, error);
            }
        }
        done += group.len();
    }
    done
}
