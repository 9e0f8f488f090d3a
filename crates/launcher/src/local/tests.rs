use sqlflow_job::JobId;
use sqlflow_proto::agent::outcome::Reason;

use super::*;
use crate::End;
use crate::lock::write_lock;

fn launcher(dir: &Path) -> LocalLauncher {
    LocalLauncher::new(options(dir))
}

fn options(dir: &Path) -> LocalOptions {
    LocalOptions {
        agent: dir.join("agent"),
        python: Python::unchecked("python3"),
        state_dir: dir.to_owned(),
        run_dir: dir.join("run"),
        cache: dir.join("cache"),
        socket: dir.join("socket"),
        linger: Duration::ZERO,
        attach: Duration::ZERO,
        open_files: None,
        passed_variables: PassedVariables::default(),
        run_as: None,
        max_running: None,
    }
}

/// With one run slot, and an agent that ends at once.
fn with_one_run_slot(dir: &Path) -> LocalLauncher {
    let (agent, max_running) = (PathBuf::from("/bin/true"), NonZeroUsize::new(1));
    LocalLauncher::new(LocalOptions { agent, max_running, ..options(dir) })
}

fn target() -> Target {
    Target::own(AttemptId { job: JobId::generate(), step: 0, number: 1 })
}

/// As on a disk that is full or read-only.
#[tokio::test]
async fn agent_gets_one_term_even_if_it_cannot_be_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (launcher, executor) = (launcher(dir.path()), target().executor);
    launcher.exits.adopt(&executor, std::future::pending());
    assert_eq!([(); 3].map(|()| launcher.is_first_term(&executor)), [true, false, false]);
}

#[tokio::test]
async fn agent_gets_one_term_from_several_servers() {
    let dir = tempfile::tempdir().unwrap();
    let executor = target().executor;
    let servers = [launcher(dir.path()), launcher(dir.path())];
    fs::create_dir_all(servers[0].run_dir(&executor)).unwrap();
    let firsts = servers.each_ref().map(|server| {
        server.exits.adopt(&executor, std::future::pending());
        server.is_first_term(&executor)
    });
    assert_eq!(firsts, [true, false]);
}

#[tokio::test]
async fn unreadable_outcome_counts_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target { instance: Some(InstanceHash::of(b"key").sealing()), ..target() };
    let launcher = launcher(dir.path());
    fs::create_dir_all(launcher.run_dir(&target.executor).join("outcome")).unwrap();
    let Observation::Gone(artifacts) = launcher.observe(&target).await else { panic!("it is gone") };
    assert!(artifacts.reported().is_none() && artifacts.records.is_some());
    assert!(artifacts.log_tail.contains("damaged: Is a directory"), "{}", artifacts.log_tail);
}

#[tokio::test]
async fn unreadable_lock_is_an_unknown_state() {
    let dir = tempfile::tempdir().unwrap();
    let (launcher, target) = (launcher(dir.path()), target());
    fs::create_dir_all(launcher.run_dir(&target.executor).join("lock")).unwrap();
    let launched = launcher.launch(&target, &LaunchRequirements::default()).await;
    assert!(matches!(launched, Err(LaunchError::Later(_))), "{launched:?}");
    let Observation::Unknown(why) = launcher.observe(&target).await else { panic!("it may run") };
    assert!(why.starts_with("cannot read the agent's lock: Is a directory"), "{why}");
}

#[tokio::test]
async fn unusable_run_slot_is_retryable() {
    let dir = tempfile::tempdir().unwrap();
    let (launcher, target) = (with_one_run_slot(dir.path()), target());
    let place = dir.path().join("run/places/0");
    fs::create_dir_all(&place).unwrap();
    let launched = launcher.launch(&target, &LaunchRequirements::default()).await;
    let Err(LaunchError::Later(why)) = launched else { panic!("{launched:?}") };
    assert!(why.starts_with("cannot take a run slot") && why.contains("run/places/0"), "{why}");
    fs::remove_dir(place).unwrap();
    launcher.launch(&target, &LaunchRequirements::default()).await.unwrap();
}

#[tokio::test]
async fn failed_creation_of_a_run_folder_is_retryable() {
    let dir = tempfile::tempdir().unwrap();
    let (launcher, target) = (launcher(dir.path()), target());
    fs::create_dir_all(launcher.run_dir(&target.executor).join("agent.log")).unwrap();
    let launched = launcher.launch(&target, &LaunchRequirements::default()).await;
    let Err(LaunchError::Later(why)) = launched else { panic!("{launched:?}") };
    assert!(why.starts_with("cannot prepare the run folder"), "{why}");
}

/// As in an upgrade. Where it stays away the job fails, and says what is not there.
#[tokio::test]
async fn missing_agent_program_is_retryable() {
    let dir = tempfile::tempdir().unwrap();
    let launcher = launcher(dir.path());
    let agent = dir.path().join("agent");
    let launched = launcher.launch(&target(), &LaunchRequirements::default()).await;
    let Err(LaunchError::Refused { message, retryable: true }) = launched else { panic!("{launched:?}") };
    assert!(message.starts_with(&format!("cannot start the agent {}", agent.display())), "{message}");

    let written = OpenOptions::new().create(true).append(true).mode(0o700).open(&agent).unwrap();
    let launched = launcher.launch(&target(), &LaunchRequirements::default()).await;
    assert!(matches!(launched, Err(LaunchError::Later(_))), "{launched:?}");
    drop(written);
}

/// What holds the run slot may be a training of days.
#[tokio::test]
async fn cleanup_attempt_needs_no_run_slot() {
    let dir = tempfile::tempdir().unwrap();
    let (launcher, training, cancelled) = (with_one_run_slot(dir.path()), target(), target());
    let Ok(SlotRequest::Taken(_slot)) = launcher.run_slots.take(&training.attempt).await else {
        panic!("it is free")
    };
    let launched = launcher.launch(&cancelled, &LaunchRequirements::default()).await;
    assert!(matches!(launched, Err(LaunchError::NoFreeSlot { .. })), "{launched:?}");
    let cleanup = LaunchRequirements { cleans_up: true, ..LaunchRequirements::default() };
    launcher.launch(&cancelled, &cleanup).await.unwrap();
}

#[tokio::test]
async fn run_folder_of_a_running_agent_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (launcher, target) = (launcher(dir.path()), target());
    let run_dir = launcher.run_dir(&target.executor);
    fs::create_dir_all(&run_dir).unwrap();
    // A lock of an open file is as good as one of another process.
    let lock = File::create(run_dir.join("lock")).unwrap();
    nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_OFD_SETLK(&write_lock())).unwrap();
    assert_eq!(launcher.cleanup(&target, false).await.unwrap(), Cleanup::StillRuns);
    assert!(run_dir.exists());
    drop(lock);
    assert_eq!(launcher.cleanup(&target, false).await.unwrap(), Cleanup::Done);
    assert!(!run_dir.exists());
}

/// The search goes through all processes of the machine, so it is left out where the agent has seen the last one end.
/// As where a server died before it could record the launch, and the agent was terminated in the meantime.
#[tokio::test]
async fn no_second_agent_is_started_after_an_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.agent = "/bin/false".into();
    let launcher = LocalLauncher::new(options);
    let target = target();
    let run_dir = launcher.run_dir(&target.executor);
    fs::create_dir_all(&run_dir).unwrap();
    fs::write(run_dir.join("outcome"), "").unwrap();
    launcher.launch(&target, &LaunchRequirements::default()).await.unwrap();
    assert!(!run_dir.join("agent.log").exists(), "an agent was started");
    // A power failure left the file's name only.
    let Observation::Gone(artifacts) = launcher.observe(&target).await else { panic!("nobody runs") };
    assert!(matches!(artifacts.end, End::Unknown));
    assert!(artifacts.log_tail.contains("damaged"), "{}", artifacts.log_tail);
}

/// Any program of the user can write into a run folder.
#[tokio::test]
async fn outcome_without_the_seal_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let launcher = launcher(dir.path());
    let encoded = |reason: Reason| {
        prost::Message::encode_to_vec(&sqlflow_proto::agent::Outcome {
            reason: reason.into(),
            ..Default::default()
        })
    };
    let end = async |instance: Option<InstanceHash>, bytes: &[u8]| {
        let target = Target { instance, ..target() };
        let run_dir = launcher.run_dir(&target.executor);
        fs::create_dir_all(&run_dir).unwrap();
        fs::write(run_dir.join("outcome"), bytes).unwrap();
        let Observation::Gone(artifacts) = launcher.observe(&target).await else { panic!("nobody runs") };
        (artifacts.reported().map(|it| it.reason()), artifacts.log_tail)
    };
    let (plain, instance) = (encoded(Reason::Succeeded), InstanceHash::of(b"key"));
    let sealed = Seal::of_instance(b"key").sealed_outcome(plain.clone());
    let believed = Some(Reason::Succeeded);
    assert_eq!(end(Some(instance.sealing()), &sealed).await.0, believed);
    let (reported, why) = end(Some(instance.sealing()), &plain).await;
    assert_eq!((reported, why.contains("does not have the agent's seal")), (None, true), "{why}");
    let other = Seal::of_instance(b"other").sealed_outcome(plain.clone());
    assert_eq!(end(Some(instance.sealing()), &other).await.0, None);
    assert_eq!(end(Some(instance), &plain).await.0, believed, "an agent of an earlier version");
    // Also if the state was restored from before its attach.
    for bytes in [&sealed, &plain] {
        assert_eq!(end(None, bytes).await.0, Some(Reason::Lost), "no agent has attached");
    }
    assert_eq!(end(None, &encoded(Reason::Cancelled)).await.0, Some(Reason::Cancelled));
}

#[tokio::test]
async fn processes_are_searched_unless_the_agent_reported_their_end() {
    let reported = |nothing_left| sqlflow_proto::agent::Outcome { nothing_left, ..Default::default() };
    let known = Some(InstanceHash::of(b"key").sealing());
    for (instance, outcome, is_searched) in [
        (known.clone(), None, true),
        (known.clone(), Some(reported(false)), true),
        (known, Some(reported(true)), false),
        // Anyone may have written it.
        (None, Some(reported(true)), true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let target = Target { instance, ..target() };
        let launcher = launcher(dir.path());
        let run_dir = launcher.run_dir(&target.executor);
        fs::create_dir_all(&run_dir).unwrap();
        if let Some(outcome) = outcome {
            let bytes = prost::Message::encode_to_vec(&outcome);
            fs::write(run_dir.join("outcome"), Seal::of_instance(b"key").sealed_outcome(bytes)).unwrap();
        }
        let mut left = std::process::Command::new("sleep");
        let mut left = left.arg("600").env("SQLFLOW_ATTEMPT", target.attempt.to_string()).spawn().unwrap();
        assert_eq!(launcher.cleanup(&target, false).await.unwrap(), Cleanup::Done);
        assert!(!run_dir.exists());
        if !is_searched {
            assert!(left.try_wait().unwrap().is_none());
            left.kill().unwrap();
        }
        left.wait().unwrap();
    }
}
