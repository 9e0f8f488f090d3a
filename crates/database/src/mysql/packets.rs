//! Packets: a length of three bytes, a sequence number, and the payload. A longer payload continues in the next packet.
//!
//! Payloads are read in place from one buffer. Memory is bounded by the buffer and one row of [`MAX_ROW`] bytes.

use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::stream;
use crate::batcher::MAX_ROW;
use crate::stream::Stream;

/// Size of the buffer.
const BUFFER: usize = 256 << 10;
/// Length of a packet that continues in the next one.
const FULL: usize = 0xff_ffff;
/// Time after which a read that receives nothing returns, so that pending rows are sent and a cancellation is seen.
const TICK: Duration = Duration::from_millis(200);
/// Time in which the server has to end a statement that was cancelled.
const TIME_TO_CANCEL: Duration = Duration::from_secs(2);

/// A connection that carries packets.
pub(super) struct Packets {
    stream: Stream,
    buffer: Box<[u8]>,
    /// The bytes of the buffer that were received and not used.
    unread: Range<usize>,
    sequence: u8,
    /// A payload that is larger than the buffer, or that continues.
    long: Vec<u8>,
    long_part: Option<LongPart>,
    is_long_complete: bool,
    /// When the login has to be complete.
    deadline: Option<Instant>,
    /// Whether the running statement shall end.
    is_cancelled: Arc<AtomicBool>,
    cancelled_at: Option<Instant>,
}

/// A packet that is being appended to the long payload.
struct LongPart {
    missing: usize,
    is_last: bool,
}

/// Where a complete payload is.
enum Place {
    Buffer(Range<usize>),
    Long,
}

impl Packets {
    /// For a stream whose login has to be complete at the deadline.
    pub(super) fn new(stream: Stream, deadline: Instant) -> Self {
        Self {
            stream,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            unread: 0..0,
            sequence: 0,
            long: Vec::new(),
            long_part: None,
            is_long_complete: false,
            deadline: Some(deadline),
            is_cancelled: Arc::default(),
            cancelled_at: None,
        }
    }

    pub(super) const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Encrypts the connection.
    pub(super) fn encrypt(mut self, host: &str, is_verified: bool) -> Result<Self, Failure> {
        if !self.unread.is_empty() {
            return Err(Failure::Protocol("data before TLS"));
        }
        self.stream = stream::encrypt(self.stream, host, is_verified)?;
        Ok(self)
    }

    /// The login is complete: reads wait without a limit from now on.
    pub(super) fn login_ended(&mut self) -> Result<(), Failure> {
        self.deadline = None;
        self.stream.remove_deadline()?;
        Ok(self.stream.socket().set_read_timeout(TICK)?)
    }

    /// Set by a canceller.
    pub(super) fn cancellation(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_cancelled)
    }

    /// Sends a command: a byte and its argument.
    pub(super) fn send_command(&mut self, command: u8, argument: &[u8]) -> Result<(), Failure> {
        self.sequence = 0;
        self.cancelled_at = None;
        self.is_cancelled.store(false, Ordering::SeqCst);
        self.send_parts(&[command], argument)
    }

    /// Sends a payload as the next packet.
    pub(super) fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.send_parts(&[], payload)
    }

    fn send_parts(&mut self, first: &[u8], mut rest: &[u8]) -> Result<(), Failure> {
        let mut first = first;
        loop {
            let length = (first.len() + rest.len()).min(FULL);
            let (now, later) = rest.split_at(length - first.len());
            let mut packet = Vec::with_capacity(4 + first.len());
            packet.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_le_bytes()[..3]);
            packet.push(self.sequence);
            packet.extend_from_slice(first);
            self.sequence = self.sequence.wrapping_add(1);
            let sent = if now.len() < 4096 {
                packet.extend_from_slice(now);
                self.stream.write_all(&packet)
            } else {
                self.stream.write_all(&packet).and_then(|()| self.stream.write_all(now))
            };
            if let Err(error) = sent.and_then(|()| self.stream.flush()) {
                return Err(self.reason_of_rejection(error));
            }
            (first, rest) = (&[], later);
            if length < FULL {
                return Ok(());
            }
        }
    }

    /// The server closes the connection while it receives a statement that is too long, after an error.
    fn reason_of_rejection(&mut self, error: io::Error) -> Failure {
        self.deadline = Some(Instant::now() + TICK);
        loop {
            match self.poll_any() {
                Ok(Some(packet)) if packet.first() == Some(&0xff) => return Failure::from_packet(packet),
                Ok(_) => {}
                Err(_) => return error.into(),
            }
        }
    }

    /// The next payload.
    pub(super) fn receive(&mut self) -> Result<&[u8], Failure> {
        let place = loop {
            if let Some(place) = self.advance()? {
                break place;
            }
        };
        Ok(self.payload(place))
    }

    /// Whether the next packet has arrived.
    pub(super) fn has_next(&self) -> bool {
        let bytes = &self.buffer[self.unread.clone()];
        let length = bytes.first_chunk::<4>().map(|[a, b, c, _]| u32::from_le_bytes([*a, *b, *c, 0]));
        length.is_some_and(|length| bytes.len() >= 4 + length as usize)
    }

    /// The next payload, or `None` if nothing has arrived for a while.
    pub(super) fn poll(&mut self) -> Result<Option<&[u8]>, Failure> {
        Ok(self.advance()?.map(|place| self.payload(place)))
    }

    fn poll_any(&mut self) -> Result<Option<&[u8]>, Failure> {
        // The sequence number of an error counts from the packets that the server has read.
        if let Some(number) = self.buffer.get(self.unread.start + 3).filter(|_| self.unread.len() > 3) {
            self.sequence = *number;
        }
        self.poll()
    }

    fn payload(&self, place: Place) -> &[u8] {
        match place {
            Place::Buffer(range) => &self.buffer[range],
            Place::Long => &self.long,
        }
    }

    fn advance(&mut self) -> Result<Option<Place>, Failure> {
        if self.is_long_complete {
            self.is_long_complete = false;
            self.long = Vec::new();
        }
        loop {
            if let Some(place) = self.parse()? {
                return Ok(Some(place));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Takes the next payload from the buffer, if it is complete.
    fn parse(&mut self) -> Result<Option<Place>, Failure> {
        loop {
            if let Some(part) = &mut self.long_part {
                let count = part.missing.min(self.unread.len());
                let begin = self.unread.start;
                self.long.extend_from_slice(&self.buffer[begin..begin + count]);
                self.unread.start += count;
                part.missing -= count;
                if part.missing > 0 {
                    return Ok(None);
                }
                let is_last = part.is_last;
                self.long_part = None;
                if is_last {
                    self.is_long_complete = true;
                    return Ok(Some(Place::Long));
                }
            }
            let [l1, l2, l3, sequence, ..] = self.buffer[self.unread.clone()] else { return Ok(None) };
            let length = u32::from_le_bytes([l1, l2, l3, 0]) as usize;
            let begin = self.unread.start + 4;
            let continues = !self.long.is_empty();
            if !continues && length + 4 <= BUFFER && self.unread.len() < length + 4 {
                return Ok(None);
            }
            if sequence != self.sequence {
                return Err(Failure::Protocol("packets out of order"));
            }
            self.sequence = self.sequence.wrapping_add(1);
            if !continues && length + 4 <= BUFFER {
                self.unread.start = begin + length;
                return Ok(Some(Place::Buffer(begin..begin + length)));
            }
            if self.long.len() + length > MAX_ROW {
                return Err(Failure::RowTooLarge);
            }
            self.unread.start = begin;
            self.long_part = Some(LongPart { missing: length, is_last: length < FULL });
        }
    }

    /// Receives once. Returns whether anything has arrived.
    fn fill(&mut self) -> Result<bool, Failure> {
        // A server may send one byte at a time, or rows that nobody wants.
        self.check_time()?;
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.end == BUFFER {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let read = self.stream.read(&mut self.buffer[self.unread.end..]);
        match read {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => {
                self.unread.end += count;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn check_time(&mut self) -> Result<(), Failure> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        if self.is_cancelled.load(Ordering::SeqCst) {
            let since = *self.cancelled_at.get_or_insert_with(Instant::now);
            if since.elapsed() >= TIME_TO_CANCEL {
                return Err(Failure::Cancelled);
            }
        }
        Ok(())
    }
}
