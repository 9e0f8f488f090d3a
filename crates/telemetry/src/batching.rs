//! Queues of a long-running program, configured by `OTEL_BSP_*` for spans and by `OTEL_BLRP_*` for log lines.

use std::time::Duration;

use anyhow::bail;

use crate::variables::Variables;

/// Bounds the queue's memory. That of spans is allocated at the start, to 25 MB.
const QUEUE_LIMIT: usize = 65_536;

/// Settings of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Maximum time that an item waits for others.
    pub schedule_delay: Duration,
    /// Timeout of an export, its retries included.
    pub export_timeout: Duration,
    /// Maximum number of queued items. Further ones are dropped.
    pub max_queue_size: usize,
    /// Maximum number of items in a request.
    pub max_export_batch_size: usize,
}

impl Batching {
    /// The specification's defaults for spans, except the size of the queue: four times that, because all spans of a job are
    /// queued at its end. The SDK allocates the queue at the start: about 3 MB.
    pub const SPANS: Self = Self {
        schedule_delay: Duration::from_secs(5),
        export_timeout: Duration::from_secs(30),
        max_queue_size: 8192,
        max_export_batch_size: 512,
    };
    /// The specification's defaults for log lines.
    pub const LOG_LINES: Self =
        Self { schedule_delay: Duration::from_secs(1), max_queue_size: 2048, ..Self::SPANS };

    pub(crate) fn of_spans(variables: &Variables<'_>) -> anyhow::Result<Self> {
        Self::of("OTEL_BSP", Self::SPANS, variables)
    }

    #[cfg(feature = "live")]
    pub(crate) fn of_log_lines(variables: &Variables<'_>) -> anyhow::Result<Self> {
        Self::of("OTEL_BLRP", Self::LOG_LINES, variables)
    }

    fn of(prefix: &str, default: Self, variables: &Variables<'_>) -> anyhow::Result<Self> {
        let count = |setting: &str, default, limit| {
            let name = format!("{prefix}_{setting}");
            let Some(number) = variables.number(&name)? else { return anyhow::Ok(default) };
            if !(1..=limit).contains(&number) {
                bail!("cannot use {name}={number}: it is not a number from 1 to {limit}");
            }
            Ok(number)
        };
        let queue = count("MAX_QUEUE_SIZE", default.max_queue_size, QUEUE_LIMIT)?;
        let batch = count("MAX_EXPORT_BATCH_SIZE", default.max_export_batch_size.min(queue), queue)?;
        // Without a delay, the SDK's thread would poll the queue in a busy loop.
        let time =
            |setting: &str, default| variables.positive_duration(&format!("{prefix}_{setting}"), default);
        Ok(Self {
            schedule_delay: time("SCHEDULE_DELAY", default.schedule_delay)?,
            export_timeout: time("EXPORT_TIMEOUT", default.export_timeout)?,
            max_queue_size: queue,
            max_export_batch_size: batch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batching(variables: &[(&str, &str)]) -> anyhow::Result<Batching> {
        let get =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Batching::of_spans(&Variables(&get))
    }

    #[test]
    fn variables_set_the_queue() {
        assert_eq!(batching(&[]).unwrap(), Batching::SPANS);
        let all = batching(&[
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "2"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "300"),
        ]);
        let expected = Batching {
            schedule_delay: Duration::from_millis(1),
            export_timeout: Duration::from_millis(2),
            max_queue_size: 300,
            // At most the size of the queue.
            max_export_batch_size: 300,
        };
        assert_eq!(all.unwrap(), expected);
    }

    #[test]
    fn size_or_time_out_of_range_is_rejected() {
        for (name, value) in [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100000000"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8193"),
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "0"),
        ] {
            let error = batching(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}={value}")), "{error}");
        }
    }
}
