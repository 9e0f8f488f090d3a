//! A reader polls a model while it is retrained and its writers are killed.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::RngExt as _;
use sqlflow_tests::agent::{Exec, Running};
use tempfile::TempDir;

use crate::locations::Place;

/// A#3761, in general: at any time there is one complete model. Its two files must agree.
#[test]
fn reader_always_gets_one_complete_model() {
    let rounds = std::env::var("SQLFLOW_DRILL_RETRAINS").map_or(12, |text| text.parse().unwrap());
    for place in Place::all_and_files("retrained") {
        place.make();
        let begun = Instant::now();
        assert_eq!(train(place, 0).0.end().code, Some(0));
        let mut longest = begun.elapsed();
        std::thread::scope(|scope| {
            // Dropped by a panic too, which ends the reader.
            let (go_on, over) = mpsc::channel::<()>();
            let reader = scope.spawn(move || {
                let mut reads = 0;
                while over.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                    read(place);
                    reads += 1;
                }
                reads
            });
            let mut killed = 0_u32;
            for round in 1..=rounds {
                let (running, _out) = train(place, round);
                // A random time before, during or after publishing.
                let pause = rand::rng().random_range(Duration::ZERO..=longest);
                std::thread::sleep(pause);
                running.signal(Signal::SIGKILL);
                if running.end().code == Some(0) {
                    // It was too late, as the first writer was slower: on any machine some are killed before their end.
                    longest = pause;
                } else {
                    killed += 1;
                }
                if reader.is_finished() {
                    break;
                }
            }
            drop(go_on);
            let reads = reader.join().unwrap();
            assert!(reads > 0 && killed > 0, "{place:?}: {reads} reads, {killed} of {rounds} writers killed");
        });
        // Leftovers of killed writers do not disturb the next one.
        assert_eq!(train(place, rounds + 1).0.end().code, Some(0));
        assert_eq!(read(place), (rounds + 1).to_string());
    }
}

fn train(place: Place, round: u32) -> (Running, TempDir) {
    let out = tempfile::tempdir().unwrap();
    // Large enough that a writer can be killed meanwhile.
    let script = format!(
        "echo {round} > {0}/first; echo {round} > {0}/second; head -c 4000000 /dev/urandom > {0}/weights",
        out.path().display()
    );
    (place.exec(out.path()).flags(["--publish-retry", "30"]).shell(&script), out)
}

/// The round of the published model.
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
