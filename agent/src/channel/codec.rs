//! Length-delimited frames. Pure.

use bytes::{Buf as _, BytesMut};
use prost::Message as _;
use sqlflow_proto::agent::{Failure, Span, SubmitterFrame, submitter_frame::Frame};
use sqlflow_proto::record::record::Payload;
use sqlflow_proto::submitter_channel::MAX_FRAME;

/// The bytes on the channel are not a frame. Nothing after them can be parsed.
#[derive(Debug, thiserror::Error)]
pub enum BadFrame {
    /// For example text that user code wrote to the descriptor.
    #[error("the submitter channel is broken: a frame of {0} bytes, more than the {MAX_FRAME} allowed")]
    TooLong(u64),
    /// The length is not a varint, or the bytes are not a frame.
    #[error("the submitter channel is broken: not a frame ({0})")]
    Malformed(#[from] prost::DecodeError),
    /// A kind that this agent does not know.
    #[error(
        "the submitter channel is broken: an unknown kind of frame; is the submitter newer than the agent?"
    )]
    Unknown,
}

/// A frame of the submitter.
#[derive(Debug, PartialEq)]
pub struct ReceivedFrame {
    /// The statement that it belongs to.
    pub statement: Option<u32>,
    /// Id of the acknowledgement that the submitter waits for; 0: it does not.
    pub ack_id: u64,
    /// What to do with it.
    pub content: Content,
}

/// Content of a frame, by what has to be done with it.
#[derive(Debug, PartialEq)]
pub enum Content {
    /// To append to the result log.
    Record(Payload),
    /// To keep for the outcome.
    Failure(Failure),
    /// A request for the commit grant.
    Commit,
    /// A part of the trace.
    Span(Span),
}

/// Takes the next complete frame from the front of `buffer`; `None`: more bytes are needed.
///
/// # Errors
/// The bytes are not a frame; nothing after them can be parsed.
pub fn next_frame(buffer: &mut BytesMut) -> Result<Option<ReceivedFrame>, BadFrame> {
    let mut front = &buffer[..];
    let length = match prost::encoding::decode_varint(&mut front) {
        Ok(length) => length,
        // A varint has at most 10 bytes: with fewer, more may come.
        Err(_) if buffer.len() < 10 && buffer.iter().all(|byte| byte & 0x80 != 0) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let prefix = buffer.len() - front.len();
    let size = usize::try_from(length).ok().filter(|size| *size <= MAX_FRAME);
    let size = size.ok_or(BadFrame::TooLong(length))?;
    if buffer.len() < prefix + size {
        buffer.reserve(prefix + size - buffer.len());
        return Ok(None);
    }
    buffer.advance(prefix);
    let frame = SubmitterFrame::decode(buffer.split_to(size).freeze())?;
    let content = frame.frame.ok_or(BadFrame::Unknown)?;
    if let Frame::Rows(rows) = &content {
        // The server stores them without decoding them.
        rows.check()?;
    }
    let content = content.into();
    Ok(Some(ReceivedFrame { statement: frame.statement, ack_id: frame.ack_id, content }))
}

impl Content {
    /// The name of a frame that is a result of a statement or makes it visible; `None`: it is another one.
    pub fn result_kind(&self) -> Option<&'static str> {
        match self {
            Self::Record(Payload::Started(_)) => Some("started"),
            Self::Record(Payload::Head(_)) => Some("head"),
            Self::Record(Payload::Rows(_)) => Some("rows"),
            Self::Record(Payload::Ended(_)) => Some("ended"),
            Self::Commit => Some("commit"),
            Self::Record(_) | Self::Failure(_) | Self::Span(_) => None,
        }
    }
}

impl From<Frame> for Content {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Started(started) => Self::Record(Payload::Started(started)),
            Frame::Head(head) => Self::Record(Payload::Head(head)),
            Frame::Rows(rows) => Self::Record(Payload::Rows(rows)),
            Frame::Ended(ended) => Self::Record(Payload::Ended(ended)),
            Frame::Progress(progress) => Self::Record(Payload::Progress(progress)),
            Frame::Metrics(metrics) => Self::Record(Payload::Metrics(metrics)),
            Frame::Display(display) => Self::Record(Payload::Display(display)),
            Frame::Failure(failure) => Self::Failure(failure),
            Frame::Commit(_) => Self::Commit,
            Frame::Span(span) => Self::Span(span),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sqlflow_proto::v1::{Column, EncodedRows, Int64s, Progress, Strings, column::Values};

    use super::*;

    fn frame(statement: u32, ack_id: u64, phase: &str) -> SubmitterFrame {
        let progress = Progress { phase: phase.to_owned(), ..Default::default() };
        SubmitterFrame { statement: Some(statement), ack_id, frame: Some(Frame::Progress(progress)) }
    }

    proptest! {
        /// However the kernel cuts the bytes, the same frames come out.
        #[test]
        fn frames_survive_any_cut(
            phases in prop::collection::vec("[a-z]{0,300}", 1..20),
            cuts in prop::collection::vec(1usize..100, 1..50),
        ) {
            let mut wire = Vec::new();
            for (n, phase) in phases.iter().enumerate() {
                frame(n as u32, n as u64, phase).encode_length_delimited(&mut wire).unwrap();
            }
            let (mut buffer, mut seen, mut rest) = (BytesMut::new(), Vec::new(), &wire[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
                while let Some(ReceivedFrame { ack_id, content, .. }) = next_frame(&mut buffer).unwrap() {
                    let Content::Record(Payload::Progress(progress)) = content else { panic!("{content:?}") };
                    seen.push((ack_id, progress.phase));
                }
            }
            let sent: Vec<_> = phases.into_iter().enumerate().map(|(n, p)| (n as u64, p)).collect();
            prop_assert_eq!(seen, sent);
            prop_assert!(buffer.is_empty());
        }

        /// Whatever user code writes to the descriptor: an error or a wait, never a panic or a huge buffer.
        #[test]
        fn garbage_never_panics_or_grows_the_buffer(garbage in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut buffer = BytesMut::from(&garbage[..]);
            while let Ok(Some(_)) = next_frame(&mut buffer) {}
            prop_assert!(buffer.capacity() <= MAX_FRAME + 8192);
        }
    }

    #[test]
    fn too_long_frame_is_rejected_by_its_length() {
        let mut buffer = BytesMut::new();
        prost::encoding::encode_varint(MAX_FRAME as u64 + 1, &mut buffer);
        assert!(matches!(next_frame(&mut buffer), Err(BadFrame::TooLong(_))));
    }

    /// Those who decode the values later could not name who sent them.
    #[test]
    fn rows_that_cannot_be_decoded_are_an_error() {
        let column = |values| Column { values: Some(values), ..Column::default() }.encode_to_vec();
        let texts = column(Values::Strings(Strings::from_iter(["é", "x"])));
        let mut torn = texts.clone();
        torn.retain(|byte| *byte != 0xa9);
        let numbers = column(Values::Int64s(Int64s { values: vec![1, -1] }));
        for (columns, is_valid) in [
            (vec![texts, numbers.clone()], true),
            (vec![numbers.clone(), torn], false),
            (vec![numbers, vec![0xff]], false),
        ] {
            let columns = columns.into_iter().map(Into::into).collect();
            let rows = Frame::Rows(EncodedRows { count: 2, columns });
            let mut wire = BytesMut::new();
            SubmitterFrame { frame: Some(rows.clone()), ..Default::default() }
                .encode_length_delimited(&mut wire)
                .unwrap();
            match next_frame(&mut wire) {
                Ok(Some(frame)) => assert!(is_valid && frame.content == rows.into()),
                other => assert!(!is_valid && matches!(other, Err(BadFrame::Malformed(_))), "{other:?}"),
            }
        }
    }

    #[test]
    fn unknown_frame_is_an_error() {
        let mut wire = BytesMut::new();
        SubmitterFrame { ack_id: 1, ..Default::default() }.encode_length_delimited(&mut wire).unwrap();
        assert!(matches!(next_frame(&mut wire), Err(BadFrame::Unknown)));
    }
}
