//! Seals of what a local agent leaves in its run folder for a server that comes later: the outcome and the spool. Any
//! program of the user can write there, so a server believes only what has the agent's seal.
//!
//! The key is the hash of the agent's instance key. The agent has it in its memory, which is closed to other programs,
//! and the servers have it in their state. So a seal proves nothing against a program that can read the state folder;
//! that could change the job's state itself.

use std::fmt;
use std::io::{self, Write};

use ring::digest::{SHA256, digest};
use ring::hmac;

/// Data of the spool between two tags, in bytes; the last block is shorter.
pub const BLOCK: usize = 64 << 10;
/// Length of a tag.
pub const TAG: usize = 32;
/// Beginning of a sealed spool. No record has length 0.
pub const SPOOL_MAGIC: [u8; 8] = *b"\0sealed1";

/// Number of the field `seal` of the message `Outcome`. It is the last one of the file.
const OUTCOME_FIELD: u32 = 18;

/// The key of one agent's seals.
#[derive(Clone)]
pub struct Seal(hmac::Key);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// That of an agent with this instance key.
    #[must_use]
    pub fn of_instance(key: &[u8]) -> Self {
        Self::of_hash(&hex::encode(digest(&SHA256, key)))
    }

    /// That of an agent whose instance key has this SHA-256, in hexadecimal.
    #[must_use]
    pub fn of_hash(hash: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, hash.as_bytes()))
    }

    /// Adds the seal to an encoded outcome without one.
    #[must_use]
    pub fn sealed_outcome(&self, mut encoded: Vec<u8>) -> Vec<u8> {
        let tag = self.tag(b"outcome", &encoded);
        let tag: Vec<u8> = tag.as_ref().to_vec();
        prost::encoding::bytes::encode(OUTCOME_FIELD, &tag, &mut encoded);
        encoded
    }

    /// Whether an encoded outcome has this seal.
    #[must_use]
    pub fn is_of_outcome(&self, sealed: &[u8]) -> bool {
        let tag = vec![0; TAG];
        let length = prost::encoding::bytes::encoded_len(OUTCOME_FIELD, &tag);
        sealed.len() >= length && self.sealed_outcome(sealed[..sealed.len() - length].to_vec()) == sealed
    }

    /// Whether this is the tag of a block of the spool; the first one has number 0.
    #[must_use]
    pub fn is_of_block(&self, number: u64, data: &[u8], tag: &[u8]) -> bool {
        self.block_tag(number, data).as_ref() == tag
    }

    fn block_tag(&self, number: u64, data: &[u8]) -> hmac::Tag {
        let mut what = b"spool".to_vec();
        what.extend(number.to_be_bytes());
        self.tag(&what, data)
    }

    fn tag(&self, what: &[u8], data: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(what);
        context.update(data);
        context.sign()
    }
}

/// Writes a spool with tags. Without a seal, it writes what it gets.
pub struct SpoolWriter<'a, W: Write> {
    file: &'a mut W,
    seal: Option<&'a Seal>,
    block: Vec<u8>,
    blocks: u64,
}

impl<'a, W: Write> SpoolWriter<'a, W> {
    /// Begins a spool.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(file: &'a mut W, seal: Option<&'a Seal>) -> io::Result<Self> {
        if seal.is_some() {
            file.write_all(&SPOOL_MAGIC)?;
        }
        Ok(Self { file, seal, block: Vec::new(), blocks: 0 })
    }

    /// Writes the last block.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        if self.block.is_empty() { Ok(()) } else { self.write_block() }
    }

    fn write_block(&mut self) -> io::Result<()> {
        if let Some(seal) = self.seal {
            let tag = seal.block_tag(self.blocks, &self.block);
            self.block.extend(tag.as_ref());
            self.file.write_all(&self.block)?;
        }
        self.block.clear();
        self.blocks += 1;
        Ok(())
    }
}

impl<W: Write> Write for SpoolWriter<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.seal.is_none() {
            return self.file.write(data);
        }
        let taken = data.len().min(BLOCK - self.block.len());
        self.block.extend(&data[..taken]);
        if self.block.len() == BLOCK {
            self.write_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_outcome_has_no_seal() {
        let seal = Seal::of_instance(b"key");
        let sealed = seal.sealed_outcome(b"outcome".to_vec());
        assert!(sealed.starts_with(b"outcome") && seal.is_of_outcome(&sealed));
        assert!(!Seal::of_instance(b"other").is_of_outcome(&sealed));
        assert!(!seal.is_of_outcome(b"outcome") && !seal.is_of_outcome(b""));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(!seal.is_of_outcome(&changed), "{place}");
        }
    }

    #[test]
    fn spool_is_written_in_blocks_with_tags() {
        let (seal, data) = (Seal::of_hash("00"), vec![7; BLOCK + 10]);
        let write = |seal| {
            let mut file = Vec::new();
            let mut writer = SpoolWriter::begin(&mut file, seal).unwrap();
            writer.write_all(&data[..5]).unwrap();
            writer.write_all(&data[5..]).unwrap();
            writer.finish().unwrap();
            file
        };
        assert_eq!(write(None), data);
        let sealed = write(Some(&seal));
        let rest = sealed.strip_prefix(&SPOOL_MAGIC).unwrap();
        let (first, second) = rest.split_at(BLOCK + TAG);
        assert!(seal.is_of_block(0, &first[..BLOCK], &first[BLOCK..]));
        assert!(seal.is_of_block(1, &second[..10], &second[10..]));
        assert!(!seal.is_of_block(0, &second[..10], &second[10..]), "blocks have an order");
    }
}
