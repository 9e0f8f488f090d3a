//! Queue of a long-running program, configured by `OTEL_BSP_*`.

use std::time::Duration;

use anyhow::bail;

use crate::variables::Variables;

/// The specification's defaults.
const SCHEDULE_DELAY: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_EXPORT_BATCH_SIZE: usize = 512;
/// Four times the specification's default, because all spans of a job are queued at its end. The SDK allocates the queue at
/// the start: about 3 MB.
const MAX_QUEUE_SIZE: usize = 8192;
/// Bounds the queue's memory, which is allocated at the start, to 25 MB.
const QUEUE_LIMIT: usize = 65_536;

/// Settings of the queue of spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Maximum time that a span waits for others.
    pub schedule_delay: Duration,
    /// Timeout of an export, its retries included.
    pub export_timeout: Duration,
    /// Maximum number of queued spans. Further ones are dropped.
    pub max_queue_size: usize,
    /// Maximum number of spans in a request.
    pub max_export_batch_size: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            schedule_delay: SCHEDULE_DELAY,
            export_timeout: EXPORT_TIMEOUT,
            max_queue_size: MAX_QUEUE_SIZE,
            max_export_batch_size: MAX_EXPORT_BATCH_SIZE,
        }
    }
}

impl Batching {
    pub(crate) fn of(variables: &Variables<'_>) -> anyhow::Result<Self> {
        let default = Self::default();
        let count = |name: &str, default, limit| {
            let Some(number) = variables.number(name)? else { return anyhow::Ok(default) };
            if !(1..=limit).contains(&number) {
                bail!("cannot use {name}={number}: it is not a number from 1 to {limit}");
            }
            Ok(number)
        };
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", default.max_queue_size, QUEUE_LIMIT)?;
        let batch = count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", default.max_export_batch_size.min(queue), queue)?;
        let time = |name: &str, default| {
            let time = variables.duration(name)?.unwrap_or(default);
            if time.is_zero() {
                // Without a delay, the SDK's thread would poll the queue in a busy loop.
                bail!("cannot use {name}=0: it is not a number of milliseconds from 1");
            }
            anyhow::Ok(time)
        };
        Ok(Self {
            schedule_delay: time("OTEL_BSP_SCHEDULE_DELAY", default.schedule_delay)?,
            export_timeout: time("OTEL_BSP_EXPORT_TIMEOUT", default.export_timeout)?,
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
        Batching::of(&Variables(&get))
    }

    #[test]
    fn variables_set_the_queue() {
        assert_eq!(batching(&[]).unwrap(), Batching::default());
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
