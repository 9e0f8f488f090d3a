//! Ten thousand jobs of SELECT on one server, and what remains of each. Only on demand: `sqlflow-bench --only soak`.

use std::path::Path;

use tempfile::TempDir;

use crate::agent;
use crate::arguments::Scale;
use crate::measure::Measurement;
use crate::small_jobs::{CLIENTS, Space, run_jobs};
use crate::usage::Usage;

/// Growth between the first jobs and the last ones.
pub async fn all(folder: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut memory =
        Measurement::new("soak_memory", "MB", "server: memory after all jobs, less that after a tenth");
    let mut first = Measurement::new("soak_memory_first", "MB", "  memory after a tenth of them");
    let mut descriptors =
        Measurement::new("soak_descriptors", "files", "server: open files after all jobs, less that");
    let mut cpu = Measurement::new("soak_cpu", "ms/job", "server: time");
    let mut disk = Measurement::new("soak_disk", "kB/job", "server: disk");
    let mut files = Measurement::new("soak_files", "files/job", "server: files and folders");

    let dir = TempDir::new_in(folder.canonicalize()?)?;
    let source = format!("sqlite://{}", dir.path().join("data.db").display());
    let setup = agent::setup(dir.path(), source)?;
    let server = setup.start()?;
    let pid = u32::try_from(server.pid().as_raw())?;
    let tenth = scale.soak_jobs / 10;
    run_jobs(&server, CLIENTS, tenth).await?;
    let (resident, open) = (server.resident_bytes()?, server.open_descriptors()?);
    first.add(resident as f64 / 1e6);
    let (used, space) = (Usage::of(pid)?, Space::of(&setup.state_dir)?);
    run_jobs(&server, CLIENTS, scale.soak_jobs - tenth).await?;
    let jobs = f64::from(scale.soak_jobs - tenth);
    memory.add((server.resident_bytes()? as f64 - resident as f64) / 1e6);
    descriptors.add(server.open_descriptors()? as f64 - open as f64);
    cpu.add(Usage::of(pid)?.cpu_seconds_since(&used) * 1e3 / jobs);
    let after = Space::of(&setup.state_dir)?;
    disk.add((after.bytes as f64 - space.bytes as f64) / 1e3 / jobs);
    files.add((after.entries as f64 - space.entries as f64) / jobs);
    server.stop()?;
    dir.close()?;
    Ok(vec![memory, first, descriptors, cpu, disk, files])
}
