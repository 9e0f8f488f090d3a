//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

const USAGE: &str = "usage: sqlflow-bench [--quick] [--only agent|server|jobs|data|trainings|selects|access|live|polls|models|pods|traces|soak] [--out FILE]";
const GROUPS: [&str; 13] = [
    "agent", "server", "jobs", "data", TRAININGS, SELECTS, "access", "live", "polls", "models", "pods",
    "traces", SOAK,
];
/// Runs only on demand, since it takes too long.
const SOAK: &str = "soak";
/// Runs only on demand, since it is a part of `data`.
const TRAININGS: &str = "trainings";
/// Likewise.
const SELECTS: &str = "selects";

/// What to do.
pub struct Arguments {
    /// File of the report.
    pub out: PathBuf,
    /// How much is measured.
    pub scale: Scale,
    /// The only group to measure; `None`: all.
    only: Option<String>,
}

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Jobs of one statement, one after the other.
    pub jobs: u32,
    /// Jobs that are submitted without waiting for one another.
    pub burst: u32,
    /// Repetitions of that.
    pub bursts: u32,
    /// Jobs of one statement, some at a time.
    pub small_jobs: u32,
    /// Jobs of a soak.
    pub soak_jobs: u32,
    /// Fetches of each kind.
    pub fetches: u32,
    /// Fetches that wait for new results.
    pub waits: u32,
    /// Trainings.
    pub trainings: u32,
    /// Rows of the large table.
    pub rows: u32,
    /// Selects of the large table.
    pub selects: u32,
    /// Trainings and predictions of each kind.
    pub rounds: u32,
    /// Jobs of SELECT 1 in sequence.
    pub sequence: u32,
    /// Starts of the agent.
    pub starts: u32,
    /// Megabytes per run through the agent.
    pub megabytes: u64,
    /// Number of these runs.
    pub streams: u32,
    /// Pods of each kind.
    pub pods: usize,
    /// Megabytes of a model.
    pub model: u64,
    /// Publications of each kind.
    pub publications: u32,
    /// Agents attached at the same time.
    pub agents: usize,
    /// Calls of each kind with these agents.
    pub live_calls: usize,
    /// Jobs with a client each that polls.
    pub polls: usize,
    /// Time for which a server with these agents, or these clients, is observed.
    pub idle_time: Duration,
    /// Whether this is the quick scale.
    pub is_quick: bool,
}

const FULL: Scale = Scale {
    jobs: 120,
    burst: 50,
    bursts: 3,
    small_jobs: 500,
    soak_jobs: 10_000,
    fetches: 200,
    waits: 5,
    trainings: 20,
    rows: 1_000_000,
    selects: 3,
    rounds: 3,
    sequence: 1_000,
    starts: 300,
    megabytes: 4096,
    streams: 3,
    pods: 15,
    model: 1024,
    publications: 3,
    agents: 2_000,
    live_calls: 300,
    polls: 1_000,
    idle_time: Duration::from_secs(30),
    is_quick: false,
};

const QUICK: Scale = Scale {
    jobs: 15,
    burst: 10,
    bursts: 1,
    small_jobs: 60,
    soak_jobs: 500,
    fetches: 50,
    waits: 2,
    trainings: 4,
    rows: 100_000,
    selects: 1,
    rounds: 1,
    sequence: 100,
    starts: 50,
    megabytes: 256,
    streams: 1,
    pods: 3,
    model: 256,
    publications: 1,
    agents: 100,
    live_calls: 100,
    polls: 100,
    idle_time: Duration::from_secs(5),
    is_quick: true,
};

impl Arguments {
    /// Whether to measure this group.
    pub fn wants(&self, group: &str) -> bool {
        self.only.as_ref().map_or(![SOAK, TRAININGS, SELECTS].contains(&group), |only| only == group)
    }

    /// Reads the command line.
    pub fn read() -> anyhow::Result<Self> {
        Self::parse(std::env::args().skip(1))
    }

    fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut arguments = Self { out: PathBuf::from("build/bench.json"), scale: FULL, only: None };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => arguments.scale = QUICK,
                "--only" => {
                    let group = words.next().context("--only names a group")?;
                    if !GROUPS.contains(&group.as_str()) {
                        bail!("there is no group {group:?}; {USAGE}");
                    }
                    arguments.only = Some(group);
                }
                "--out" => arguments.out = words.next().context("--out names a file")?.into(),
                other => bail!("{other:?} is not understood; {USAGE}"),
            }
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Arguments> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn known_flags_are_parsed_and_others_rejected() {
        let arguments = parse("--quick --out some/file.json").unwrap();
        assert!(arguments.scale.is_quick);
        assert_eq!(arguments.out, PathBuf::from("some/file.json"));
        assert!(!parse("").unwrap().scale.is_quick && parse("").unwrap().wants("pods"));
        assert!(!parse("--only agent").unwrap().wants("pods") && parse("--only all").is_err());
        assert!(parse("--out").is_err() && parse("--slow").is_err());
    }
}
