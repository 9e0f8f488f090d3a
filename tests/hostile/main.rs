//! Attacks on a server, and what each of them gets. `docs/security.md` names the test of each promise.
//!
//! They need root, to become another user of this machine.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod after_review;
mod agents_port;
mod audit;
mod data_sources;
mod default_socket;
mod documented;
mod floods;
mod models;
mod models_of_others;
mod oidc;
mod other_principal;
mod other_user;
mod pages;
mod pods;
mod python_text;
mod remote;
mod tls;
mod unread_answers;
