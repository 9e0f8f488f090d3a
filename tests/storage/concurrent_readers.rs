//! A reader that looks at a model again and again while it is retrained and its writers are killed.

use std::sync::mpsc;

use nix::sys::signal::Signal;
use rand::RngExt as _;
use sqlflow_tests::agent::{Exec, Running};
use tempfile::TempDir;

use crate::locations::Place;

/// A#3761, and the whole kind: at every instant there is one whole model. Each has two files that must agree.
#[test]
fn a_reader_never_sees_a_model_that_is_missing_mixed_or_cut() {
    let rounds = std::env::var("SQLFLOW_DRILL_RETRAINS").map_or(12, |text| text.parse().unwrap());
    for place in Place::all_and_files("retrained") {
        place.make();
        assert_eq!(train(place, 0).0.end().code, Some(0));
        std::thread::scope(|scope| {
            // A round that panics drops it, and the reader ends.
            let (go_on, over) = mpsc::channel::<()>();
            let reader = scope.spawn(move || {
                let mut reads = 0;
                while over.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                    read(place);
                    reads += 1;
                }
                reads
            });
            let mut killed = 0;
            for round in 1..=rounds {
                let (running, _out) = train(place, round);
                // From before it publishes until after.
                std::thread::sleep(std::time::Duration::from_millis(rand::rng().random_range(1..400)));
                running.signal(Signal::SIGKILL);
                killed += u32::from(running.end().code != Some(0));
                if reader.is_finished() {
                    break;
                }
            }
            drop(go_on);
            let reads = reader.join().unwrap();
            assert!(reads > 0 && killed > 0, "{place:?}: {reads} reads, {killed} of {rounds} writers killed");
        });
        // What killed writers left does not stand in the way of the next one.
        assert_eq!(train(place, rounds + 1).0.end().code, Some(0));
        assert_eq!(read(place), (rounds + 1).to_string());
    }
}

fn train(place: Place, round: u32) -> (Running, TempDir) {
    let out = tempfile::tempdir().unwrap();
    // Some size, so that there is time to be killed in.
    let script = format!(
        "echo {round} > {0}/first; echo {round} > {0}/second; head -c 4000000 /dev/urandom > {0}/weights",
        out.path().display()
    );
    (place.exec(out.path()).flags(["--publish-retry", "30"]).shell(&script), out)
}

/// Which round's model is there.
fn read(place: Place) -> String {
    let into = tempfile::tempdir().unwrap();
    let input = format!("{}={}", place.uri(), into.path().display());
    let exec = Exec::new().envs(place.environment());
    let flags = ["--publish-retry", "0", "--input", &input];
    let ended = exec.flags(flags).shell(&format!("cd {} && cat first second", into.path().display())).end();
    assert_eq!(ended.code, Some(0), "{place:?}: {}", ended.stderr);
    let text = String::from_utf8(ended.stdout).unwrap();
    let (first, second) = text.trim_end().split_once('\n').expect("two lines");
    assert_eq!(first, second, "{place:?}: a mixed model");
    first.to_owned()
}
