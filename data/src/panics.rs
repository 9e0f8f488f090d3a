//! A panic is a failure of the step like others: one line, sent to the agent.

use std::panic::PanicHookInfo;

use sqlflow_proto::agent::Failure;

use crate::channel::SpareChannel;
use crate::redact::Redactor;

/// Sends a failure at a panic, and exits.
pub fn report_to(channel: Option<SpareChannel>, redactor: Redactor) {
    std::panic::set_hook(Box::new(move |panic| {
        let failure = Failure {
            message: redactor.redact(&message(panic)),
            // Of the running statement.
            unclear: true,
            unprinted: true,
            ..Failure::default()
        };
        let line = failure.message.clone();
        if !channel.as_ref().is_some_and(|channel| channel.send_failure(failure)) {
            crate::runner::print_error(&line);
        }
        std::process::exit(1);
    }));
}

fn message(panic: &PanicHookInfo<'_>) -> String {
    let cause = panic.payload_as_str().unwrap_or("panic").split_whitespace().collect::<Vec<_>>().join(" ");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let cause: String = cause.chars().take(500).collect();
    format!("the data process failed at {place}: {cause}; this is an error of SQLFlow, report it")
}
