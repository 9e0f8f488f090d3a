//! Metrics of a server, named by Prometheus' conventions. Labels have few values, all known here: no job, user or
//! statement is a label.

mod instrumented;
pub(crate) mod live;
mod otlp;
mod process;
mod timing;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use sqlflow_proto::agent::PhaseTime;
use sqlflow_telemetry::KeyValue;
use sqlflow_telemetry::metrics::Meter;
use tonic::{Code, Status};
use tracing::Instrument as _;

use sqlflow_job::{Event, Job, JobState, Phase};

pub use instrumented::{MeasuredLog, MeasuredStore};
pub(crate) use otlp::Instruments;
use timing::{LONG, Labels, QUICK, Registries, Timing, Timings};

/// What the names of all metrics of the server begin with.
const PREFIX: &str = "sqlflow";

/// All metrics of a server.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    /// Metrics of the process, with the standard names of all programs and without a prefix.
    common: Registry,
    jobs: Family<State, Gauge>,
    jobs_taken: Counter,
    jobs_ended: Family<State, Counter>,
    attempts_ended: Family<Reason, Counter>,
    phases: Timings<PhaseLabel>,
    calls: Timings<Call>,
    store: Timings<Operation>,
    store_failures: Family<Operation, Counter>,
    log_bytes: Counter,
    log_appends: Timing,
    agents: Gauge,
    spool_bytes: Gauge<i64, AtomicI64>,
    reconcile_lag: Timing,
    housekeeping: Timings<TaskLabel>,
    housekeeping_failures: Counter,
    reconciler_panics: Counter,
    spans_lost: Counter<u64, AtomicU64>,
    log_lines_lost: Counter<u64, AtomicU64>,
    metric_values_lost: Counter<u64, AtomicU64>,
    launcher_ready: Gauge,
}

/// Sets of labels.
macro_rules! labels {
    ($($name:ident { $($label:ident),+ })+) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            $($label: &'static str,)+
        }

        impl Labels for $name {
            fn attributes(&self) -> Vec<KeyValue> {
                vec![$(KeyValue::new(stringify!($label), self.$label)),+]
            }
        }
    )+};
}

labels! {
    State { state }
    Version { version }
    Reason { reason }
    PhaseLabel { phase }
    Call { method, code }
    Operation { operation }
    TaskLabel { task }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Metrics {
    /// New metrics. `meter`: creates the same histograms for OpenTelemetry, if metrics are exported.
    #[must_use]
    pub fn new(meter: Option<&Meter>) -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix(PREFIX),
            common: Registry::default(),
            jobs: Family::default(),
            jobs_taken: Counter::default(),
            jobs_ended: Family::default(),
            attempts_ended: Family::default(),
            phases: Timings::new(LONG),
            calls: Timings::new(QUICK),
            store: Timings::new(QUICK),
            store_failures: Family::default(),
            log_bytes: Counter::default(),
            log_appends: Timing::new(QUICK),
            agents: Gauge::default(),
            spool_bytes: Gauge::default(),
            reconcile_lag: Timing::new(QUICK),
            housekeeping: Timings::new(QUICK),
            housekeeping_failures: Counter::default(),
            reconciler_panics: Counter::default(),
            spans_lost: Counter::default(),
            log_lines_lost: Counter::default(),
            metric_values_lost: Counter::default(),
            launcher_ready: Gauge::default(),
        };
        inner.register();
        inner.register_timings(meter);
        for state in JobState::NAMES {
            inner.jobs.get_or_create(&State { state }).set(0);
        }
        Self(Arc::new(inner))
    }
}

impl Inner {
    fn register(&mut self) {
        self.common.register_collector(Box::new(process::Process));
        // Not of type `info`, which only the newer of the two formats has.
        let build: Family<Version, Gauge> = Family::default();
        build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        let all = &mut self.registry;
        all.register("build_info", "The server's version", build);
        all.register("jobs", "Jobs in the store", self.jobs.clone());
        all.register("jobs_taken", "Jobs that this server took", self.jobs_taken.clone());
        all.register("jobs_ended", "Jobs whose end this server recorded", self.jobs_ended.clone());
        all.register(
            "attempts_ended",
            "Attempts whose end this server recorded",
            self.attempts_ended.clone(),
        );
        all.register("store_failures", "Transactions that failed", self.store_failures.clone());
        all.register_with_unit("log_appended", "Records made durable", Unit::Bytes, self.log_bytes.clone());
        all.register("agents_attached", "Agents that are attached to this server", self.agents.clone());
        all.register_with_unit(
            "agent_spool",
            "What attached agents hold that no server has acknowledged",
            Unit::Bytes,
            self.spool_bytes.clone(),
        );
        all.register(
            "housekeeping_failures",
            "Passes of the periodic work, and items of it, that failed",
            self.housekeeping_failures.clone(),
        );
        all.register(
            "reconciler_panics",
            "Panics of a job's reconciler: a fault of the server; the job is claimed again",
            self.reconciler_panics.clone(),
        );
        all.register("spans_lost", "Spans that no collector took", self.spans_lost.clone());
        all.register("log_lines_lost", "Log lines that no collector took", self.log_lines_lost.clone());
        all.register(
            "metric_values_lost",
            "Values of metrics that no collector took",
            self.metric_values_lost.clone(),
        );
        all.register(
            "launcher_ready",
            "1: attempts can be started, as far as the launcher knows; 0: not now",
            self.launcher_ready.clone(),
        );
    }

    fn register_timings(&mut self, meter: Option<&Meter>) {
        let all = &mut Registries { prometheus: &mut self.registry, otlp: meter };
        self.phases.register(
            "attempt_phase_duration",
            "Time that attempts spent: launch, schedule, pull and start as the server sees them, the others as agents tell",
            all,
        );
        self.calls.register("rpc_duration", "Time to answer a client's call", all);
        self.store.register("store_operation_duration", "Time of a transaction", all);
        self.log_appends.register("log_append_duration", "Time until a batch of records was durable", all);
        self.reconcile_lag.register(
            "reconcile_lag",
            "Time from the end of an attempt to what follows from it, pauses before a new attempt included",
            all,
        );
        self.housekeeping.register(
            "housekeeping_pass_duration",
            "Time of a pass of the periodic work; each kind has a task of its own",
            all,
        );
    }
}

impl Metrics {
    /// The metrics as OpenMetrics text.
    ///
    /// # Panics
    /// Never: writing to a String does not fail.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let encoded = text::encode_registry(&mut out, &self.0.registry)
            .and_then(|()| text::encode_registry(&mut out, &self.0.common))
            .and_then(|()| text::encode_eof(&mut out));
        encoded.expect("writing to a String does not fail");
        out
    }

    /// The metrics in Prometheus' older text format, which more programs read.
    #[must_use]
    pub fn plain_text(&self) -> String {
        let (mut out, mut counter) = (String::new(), false);
        let text = self.text();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("#"), Some("UNIT" | "EOF"), _) => continue,
                (Some("#"), Some(word @ ("HELP" | "TYPE")), Some(name)) => {
                    // The type follows one line after the help.
                    counter = match word {
                        "HELP" => lines.peek().is_some_and(|it| it.ends_with(" counter")),
                        _ => counter,
                    };
                    let total = if counter { "_total" } else { "" };
                    let rest = words.next().unwrap_or_default();
                    out.push_str(&format!("# {word} {name}{total} {rest}\n"));
                }
                _ => {
                    out.push_str(line);
                    out.push('\n');
                }
            }
        }
        out
    }

    /// Number of jobs by state in the store.
    pub fn set_jobs(&self, counts: &[(String, i64)]) {
        for state in JobState::NAMES {
            let count = counts.iter().find(|(name, _)| name == state).map_or(0, |(_, count)| *count);
            self.0.jobs.get_or_create(&State { state }).set(count);
        }
    }

    /// Whether attempts can be launched.
    pub fn set_launcher_ready(&self, is_ready: bool) {
        self.0.launcher_ready.set(i64::from(is_ready));
    }

    /// An event changed a job.
    fn note_event(&self, event: &Event, job: &Job, now_ms: i64) {
        match event {
            Event::AttemptCreated { step, .. } => self.note_lag(job, *step, now_ms),
            Event::OutcomeReported { attempt, .. }
            | Event::AttemptFoundEnded { attempt, .. }
            | Event::AttemptGivenUp { attempt, .. } => self.note_attempt(job, attempt),
            Event::Finished(state) => {
                self.0.jobs_ended.get_or_create(&State { state: state.name() }).inc();
                let last = u32::try_from(job.steps.len().saturating_sub(1)).unwrap_or(u32::MAX);
                self.note_lag(job, last, now_ms);
            }
            Event::CancelRequested(_)
            | Event::AttemptLaunched { .. }
            | Event::MilestonesSeen { .. }
            | Event::AgentAttached { .. }
            | Event::AgentUnheard { .. }
            | Event::CommitRequested { .. } => {}
        }
    }

    fn note_attempt(&self, job: &Job, id: &sqlflow_job::AttemptId) {
        let Some(attempt) = job.attempt(id) else { return };
        let Phase::Ended { outcome, .. } = &attempt.phase else { return };
        self.0.attempts_ended.get_or_create(&Reason { reason: outcome.reason.name() }).inc();
        for stage in attempt.launch_stages(attempt.created_ms) {
            self.note_phase(stage.name, seconds(stage.begin_ms, stage.end_ms));
        }
    }

    fn note_phase(&self, phase: &'static str, seconds: f64) {
        self.0.phases.observe(&PhaseLabel { phase }, seconds);
    }

    /// The latest end of an attempt up to this step, and now.
    fn note_lag(&self, job: &Job, step: u32, now_ms: i64) {
        let steps = job.steps.iter().take(step as usize + 1);
        let ended = steps.flat_map(|it| &it.attempts).filter_map(|it| it.ended_ms).max();
        if let Some(ended) = ended {
            self.0.reconcile_lag.observe(seconds(ended, now_ms));
        }
    }

    /// Durations of an agent's phases, as it reports them.
    pub fn note_phases(&self, phases: &[PhaseTime]) {
        use sqlflow_proto::agent::Phase;
        for time in phases {
            let name = match time.phase() {
                Phase::Fetching => "fetch",
                Phase::Running => "run",
                Phase::Draining => "drain",
                Phase::Publishing => "publish",
                // This phase is not over when the outcome is reported.
                Phase::Reporting | Phase::Unspecified => continue,
            };
            self.note_phase(name, Duration::from_micros(time.duration_micros).as_secs_f64());
        }
    }

    /// Times the response to a client's call.
    ///
    /// # Errors
    /// Those of the answer.
    pub async fn call<T>(
        &self,
        method: &'static str,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let begun = Instant::now();
        let span = live::call(method);
        let answer = answer.instrument(span.clone()).await;
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        live::answered(&span, code);
        let call = Call { method, code: code_name(code) };
        self.0.calls.observe(&call, begun.elapsed().as_secs_f64());
        answer
    }

    /// An agent attached. It is counted until the result is dropped.
    #[must_use]
    pub fn agent(&self) -> AttachedAgent {
        self.0.agents.inc();
        AttachedAgent { metrics: self.clone(), spool: 0 }
    }

    /// A housekeeping pass failed.
    pub fn housekeeping_failed(&self) {
        self.0.housekeeping_failures.inc();
    }

    /// A pass of this housekeeping task has ended.
    pub fn note_housekeeping(&self, task: &'static str, took: Duration) {
        self.0.housekeeping.observe(&TaskLabel { task }, took.as_secs_f64());
    }

    /// A job's reconciler panicked.
    pub fn driver_panicked(&self) {
        self.0.reconciler_panics.inc();
    }

    /// Spans were dropped.
    pub fn spans_lost(&self, count: usize) {
        self.0.spans_lost.inc_by(count as u64);
    }

    /// Log lines were not sent.
    pub fn log_lines_lost(&self, count: usize) {
        self.0.log_lines_lost.inc_by(count as u64);
    }

    /// Values of metrics were not sent.
    pub fn metric_values_lost(&self, count: usize) {
        self.0.metric_values_lost.inc_by(count as u64);
    }
}

/// Counts an agent as long as it is attached.
#[derive(Debug)]
pub struct AttachedAgent {
    metrics: Metrics,
    spool: i64,
}

impl AttachedAgent {
    /// Sets the number of unacknowledged records of this agent.
    pub fn spool(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.0.spool_bytes.inc_by(bytes - self.spool);
        self.spool = bytes;
    }
}

impl Drop for AttachedAgent {
    fn drop(&mut self) {
        self.spool(0);
        self.metrics.0.agents.dec();
    }
}

fn seconds(from_ms: i64, to_ms: i64) -> f64 {
    (to_ms - from_ms).max(0) as f64 / 1000.0
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::InvalidArgument => "invalid_argument",
        Code::NotFound => "not_found",
        Code::OutOfRange => "out_of_range",
        Code::ResourceExhausted => "resource_exhausted",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "deadline_exceeded",
        _ => "other",
    }
}
