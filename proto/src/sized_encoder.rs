//! The encoder of gRPC messages.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{EncodeBuf, Encoder};

/// As that of `tonic_prost`, but the buffer has room for the whole message before it is encoded. Growing step by step would
/// copy a page of rows several times.
#[derive(Debug, Clone)]
pub struct SizedEncoder<T>(PhantomData<T>);

impl<T> Default for SizedEncoder<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message> Encoder for SizedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        // The length is known, so it is not checked again.
        item.encode_raw(buffer);
        Ok(())
    }
}
