//! Limit of the bytes of answers that clients have not taken yet, over all connections. A client may call often and read
//! nothing, and each answer waits in memory until its connection takes it.
//!
//! Answers count for the owner of their job and not for the caller, so the tokens of many jobs give no more room than their
//! owner has. One answer of an owner has room in any case, so that no owner's answers keep those of others away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use sqlflow_sync::lock;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use super::delivery::waiting_time;
use crate::retry_hint;

/// Maximum number of bytes of all answers, beside one answer of each owner.
const MAX_HELD: usize = 256 << 20;
/// Maximum number of bytes of the answers about one owner's jobs, or one answer.
const MAX_HELD_OF_OWNER: usize = 64 << 20;
/// Maximum time for which a call waits for room.
const WAIT: Duration = Duration::from_secs(10);
/// Time after which a refused call may succeed, if its client reads.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Counts answers.
#[derive(Clone, Default)]
pub(super) struct AnswerBudget {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Default)]
struct Held {
    all: usize,
    of_owners: HashMap<Box<str>, usize>,
}

impl AnswerBudget {
    /// Room for an answer about a job of this owner. The call waits for it for a while: see [`waiting_time`].
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: there is none, since clients do not read the answers that they have.
    pub(super) async fn room(
        &self,
        owner: &str,
        bytes: usize,
        time_limit: Option<Duration>,
    ) -> Result<Room, Status> {
        let deadline = Instant::now() + waiting_time(time_limit, WAIT);
        loop {
            // Before the look at what is held, so that nothing that is freed after it is missed.
            let freed = self.inner.freed.notified();
            if let Some(room) = self.take(owner, bytes) {
                return Ok(room);
            }
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                let message = format!(
                    "cannot send an answer: clients hold {} MiB of answers about jobs of this owner, or {} MiB in all, \
                     and do not read them; read the answers of the calls that are open, or end those calls",
                    MAX_HELD_OF_OWNER >> 20,
                    MAX_HELD >> 20
                );
                return Err(retry_hint::status(Code::ResourceExhausted, message, RETRY_AFTER));
            }
        }
    }

    fn take(&self, owner: &str, bytes: usize) -> Option<Room> {
        let mut held = lock(&self.inner.held);
        let of_owner = held.of_owners.get(owner).copied().unwrap_or(0);
        let fits = of_owner + bytes <= MAX_HELD_OF_OWNER && held.all + bytes <= MAX_HELD;
        if of_owner > 0 && !fits {
            return None;
        }
        held.all += bytes;
        *held.of_owners.entry(owner.into()).or_default() += bytes;
        Some(Room { inner: Arc::clone(&self.inner), owner: owner.into(), bytes })
    }
}

/// Room for an answer, until this is dropped.
pub(super) struct Room {
    inner: Arc<Inner>,
    owner: Box<str>,
    bytes: usize,
}

impl Room {
    /// Gives back what the answer does not need.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.give_back(self.bytes.saturating_sub(bytes));
    }

    fn give_back(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.bytes -= bytes;
        {
            let mut held = lock(&self.inner.held);
            held.all -= bytes;
            if let Some(of_owner) = held.of_owners.get_mut(&self.owner) {
                *of_owner -= bytes;
                if *of_owner == 0 {
                    held.of_owners.remove(&self.owner);
                }
            }
        }
        self.inner.freed.notify_waiters();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// The room of a response, among its extensions.
#[derive(Clone)]
struct RoomOfResponse(Arc<Room>);

/// A response of this length that keeps its room until its connection has taken it.
pub(super) fn in_room<T>(
    mut response: tonic::Response<T>,
    mut room: Room,
    bytes: usize,
) -> tonic::Response<T> {
    room.shrink(bytes);
    response.extensions_mut().insert(RoomOfResponse(Arc::new(room)));
    response
}

/// Keeps the room of a response as long as any of its bytes.
pub(super) fn held(mut response: http::Response<Body>) -> http::Response<Body> {
    let Some(RoomOfResponse(room)) = response.extensions_mut().remove() else { return response };
    // The HTTP/2 library takes a whole frame, and sends it as the client reads.
    let in_room = move |bytes| Bytes::from_owner(HeldBytes { bytes, _room: Arc::clone(&room) });
    response.map(|body| Body::new(body.map_frame(move |frame| frame.map_data(&in_room))))
}

struct HeldBytes {
    bytes: Bytes,
    _room: Arc<Room>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    /// Of calls that wait in vain.
    const SHORT: Option<Duration> = Some(Duration::from_millis(20));

    #[tokio::test]
    async fn owner_waits_for_room_and_others_do_not() {
        let budget = AnswerBudget::default();
        let of = async |owner: &str, bytes, time_limit| budget.room(owner, bytes, time_limit).await;
        let mut first = of("ann", MAX_HELD_OF_OWNER, None).await.unwrap();
        let refused = of("ann", 1, SHORT).await.err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");
        let other = of("bob", MAX_HELD_OF_OWNER, None).await.unwrap();
        let (waited, ()) = tokio::join!(of("ann", 2, None), async {
            tokio::task::yield_now().await;
            first.shrink(MAX_HELD_OF_OWNER - 2);
        });
        drop((first, other, waited.unwrap()));
        let held = lock(&budget.inner.held);
        assert_eq!((held.all, held.of_owners.len()), (0, 0));
    }

    #[tokio::test]
    async fn owner_without_answers_has_room_for_one_of_any_length() {
        let budget = AnswerBudget::default();
        let mut rooms = Vec::new();
        for owner in 0..MAX_HELD / MAX_HELD_OF_OWNER {
            rooms.push(budget.room(&owner.to_string(), MAX_HELD_OF_OWNER, None).await.unwrap());
        }
        let long = budget.room("new", 2 * MAX_HELD_OF_OWNER, None).await;
        assert!(long.is_ok() && budget.room("new", 1, SHORT).await.is_err());
    }

    #[tokio::test]
    async fn room_is_held_until_the_last_byte_is_dropped() {
        let budget = AnswerBudget::default();
        let room = budget.room("ann", 100, None).await.unwrap();
        let held_bytes = || lock(&budget.inner.held).all;
        let response = in_room(tonic::Response::new(()), room, 10);
        let (_, (), extensions) = response.into_parts();
        let mut answer = http::Response::new(Body::new(axum::body::Body::from("0123456789")));
        *answer.extensions_mut() = extensions;
        let mut body = held(answer).into_body();
        let frame = body.frame().await.unwrap().unwrap();
        let mut bytes = frame.into_data().unwrap();
        drop(body);
        let rest = bytes.split_off(9);
        drop(bytes);
        assert_eq!((&rest[..], held_bytes()), (&b"9"[..], 10));
        drop(rest);
        assert_eq!(held_bytes(), 0);
    }
}
