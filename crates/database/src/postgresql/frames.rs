//! Frames of PostgreSQL's protocol: a tag, a length and a body.

use std::io::{self, Read};

/// Maximum length of a frame: a row, for example.
pub(super) const MAX_FRAME: usize = crate::batcher::MAX_ROW;
/// Maximum length before the server has authenticated the user, and perhaps itself.
pub(super) const MAX_FIRST_FRAMES: usize = 64 << 10;
/// Length of the tag and the length.
const HEADER: usize = 5;
/// Size of the buffer, unless a frame is longer.
const BUFFER: usize = 128 << 10;

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

/// Why no frame can be read.
#[derive(Debug)]
pub(super) enum FrameError {
    /// The connection is lost.
    Io(io::Error),
    /// The server has closed the connection.
    Closed,
    /// The server sent something else than a frame.
    Malformed,
    /// The frame has more bytes than the limit.
    TooLong(usize),
}

/// Reads frames through a buffer, which grows only as the bytes of a long frame arrive.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    limit: usize,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; BUFFER], start: 0, end: 0, limit: MAX_FIRST_FRAMES }
    }

    /// Sets the maximum length of a body.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether the next frame has arrived.
    pub(super) fn has_next(&self) -> bool {
        let bytes = &self.buffer[self.start..self.end];
        let length =
            bytes.first_chunk::<HEADER>().map(|[_, a, b, c, d]| u32::from_be_bytes([*a, *b, *c, *d]));
        length.is_some_and(|length| bytes.len() > length as usize)
    }

    /// The next frame.
    pub(super) fn next(&mut self, stream: &mut impl Read) -> Result<Frame<'_>, FrameError> {
        self.fill(stream, HEADER)?;
        let header = self.buffer[self.start..].first_chunk::<HEADER>();
        let [tag, a, b, c, d] = *header.ok_or(FrameError::Malformed)?;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        // The length includes itself.
        let body = length.checked_sub(4).ok_or(FrameError::Malformed)?;
        if body > self.limit {
            return Err(FrameError::TooLong(body));
        }
        self.fill(stream, HEADER + body)?;
        let begin = self.start + HEADER;
        self.start = begin + body;
        Ok(Frame { tag, body: &self.buffer[begin..begin + body] })
    }

    /// Reads until there are so many bytes.
    fn fill(&mut self, stream: &mut impl Read, wanted: usize) -> Result<(), FrameError> {
        while self.end - self.start < wanted {
            self.make_room(wanted);
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(FrameError::Closed),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // TLS without a proper end.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(FrameError::Closed),
                Err(error) => return Err(FrameError::Io(error)),
            }
        }
        Ok(())
    }

    fn make_room(&mut self, wanted: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if wanted <= BUFFER && self.buffer.len() > BUFFER {
                self.buffer.truncate(BUFFER);
                self.buffer.shrink_to_fit();
            }
        } else if self.start > 0 && self.start + wanted > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize((self.buffer.len() * 2).min(self.start + wanted), 0);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A connection whose reads return these numbers of bytes, in turn.
    pub(in super::super) struct Pieces<'a> {
        pub(in super::super) bytes: &'a [u8],
        pub(in super::super) sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.sizes.next().unwrap().min(buffer.len()).min(self.bytes.len());
            buffer[..size].copy_from_slice(&self.bytes[..size]);
            self.bytes = &self.bytes[size..];
            Ok(size)
        }
    }

    pub(in super::super) fn pieces(bytes: &[u8], sizes: Vec<usize>) -> Pieces<'_> {
        Pieces { bytes, sizes: sizes.into_iter().cycle() }
    }

    pub(in super::super) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn length_is_checked_before_the_body_is_read() {
        let header = |length: u32| [&b"D"[..], &length.to_be_bytes()[..]].concat();
        let error = |bytes: &[u8]| Frames::new().next(&mut &*bytes).unwrap_err();
        assert!(matches!(error(&header(3)), FrameError::Malformed));
        assert!(matches!(error(&header(0)), FrameError::Malformed));
        assert!(
            matches!(error(&header(u32::MAX)), FrameError::TooLong(length) if length == u32::MAX as usize - 4)
        );
        assert!(matches!(error(&header(5)), FrameError::Closed));
        assert!(matches!(error(b"D\0"), FrameError::Closed));
        assert!(matches!(error(b""), FrameError::Closed));
    }

    #[test]
    fn buffer_grows_with_the_bytes_and_shrinks() {
        let mut frames = Frames::new();
        frames.set_limit(MAX_FRAME);
        let liar = [&b"D"[..], &(60_u32 << 20).to_be_bytes()[..], &[0; 1000]].concat();
        assert!(matches!(frames.next(&mut &*liar), Err(FrameError::Closed)));
        assert_eq!(frames.buffer.len(), BUFFER);

        let mut frames = Frames::new();
        frames.set_limit(MAX_FRAME);
        let long = frame(b'D', &vec![7; 3 << 20]);
        let mut stream = pieces(&long, vec![100_000]);
        assert_eq!(frames.next(&mut stream).unwrap().body.len(), 3 << 20);
        assert!(frames.buffer.len() <= long.len());
        stream.bytes = b"Z\0\0\0\x05I";
        assert_eq!(frames.next(&mut stream).unwrap(), Frame { tag: b'Z', body: b"I" });
        assert_eq!(frames.buffer.len(), BUFFER);
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_the_bytes_arrive(
            bodies in proptest::collection::vec((any::<u8>(), 0..300_000_usize), 1..6),
            sizes in proptest::collection::vec(1..200_000_usize, 1..8),
        ) {
            let bodies: Vec<_> = bodies.iter().map(|(tag, size)| (*tag, vec![*tag; *size])).collect();
            let bytes: Vec<u8> = bodies.iter().flat_map(|(tag, body)| frame(*tag, body)).collect();
            let mut stream = pieces(&bytes, sizes);
            let mut frames = Frames::new();
            frames.set_limit(MAX_FRAME);
            for (tag, body) in &bodies {
                let has_next = frames.end - frames.start >= body.len() + HEADER;
                prop_assert_eq!(frames.has_next(), has_next);
                prop_assert_eq!(frames.next(&mut stream).unwrap(), Frame { tag: *tag, body });
            }
            prop_assert!(matches!(frames.next(&mut stream), Err(FrameError::Closed)));
        }
    }
}
