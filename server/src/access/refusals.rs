//! Refused requests in the audit log. Anybody can cause them, so there is at most one line a second for each sender, with the
//! number of its requests, and a bound of senders.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use sqlflow_sync::lock;
use tonic::Code;

use super::Peer;
use super::audit::Via;

/// Time between two lines about one sender.
const PERIOD: Duration = Duration::from_secs(1);
/// Maximum number of senders with lines of their own. Further ones share one.
const MAX_SENDERS: usize = 64;
/// Maximum length of a request's path in a line.
const MAX_PATH: usize = 128;

/// Refused requests of the last second.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<HashMap<Sender, Pending>>>);

/// Who sends requests, and with which result.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sender {
    /// `None`: one of those that have no line of their own.
    principal: Option<String>,
    address: Option<IpAddr>,
    code: &'static str,
}

/// Requests that no line counts yet.
#[derive(Debug, Default)]
struct Pending {
    count: u64,
    last: Option<Refusal>,
}

/// A refused request.
#[derive(Debug, Clone)]
struct Refusal {
    path: String,
    via: Via,
}

/// Why a request is refused, if it is for want of a right.
fn code_name(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated => Some("UNAUTHENTICATED"),
        Code::PermissionDenied => Some("PERMISSION_DENIED"),
        _ => None,
    }
}

impl Refusals {
    /// Notes the response of a call to this path.
    pub fn note_call(&self, principal: &str, peer: &Peer, path: &str, code: Code) {
        if let Some(code) = code_name(code) {
            self.note(principal, peer, path, code, Via::Api);
        }
    }

    /// Notes the response of a request for a page at this path.
    pub fn note_page(&self, principal: &str, peer: &Peer, path: &str, status: StatusCode) {
        let code = match status {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            _ => return,
        };
        if let Some(code) = code_name(code) {
            self.note(principal, peer, path, code, Via::Page);
        }
    }

    fn note(&self, principal: &str, peer: &Peer, path: &str, code: &'static str, via: Via) {
        let path = path[..path.floor_char_boundary(MAX_PATH)].to_owned();
        let refusal = Refusal { path, via };
        let mut sender = Sender { principal: Some(principal.to_owned()), address: peer.address, code };
        let mut all = lock(&self.0);
        if all.len() >= MAX_SENDERS && !all.contains_key(&sender) {
            sender = Sender { principal: None, address: None, code };
        }
        if let Some(pending) = all.get_mut(&sender) {
            pending.count += 1;
            pending.last = Some(refusal);
            return;
        }
        all.insert(sender.clone(), Pending::default());
        drop(all);
        write(&sender, &refusal, 1);
        let refusals = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                let Some((refusal, count)) = refusals.take(&sender) else { return };
                write(&sender, &refusal, count);
            }
        });
    }

    /// What a sender's next line counts; `None`: nothing, and the sender is forgotten.
    fn take(&self, sender: &Sender) -> Option<(Refusal, u64)> {
        let mut all = lock(&self.0);
        let taken = all.get_mut(sender).map(std::mem::take).unwrap_or_default();
        if taken.last.is_none() {
            all.remove(sender);
        }
        taken.last.map(|last| (last, taken.count))
    }
}

/// Writes a line. Of several requests it names the last one.
fn write(sender: &Sender, refusal: &Refusal, count: u64) {
    let address = sender.address.map(tracing::field::display);
    tracing::info!(
        target: "audit",
        principal = sender.principal.as_deref().unwrap_or("others"),
        address,
        action = "refused",
        path = refusal.path,
        code = sender.code,
        count,
        via = refusal.via.name(),
        "refused requests"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> Peer {
        Peer { principal: None, address: Some(IpAddr::from([192, 0, 2, number])) }
    }

    #[tokio::test]
    async fn requests_of_a_second_are_counted_and_senders_are_bounded() {
        let refusals = Refusals::default();
        let note = |number| refusals.note_call("anonymous", &peer(number), "/a", Code::Unauthenticated);
        for _ in 0..5 {
            note(1);
        }
        refusals.note_call("anonymous", &peer(1), "/b", Code::Unauthenticated);
        let principal = Some("anonymous".to_owned());
        let sender = Sender { principal, address: peer(1).address, code: "UNAUTHENTICATED" };
        let (last, count) = refusals.take(&sender).unwrap();
        // The first one has a line of its own.
        assert_eq!((last.path.as_str(), count), ("/b", 5));
        for number in 0..=255 {
            note(number);
            note(number);
        }
        let senders: Vec<Sender> = lock(&refusals.0).keys().cloned().collect();
        assert_eq!(senders.len(), MAX_SENDERS + 1);
        for sender in &senders {
            assert!(refusals.take(sender).is_some());
            assert!(refusals.take(sender).is_none());
        }
        assert_eq!(lock(&refusals.0).len(), 0, "they are forgotten");
    }

    #[tokio::test]
    async fn only_requests_without_a_right_are_refusals() {
        let refusals = Refusals::default();
        for code in [Code::Ok, Code::NotFound, Code::InvalidArgument, Code::Unavailable] {
            refusals.note_call("token:ana", &peer(1), "/a", code);
        }
        for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::SEE_OTHER] {
            refusals.note_page("token:ana", &peer(1), "/a", status);
        }
        assert_eq!(lock(&refusals.0).len(), 0);
    }
}
