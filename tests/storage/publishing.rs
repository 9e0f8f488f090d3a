//! Models are published and read.

use sqlflow_tests::agent::{Exec, watch_memory};

use crate::locations::Place;

/// Published twice, read by the storage's own client and by the agent. No other file is left in the folder.
#[test]
fn model_is_published_replaced_and_read() {
    for place in Place::all("round-trip") {
        place.make();
        for weights in [&b"first"[..], b"second"] {
            let ended = place.publish(weights);
            assert_eq!(ended.code, Some(0), "{place:?}: {} {}", ended.stderr, ended.outcome);
            assert_eq!(place.weights(), weights, "{place:?}");
        }
        assert_eq!(place.list(), ["m.tar.gz"], "{place:?}");

        let into = tempfile::tempdir().unwrap();
        let input = format!("{}={}", place.uri(), into.path().display());
        let exec = Exec::new().envs(place.environment());
        let ended =
            exec.flags(["--input", &input]).shell(&format!("cat {}/weights", into.path().display())).end();
        assert_eq!(
            (ended.code, ended.stdout.as_slice()),
            (Some(0), &b"second"[..]),
            "{place:?}: {}",
            ended.stderr
        );
    }
}

/// A#724, A#10378.
#[test]
fn model_of_many_parts_needs_bounded_memory() {
    let megabytes: usize =
        std::env::var("SQLFLOW_DRILL_STORED_MIB").map_or(200, |text| text.parse().unwrap());
    for place in Place::all("many-parts") {
        place.make();
        let out = tempfile::tempdir().unwrap();
        let weights = out.path().join("weights");
        let made = std::process::Command::new("sh")
            .args(["-c", &format!("head -c {megabytes}M /dev/urandom > {}", weights.display())])
            .status();
        assert!(made.unwrap().success());
        let running = place.output_of(Exec::shipped(), out.path()).start(&["true"]);
        let watch = watch_memory(running.pid());
        let ended = running.end();
        assert_eq!(ended.code, Some(0), "{place:?}: {}", ended.stderr);
        let peak = watch.join().unwrap();
        assert!(peak > 0 && peak < 64 << 20, "{place:?}: the agent used {peak} bytes");
        assert!(place.weights() == std::fs::read(&weights).unwrap(), "{place:?}");
        assert_eq!(place.list(), ["m.tar.gz"], "{place:?}");
    }
}

/// Reported as missing, not as unreadable.
#[test]
fn missing_model_is_reported() {
    for place in Place::all("missing") {
        place.make();
        let into = tempfile::tempdir().unwrap();
        let input = format!("{}={}", place.uri(), into.path().display());
        let exec = Exec::new().envs(place.environment());
        let ended = exec.flags(["--input", &input]).start(&["true"]).end();
        assert!(ended.stderr.contains("model m does not exist at"), "{place:?}: {}", ended.stderr);
        assert_eq!(ended.outcome["reason"], "input_failed", "{}", ended.outcome);
    }
}
