//! A whole file, read block by block where the disk has unreadable blocks. A repair keeps the bytes before and after
//! them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::LogError;
use super::file_io;
use super::folder;

/// Block size of the page cache, and of most file systems.
const BLOCK: usize = 4096;

/// Content of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// The bytes; unreadable ones are zeros.
    pub(super) bytes: Bytes,
    /// Range from the first to the last unreadable byte. It is empty if the file cannot be opened.
    pub(super) unreadable: Option<Range<usize>>,
}

impl Contents {
    /// Reads the whole file.
    pub(super) fn read(path: &Path) -> Result<Self, LogError> {
        match folder::open(path) {
            Ok((file, length)) => read_blocks(
                length.try_into().expect("a segment fits in memory"),
                |buffer, offset| file_io::read_at(&file, buffer, offset),
                || forget_cached(&file),
            )
            .map_err(LogError::io("read", path)),
            Err(LogError::Corrupt { .. }) => Ok(Self { bytes: Bytes::new(), unreadable: Some(0..0) }),
            Err(error) => Err(error),
        }
    }

    /// The bytes before the first unreadable one.
    pub(super) fn beginning(&self) -> Bytes {
        match &self.unreadable {
            Some(unreadable) => self.bytes.slice(..unreadable.start),
            None => self.bytes.clone(),
        }
    }
}

/// Reads `length` bytes, or fewer at the end of the file. After the first error it calls `on_error` and reads one block
/// at a time.
fn read_blocks(
    length: usize,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    on_error: impl FnOnce(),
) -> io::Result<Contents> {
    let mut buffer = vec![0; length];
    let mut unreadable: Option<Range<usize>> = None;
    let mut on_error = Some(on_error);
    let mut at = 0;
    while at < length {
        let block_end = ((at / BLOCK + 1) * BLOCK).min(length);
        let end = if on_error.is_some() { length } else { block_end };
        match read(&mut buffer[at..end], at as u64) {
            Ok(0) => break,
            Ok(count) => at += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if file_io::is_unreadable(&error) => match on_error.take() {
                Some(on_error) => on_error(),
                None => {
                    // A failed call may have changed its buffer.
                    buffer[at..block_end].fill(0);
                    let start = unreadable.map_or(at, |it| it.start);
                    unreadable = Some(start..block_end);
                    at = block_end;
                }
            },
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(at);
    Ok(Contents { bytes: buffer.into(), unreadable })
}

/// Makes the kernel read single pages. A larger unit is unreadable as a whole.
fn forget_cached(file: &File) {
    // If it fails, more bytes than necessary are lost, and nothing else happens.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    /// A file of 10,000 bytes, of which some cannot be read.
    fn read(bad: impl IntoIterator<Item = (usize, usize)>) -> Contents {
        let bad: Vec<Range<usize>> = bad.into_iter().map(|(start, end)| start..end).collect();
        let whole: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0] | 1).collect();
        let read = |buffer: &mut [u8], offset: u64| {
            let at = usize::try_from(offset).unwrap();
            if bad.iter().any(|it| it.contains(&at)) {
                buffer.fill(9);
                return Err(Errno::EIO.into());
            }
            let end = bad.iter().map(|it| it.start).filter(|it| *it > at).min().unwrap_or(whole.len());
            // A file system may return fewer bytes than requested.
            let count = buffer.len().min(end - at).min(3000);
            buffer[..count].copy_from_slice(&whole[at..][..count]);
            Ok(count)
        };
        let contents = read_blocks(whole.len(), read, || {}).unwrap();
        assert_eq!(contents.bytes.len(), whole.len());
        let is_lost = |at| {
            bad.iter().any(|it| {
                let block = it.start / BLOCK * BLOCK;
                it.start <= at && at < (block + BLOCK).max(it.end)
            })
        };
        for (at, byte) in contents.bytes.iter().enumerate() {
            assert_eq!(*byte, if is_lost(at) { 0 } else { whole[at] }, "at {at}");
        }
        contents
    }

    #[test]
    fn unreadable_blocks_become_zeros() {
        assert_eq!(read([]).unreadable, None);
        assert_eq!(read([]).beginning().len(), 10_000);
        let middle = read([(4096, 8192)]);
        assert_eq!((middle.unreadable.clone(), middle.beginning().len()), (Some(4096..8192), 4096));
        assert_eq!(read([(0, 4096)]).unreadable, Some(0..4096));
        assert_eq!(read([(0, 4096), (8192, 10_000)]).unreadable, Some(0..10_000));
        assert_eq!(read([(5000, 5001)]).unreadable, Some(5000..8192), "the rest of the block is not tried");
    }

    #[test]
    fn transient_error_is_returned() {
        let failed = |error: Errno| {
            read_blocks(10, move |_, _| Err(error.into()), || {}).err().and_then(|it| it.raw_os_error())
        };
        for error in [Errno::ENOMEM, Errno::EMFILE, Errno::EAGAIN] {
            assert_eq!(failed(error), Some(error as i32));
        }
        assert_eq!(failed(Errno::EIO), None);
    }

    #[test]
    fn interrupted_read_is_retried() {
        let mut errors = vec![Errno::EINTR, Errno::EINTR];
        let read = |buffer: &mut [u8], _: u64| match errors.pop() {
            Some(error) => Err(error.into()),
            None => {
                buffer.fill(1);
                Ok(buffer.len())
            }
        };
        assert_eq!(read_blocks(10, read, || {}).unwrap().unreadable, None);
        assert_eq!(read_blocks(10, |_, _| Ok(0), || {}).unwrap().bytes, Bytes::new(), "it is shorter now");
    }
}
