//! What an agent may say in its records. Others would be taken for a server's, or for what was not granted.

use sqlflow_job::{AttemptId, Job, StepKind};
use sqlflow_proto::record::{Notice, Record, gap, notice, record::Payload};

/// Longest name of a model in a warning.
const MAX_NAME_BYTES: usize = 200;

/// Whether an attempt may have published or removed a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelRight {
    /// It has the grant, in a step that does so.
    Granted,
    /// It has not.
    None,
}

impl ModelRight {
    /// That of an attempt, by the job's record.
    pub(crate) fn of(job: &Job, attempt: &AttemptId) -> Self {
        let step = job.steps.get(attempt.step as usize);
        let may_publish = step.is_some_and(|step| match &step.kind {
            // Nobody knows what later kinds do.
            StepKind::Train | StepKind::DropModel | StepKind::Other(_) => true,
            StepKind::Standard
            | StepKind::Predict
            | StepKind::Explain
            | StepKind::Evaluate
            | StepKind::ShowTrain
            | StepKind::ShowModels
            | StepKind::DescribeModel => false,
        });
        if may_publish && job.attempt(attempt).is_some_and(|it| it.granted) {
            Self::Granted
        } else {
            Self::None
        }
    }
}

/// The record as it is logged. It keeps its sequence number, which has no gaps.
pub(crate) fn admitted(mut record: Record, right: ModelRight) -> Record {
    match &mut record.payload {
        // The end of a job is a server's.
        Some(Payload::Notice(notice)) => notice.set_kind(notice::Kind::Warning),
        // So is what the log removes or does not take, and that the agent is lost.
        Some(Payload::Gap(gap)) => match gap.reason() {
            gap::Reason::Retention | gap::Reason::Limit | gap::Reason::AgentLost => {
                gap.set_reason(gap::Reason::Unspecified);
            }
            gap::Reason::Unspecified
            | gap::Reason::SpoolFull
            | gap::Reason::Drain
            | gap::Reason::LogRestored
            | gap::Reason::Damaged => {}
        },
        // An agent publishes after the grant.
        Some(Payload::Model(model)) if right == ModelRight::None => {
            let name = &model.name[..model.name.floor_char_boundary(MAX_NAME_BYTES)];
            let text = format!(
                "the agent says that it has published model {name:?}, without the right to publish: this is not believed"
            );
            record.payload = Some(Payload::Notice(Notice { kind: notice::Kind::Warning.into(), text }));
        }
        _ => {}
    }
    record
}

#[cfg(test)]
mod tests {
    use sqlflow_job::{Event, InstanceHash, LauncherId, LauncherKind, Role};
    use sqlflow_proto::record::{Gap, ModelPublished};

    use super::*;
    use crate::fixture;

    fn admit_with(payload: Payload, right: ModelRight) -> Payload {
        let record = Record { seq: 7, payload: Some(payload), ..Record::default() };
        let admitted = admitted(record, right);
        assert_eq!(admitted.seq, 7);
        admitted.payload.unwrap()
    }

    fn admit(payload: Payload) -> Payload {
        admit_with(payload, ModelRight::Granted)
    }

    fn notice(kind: notice::Kind) -> Payload {
        Payload::Notice(Notice { kind: kind.into(), text: "x".to_owned() })
    }

    #[test]
    fn agent_cannot_end_the_log() {
        for kind in [notice::Kind::End, notice::Kind::Status, notice::Kind::Warning] {
            assert_eq!(admit(notice(kind)), notice(notice::Kind::Warning));
        }
    }

    #[test]
    fn gaps_of_the_log_are_not_the_agents() {
        let gap = |reason: gap::Reason| Payload::Gap(Gap { reason: reason.into(), bytes: Some(9) });
        for own in
            [gap::Reason::Drain, gap::Reason::SpoolFull, gap::Reason::LogRestored, gap::Reason::Damaged]
        {
            assert_eq!(admit(gap(own)), gap(own));
        }
        for foreign in [gap::Reason::Retention, gap::Reason::Limit, gap::Reason::AgentLost] {
            assert_eq!(admit(gap(foreign)), gap(gap::Reason::Unspecified));
        }
    }

    #[test]
    fn model_is_published_after_the_grant_only() {
        let model =
            |name: &str| Payload::Model(ModelPublished { name: name.to_owned(), ..Default::default() });
        assert_eq!(admit(model("m")), model("m"));
        match admit_with(model(&"é".repeat(300)), ModelRight::None) {
            Payload::Notice(notice) => {
                assert_eq!(notice.kind(), notice::Kind::Warning);
                assert!(notice.text.contains("éé\", without the right") && notice.text.len() < 400);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn right_comes_with_the_grant_of_a_step_that_publishes() {
        for (kind, expected) in
            [(StepKind::Train, ModelRight::Granted), (StepKind::Predict, ModelRight::None)]
        {
            let mut job = fixture::job(true);
            job.steps[0].kind = kind;
            let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
            let (instance, server) = (InstanceHash::of(b"key"), "s".to_owned());
            let launcher_id = LauncherId::of(LauncherKind::Local);
            for event in [
                Event::AttemptCreated { step: 0, role: Role::Run, launcher_id },
                Event::AgentAttached {
                    attempt: attempt.clone(),
                    instance: instance.clone(),
                    server,
                    is_local: true,
                },
            ] {
                job.apply(event, 0).unwrap();
            }
            assert_eq!(ModelRight::of(&job, &attempt), ModelRight::None, "before the grant");
            job.apply(Event::CommitRequested { attempt: attempt.clone(), instance }, 0).unwrap();
            assert_eq!(ModelRight::of(&job, &attempt), expected);
        }
    }
}
