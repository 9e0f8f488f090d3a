//! An agent that lives and says nothing, as one whose machine is stopped or cut off.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::stand_in::{self, STEP};

use super::agent_killed::find_agent;

/// Stopped until it is dropped, also by a test that fails.
pub(super) struct Stopped(Pid);

impl Stopped {
    pub(super) fn new(pid: Pid) -> Self {
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // An error means that it is gone.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn says(text: &str) -> impl Fn(&Payload) -> bool {
    move |it| matches!(it, Payload::Message(said) if said.message.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stopped_is_noticed_and_so_is_that_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let code = "
import os, sys, time
print('up')
while not os.path.exists(sys.argv[1] + '/go'): time.sleep(0.01)
print('done')
";
    let server = stand_in::setup(dir.path(), code, None).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    let cursor = client.until(&token, |it| matches!(it, Payload::Log(_))).await.unwrap();
    let stopped = Stopped::new(find_agent(&token.job_id, 0, 1).expect("the agent runs"));
    let cursor = client.until(&cursor, says("no word from the agent for 15 s")).await.unwrap();
    drop(stopped);
    let cursor = client.until(&cursor, says("the agent is heard again")).await.unwrap();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.log(), "done\n");
}
