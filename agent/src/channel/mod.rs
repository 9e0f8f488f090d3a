//! The submitter channel: frames over a socket pair, each preceded by its length as a varint.
//!
//! `codec` decodes frames of the submitter, `replies` writes those of the agent.

pub mod codec;
pub mod replies;
