//! Run → token: latency until a program is durably recorded.

use std::time::Instant;

use crate::measure::Measurement;
use crate::peers::{self, Disk};
use crate::world::World;

/// On an idle server, and the time until such a job's end is seen.
pub async fn idle(world: &mut World) -> anyhow::Result<Vec<Measurement>> {
    let mut token_time = Measurement::time("run_to_token", "Run → token").beside("fdatasync");
    let mut sync = Measurement::time("fdatasync", "  4 KiB made durable on the same disk");
    let mut end = Measurement::time("run_to_end", "Run → end of SELECT 1").beside("python_submitter");
    let mut disk = Disk::new(world.dir())?;
    world.run_to_end("SELECT 'warm'").await?;
    for number in 0..world.scale.jobs {
        world.rest().await;
        let begin = Instant::now();
        let token = token_time.clock(world.client.run(format!("SELECT {number}"))).await?;
        world.follow(&token, |_| {}).await?;
        end.add_since(begin);
        sync.clock(async { disk.sync_block() }).await?;
    }
    Ok(vec![token_time, sync, end])
}

/// While the jobs of earlier calls start, and the number of jobs that end per second then.
pub async fn busy(world: &mut World) -> anyhow::Result<Vec<Measurement>> {
    let mut token_time =
        Measurement::time("run_to_token_busy", "Run → token, without pause").beside("fdatasync");
    let mut rate = Measurement::new("jobs_per_second", "jobs/s", "jobs of SELECT 1, all at once")
        .beside("python_starts");
    let mut starts =
        Measurement::new("python_starts", "starts/s", "  Python + submitter library, one per core");
    for _ in 0..world.scale.bursts {
        world.rest().await;
        rate.add(burst(world, &mut token_time).await?);
        starts.add(peers::python_starts_per_second(world.scale.trainings)?);
    }
    Ok(vec![token_time, rate, starts])
}

/// Submits jobs as fast as the server accepts them. Returns how many ended per second.
async fn burst(world: &mut World, token_time: &mut Measurement) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let mut tokens = Vec::new();
    for number in 0..world.scale.burst {
        tokens.push(token_time.clock(world.client.run(format!("SELECT {number}"))).await?);
    }
    for token in &tokens {
        world.follow(token, |_| {}).await?;
    }
    Ok(f64::from(world.scale.burst) / begin.elapsed().as_secs_f64())
}
