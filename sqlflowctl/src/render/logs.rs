//! The job's own output only: byte for byte, but on a terminal with control sequences escaped.

use sqlflow_proto::v1::{JobStatus, Response, response};

use super::text::gap_line;
use super::{Screen, Tone, View};
use crate::failure::Failure;

/// Shows the job's own output as results.
#[derive(Debug)]
pub(crate) struct LogsView;

impl View for LogsView {
    fn show(&mut self, response: &Response, screen: &mut dyn Screen) -> Result<(), Failure> {
        match &response.response {
            Some(response::Response::Log(log)) => screen.output(&log.data)?,
            Some(response::Response::Gap(gap)) => screen.line(Tone::Warning, &gap_line(gap)),
            _ => {}
        }
        Ok(())
    }

    fn status(&mut self, _: &JobStatus, _: &str, _: &mut dyn Screen) -> Result<(), Failure> {
        Ok(())
    }
}
