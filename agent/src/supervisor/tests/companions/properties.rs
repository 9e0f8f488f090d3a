//! What holds for any pair of programs.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// One dies, the other one reacts; the kernel, the reaper and the channels report in any order.
    #[test]
    fn cause_is_the_program_that_died_by_itself(
        dying in 0_usize..2,
        death in prop::sample::select(vec![Death::Killed, Death::Crashed, Death::Explained, Death::Silent]),
        mut other in any_actor(),
        mut first in any_actor(),
        steps in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        first.own = Own::Dies(death);
        other.own = Own::Runs;
        let actors = if dying == COMMAND { [first, other] } else { [other, first] };
        let mut pair = Pair::new(actors);
        for choice in steps {
            // Nothing expires before the death, and KILL takes effect before it is given up.
            if choice % 8 != 4 || (pair.actors[dying].has_acted && !pair.timers.contains(&Timer::GiveUp)) {
                pair.step(choice);
            }
        }
        pair.finish();
        prop_assert!(says(pair.report(), dying, death), "{:?}", pair);
        prop_assert!(pair.exit != Some(0));
        prop_assert!(!pair.is_companion_informed);
    }

    /// It gets TERM for the loss that the other one reports, and dies by it.
    #[test]
    fn failure_before_a_slow_exit_is_the_cause(
        failing in 0_usize..2,
        mut first in any_actor(),
        mut other in any_actor(),
        steps in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        (first.own, other.own) = (Own::FailsSlowly, Own::Runs);
        if first.at_term == AtTerm::Succeeds {
            first.at_term = AtTerm::Dies;
        }
        let actors = if failing == COMMAND { [first, other] } else { [other, first] };
        let mut pair = Pair::new(actors);
        for choice in steps {
            if choice % 8 != 4 || (pair.actors[failing].has_acted && !pair.timers.contains(&Timer::GiveUp)) {
                pair.step(choice);
            }
        }
        pair.finish();
        let expected = if failing == COMMAND { "python failed" } else { "data failed" };
        let report = pair.report();
        prop_assert_eq!((report.reason, report.message.as_str()), (Reason::Exited, expected), "{:?}", pair);
    }

    /// A program that misses its peer is the cause only if the other one did not fail.
    #[test]
    fn lost_peer_is_no_cause_beside_a_failure(
        missing in 0_usize..2,
        mut other in any_actor(),
        mut first in any_actor(),
        steps in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        first.own = Own::MissesPeer;
        // Two that claim the same are equal.
        other.reaction = Reaction::None;
        if other.own == Own::MissesPeer {
            other.own = Own::Runs;
        }
        let actors = if missing == COMMAND { [first, other] } else { [other, first] };
        let mut pair = Pair::new(actors);
        steps.into_iter().filter(|it| it % 8 != 4).for_each(|choice| pair.step(choice));
        pair.finish();
        let acted = pair.actors[1 - missing].has_acted;
        let other_fails_at_term = pair.actors[1 - missing].at_term == AtTerm::Fails;
        match other.own {
            Own::Dies(death) if acted => prop_assert!(says(pair.report(), 1 - missing, death), "{:?}", pair),
            _ if other_fails_at_term => {}
            _ => {
                let expected = if missing == COMMAND { "python failed" } else { "data failed" };
                prop_assert_eq!(&pair.report().message, expected, "{:?}", pair);
            }
        }
    }

    #[test]
    fn success_needs_both_and_the_companion_hears_of_the_end(
        mut command in any_actor(),
        mut companion in any_actor(),
        steps in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        (command.own, companion.own) = (Own::Succeeds, Own::Succeeds);
        let mut pair = Pair::new([command, companion]);
        for choice in steps {
            // A companion commits after the command's end, unless it has nothing to commit.
            if choice % 8 != 4 {
                pair.step(choice);
            }
        }
        pair.finish();
        prop_assert_eq!(pair.report().reason, Reason::Succeeded, "{:?}", pair);
        prop_assert_eq!(pair.exit, Some(0));
        prop_assert!(pair.actors.iter().all(|it| it.told.is_none()), "nothing was ended: {:?}", pair);
    }

    /// Any end from outside, at any time.
    #[test]
    fn every_pair_ends_once_and_leaves_nothing(
        command in any_actor(),
        companion in any_actor(),
        steps in prop::collection::vec((any::<usize>(), 0_u8..30), 0..60),
    ) {
        let mut pair = Pair::new([command, companion]);
        let mut was_interrupted = false;
        for (choice, kind) in steps {
            match kind {
                0..=3 if pair.exit.is_none() => {
                    was_interrupted = true;
                    pair.happen(interruption(kind).unwrap());
                }
                _ => pair.step(choice),
            }
        }
        if !was_interrupted {
            pair.happen(Event::Cancel { reason: "by the user".into(), grace: None });
        }
        pair.finish();
        let report = pair.report();
        let all_succeeded = pair.actors.iter().all(|it| it.state == State::Reaped)
            && [command.own, companion.own] == [Own::Succeeds; 2];
        if report.reason == Reason::Succeeded {
            prop_assert_eq!(report.status, Some(ExitStatus::Code(0)));
        }
        prop_assert!(pair.exit != Some(0) || report.reason == Reason::Succeeded, "{:?}", pair);
        prop_assert!(pair.exit != Some(0) || all_succeeded || command.at_term == AtTerm::Succeeds
            || companion.at_term == AtTerm::Succeeds, "{:?}", pair);
    }
}
