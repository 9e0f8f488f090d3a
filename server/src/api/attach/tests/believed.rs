//! What an admitted agent says, and what is believed.

use sqlflow_job::StepKind;
use sqlflow_proto::agent::RecordBatch;
use sqlflow_proto::record::{ModelPublished, StatementEnded};

use super::*;

impl Stream {
    /// Sends a record, and waits until it is durable.
    async fn record(&mut self, seq: u64, payload: Payload) {
        let record = Record { seq, statement: Some(0), payload: Some(payload), ..Record::default() };
        self.say(attach_request::Message::Records(RecordBatch { records: vec![record] })).await;
        match self.next().await.unwrap() {
            Message::Ack(ack) => assert_eq!(ack.seq, seq),
            other => panic!("{other:?}"),
        }
    }

    async fn succeed(mut self, last_seq: u64) {
        let reason = agent::outcome::Reason::Succeeded.into();
        let outcome = agent::Outcome { reason, last_seq, ..agent::Outcome::default() };
        self.say(attach_request::Message::Outcome(outcome)).await;
        while !matches!(self.next().await.unwrap(), Message::OutcomeAck(_)) {}
    }
}

impl World {
    async fn ended(&self) -> (Reason, String) {
        let job = self.store.load(&self.attempt.job).await.unwrap().unwrap().job;
        let outcome = job.attempt(&self.attempt).unwrap().outcome().unwrap();
        (outcome.reason, outcome.message.clone())
    }

    /// Names of the models that the log says were published.
    async fn published(&self) -> Vec<String> {
        let page = self.log.read(&self.attempt.job, 0, usize::MAX).await.unwrap();
        let name = |stored: sqlflow_proto::record::StoredRecord| match stored.record?.payload? {
            Payload::Model(model) => Some(model.name),
            _ => None,
        };
        page.records.into_iter().filter_map(name).collect()
    }
}

fn ended() -> Payload {
    Payload::Ended(StatementEnded::default())
}

fn model() -> Payload {
    Payload::Model(ModelPublished { name: "flowers".to_owned(), ..ModelPublished::default() })
}

#[tokio::test]
async fn success_without_the_end_of_its_statement_is_not_believed() {
    let world = world().await;
    let mut stream = world.attach(KEY).await.unwrap();
    stream.record(1, Payload::Output(sqlflow_proto::record::Output::default())).await;
    stream.succeed(1).await;
    let (reason, message) = world.ended().await;
    assert_eq!(reason, Reason::AgentFailed, "{message}");
    assert!(message.contains("the log lacks the end of statement 1"), "{message}");
}

/// The end may come with the outcome, in an earlier message, or on an earlier stream.
#[tokio::test]
async fn success_with_the_end_of_its_statement_is_believed() {
    for streams in [1, 2] {
        let world = world().await;
        let mut stream = world.attach(KEY).await.unwrap();
        stream.record(1, ended()).await;
        if streams == 2 {
            stream = world.attach(KEY).await.unwrap();
        }
        stream.succeed(1).await;
        assert_eq!(world.ended().await.0, Reason::Succeeded, "{streams} streams");
    }
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    let record = Record { seq: 1, statement: Some(0), payload: Some(ended()), ..Record::default() };
    stream.say(attach_request::Message::Records(RecordBatch { records: vec![record] })).await;
    stream.succeed(1).await;
    assert_eq!(world.ended().await.0, Reason::Succeeded);
}

#[tokio::test]
async fn model_is_believed_after_the_grant() {
    let mut job = fixture::job(true);
    job.steps[0].kind = StepKind::Train;
    let world = world_of(job).await;
    let mut stream = world.attach(KEY).await.unwrap();
    stream.record(1, model()).await;
    assert_eq!(world.published().await, [""; 0]);
    world.said("it has published model \"flowers\", without the right").await;
    stream.say(attach_request::Message::Commit(CommitRequest::default())).await;
    assert!(matches!(stream.next().await, Ok(Message::Grant(_))));
    stream.record(2, model()).await;
    // The grant stands on a new stream.
    let mut stream = world.attach(KEY).await.unwrap();
    stream.record(3, model()).await;
    assert_eq!(world.published().await, ["flowers"; 2]);
}
