//! The submitter channel: frames of the child's library, over a socket pair, each preceded by its length as a varint.
//!
//! `codec` cuts the bytes into frames, `answers` writes the agent's side.

pub mod answers;
pub mod codec;
