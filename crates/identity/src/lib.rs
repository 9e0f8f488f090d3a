//! Who calls a server, and what they may do there. A [`Principal`] is found by one of several methods; a [`Policy`]
//! decides. Nothing here knows gRPC or HTTP.

pub mod certificate;
pub mod local_user;
pub mod loopback;
mod policy;
mod principal;
pub mod token_file;

pub use policy::{ANONYMOUS, Caller, Pattern, PatternError, Policy};
pub use principal::{Method, Principal};
