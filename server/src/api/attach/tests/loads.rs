//! How often a stream loads its job: once before the agent is let in, and then when another server has written it.

use super::*;

impl World {
    fn loads(&self) -> u64 {
        fixture::loads(&self.metrics)
    }

    /// Waits until the agent is not awaited any more.
    async fn is_over(&self) {
        let over = async {
            while !lock(&self.context.streams).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), over).await.expect("the agent is awaited");
    }
}

fn outcome(last_seq: u64) -> attach_request::Message {
    let reason = agent::outcome::Reason::Terminated.into();
    attach_request::Message::Outcome(agent::Outcome { reason, last_seq, ..agent::Outcome::default() })
}

#[tokio::test]
async fn whole_session_takes_one_load() {
    let world = world().await;
    let mut stream = world.attach_with(KEY, false).await.unwrap();
    assert!(matches!(
        stream.next().await,
        Ok(Message::Assignment(agent::AssignmentChunk { last: true, .. }))
    ));
    // The job's reconciler in this process records the launch only now.
    world
        .update(Event::AttemptLaunched {
            attempt: world.attempt.clone(),
            tracker_url: Some("u".to_owned()),
            executor_uid: None,
        })
        .await;
    stream.say(attach_request::Message::Commit(CommitRequest::default())).await;
    assert!(matches!(stream.next().await, Ok(Message::Grant(_))));
    stream.say(outcome(0)).await;
    assert!(matches!(stream.next().await, Ok(Message::OutcomeAck(_))));
    drop(stream);
    world.is_over().await;
    assert_eq!(world.loads(), 1);
}

#[tokio::test]
async fn write_by_another_server_is_loaded_once() {
    let world = world().await;
    let mut stream = world.attach(KEY).await.unwrap();
    let other = SqliteStore::open(&world.dir.path().join("state.db")).await.unwrap();
    let cancel = sqlflow_job::Failure::new(sqlflow_job::Cause::Cancelled, "by a user");
    other.update(&world.attempt.job, None, Event::CancelRequested(cancel), 0).await.unwrap();
    stream.say(attach_request::Message::Commit(CommitRequest::default())).await;
    let mut messages = vec![stream.next().await.unwrap(), stream.next().await.unwrap()];
    messages.sort_by_key(|message| matches!(message, Message::Refusal(_)));
    assert!(matches!(messages[..], [Message::Cancel(_), Message::Refusal(_)]), "{messages:?}");
    assert_eq!(world.loads(), 2);
    world.found_ended().await;
    assert_eq!(stream.end().await.code(), Code::FailedPrecondition);
    assert_eq!(world.loads(), 2, "this process wrote last");
}

/// Whose acknowledgement was lost with the stream.
#[tokio::test]
async fn outcome_requires_records_taken_by_any_server() {
    let world = world().await;
    let mut stream = world.attach(KEY).await.unwrap();
    let record = Record { seq: 1, payload: Some(Payload::Notice(Notice::default())), ..Record::default() };
    let entry = Entry { producer: Producer::agent(&world.attempt, 0), record };
    world.log.append(&world.attempt.job, vec![entry]).await.unwrap();
    stream.say(outcome(1)).await;
    assert!(matches!(stream.next().await, Ok(Message::OutcomeAck(_))));
    stream.say(outcome(2)).await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
}

/// It comes right behind its records, and one write makes both durable: the server need not ask its log for them.
#[tokio::test]
async fn outcome_is_written_together_with_the_last_records() {
    let world = world().await;
    let mut stream = world.attach(KEY).await.unwrap();
    let record = |seq| Record { seq, payload: Some(Payload::Notice(Notice::default())), ..Record::default() };
    let records = |seqs: std::ops::Range<u64>| {
        attach_request::Message::Records(agent::RecordBatch { records: seqs.map(record).collect() })
    };
    for message in [records(1..3), records(3..4), outcome(3)] {
        stream.requests.send(AttachRequest { message: Some(message) }).await.unwrap();
    }
    let mut acked = 0;
    loop {
        match stream.next().await.unwrap() {
            Message::Ack(ack) => acked = ack.seq,
            Message::OutcomeAck(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acked, 3, "else the agent would keep them for another server");
    assert_eq!(world.log.last_seq(&world.attempt, 0).await.unwrap(), 3);
    let job = world.store.load(&world.attempt.job).await.unwrap().unwrap().job;
    assert!(job.attempt(&world.attempt).unwrap().outcome().is_some());
}
