//! Idempotency of Run with a request id: the token is derived from the id, so a repeated Run returns the same token.
//! Only the token's hash and a hash of the request are stored, both keyed by a secret of the state folder.

use sqlflow_job::Token;
use sqlflow_job_store::RequestHash;
use sqlflow_proto::v1;
use tonic::Status;

use crate::web::Links;

/// Minimum length: shorter ids could be guessed, and a client with the id gets the token.
const MIN_CHARACTERS: usize = 16;
const MAX_CHARACTERS: usize = 64;

/// A request with an id.
pub(super) struct NamedRequest {
    /// The token of its job.
    pub(super) token: Token,
    /// Hash of the request.
    pub(super) hash: RequestHash,
}

impl NamedRequest {
    /// The request with its id, if it has one. `principal` is who sends it, unless that is the server's own user: their
    /// requests are also known to servers that knew no others.
    pub(super) fn of(
        request: &v1::Request,
        principal: Option<&str>,
        links: &Links,
    ) -> Result<Option<Self>, Status> {
        let id = request.request_id.as_str();
        if id.is_empty() {
            return Ok(None);
        }
        let is_printable = id.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_printable || !(MIN_CHARACTERS..=MAX_CHARACTERS).contains(&id.len()) {
            return Err(Status::invalid_argument(format!(
                "cannot run the program: request_id must have {MIN_CHARACTERS} to {MAX_CHARACTERS} printable ASCII \
                 characters; use a random UUID"
            )));
        }
        let default = v1::Session::default();
        let session = request.session.as_ref().unwrap_or(&default);
        let user = session.user_id.as_bytes();
        let who = principal.map(str::as_bytes);
        let parts: Vec<&[u8]> = who.into_iter().chain([user, id.as_bytes()]).collect();
        let token = links.derive("run token", &parts);
        let (bits, _) = token.split_first_chunk().expect("16 of 32 bytes");
        let timeout = session.fetch_timeout_seconds.map_or(String::new(), |it| it.to_string());
        let asked = [user, request.sql.as_bytes(), session.db_conn_str.as_bytes(), timeout.as_bytes()];
        let hash = RequestHash(links.derive("run request", &asked));
        Ok(Some(Self { token: Token::of_bits(u128::from_be_bytes(*bits)), hash }))
    }
}

/// The error for an id that was used for another request.
pub(super) fn conflict() -> Status {
    Status::already_exists(
        "cannot run the program: this request_id was used for another program or session; use a new request_id \
         for each program",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0b0c8f5e-5d5c-4f0e-9d0a-3c1f6f0f7a11";

    fn request(id: &str, user: &str, sql: &str) -> v1::Request {
        let session = v1::Session { user_id: user.to_owned(), ..v1::Session::default() };
        v1::Request { sql: sql.to_owned(), session: Some(session), request_id: id.to_owned() }
    }

    #[test]
    fn token_depends_on_id_and_user_and_hash_on_the_request() {
        let dir = tempfile::tempdir().unwrap();
        let links = Links::open(&dir.path().join("a.key"), "", std::time::Duration::from_secs(60)).unwrap();
        let named = |id, user, sql| NamedRequest::of(&request(id, user, sql), None, &links).unwrap().unwrap();
        let (first, same) = (named(ID, "ada", "SELECT 1"), named(ID, "ada", "SELECT 1"));
        assert!(first.token == same.token && first.hash == same.hash);
        let other = named(ID, "ada", "SELECT 2");
        assert!(first.token == other.token && first.hash != other.hash);
        assert!(first.token != named(ID, "grace", "SELECT 1").token);
        assert!(first.token != named(&ID[1..], "ada", "SELECT 1").token);
        let of_another =
            NamedRequest::of(&request(ID, "ada", "SELECT 1"), Some("unix:eve"), &links).unwrap().unwrap();
        assert!(first.token != of_another.token, "the id alone is no right to another principal's job");
        let elsewhere =
            Links::open(&dir.path().join("b.key"), "", std::time::Duration::from_secs(60)).unwrap();
        let there = NamedRequest::of(&request(ID, "ada", "SELECT 1"), None, &elsewhere).unwrap().unwrap();
        assert!(first.token != there.token, "who has the id and not the key has no token");
    }

    #[test]
    fn short_or_invalid_request_id_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let links = Links::open(&dir.path().join("a.key"), "", std::time::Duration::from_secs(60)).unwrap();
        assert!(NamedRequest::of(&request("", "ada", "SELECT 1"), None, &links).unwrap().is_none());
        for wrong in ["15-characters-x", &"x".repeat(65), "sixteen and space", "ümläut-ümläut-ümläut"] {
            let refused = NamedRequest::of(&request(wrong, "ada", "SELECT 1"), None, &links).err().unwrap();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{wrong}");
        }
    }
}
