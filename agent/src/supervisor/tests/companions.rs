//! A command with a companion: the programs die, react to each other and are reaped in any order, and the agent reports
//! the true cause.

mod cases;
mod properties;

use sqlflow_proto::agent::Failure;

use super::*;

const COMMAND: usize = 0;
const COMPANION: usize = 1;

fn program(index: usize) -> Program {
    if index == COMMAND { Program::Command } else { Program::Companion }
}

/// What a program does by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Own {
    /// The command exits with 0; the companion after its command, or before.
    Succeeds,
    /// It fails, independent of the other one.
    Dies(Death),
    /// It reports its failure and closes its socket, and exits later.
    FailsSlowly,
    /// It loses its peer although that one runs.
    MissesPeer,
    /// It runs on.
    Runs,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    Killed,
    Crashed,
    Explained,
    Silent,
}

impl Death {
    fn status(self) -> ExitStatus {
        match self {
            Self::Killed => ExitStatus::Signal(9),
            Self::Crashed => ExitStatus::Signal(11),
            Self::Explained | Self::Silent => ExitStatus::Code(1),
        }
    }
}

/// What a program does when the other one has failed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reaction {
    /// It exits with `peer_lost`.
    PeerLost,
    /// Its write to the other one kills it.
    BrokenPipe,
    /// None, until it gets TERM.
    None,
}

/// What a program does at TERM.
#[derive(Debug, Clone, Copy, PartialEq)]
enum AtTerm {
    Dies,
    Fails,
    Succeeds,
    Ignores,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Runs,
    /// Its descriptors are closed, but it cannot be reaped yet.
    Ending(ExitStatus),
    Dead(ExitStatus),
    Reaped,
}

#[derive(Debug, Clone, Copy)]
struct Actor {
    own: Own,
    reaction: Reaction,
    at_term: AtTerm,
    state: State,
    told: Option<Signal>,
    /// Order of its failure among all; `None`: it has not failed.
    has_acted: bool,
}

#[derive(Debug)]
struct Pair {
    machine: Attempt,
    actors: [Actor; 2],
    inbox: std::collections::VecDeque<Event>,
    timers: Vec<Timer>,
    /// Events of channels, in any order with the exits.
    frames: Vec<Event>,
    has_ended_streams: bool,
    /// Told that the command has ended.
    is_companion_informed: bool,
    command_is_reaped: bool,
    had_companion_timer: bool,
    had_give_up: bool,
    had_timer_of_grace: bool,
    reports: Vec<ExitReport>,
    exit: Option<u8>,
}

impl Pair {
    fn new(actors: [Actor; 2]) -> Self {
        let (machine, _) = Attempt::new(LINGER);
        let mut pair = Self {
            machine,
            actors,
            inbox: [].into(),
            timers: Vec::new(),
            frames: Vec::new(),
            has_ended_streams: false,
            is_companion_informed: false,
            command_is_reaped: false,
            had_companion_timer: false,
            had_give_up: false,
            had_timer_of_grace: false,
            reports: Vec::new(),
            exit: None,
        };
        let plan = Plan { companion: Some("sqlflow-data".into()), ..plan(false) };
        pair.happen(Event::Attach(AttachEvent::Assigned(plan)));
        pair.happen(Event::Prepare(PrepareEvent::Prepared));
        pair
    }

    fn happen(&mut self, event: Event) {
        if let Event::TimeUp(timer) = &event {
            self.timers.retain(|it| it != timer);
            self.had_companion_timer |= *timer == Timer::CompanionTerm;
            self.had_give_up |= *timer == Timer::GiveUp;
            self.had_timer_of_grace |= *timer == Timer::Grace;
        }
        for action in self.machine.apply(event) {
            match action {
                Action::Signal(to, signal) => self.signal(to, signal),
                Action::Kill => {
                    self.reap(false);
                    for index in [COMMAND, COMPANION] {
                        self.tell(index, Signal::SIGKILL);
                    }
                }
                Action::ReportCommandEnd => {
                    assert!(!self.is_companion_informed, "twice");
                    self.is_companion_informed = true;
                }
                Action::SetTimer(timer, _) => {
                    self.timers.retain(|it| *it != timer);
                    self.timers.push(timer);
                }
                Action::StopReading => self.end_streams(),
                Action::Report(report, _) => {
                    let runs = self.actors.iter().any(|it| it.state != State::Reaped);
                    assert!(!runs || self.had_give_up, "a program runs at the report");
                    self.reports.push(*report);
                    self.inbox.push_back(Event::Report(ReportEvent::OutcomeAcked));
                }
                Action::Exit(code) => self.exit = Some(code),
                Action::Start
                | Action::ForgetCommit
                | Action::Prepare
                | Action::Warn(_)
                | Action::RecordGap => {}
                Action::SignalRemaining(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn end_streams(&mut self) {
        if !std::mem::replace(&mut self.has_ended_streams, true) {
            let frames = std::mem::take(&mut self.frames);
            self.inbox.extend(frames);
            self.inbox.push_back(Event::Command(CommandEvent::StreamsEnded { open: false }));
        }
    }

    /// Like the runner: programs that have ended are reaped before.
    fn signal(&mut self, to: Program, signal: Signal) {
        self.reap(false);
        let index = if to == Program::Command { COMMAND } else { COMPANION };
        if to == Program::Companion {
            let may = self.command_is_reaped || self.had_companion_timer;
            assert!(may, "the companion gets TERM after the command's end, or half of the grace period");
        }
        assert!(self.actors[index].told.is_none(), "TERM twice");
        self.tell(index, signal);
    }

    fn tell(&mut self, index: usize, signal: Signal) {
        let actor = &mut self.actors[index];
        match actor.state {
            State::Runs => {
                actor.told = Some(signal);
                let status = match (signal, actor.at_term) {
                    (Signal::SIGKILL, _) => ExitStatus::Signal(9),
                    (_, AtTerm::Dies) => ExitStatus::Signal(15),
                    (_, AtTerm::Fails) => ExitStatus::Code(1),
                    (_, AtTerm::Succeeds) => ExitStatus::Code(0),
                    (_, AtTerm::Ignores) => return,
                };
                actor.state = State::Dead(status);
            }
            // It is accepted, and has no effect.
            State::Ending(_) => actor.told = Some(signal),
            State::Dead(_) | State::Reaped => {}
        }
    }

    fn reap(&mut self, reversed: bool) {
        let order = if reversed { [COMPANION, COMMAND] } else { [COMMAND, COMPANION] };
        for index in order {
            let actor = &mut self.actors[index];
            if let State::Dead(status) = actor.state {
                actor.state = State::Reaped;
                self.command_is_reaped |= index == COMMAND;
                self.inbox.push_back(ended(program(index), status, actor.told));
            }
        }
        if self.actors.iter().all(|it| it.state == State::Reaped) {
            self.inbox.push_back(Event::Command(CommandEvent::AllExited));
        }
    }

    fn fail(&mut self, index: usize, peer_lost: bool) {
        let message = format!("{} failed", if index == COMMAND { "python" } else { "data" });
        let failure = Failure { message, peer_lost, ..Failure::default() };
        self.frames.push(Event::Command(CommandEvent::SubmitterFailed { program: program(index), failure }));
    }

    /// A program acts, if there is something to do for it.
    fn act(&mut self, index: usize) {
        let other = self.actors[1 - index];
        let is_bad = |status| status != ExitStatus::Code(0);
        let has_lost_peer = match other.state {
            State::Ending(status) | State::Dead(status) => is_bad(status),
            State::Reaped => other.has_acted && other.own != Own::Succeeds,
            State::Runs => other.own == Own::FailsSlowly && other.has_acted,
        };
        let Actor { own, reaction, state, .. } = self.actors[index];
        if state != State::Runs {
            return;
        }
        let next = match own {
            Own::Dies(death) => {
                if death == Death::Explained {
                    self.fail(index, false);
                }
                Some(death.status())
            }
            Own::FailsSlowly if !std::mem::replace(&mut self.actors[index].has_acted, true) => {
                self.fail(index, false);
                None
            }
            Own::FailsSlowly => Some(ExitStatus::Code(1)),
            Own::MissesPeer => {
                self.fail(index, true);
                Some(ExitStatus::Code(1))
            }
            _ if has_lost_peer => match reaction {
                Reaction::PeerLost => {
                    self.fail(index, true);
                    Some(ExitStatus::Code(1))
                }
                Reaction::BrokenPipe => Some(ExitStatus::Signal(13)),
                Reaction::None => None,
            },
            Own::Succeeds => Some(ExitStatus::Code(0)),
            Own::Runs => None,
        };
        if let Some(status) = next {
            self.actors[index].has_acted = true;
            self.actors[index].state = State::Ending(status);
        }
    }

    fn step(&mut self, choice: usize) {
        let argument = choice / 8;
        match choice % 8 {
            0 | 1 => self.act(choice % 8),
            2 => self.reap(argument.is_multiple_of(2)),
            3 => {
                if !self.frames.is_empty() {
                    let frame = self.frames.remove(argument % self.frames.len());
                    self.happen(frame);
                }
            }
            // The end of a process takes less time than any timer.
            4 if !self.timers.is_empty()
                && !self.actors.iter().any(|it| matches!(it.state, State::Ending(_))) =>
            {
                let timer = self.timers[argument % self.timers.len()];
                // Frames keep these from expiring, unless the companion is stuck.
                if !matches!(timer, Timer::Completion | Timer::Linger) {
                    self.happen(Event::TimeUp(timer));
                }
            }
            5 => {
                let actor = &mut self.actors[argument % 2];
                if let State::Ending(status) = actor.state {
                    actor.state = State::Dead(status);
                }
            }
            _ => {
                if let Some(event) = self.inbox.pop_front() {
                    self.happen(event);
                }
            }
        }
    }

    /// Everything goes on until the agent exits.
    fn finish(&mut self) {
        for round in 0..200 {
            if self.exit.is_some() {
                return;
            }
            for index in [COMMAND, COMPANION] {
                self.act(index);
                self.step(5 + 8 * index);
            }
            self.reap(false);
            if self.actors.iter().all(|it| it.state == State::Reaped) {
                self.end_streams();
            }
            while let Some(event) = self.inbox.pop_front() {
                self.happen(event);
            }
            if round % 3 == 2 && !self.timers.is_empty() {
                let timer = self.timers.remove(0);
                if timer != Timer::Linger {
                    self.happen(Event::TimeUp(timer));
                }
            }
        }
    }

    fn report(&self) -> &ExitReport {
        assert_eq!(self.reports.len(), 1, "{self:?}");
        assert!(self.exit.is_some());
        &self.reports[0]
    }
}

fn any_actor() -> impl Strategy<Value = Actor> {
    let own = prop::sample::select(vec![
        Own::Succeeds,
        Own::Runs,
        Own::MissesPeer,
        Own::Dies(Death::Killed),
        Own::Dies(Death::Crashed),
        Own::Dies(Death::Explained),
        Own::Dies(Death::Silent),
    ]);
    let reaction = prop::sample::select(vec![Reaction::PeerLost, Reaction::BrokenPipe, Reaction::None]);
    let at_term = prop::sample::select(vec![AtTerm::Dies, AtTerm::Fails, AtTerm::Succeeds, AtTerm::Ignores]);
    (own, reaction, at_term).prop_map(|(own, reaction, at_term)| Actor {
        own,
        reaction,
        at_term,
        state: State::Runs,
        told: None,
        has_acted: false,
    })
}

/// The message for the death of this program.
fn says(report: &ExitReport, index: usize, death: Death) -> bool {
    let name = if index == COMMAND { "the command" } else { "sqlflow-data" };
    let failure = if index == COMMAND { "python failed" } else { "data failed" };
    let expected = match death {
        Death::Killed => {
            (Reason::Signaled, format!("{name} was killed by SIGKILL, which the agent did not send"))
        }
        Death::Crashed => {
            (Reason::Signaled, format!("{name} was killed by SIGSEGV, which the agent did not send"))
        }
        Death::Explained => (Reason::Exited, failure.to_owned()),
        Death::Silent => (Reason::Exited, format!("{name} exited with code 1")),
    };
    (report.reason, report.message.clone()) == expected && report.status == Some(death.status())
}
