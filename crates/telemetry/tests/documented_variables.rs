//! The table of variables in `docs/observing.md`: it is complete, and what it has is obeyed.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::path::Path;

use sqlflow_telemetry::logs::Logs;
use sqlflow_telemetry::metrics::Metrics;
use sqlflow_telemetry::{LogSettings, MetricSettings, Propagation, Settings};

/// Variables of the specification, except those of the exporter.
const GENERAL: [&str; 28] = [
    "OTEL_SDK_DISABLED",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_PROPAGATORS",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_TRACES_EXPORTER",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOGS_EXPORTER",
    "OTEL_BLRP_SCHEDULE_DELAY",
    "OTEL_BLRP_EXPORT_TIMEOUT",
    "OTEL_BLRP_MAX_QUEUE_SIZE",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_METRICS_EXPORTER",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
];
/// Settings of the exporter, for all signals and for each.
const EXPORTER: [&str; 9] = [
    "ENDPOINT",
    "INSECURE",
    "CERTIFICATE",
    "CLIENT_KEY",
    "CLIENT_CERTIFICATE",
    "HEADERS",
    "COMPRESSION",
    "TIMEOUT",
    "PROTOCOL",
];
/// Any text is a name.
const FREE: [&str; 1] = ["OTEL_SERVICE_NAME"];
/// No text can be any of these.
const NONSENSE: &str = "no=such,%ff";

fn known() -> BTreeSet<String> {
    let signals = ["", "TRACES_", "LOGS_", "METRICS_"];
    let all = EXPORTER.iter().flat_map(|it| signals.map(|signal| format!("OTEL_EXPORTER_OTLP_{signal}{it}")));
    all.chain(GENERAL.map(str::to_owned)).collect()
}

/// The first column of the table.
fn documented() -> BTreeSet<String> {
    // At run time: the program may have been compiled in another clone that shares the target folder.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let page = Path::new(&folder).join("../../docs/observing.md");
    let page = std::fs::read_to_string(page).unwrap();
    let names = page.lines().filter_map(|it| it.strip_prefix("| `OTEL_")?.split_once(" | "));
    let names = names
        .flat_map(|(names, _)| format!("`OTEL_{names}").split(", ").map(str::to_owned).collect::<Vec<_>>());
    names.map(|it| it.trim_matches('`').to_owned()).collect()
}

/// What starts a program.
fn start(get: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    Propagation::from_variables(get)?;
    if let Some(settings) = Settings::from_variables(get)? {
        sqlflow_telemetry::Exporter::new(settings)?;
    }
    if let Some(settings) = LogSettings::from_variables(get)? {
        Logs::start("test", settings)?;
    }
    if let Some(settings) = MetricSettings::from_variables(get)? {
        Metrics::new("test", settings)?;
    }
    Ok(())
}

#[test]
fn table_has_every_variable_of_the_specification() {
    assert_eq!(documented(), known());
}

#[tokio::test]
async fn malformed_variable_is_an_error_that_names_it() {
    for name in known().iter().filter(|it| !FREE.contains(&it.as_str())) {
        let get = |asked: &str| match asked {
            asked if asked == name => Some(NONSENSE.to_owned()),
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("https://127.0.0.1:9".to_owned()),
            "OTEL_LOGS_EXPORTER" | "OTEL_METRICS_EXPORTER" => Some("otlp".to_owned()),
            // One without the other is an error of its own.
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" if name.ends_with("CLIENT_KEY") => {
                Some("/nowhere".to_owned())
            }
            "OTEL_EXPORTER_OTLP_CLIENT_KEY" if name.ends_with("CLIENT_CERTIFICATE") => {
                Some("/nowhere".to_owned())
            }
            _ => None,
        };
        let error = format!("{:#}", start(&get).expect_err(name));
        let general = ["_TRACES_", "_LOGS_", "_METRICS_"]
            .iter()
            .fold(name.clone(), |it, signal| it.replace(signal, "_"));
        let is_named =
            error.contains(name.as_str()) || error.contains(&general) || error.contains("CLIENT_CERTIFICATE");
        assert!(error.starts_with("cannot use ") && is_named, "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn malformed_headers_are_not_printed() {
    let get = |asked: &str| match asked {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://127.0.0.1:9".to_owned()),
        "OTEL_EXPORTER_OTLP_HEADERS" => Some("api-key=se\u{1}cret".to_owned()),
        _ => None,
    };
    let error = format!("{:?}", start(&get).unwrap_err());
    assert!(
        error.contains("OTEL_EXPORTER_OTLP_HEADERS")
            && !error.contains("se\u{1}cret")
            && !error.contains("cret"),
        "{error}"
    );
}
