//! Parser of HTTP/2 frames in a connection's bytes, in pieces of any size.

/// First bytes of an HTTP/2 client.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// Bytes of a PING frame.
pub(super) const PING_BYTES: usize = HEADER_BYTES + 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) stream: u32,
}

/// The relevant content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Data {
        /// Ends the stream.
        ends: bool,
    },
    Headers {
        /// Ends the stream. Headers that continue in another frame do not count: nothing may be written between the
        /// two.
        ends: bool,
    },
    Reset,
    /// A PING with its payload.
    Ping([u8; 8]),
    /// An acknowledgement, with the payload of the PING.
    PingAck([u8; 8]),
    GoAway,
    Other,
}

impl Frame {
    /// Whether it is the last frame of its stream.
    pub(super) fn ends_stream(&self) -> bool {
        match self.kind {
            FrameKind::Data { ends } | FrameKind::Headers { ends } => ends,
            FrameKind::Reset => true,
            FrameKind::Ping(_) | FrameKind::PingAck(_) | FrameKind::GoAway | FrameKind::Other => false,
        }
    }

    /// A PING that asks for an acknowledgement.
    pub(super) fn ping(payload: [u8; 8]) -> [u8; PING_BYTES] {
        let mut frame = [0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[HEADER_BYTES..].copy_from_slice(&payload);
        frame
    }

    fn of(header: &[u8; HEADER_BYTES], payload: [u8; 8]) -> Self {
        let [_, _, _, kind, flags, stream @ ..] = *header;
        let has = |all: u8| flags & all == all;
        let kind = match kind {
            0 => FrameKind::Data { ends: has(END_STREAM) },
            1 => FrameKind::Headers { ends: has(END_STREAM | END_HEADERS) },
            3 => FrameKind::Reset,
            6 if has(ACK) => FrameKind::PingAck(payload),
            6 => FrameKind::Ping(payload),
            7 => FrameKind::GoAway,
            _ => FrameKind::Other,
        };
        Self { kind, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) }
    }
}

/// Position in one direction of a connection.
#[derive(Debug, Clone)]
pub(super) struct FrameWatch {
    /// Number of bytes of the preface so far.
    preface: usize,
    /// Not HTTP/2, so there are no frames.
    is_foreign: bool,
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// The beginning of the payload.
    payload: [u8; 8],
    /// Number of payload bytes so far.
    met: usize,
}

impl FrameWatch {
    /// Parser of the bytes that a client sends.
    pub(super) fn of_client() -> Self {
        Self { preface: 0, is_foreign: false, header: [0; HEADER_BYTES], filled: 0, payload: [0; 8], met: 0 }
    }

    /// Parser of the bytes that a server sends.
    pub(super) fn of_server() -> Self {
        Self { preface: PREFACE.len(), ..Self::of_client() }
    }

    /// Consumes bytes up to the end of the next frame, or all of them.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        loop {
            if self.filled == HEADER_BYTES {
                let [high, middle, low, ..] = self.header;
                let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                let (part, rest) = bytes.split_at((length - self.met).min(bytes.len()));
                for (byte, at) in part.iter().zip(self.met..self.payload.len()) {
                    self.payload[at] = *byte;
                }
                self.met += part.len();
                *bytes = rest;
                if self.met < length {
                    return None;
                }
                let frame = Frame::of(&self.header, self.payload);
                (self.filled, self.met, self.payload) = (0, 0, [0; 8]);
                return Some(frame);
            }
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            if self.is_foreign {
                *bytes = &[];
            } else if self.preface < PREFACE.len() {
                self.is_foreign = byte != PREFACE[self.preface];
                self.preface += 1;
            } else {
                self.header[self.filled] = byte;
                self.filled += 1;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags], &stream.to_be_bytes()[..], payload].concat()
    }

    fn seen(bytes: &[u8], piece: usize) -> Vec<Frame> {
        let (mut watch, mut found) = (FrameWatch::of_client(), Vec::new());
        for mut part in bytes.chunks(piece) {
            while let Some(frame) = watch.next(&mut part) {
                found.push(frame);
            }
        }
        found
    }

    #[test]
    fn frames_are_parsed_from_pieces_of_any_size() {
        let settings = frame(4, 0, 0, &[]);
        // A payload that looks like a frame.
        let data = frame(0, 0, 1, &frame(3, 0, 1, &[0; 4]));
        let ack = frame(6, 1, 0, b"12345678");
        let bytes = [
            PREFACE,
            &settings,
            &data,
            &frame(3, 0, 1, &[0, 0, 0, 8]),
            &ack,
            &frame(1, 5, 3, &[0]),
            &frame(7, 0, 0, &[0; 8]),
        ]
        .concat();
        let kinds = [
            (FrameKind::Other, 0),
            (FrameKind::Data { ends: false }, 1),
            (FrameKind::Reset, 1),
            (FrameKind::PingAck(*b"12345678"), 0),
            (FrameKind::Headers { ends: true }, 3),
            (FrameKind::GoAway, 0),
        ];
        let expected = kinds.map(|(kind, stream)| Frame { kind, stream });
        for piece in 1..=bytes.len() {
            assert_eq!(seen(&bytes, piece), expected, "in pieces of {piece}");
        }
        assert_eq!(seen(b"GET / HTTP/1.1\r\n\r\n\x07\x07\x07", 5), []);
    }
}
