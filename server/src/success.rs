//! Whether a success that an agent reports is believed: only if the log has the end of each statement.

use sqlflow_job::{AttemptId, Job, Outcome, Role, StatementEnds};
use sqlflow_result_log::{LogError, ResultLog};

/// The outcome, or what it counts as if it is a success of the attempt without proof. `ends` are those of the attempt,
/// from the log and from what is about to be appended.
pub(crate) async fn believed(
    outcome: Outcome,
    log: &dyn ResultLog,
    job: &Job,
    attempt: &AttemptId,
    ends: StatementEnds,
) -> Result<Outcome, LogError> {
    if !outcome.succeeded() {
        return Ok(outcome);
    }
    Ok(match missing_end(log, job, attempt, ends).await? {
        Some(statement) => outcome.unproved_success(statement),
        None => outcome,
    })
}

/// The first statement whose end is missing.
async fn missing_end(
    log: &dyn ResultLog,
    job: &Job,
    attempt: &AttemptId,
    ends: StatementEnds,
) -> Result<Option<u32>, LogError> {
    // A cleanup executes no statement.
    if job.attempt(attempt).is_none_or(|it| it.role != Role::Run) {
        return Ok(None);
    }
    let Some(step) = job.steps.get(attempt.step as usize) else { return Ok(None) };
    let Some(missing) = ends.first_missing(step) else { return Ok(None) };
    // Agents of earlier versions recorded the end before they published, so it is of the attempt that kept its output.
    match step.kept_output().filter(|made| *made < attempt.number) {
        Some(made) => {
            let made = AttemptId { number: made, ..attempt.clone() };
            Ok(log.statement_ends(&made).await?.first_missing(step))
        }
        None => Ok(Some(missing)),
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_job::{Event, InstanceHash, LauncherId, LauncherKind, Reason};
    use sqlflow_proto::record::{Record, StatementEnded, record::Payload};
    use sqlflow_result_log::{Entry, Producer};

    use super::*;
    use crate::fixture;

    fn succeeded() -> Outcome {
        Outcome::by_server(Reason::Succeeded, "", false)
    }

    fn with_attempt(mut job: Job, role: Role) -> (Job, AttemptId) {
        let number = u32::try_from(job.steps[0].attempts.len()).unwrap() + 1;
        let attempt = AttemptId { job: job.id.clone(), step: 0, number };
        let launcher_id = LauncherId::of(LauncherKind::Local);
        job.apply(Event::AttemptCreated { step: 0, role, launcher_id }, 0).unwrap();
        let instance = InstanceHash::of(b"key");
        let server = "s".to_owned();
        job.apply(Event::AgentAttached { attempt: attempt.clone(), instance, server, is_local: true }, 0)
            .unwrap();
        (job, attempt)
    }

    async fn reason(log: &dyn ResultLog, job: &Job, attempt: &AttemptId, ends: StatementEnds) -> Reason {
        believed(succeeded(), log, job, attempt, ends).await.unwrap().reason
    }

    #[tokio::test]
    async fn success_needs_the_end_of_each_statement() {
        let dir = tempfile::tempdir().unwrap();
        let log = fixture::log(dir.path());
        let mut job = fixture::job(true);
        job.steps[0].statement_count = 2;
        let (job, attempt) = with_attempt(job, Role::Run);
        let of = |range| StatementEnds::of(Some(range));
        for (ends, expected) in [
            (StatementEnds::default(), Reason::AgentFailed),
            (of((0, 0)), Reason::AgentFailed),
            (of((0, 1)), Reason::Succeeded),
            (StatementEnds::unknown(), Reason::Succeeded),
        ] {
            assert_eq!(reason(&log, &job, &attempt, ends).await, expected, "{ends:?}");
        }
        let failed = Outcome::by_server(Reason::Exited, "exit code 1", true);
        let kept = believed(failed.clone(), &log, &job, &attempt, StatementEnds::default()).await.unwrap();
        assert_eq!(kept, failed, "a failure needs no proof");
    }

    #[tokio::test]
    async fn cleanup_needs_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = fixture::log(dir.path());
        let (job, attempt) = with_attempt(fixture::job(true), Role::Cleanup);
        assert_eq!(reason(&log, &job, &attempt, StatementEnds::default()).await, Reason::Succeeded);
    }

    /// Its statement ran in an earlier attempt, whose agent may have been of an earlier version.
    #[tokio::test]
    async fn end_of_published_output_may_be_of_the_attempt_that_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = fixture::log(dir.path());
        let (mut job, made) = with_attempt(fixture::job(true), Role::Run);
        let mut kept = Outcome::by_server(Reason::PublishFailed, "the storage is away", true);
        kept.output_kept = true;
        let instance = InstanceHash::of(b"key");
        job.apply(Event::OutcomeReported { attempt: made.clone(), instance, outcome: kept }, 0).unwrap();
        let (job, attempt) = with_attempt(job, Role::Run);
        let reason = async || reason(&log, &job, &attempt, StatementEnds::default()).await;
        assert_eq!(reason().await, Reason::AgentFailed);
        let payload = Some(Payload::Ended(StatementEnded::default()));
        let record = Record { seq: 1, statement: Some(0), payload, ..Record::default() };
        log.append(&job.id, vec![Entry { producer: Producer::agent(&made, 0), record }]).await.unwrap();
        assert_eq!(reason().await, Reason::Succeeded);
    }
}
