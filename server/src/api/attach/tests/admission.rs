//! Who may speak for an attempt, and whose connection stays.

use super::*;

/// The state does not know their agent, because it was restored from a backup. A new agent may not continue them; the
/// one that sent them may.
#[tokio::test]
async fn agent_may_not_start_an_attempt_with_records() {
    let world = world().await;
    let output = Some(Payload::Output(sqlflow_proto::record::Output::default()));
    let record = Record { seq: 1, payload: output, ..Record::default() };
    let entry = Entry { producer: Producer::agent(&world.attempt, 0), record };
    world.log.append(&world.attempt.job, vec![entry]).await.unwrap();
    let refused = world.attach_with(OTHER_KEY, false).await.err().expect("it is refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("the log has 1 records of it"), "{}", refused.message());
    let _stream = world.attach(KEY).await.unwrap();
    // It did not get all of its assignment.
    world.attach_with(KEY, false).await.unwrap();
}

#[tokio::test]
async fn instance_key_outweighs_a_failed_token_check() {
    let world = world().await;
    let refuse = |code| *world.platform.refuses.lock().unwrap() = code;
    refuse(Some(Code::Unauthenticated));
    let code = |attached: Result<Stream, Status>| attached.err().map(|status| status.code());
    assert_eq!(
        code(world.attach(KEY).await),
        Some(Code::Unauthenticated),
        "the first Attach needs the platform"
    );
    refuse(None);
    let first = world.attach(KEY).await.unwrap();
    refuse(Some(Code::Unauthenticated));
    let second = world.attach(KEY).await.unwrap();
    assert_eq!(first.end().await.code(), Code::Aborted);
    assert_eq!(code(world.attach(OTHER_KEY).await), Some(Code::Unauthenticated));
    refuse(Some(Code::PermissionDenied));
    assert_eq!(code(world.attach(KEY).await), Some(Code::PermissionDenied), "it is known to be another");
    refuse(Some(Code::Unavailable));
    let third = world.attach(KEY).await.unwrap();
    assert_eq!(second.end().await.code(), Code::Aborted);
    assert_eq!(code(world.attach(OTHER_KEY).await), Some(Code::Unavailable), "it is not known yet");
    refuse(None);
    world.found_ended().await;
    assert_eq!(third.end().await.code(), Code::FailedPrecondition);
    refuse(Some(Code::Unauthenticated));
    assert_eq!(
        code(world.attach(KEY).await),
        Some(Code::FailedPrecondition),
        "an inferred outcome is stronger still"
    );
}

/// An apiserver that takes a call and does not answer it: the agent must be back before it gives up itself.
#[tokio::test]
async fn agent_reattaches_while_the_platform_does_not_answer() {
    let world = world().await;
    let first = world.attach(KEY).await.unwrap();
    *world.platform.held_up.lock().unwrap() = Some(Arc::default());
    let _second = world.attach(KEY).await.unwrap();
    assert_eq!(first.end().await.code(), Code::Aborted);
}

/// An executor that is there before its work is: it stays, within a bound, and its platform has to know it.
#[tokio::test]
async fn executor_without_an_attempt_waits() {
    let world = world().await;
    let hello = || Hello { instance_key: KEY.to_vec().into(), ..Hello::default() };
    let mut first = world.stream(hello()).await.unwrap();
    assert!(matches!(first.next().await, Ok(Message::Wait(_))));
    first.beat(0).await;
    let second = world.stream(hello()).await.unwrap();
    assert_eq!(second.end().await.code(), Code::ResourceExhausted, "this server keeps one");
    first.say(attach_request::Message::Commit(CommitRequest::default())).await;
    assert_eq!(first.end().await.code(), Code::InvalidArgument, "it has no attempt");
    *world.platform.refuses.lock().unwrap() = Some(Code::Unauthenticated);
    assert_eq!(world.stream(hello()).await.unwrap().end().await.code(), Code::Unauthenticated);
}

/// It was delayed for so long that its agent connected again.
#[tokio::test]
async fn abandoned_stream_does_not_end_a_newer_one() {
    let world = world().await;
    let go_on = Arc::new(Notify::new());
    *world.platform.held_up.lock().unwrap() = Some(go_on.clone());
    let held_up = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            _ = world.attach(KEY) => panic!("it is held up"),
            () = world.platform.waits.notified() => {}
        }
    });
    held_up.await.unwrap();
    let mut newer = world.attach(KEY).await.unwrap();
    go_on.notify_one();
    // Nothing tells that the held up one was dropped; if it took over, it does so at once.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let cancel = sqlflow_job::Failure::new(sqlflow_job::Cause::Cancelled, "by a user");
    world.update(Event::CancelRequested(cancel)).await;
    assert!(matches!(newer.next().await, Ok(Message::Cancel(_))));
}

/// Even if the log has records.
#[tokio::test]
async fn second_agent_gets_an_error_naming_the_first() {
    let world = world().await;
    let _first = world.attach(KEY).await.unwrap();
    let record = Record { seq: 1, payload: Some(Payload::Notice(Notice::default())), ..Record::default() };
    let entry = Entry { producer: Producer::agent(&world.attempt, 0), record };
    world.log.append(&world.attempt.job, vec![entry]).await.unwrap();
    let refused = world.stream(world.hello(OTHER_KEY)).await.unwrap().end().await;
    assert!(refused.message().contains("another agent is attached"), "{refused:?}");
}

/// Whether the connection still takes requests after twice the time, when one like this comes every now and then.
async fn stays(channel: Channel, request: impl AsyncFn(Channel) -> Code) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < ADMISSION_TIME * 2 {
        // An error of the transport: the connection was closed, and there is no other.
        if matches!(request(channel.clone()).await, Code::Unknown | Code::Unavailable) {
            return false;
        }
        tokio::time::sleep(ADMISSION_TIME / 20).await;
    }
    true
}

#[tokio::test]
async fn refused_requests_do_not_keep_a_connection_open() {
    let world = world().await;
    let refused = async |channel, hello| match Stream::on(channel, hello).await {
        Ok(stream) => stream.end().await.code(),
        Err(status) => status.code(),
    };
    let unknown = async |channel| {
        let request = HealthCheckRequest { service: String::new() };
        HealthClient::new(channel).check(request).await.unwrap_err().code()
    };
    *world.platform.refuses.lock().unwrap() = Some(Code::PermissionDenied);
    let waiting = || Hello { instance_key: KEY.to_vec().into(), ..Hello::default() };
    let stayed = tokio::join!(
        stays(world.connection().await, async |channel| refused(channel, Hello::default()).await),
        stays(world.connection().await, async |channel| refused(channel, world.hello(KEY)).await),
        stays(world.connection().await, async |channel| refused(channel, waiting()).await),
        stays(world.connection().await, unknown),
    );
    assert_eq!(stayed, (false, false, false, false));
}

#[tokio::test]
async fn connection_of_an_admitted_agent_stays_open() {
    let world = world().await;
    let mut attached =
        Stream::on(world.connection().await, Hello { has_assignment: true, ..world.hello(KEY) })
            .await
            .unwrap();
    assert!(matches!(attached.next().await, Ok(Message::Attached(_))));
    let waiting = Hello { instance_key: OTHER_KEY.to_vec().into(), ..Hello::default() };
    let mut waiting = Stream::on(world.connection().await, waiting).await.unwrap();
    assert!(matches!(waiting.next().await, Ok(Message::Wait(_))));
    tokio::time::sleep(ADMISSION_TIME * 2).await;
    // Each gets an answer.
    attached.say(attach_request::Message::Commit(CommitRequest::default())).await;
    assert!(matches!(attached.next().await, Ok(Message::Grant(_) | Message::Refusal(_))));
    waiting.say(attach_request::Message::Commit(CommitRequest::default())).await;
    assert_eq!(waiting.end().await.code(), Code::InvalidArgument);
}
