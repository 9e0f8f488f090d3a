//! The observation of an attempt from its Pod's status. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Event, Pod, PodCondition,
};
use sqlflow_job::Milestones;
use sqlflow_proto::agent::Outcome;
use sqlflow_proto::agent::outcome::Reason;

use super::pod::CONTAINER;
use super::termination_message;
use crate::{AgentArtifacts, End, Observation, PendingReason, PendingStatus, TerminatedBy};

/// Timeout for scheduling: the scheduler may still find room.
const UNSCHEDULABLE: Duration = Duration::from_secs(30 * 60);
/// Timeout for image pulls, which the kubelet retries.
const IMAGE: Duration = Duration::from_secs(5 * 60);
/// Timeout for an invalid image name, or for an image that must be present and is not.
const IMAGE_NEVER: Duration = Duration::from_secs(10);
/// Timeout for a missing volume, Secret or ConfigMap.
const STARTING: Duration = Duration::from_secs(10 * 60);

/// The kubelet's reason for a Pod that exceeded its deadline.
const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
/// The kubelet's reason for a Pod that it evicted, and for the warning that it writes before.
pub(super) const EVICTED: &str = "Evicted";
/// Annotation of that warning if the node, not the Pod, has reached a limit.
const STARVED_RESOURCE: &str = "starved_resource";

/// The observation of an attempt with this Pod. `events` are the Pod's warnings, newest last. `is_overdue`: it was
/// deleted and should be gone; see [`super::terminating_pods`].
pub(super) fn observe(pod: &Pod, events: &[String], is_overdue: bool) -> Observation {
    let status = pod.status.clone().unwrap_or_default();
    let statuses = status.container_statuses.unwrap_or_default();
    let container = statuses.iter().find(|it| it.name == CONTAINER);
    let conditions = status.conditions.unwrap_or_default();
    let disruption = conditions.iter().find(|it| it.type_ == "DisruptionTarget" && it.status == "True");
    let phase = status.phase.unwrap_or_default();

    let terminated = container.and_then(|it| it.state.as_ref()?.terminated.as_ref());
    let said = terminated.and_then(|it| termination_message::read(it.message.as_deref()?));
    if status.reason.as_deref() == Some(DEADLINE_EXCEEDED) {
        return gone(past_deadline(said));
    }
    // An eviction for the sake of the node is a disruption.
    if status.reason.as_deref() == Some(EVICTED) && terminated.is_some() && disruption.is_none() {
        return gone(over_disk_limit(&status.message.unwrap_or_default(), said));
    }
    if let Some(said) = said {
        return gone(said);
    }
    if let Some(terminated) = terminated {
        return gone(silent(terminated, disruption));
    }
    if matches!(phase.as_str(), "Failed" | "Succeeded") {
        let why =
            status.message.or(status.reason).unwrap_or_else(|| "its container left no trace".to_owned());
        return gone(lost(&format!("the Pod failed: {why}"), disruption));
    }
    if is_overdue {
        return gone(lost("the Pod was deleted, and its node does not say that it ended", disruption));
    }
    if phase == "Running"
        && container.is_some_and(|it| it.state.as_ref().is_some_and(|it| it.running.is_some()))
    {
        return Observation::Running;
    }
    let inits = status.init_container_statuses.unwrap_or_default();
    pending_status(&conditions, inits.iter().chain(container), events)
}

/// The observation of an attempt whose Pod is gone, while another program's has its name.
pub(super) fn replaced(name: &str) -> Observation {
    let message =
        format!("the Pod is gone, and another program made one with its name, {name}, which is not believed");
    gone(lost(&message, None))
}

fn gone(artifacts: AgentArtifacts) -> Observation {
    Observation::Gone(Box::new(artifacts))
}

/// The outcome for a Pod that exceeded its deadline.
fn past_deadline(said: Option<AgentArtifacts>) -> AgentArtifacts {
    let message = "the Pod ran longer than it may (activeDeadlineSeconds)".to_owned();
    ended_by_kubelet(Reason::Deadline, message, said)
}

/// The outcome for a Pod that wrote too much. Another attempt would write as much.
fn over_disk_limit(detail: &str, said: Option<AgentArtifacts>) -> AgentArtifacts {
    ended_by_kubelet(Reason::Terminated, disk_limit_text(detail), said)
}

/// The outcome for a Pod that the kubelet ended. An agent that had an outcome before was in time. One that the kubelet
/// ended reports how many records it has, and whether its output is kept; without a report neither is known.
fn ended_by_kubelet(reason: Reason, message: String, said: Option<AgentArtifacts>) -> AgentArtifacts {
    match said {
        Some(AgentArtifacts { end: End::Reported(said), .. }) if said.reason() == Reason::Terminated => {
            let message = format!("{message}; {}", said.message);
            let outcome = Outcome { reason: reason.into(), message, retryable: false, ..said };
            AgentArtifacts { end: End::Reported(outcome), ..AgentArtifacts::default() }
        }
        Some(said) => said,
        None => {
            let seen = Outcome { reason: reason.into(), message, ..Outcome::default() };
            AgentArtifacts { end: End::ReportedByPlatform(seen), ..AgentArtifacts::default() }
        }
    }
}

/// The outcome that the kubelet reports for an agent without a termination message.
fn silent(terminated: &ContainerStateTerminated, disruption: Option<&PodCondition>) -> AgentArtifacts {
    let message = terminated.message.clone().unwrap_or_default();
    let why = terminated.reason.clone().unwrap_or_default();
    if why == "OOMKilled" {
        let seen = Outcome {
            reason: Reason::OutOfMemory.into(),
            message: "the Pod ran out of memory: the kernel killed everything in it at its memory limit; raise the limit or use less data".to_owned(),
            ..Outcome::default()
        };
        return AgentArtifacts {
            end: End::ReportedByPlatform(seen),
            log_tail: message,
            ..AgentArtifacts::default()
        };
    }
    let code = terminated.exit_code;
    let mut artifacts = lost(
        &format!("the Pod's container ended with exit code {code} ({why}) and its agent could not tell more"),
        disruption,
    );
    artifacts.log_tail = message;
    artifacts
}

fn lost(message: &str, disruption: Option<&PodCondition>) -> AgentArtifacts {
    let message =
        disruption.map_or_else(|| message.to_owned(), |it| format!("{}; {message}", disruption_text(it)));
    let seen = Outcome { reason: Reason::Lost.into(), message, retryable: true, ..Outcome::default() };
    AgentArtifacts { end: End::ReportedByPlatform(seen), ..AgentArtifacts::default() }
}

/// Times at which a node was chosen and the container started.
pub(super) fn milestones(pod: &Pod) -> Milestones {
    let Some(status) = &pod.status else { return Milestones::default() };
    let scheduled =
        status.conditions.iter().flatten().find(|it| it.type_ == "PodScheduled" && it.status == "True");
    let container = status.container_statuses.iter().flatten().find(|it| it.name == CONTAINER);
    let state = container.and_then(|it| it.state.as_ref());
    let started = state.and_then(|it| {
        let running = it.running.as_ref().and_then(|it| it.started_at.as_ref());
        running.or_else(|| it.terminated.as_ref()?.started_at.as_ref())
    });
    Milestones {
        scheduled_ms: scheduled.and_then(|it| Some(it.last_transition_time.as_ref()?.0.as_millisecond())),
        container_ms: started.map(|time| time.0.as_millisecond()),
    }
}

/// The party that terminates the Pod, if there is one.
pub(super) fn terminated_by(pod: &Pod, now: Timestamp) -> Option<TerminatedBy> {
    // The kubelet kills first and reports the reason later.
    let limit = pod.spec.as_ref()?.active_deadline_seconds.and_then(|it| u64::try_from(it).ok());
    let started = pod.status.as_ref()?.start_time.as_ref();
    if started.zip(limit).is_some_and(|(started, limit)| now >= started.0 + Duration::from_secs(limit)) {
        return Some(TerminatedBy::Deadline);
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref();
    let disruption = conditions
        .and_then(|all| all.iter().find(|it| it.type_ == "DisruptionTarget" && it.status == "True"));
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|_| "somebody deleted the Pod".to_owned());
    disruption.map(disruption_text).or_else(deleted).map(TerminatedBy::Cluster)
}

/// The cause of an eviction, by the kubelet's warning. The Pod's status has it only when all containers have ended.
pub(super) fn evicted_by(warning: &Event) -> TerminatedBy {
    let detail = warning.message.clone().unwrap_or_default();
    match warning.metadata.annotations.as_ref().and_then(|it| it.get(STARVED_RESOURCE)) {
        Some(resource) => {
            TerminatedBy::Cluster(format!("its node ran out of {resource} ({})", detail.trim()))
        }
        None => TerminatedBy::DiskLimit(disk_limit_text(&detail)),
    }
}

/// `detail` is the kubelet's sentence.
fn disk_limit_text(detail: &str) -> String {
    let detail = detail.trim_end_matches(['.', ' ']);
    format!(
        "the Pod was evicted because it wrote more to the disk of its node than it may ({detail}); write less, or raise the limit in the Pod template (--pod-template)"
    )
}

/// The disruption that ended the Pod.
fn disruption_text(condition: &PodCondition) -> String {
    let reason = condition.reason.clone().unwrap_or_default();
    let what = match reason.as_str() {
        "PreemptionByScheduler" => "a Pod of higher priority took its place",
        "DeletionByTaintManager" => "its node became unreachable or was tainted",
        "EvictionByEvictionAPI" => "it was evicted, as when a node is drained",
        "TerminationByKubelet" => "its node ran out of a resource, or shuts down",
        "DeletionByPodGC" => "its node is gone",
        _ => "the cluster ended it",
    };
    let detail = condition.message.clone().unwrap_or_default();
    if detail.is_empty() { what.to_owned() } else { format!("{what} ({detail})") }
}

fn pending_status<'a>(
    conditions: &[PodCondition],
    containers: impl Iterator<Item = &'a ContainerStatus>,
    events: &[String],
) -> Observation {
    let unscheduled = conditions.iter().find(|it| it.type_ == "PodScheduled" && it.status == "False");
    if let Some(condition) = unscheduled {
        let detail = condition.message.as_deref().unwrap_or("no node was chosen yet");
        return pending(
            PendingReason::Schedule,
            format!("the Pod waits for a node: {detail}"),
            UNSCHEDULABLE,
        );
    }
    let stuck = containers.filter_map(|it| it.state.as_ref()?.waiting.as_ref()).find(|it| !is_ordinary(it));
    if let Some(stuck) = stuck {
        let why = stuck.reason.clone().unwrap_or_default();
        let detail = stuck.message.clone().unwrap_or_default();
        let (reason, timeout) = match why.as_str() {
            "InvalidImageName" | "ErrImageNeverPull" => (PendingReason::Image, IMAGE_NEVER),
            "ErrImagePull" | "ImagePullBackOff" => (PendingReason::Image, IMAGE),
            _ => (PendingReason::Start, STARTING),
        };
        return pending(reason, format!("the Pod cannot start: {why}: {detail}"), timeout);
    }
    let why = events.last().map_or_else(
        || "the Pod is being started".to_owned(),
        |it| format!("the Pod is being started: {it}"),
    );
    pending(PendingReason::Start, why, STARTING)
}

fn is_ordinary(waiting: &ContainerStateWaiting) -> bool {
    matches!(waiting.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing"))
}

fn pending(reason: PendingReason, message: String, timeout: Duration) -> Observation {
    Observation::Pending(PendingStatus { reason, message, timeout })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(status: Value) -> Observation {
        seen_with(false, status)
    }

    fn seen_with(is_overdue: bool, status: Value) -> Observation {
        let pod = json!({ "metadata": {}, "status": status });
        observe(&serde_json::from_value(pod).unwrap(), &[], is_overdue)
    }

    fn why(observation: Observation) -> String {
        match observation {
            Observation::Pending(pending) => pending.message,
            other => panic!("{other:?}"),
        }
    }

    fn remains_of(observation: Observation) -> AgentArtifacts {
        match observation {
            Observation::Gone(artifacts) => *artifacts,
            other => panic!("{other:?}"),
        }
    }

    fn outcome_of(observation: Observation) -> Outcome {
        match remains_of(observation).end {
            End::Reported(outcome) | End::ReportedByPlatform(outcome) => outcome,
            End::Unknown => panic!("nobody says how it ended"),
        }
    }

    fn ended(terminated: Value) -> Value {
        json!({ "phase": "Failed", "containerStatuses": [{ "name": CONTAINER, "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": { "terminated": terminated } }] })
    }

    #[test]
    fn pending_reasons_are_reported() {
        let unscheduled = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu." }] });
        assert!(why(seen(unscheduled)).contains("Insufficient cpu"));
        let image = json!({ "phase": "Pending", "containerStatuses": [{ "name": CONTAINER, "image": "", "imageID": "",
            "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\"" } } }] });
        assert!(why(seen(image)).contains("ImagePullBackOff"));
        assert!(why(seen(json!({ "phase": "Pending" }))).contains("being started"));
    }

    #[test]
    fn termination_message_is_the_outcome() {
        let said = json!({ "reason": "exited", "exit_code": 3, "message": "no such column", "records": 7 })
            .to_string();
        let outcome = outcome_of(seen(ended(json!({ "exitCode": 3, "message": said }))));
        assert_eq!((outcome.reason(), outcome.exit_code, outcome.last_seq), (Reason::Exited, Some(3), 7));
    }

    #[test]
    fn oom_kill_of_the_whole_pod_is_reported_by_the_kubelet() {
        let oom = outcome_of(seen(ended(json!({ "exitCode": 137, "reason": "OOMKilled" }))));
        assert_eq!((oom.reason(), oom.retryable), (Reason::OutOfMemory, false));
        let killed = outcome_of(seen(ended(json!({ "exitCode": 137, "reason": "Error" }))));
        assert_eq!((killed.reason(), killed.retryable), (Reason::Lost, true));
    }

    #[test]
    fn overdue_pod_of_an_unreachable_node_is_lost() {
        let running = json!({ "phase": "Running", "containerStatuses": [{ "name": CONTAINER, "image": "", "imageID": "",
            "ready": true, "restartCount": 0, "state": { "running": {} } }] });
        assert!(matches!(seen_with(false, running.clone()), Observation::Running));
        assert!(outcome_of(seen_with(true, running)).message.contains("does not say"));
    }

    fn past_deadline(message: &str) -> AgentArtifacts {
        let mut status = ended(json!({ "exitCode": 143, "reason": "Error", "message": message }));
        status["reason"] = json!("DeadlineExceeded");
        remains_of(seen(status))
    }

    #[test]
    fn exceeded_deadline_is_reported_as_deadline() {
        let artifacts = past_deadline("");
        let End::ReportedByPlatform(outcome) = artifacts.end else {
            panic!("nobody knows how many records there are")
        };
        assert_eq!((outcome.reason(), outcome.retryable), (Reason::Deadline, false));
    }

    #[test]
    fn outcome_from_before_the_deadline_counts() {
        let succeeded = json!({ "reason": "succeeded", "records": 9, "last_result": 4, "marks": [] });
        let artifacts = past_deadline(&succeeded.to_string());
        let outcome = artifacts.reported().unwrap();
        assert_eq!((outcome.reason(), outcome.last_seq), (Reason::Succeeded, 9));
        assert!(artifacts.terminal_records.is_some());
    }

    #[test]
    fn agent_ended_by_the_deadline_reports_its_records() {
        let terminated =
            json!({ "reason": "terminated", "message": "TERM", "records": 9, "retryable": true });
        let artifacts = past_deadline(&terminated.to_string());
        let outcome = artifacts.reported().unwrap();
        assert_eq!((outcome.reason(), outcome.retryable, outcome.last_seq), (Reason::Deadline, false, 9));
        assert!(outcome.message.contains("activeDeadlineSeconds"), "{}", outcome.message);
        assert!(!outcome.output_kept);
    }

    #[test]
    fn output_from_before_the_deadline_is_kept() {
        let terminated = json!({ "reason": "terminated", "message": "what the command made is kept",
            "records": 9, "retryable": true, "output_kept": true });
        let artifacts = past_deadline(&terminated.to_string());
        let outcome = artifacts.reported().unwrap();
        assert_eq!(
            (outcome.reason(), outcome.retryable, outcome.output_kept),
            (Reason::Deadline, false, true)
        );
        assert!(outcome.message.ends_with("; what the command made is kept"), "{}", outcome.message);
    }

    /// As the kubelet writes it. A disruption is an eviction for the sake of the node, which another attempt survives.
    fn evicted(message: &str, conditions: Value) -> Outcome {
        let mut status = ended(json!({ "exitCode": 143, "reason": "Error", "message": message }));
        status["reason"] = json!("Evicted");
        status["message"] = json!("Usage of EmptyDir volume \"sqlflow-tmp\" exceeds the limit \"4Gi\". ");
        status["conditions"] = conditions;
        outcome_of(seen(status))
    }

    #[test]
    fn exceeded_disk_limit_is_reported_and_not_retryable() {
        let terminated =
            json!({ "reason": "terminated", "message": "TERM", "records": 9, "retryable": true });
        let limit = "(Usage of EmptyDir volume \"sqlflow-tmp\" exceeds the limit \"4Gi\"); write less";
        for (message, records) in [("", 0), (terminated.to_string().as_str(), 9)] {
            let outcome = evicted(message, json!([]));
            assert_eq!((outcome.reason(), outcome.retryable), (Reason::Terminated, false));
            assert!(outcome.message.contains(limit), "{}", outcome.message);
            assert_eq!(outcome.last_seq, records);
        }
        let disruption =
            json!([{ "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet" }]);
        let outcome = evicted("", disruption);
        assert_eq!((outcome.reason(), outcome.retryable), (Reason::Lost, true));
        assert!(outcome.message.contains("its node ran out of a resource"), "{}", outcome.message);
    }

    #[test]
    fn warning_of_an_eviction_names_its_cause() {
        let by = |annotations: Value| {
            let warning = json!({
                "metadata": { "annotations": annotations }, "involvedObject": {}, "message": "Too much. ",
            });
            evicted_by(&serde_json::from_value(warning).unwrap())
        };
        assert!(matches!(by(json!({})), TerminatedBy::DiskLimit(it) if it.contains("(Too much);")));
        let starved = by(json!({ "starved_resource": "memory" }));
        assert_eq!(starved, TerminatedBy::Cluster("its node ran out of memory (Too much.)".to_owned()));
    }

    /// Only an agent knows that: an outcome without its word would be taken for one with no records.
    #[test]
    fn outcome_of_the_platform_has_no_records() {
        let mut late = json!({ "phase": "Failed", "reason": "DeadlineExceeded" });
        let evicted = json!({ "phase": "Failed", "reason": "Evicted" });
        let oom = ended(json!({ "exitCode": 137, "reason": "OOMKilled" }));
        let killed = ended(json!({ "exitCode": 137, "reason": "Error", "message": "no outcome" }));
        late["conditions"] =
            json!([{ "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC" }]);
        for status in [late, evicted, oom, killed] {
            let artifacts = remains_of(seen(status.clone()));
            assert!(matches!(artifacts.end, End::ReportedByPlatform(_)), "{status}");
        }
        assert!(matches!(remains_of(seen_with(true, json!({}))).end, End::ReportedByPlatform(_)));
    }

    #[test]
    fn terminating_party_is_named() {
        let mut status = ended(json!({ "exitCode": 137, "reason": "Error" }));
        status["conditions"] =
            json!([{ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" }]);
        assert!(outcome_of(seen(status)).message.contains("higher priority"));
        let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." });
        assert!(outcome_of(seen(evicted)).message.contains("low on resource"));
    }
}
