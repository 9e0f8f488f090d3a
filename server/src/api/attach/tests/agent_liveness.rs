//! Agents that say nothing or are away, and are heard again.

use super::*;

#[tokio::test]
async fn silent_agent_and_its_return_are_reported() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    stream.beat(700 << 20).await;
    world.said("no word from the agent for 1 s; its processes had used up to 700 MiB of memory").await;
    stream.beat(0).await;
    world.said("the agent is heard again").await;
    assert_eq!(world.notices().await.len(), 2, "each is reported once");
}

/// So that it need not ask whether the server is there.
#[tokio::test]
async fn heartbeats_are_answered() {
    let world = world().await;
    let mut stream = world.attach(KEY).await.unwrap();
    let requests = stream.requests.clone();
    let beats = async {
        loop {
            let beat = attach_request::Message::Heartbeat(Heartbeat::default());
            requests.send(AttachRequest { message: Some(beat) }).await.unwrap();
            tokio::time::sleep(SILENCE / 10).await;
        }
    };
    tokio::select! {
        () = beats => unreachable!("it does not end"),
        message = stream.next() => assert_eq!(message.unwrap(), Message::Ack(attach_response::Ack { seq: 0 })),
    }
}

/// As when its connection is cut, or it is killed.
#[tokio::test]
async fn end_of_stream_of_a_silent_agent_is_not_a_return() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    world.said("no word from the agent for 1 s").await;
    drop(stream);
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(world.notices().await.len(), 1, "it is reported once");
    let _stream = world.attach(KEY).await.unwrap();
    world.said("the agent is heard again").await;
}

#[tokio::test]
async fn disconnected_agent_and_its_return_are_reported() {
    let world = world().await;
    drop(world.attach(KEY).await.unwrap());
    world.said("it has not come back to this server").await;
    let _stream = world.attach(KEY).await.unwrap();
    world.said("the agent is heard again").await;
    assert_eq!(world.notices().await.len(), 2, "each is reported once");
}

/// To another server of the same state, which hears its heartbeats.
#[tokio::test]
async fn agent_attached_to_another_server_is_not_awaited() {
    let world = world().await;
    drop(world.attach(KEY).await.unwrap());
    world.attach_elsewhere().await;
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(world.notices().await, [] as [String; 0]);
}

/// As after this server was stopped together with the agent: the reconciler of the job reports it, at another server.
#[tokio::test]
async fn agent_reported_silent_by_the_reconciler_is_not_awaited() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    stream.beat(0).await;
    world.said("no word from the agent").await;
    world.reported_unheard().await;
    drop(stream);
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(world.notices().await.len(), 1, "neither that it is silent nor that it is heard again");
}

/// For example the other server was stopped, and now reads earlier messages of the agent.
#[tokio::test]
async fn agent_is_attached_to_the_server_that_receives_its_messages() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    world.attach_elsewhere().await;
    world.speaks_until_it_is_attached_here(&stream).await;
    world.reported_unheard().await;
    world.speaks_until_it_is_attached_here(&stream).await;
    assert_eq!(world.notices().await, [] as [String; 0]);
}

/// Even if it was disconnected. No notice is written for an ended attempt.
#[tokio::test]
async fn agent_of_an_ended_attempt_is_not_awaited() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    world.found_ended().await;
    assert_eq!(stream.end().await.code(), Code::FailedPrecondition);
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(world.notices().await, [] as [&str; 0]);
}

/// It counts as attached to this server, and has no stream.
#[tokio::test]
async fn agent_that_disconnected_before_admission_is_awaited() {
    let world = world().await;
    let go_on = Arc::new(Notify::new());
    *world.platform.held_up.lock().unwrap() = Some(go_on.clone());
    tokio::select! {
        _ = world.attach(KEY) => panic!("it is held up"),
        () = world.platform.waits.notified() => {}
    }
    go_on.notify_one();
    world.said("no word from the agent").await;
    let _stream = world.attach(KEY).await.unwrap();
    world.said("the agent is heard again").await;
}
