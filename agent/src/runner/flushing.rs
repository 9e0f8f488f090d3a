//! Flushes the command's output to the agent's own streams and the log folder.

use std::time::Duration;

use sqlflow_proto::record::record::Payload;

use super::Runner;
use crate::output::WhenFull;
use crate::output::link::{Drained, Link, Unacked};
use crate::output::tee::{READER_TIMEOUT, Unwritten};
use crate::supervisor::{Event, ReportEvent};

/// Timeout for a log folder that takes nothing.
const LOG_TIMEOUT: Duration = Duration::from_secs(30);

impl Runner {
    /// Waits for a slow reader until the flush is cut short, unless output may be dropped.
    pub(super) fn flush(&self) {
        let ([stdout, stderr], link, events) = (self.tees.clone(), self.link.clone(), self.events.clone());
        let may_drop = self.config.when_full == WhenFull::Drop;
        let hurry = self.hurry_flush.subscribe();
        let hurried = |may_drop: bool| {
            let mut hurry = hurry.clone();
            async move {
                if !may_drop {
                    // An error would mean that the runner is gone, and with it this task.
                    let _ = hurry.wait_for(|hurry| *hurry).await;
                }
                tokio::time::sleep(READER_TIMEOUT).await;
            }
        };
        let (printed, errors, log) = (hurried(may_drop), hurried(may_drop), hurried(false));
        tokio::spawn(async move {
            let logged = async {
                tokio::select! {
                    biased;
                    drained = link.outbox.drained(LOG_TIMEOUT) => drained,
                    () = log => Drained::Stalled,
                }
            };
            let (printed, errors, logged) =
                tokio::join!(stdout.finish(printed), stderr.finish(errors), logged);
            for failure in [&stdout, &stderr].into_iter().filter_map(|it| it.failure()) {
                link.outbox.warn(failure);
            }
            let (dropped, unwritten): (Vec<_>, Vec<_>) =
                [printed, errors].into_iter().flatten().partition(|it| may_drop && it.is_unread());
            for dropped in &dropped {
                link.outbox.warn(format!("output was dropped: {dropped}"));
            }
            let unwritten = (!unwritten.is_empty()).then(|| sentences(&unwritten));
            let unlogged = (logged == Drained::Stalled).then(|| unlogged(&link));
            let _ = events.send(Event::Report(ReportEvent::Flushed { unwritten, unlogged }));
        });
    }
}

fn sentences(unwritten: &[Unwritten]) -> String {
    unwritten.iter().map(Unwritten::to_string).collect::<Vec<_>>().join("; ")
}

/// Describes what is missing in the log, and why.
fn unlogged(link: &Link) -> String {
    let Unacked { records, .. } = link.outbox.unacked();
    let output = records.iter().filter_map(|it| match &it.payload {
        Some(Payload::Output(output)) => Some(output.data.len()),
        _ => None,
    });
    let bytes: usize = output.sum();
    let why = link.connection.stalled().unwrap_or_else(|| "no time to write them".to_owned());
    format!("{bytes} bytes of its output are not in the log: {why}")
}
