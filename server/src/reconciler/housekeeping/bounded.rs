//! Bounds of one pass: number of items, time, and concurrency. A failed item does not stop the following ones.

use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

/// Maximum number of items per pass.
pub(super) const PASS_ITEMS: u32 = 256;
/// Time after which a pass starts no further item.
const PASS_TIME: Duration = Duration::from_secs(10);
/// Maximum number of concurrent items.
const PARALLEL: usize = 4;
/// Timeout of one item. After it the item has failed, and is retried in the next round.
const ITEM_TIME: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(30) };

/// Processes the items concurrently, until all are done or the time is over. Returns the number of processed items.
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
