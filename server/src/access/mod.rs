//! Who calls, and what they may do: for gRPC and web pages alike.

mod audit;
mod certified;
mod layer;
mod local_users;
pub mod oidc;
mod refusals;
mod tls;
mod verifiers;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use sqlflow_identity::{Caller, Policy, Principal, local_user};
use tonic::Status;

pub use audit::{Action, ModelAction, Right, Via, audit, audit_list, audit_model};
pub use certified::CertifiedStream;
pub use layer::AccessLayer;
pub(crate) use layer::PROBES;
pub use local_users::LocalUsers;
pub use refusals::Refusals;
pub use tls::{CertificateReloads, handshake};
pub use verifiers::{KubernetesTokens, TokenVerifier, Tokens};

/// Finds out who calls.
#[derive(Clone)]
pub struct Access {
    policy: Arc<Policy>,
    verifiers: Arc<[Box<dyn TokenVerifier>]>,
    /// Users of this machine.
    pub local_users: Arc<LocalUsers>,
    /// The user of this server.
    pub own_user: Arc<Principal>,
    /// Refused requests, for the audit log.
    pub refusals: Refusals,
}

/// The other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Who it is, as far as the connection itself shows it.
    pub principal: Option<Principal>,
    /// Its address; `None`: it came through the socket.
    pub address: Option<IpAddr>,
}

/// Why a caller is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Its bearer token is not valid.
    Token,
    /// The same, with the cause and what can be done.
    Wrong(String),
    /// Nothing is known of it.
    Anonymous,
    /// It may not use this server.
    NotAllowed(String),
    /// The provider of its token does not answer.
    Unavailable(String),
}

impl Access {
    /// With these rules, and these verifiers of bearer tokens in this order.
    #[must_use]
    pub fn new(policy: Policy, verifiers: Vec<Box<dyn TokenVerifier>>) -> Self {
        Self {
            policy: Arc::new(policy),
            verifiers: verifiers.into(),
            local_users: Arc::default(),
            own_user: Arc::new(local_user::own()),
            refusals: Refusals::default(),
        }
    }

    /// Whether tokens can be verified.
    #[must_use]
    pub fn has_verifiers(&self) -> bool {
        !self.verifiers.is_empty()
    }

    /// The caller that shows this bearer token, or whose connection is this principal's.
    ///
    /// # Errors
    /// The token is not valid, or cannot be verified now. A wrong token is never ignored: its owner would become
    /// somebody else.
    pub async fn caller(&self, bearer: Option<&str>, peer: Option<&Principal>) -> Result<Caller, Refused> {
        let Some(token) = bearer else { return Ok(self.policy.caller(peer.cloned())) };
        for verifier in &*self.verifiers {
            if let Some(principal) = verifier.principal(token).await? {
                return Ok(self.policy.caller(Some(principal)));
            }
        }
        Err(Refused::Token)
    }

    /// The caller with an identity that was verified before.
    #[must_use]
    pub fn caller_of(&self, principal: Principal) -> Caller {
        self.policy.caller(Some(principal))
    }

    /// The rules.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

impl Access {
    /// The principal of an entry of the token file, by its name and the SHA-256 of its token, if it is still there.
    #[must_use]
    pub fn entry(&self, name: &str, is_right: &dyn Fn(&[u8; 32]) -> bool) -> Option<Principal> {
        self.verifiers.iter().find_map(|verifier| verifier.entry(name, is_right))
    }
}

/// Refuses a caller that may not use the server.
///
/// # Errors
/// It is not known, or not allowed.
pub fn allowed(caller: &Caller) -> Result<&Caller, Refused> {
    match caller.principal() {
        _ if caller.is_allowed() => Ok(caller),
        Some(principal) => Err(Refused::NotAllowed(principal.name().to_owned())),
        None => Err(Refused::Anonymous),
    }
}

/// Whether a host, without its port and in lower case, is a name or an address of this machine only.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|it| it.is_loopback())
}

/// The token of an `Authorization` header. Of one that has another form, or of several, it is empty, and so refused: an
/// identity is never ignored.
#[must_use]
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let value = values.next()?;
    let of_one = || {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    if values.next().is_some() { Some("") } else { of_one().or(Some("")) }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token => f.write_str(
                "the access token is not valid here: it is unknown, has expired, or is for another server; log in again",
            ),
            Self::Wrong(why) => write!(f, "the access token is not valid here: {why}"),
            Self::Anonymous => f.write_str(
                "the server cannot tell who calls; send an access token (SQLFLOW_ACCESS_TOKEN), or connect with a \
                 client certificate",
            ),
            Self::NotAllowed(name) => {
                write!(f, "{name} may not use this server; its operator allows it with --allow {name}")
            }
            Self::Unavailable(why) => write!(f, "the access token cannot be verified now: {why}; try again"),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let message = format!("cannot serve this call: {refused}");
        match refused {
            Refused::Token | Refused::Wrong(_) | Refused::Anonymous => Self::unauthenticated(message),
            Refused::NotAllowed(_) => Self::permission_denied(message),
            Refused::Unavailable(_) => Self::unavailable(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use sqlflow_identity::Method;

    use super::*;

    /// Knows `name.` plus the name.
    struct Names;

    #[async_trait]
    impl TokenVerifier for Names {
        async fn principal(&self, token: &str) -> Result<Option<Principal>, Refused> {
            match token {
                "down" => Err(Refused::Unavailable("it is down".to_owned())),
                "late" => Err(Refused::Wrong("it expired; get a new one".to_owned())),
                _ => Ok(token.strip_prefix("name.").map(|name| Principal::new(Method::Token, name))),
            }
        }
    }

    fn access() -> Access {
        let allowed = vec!["token:*".parse().unwrap(), "unix:ana".parse().unwrap()];
        let policy = Policy { allowed, ..Policy::default() };
        Access::new(policy, vec![Box::new(Names)])
    }

    #[tokio::test]
    async fn token_wins_over_the_connection_and_a_wrong_one_is_refused() {
        let (access, ana) = (access(), Principal::new(Method::Unix, "ana"));
        let caller = async |token| access.caller(token, Some(&ana)).await;
        assert_eq!(caller(None).await.unwrap().name(), "unix:ana");
        assert_eq!(caller(Some("name.bob")).await.unwrap().name(), "token:bob");
        assert_eq!(caller(Some("x")).await, Err(Refused::Token));
        assert_eq!(caller(Some("")).await, Err(Refused::Token));
        assert_eq!(Status::from(caller(Some("down")).await.unwrap_err()).code(), tonic::Code::Unavailable);
        let late = Status::from(caller(Some("late")).await.unwrap_err());
        assert_eq!(late.code(), tonic::Code::Unauthenticated);
        assert!(late.message().ends_with("not valid here: it expired; get a new one"), "{late:?}");
    }

    #[tokio::test]
    async fn unknown_and_unlisted_callers_are_not_allowed() {
        let access = access();
        let nobody = access.caller(None, None).await.unwrap();
        assert_eq!(allowed(&nobody), Err(Refused::Anonymous));
        let eve = access.caller(None, Some(&Principal::new(Method::Unix, "eve"))).await.unwrap();
        let refused = allowed(&eve).unwrap_err();
        assert_eq!(Status::from(refused.clone()).code(), tonic::Code::PermissionDenied);
        assert!(refused.to_string().contains("--allow unix:eve"), "{refused}");
    }

    #[test]
    fn bearer_is_read_from_its_header() {
        let of = |text: &str| {
            let value = http::HeaderValue::from_str(text).unwrap();
            let headers = http::HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer x").as_deref(), Some("x"));
        assert_eq!(of("bearer  x ").as_deref(), Some("x"));
        assert_eq!(of("Basic x").as_deref(), Some(""), "it is refused");
        assert_eq!(of("Bearer ä").as_deref(), Some(""));
        let two = ["Basic x", "Bearer y"].map(|it| (http::header::AUTHORIZATION, it.parse().unwrap()));
        assert_eq!(bearer(&http::HeaderMap::from_iter(two)), Some(""));
        assert_eq!(bearer(&http::HeaderMap::new()), None);
        assert_eq!(of("Bearer").as_deref(), Some(""), "it is refused");
    }
}
