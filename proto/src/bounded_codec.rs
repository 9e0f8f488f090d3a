//! Codec of the generated services. A message from an agent is measured before it is decoded: its bytes may stand for far
//! more memory, such as two bytes for an empty record.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::{Buf as _, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};

use crate::agent::AttachRequest;
use crate::decoded_size;
use crate::sized_encoder::SizedEncoder;

/// Maximum length of an agent's first message, its Hello.
pub const MAX_FIRST_MESSAGE: usize = 16 << 10;

/// Codec of the generated services.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SizedEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        SizedEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder { is_first: true, of: PhantomData }
    }
}

/// Decoder of the messages of one call.
#[derive(Debug)]
pub struct BoundedDecoder<U> {
    is_first: bool,
    of: PhantomData<U>,
}

impl<U: Message + Default + 'static> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The message is whole, and stays where it is.
        let raw = buffer.copy_to_bytes(buffer.remaining());
        let is_first = std::mem::replace(&mut self.is_first, false);
        if TypeId::of::<U>() == TypeId::of::<AttachRequest>() {
            check(&raw, is_first)?;
        }
        U::decode(raw).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Checks a message of an agent.
fn check(raw: &Bytes, is_first: bool) -> Result<(), Status> {
    if is_first && raw.len() > MAX_FIRST_MESSAGE {
        return Err(Status::resource_exhausted(format!(
            "cannot read the first message: it has {} bytes, and a Hello has at most {MAX_FIRST_MESSAGE}",
            raw.len()
        )));
    }
    decoded_size::check_request(raw).map_err(|error| Status::resource_exhausted(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_message_of_an_agent_is_short() {
        let raw = Bytes::from(vec![0; MAX_FIRST_MESSAGE + 1]);
        let error = check(&raw, true).unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
        assert!(error.message().contains("at most 16384"), "{error}");
    }
}
