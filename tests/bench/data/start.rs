//! SELECT 1: the least that a job costs, beside the start of Python.

use std::time::Instant;

use super::Ours;
use crate::arguments::Scale;
use crate::measure::{Goal, Measurement, Relation, Statistic};
use crate::peers;
use crate::rows::per_second;
use crate::small_jobs::run_jobs;
use crate::world::follow;

/// Jobs in sequence before as many starts of Python: the end of a job's agent is part of the sequence.
const BLOCK: u32 = 50;
/// Clients, each with one job at a time.
const CLIENTS: u32 = 16;

/// Latency and rate.
pub async fn all(ours: &mut Ours, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut end =
        Measurement::time("select_1", format!("SELECT 1, Run → end, {} in sequence", scale.sequence))
            .goal_beside(Goal::AtMost(1.2), "select_1_python")
            .compared(
                Statistic::P99,
                Relation::RatioTo("select_1_python".to_owned()),
                Some(Goal::AtMost(3.0)),
            );
    let mut python = Measurement::time("select_1_python", "  python -c \"print(1)\"");
    let mut rate = Measurement::new("select_1_rate", "jobs/s", format!("SELECT 1, {CLIENTS} at once"))
        .goal(Goal::AtLeast(60.0));
    run_jobs(&ours.server, CLIENTS, BLOCK).await?;
    for _ in 0..scale.sequence.div_ceil(BLOCK) {
        for number in 0..BLOCK {
            let begun = Instant::now();
            let token = ours.client.run(format!("SELECT {number}")).await?;
            follow(&mut ours.client, &token, |_| {}).await?;
            end.add_since(begun);
        }
        for _ in 0..BLOCK {
            python.clock(async { peers::bare_python() }).await?;
        }
    }
    for _ in 0..scale.bursts {
        let begun = Instant::now();
        run_jobs(&ours.server, CLIENTS, scale.small_jobs).await?;
        rate.add(per_second(scale.small_jobs.into(), begun));
    }
    Ok(vec![end, python, rate])
}
