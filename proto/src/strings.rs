//! Texts of a column (`sqlflow.v1.Strings`), without an allocation for each.

use std::fmt;
use std::ops::Index;

use bytes::{Buf, BufMut};
use prost::encoding::{
    DecodeContext, WireType, decode_varint, encode_key, encode_varint, encoded_len_varint, skip_field, string,
};
use prost::{DecodeError, Message};

const VALUES: u32 = 1;

/// Strings are texts, one for each row.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Strings {
    /// All texts, one after the other.
    text: String,
    /// The end of each.
    ends: Vec<usize>,
}

impl Strings {
    /// Number of texts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a text.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// The texts, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|row| &self[row])
    }
}

impl Index<usize> for Strings {
    type Output = str;

    fn index(&self, row: usize) -> &str {
        let begin = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[begin..self.ends[row]]
    }
}

impl<T: AsRef<str>> FromIterator<T> for Strings {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut strings = Self::default();
        texts.into_iter().for_each(|text| strings.push(text.as_ref()));
        strings
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.iter()).finish()
    }
}

impl Message for Strings {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        for text in self.iter() {
            encode_key(VALUES, WireType::LengthDelimited, buffer);
            encode_varint(text.len() as u64, buffer);
            buffer.put_slice(text.as_bytes());
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != VALUES {
            return skip_field(wire_type, tag, buffer, context);
        }
        if wire_type == WireType::LengthDelimited
            && let Some((text, length)) = front(buffer.chunk())
        {
            self.push(text);
            buffer.advance(length);
            return Ok(());
        }
        // Malformed, or in several pieces.
        let mut text = String::new();
        string::merge(wire_type, &mut text, buffer, context)?;
        self.push(&text);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.iter().map(|text| 1 + encoded_len_varint(text.len() as u64) + text.len()).sum()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

/// The text with which some bytes begin, after its length, and the number of bytes of both.
fn front(bytes: &[u8]) -> Option<(&str, usize)> {
    let mut rest = bytes;
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    let text = std::str::from_utf8(rest.get(..length)?).ok()?;
    Some((text, bytes.len() - rest.len() + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As prost generates it.
    #[derive(Clone, PartialEq, Message)]
    struct Generated {
        #[prost(string, repeated, tag = "1")]
        values: Vec<String>,
    }

    fn generated() -> Generated {
        Generated { values: vec!["é".to_owned(), String::new(), "x".repeat(300), "last".to_owned()] }
    }

    #[test]
    fn texts_are_those_of_the_generated_message() {
        let strings: Strings = generated().values.into_iter().collect();
        let bytes = generated().encode_to_vec();
        assert_eq!(strings.encode_to_vec(), bytes);
        assert_eq!(Strings::decode(&bytes[..]).unwrap(), strings);
        for cut in 0..=bytes.len() {
            let pieces = bytes[..cut].chain(&bytes[cut..]);
            assert_eq!(Strings::decode(pieces).unwrap(), strings, "in pieces of {cut}");
        }
        assert!((&strings[1], &strings[3], strings.len()) == ("", "last", 4));
    }

    #[test]
    fn malformed_texts_are_errors_as_in_the_generated_message() {
        let bytes = generated().encode_to_vec();
        for place in 0..bytes.len() {
            for byte in [0, 1, 8, 9, 0x0a, 0x12, 0x7f, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[place] = byte;
                let expected = Generated::decode(&damaged[..]).map(|it| it.values.into_iter().collect());
                assert_eq!(Strings::decode(&damaged[..]).ok(), expected.ok(), "{byte} at {place}");
            }
        }
    }
}
