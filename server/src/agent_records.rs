//! What an agent may say in its records. Others would be taken for a server's.

use sqlflow_proto::record::{Record, gap, notice, record::Payload};

/// The record as it is logged. It keeps its sequence number, which has no gaps.
pub(crate) fn admitted(mut record: Record) -> Record {
    match &mut record.payload {
        // The end of a job is a server's.
        Some(Payload::Notice(notice)) => notice.set_kind(notice::Kind::Warning),
        // So is what the log removes or does not take.
        Some(Payload::Gap(gap)) if matches!(gap.reason(), gap::Reason::Retention | gap::Reason::Limit) => {
            gap.set_reason(gap::Reason::Unspecified);
        }
        _ => {}
    }
    record
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Gap, Notice};

    use super::*;

    fn admit(payload: Payload) -> Payload {
        let record = Record { seq: 7, payload: Some(payload), ..Record::default() };
        let admitted = admitted(record);
        assert_eq!(admitted.seq, 7);
        admitted.payload.unwrap()
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
        for foreign in [gap::Reason::Retention, gap::Reason::Limit] {
            assert_eq!(admit(gap(foreign)), gap(gap::Reason::Unspecified));
        }
    }
}
