//! `make bench`: speed of the real server, agent and submitter. Each figure is shown beside a limit of the same
//! machine, measured in the same minute. `sqlflow-bench [--quick] [--only GROUP] [--out FILE]`.
//!
//! `world` and `fleet` are systems under test, `measure` holds samples, `report` shows them. Every other module is one
//! group.

mod agent;
mod arguments;
mod data;
mod fetch;
mod first_log;
mod fleet;
mod live;
mod machine;
mod measure;
mod models;
mod peers;
mod pods;
mod polls;
mod report;
mod rows;
mod run;
mod secured;
mod small_jobs;
mod soak;
mod stream;
mod traced;
mod usage;
mod world;

use std::path::Path;

use anyhow::Context as _;

use crate::arguments::Arguments;
use crate::report::Report;
use crate::world::World;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::read()?;
    let (out, scale) = (&arguments.out, &arguments.scale);
    let folder = out.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut report = Report::new(machine::facts(scale)?);
    if arguments.wants("agent") {
        report.add(agent::small(scale)?);
        report.add(agent::starts(scale)?);
        report.add(agent::output(scale)?);
        report.add(agent::orphans(scale)?);
    }
    if arguments.wants("server") {
        // Beside the report, and not where temporary files are: that may be no disk.
        let mut world = World::make(folder, scale.clone()).await?;
        report.add(stream::durable(&world).await?);
        report.add(run::idle(&mut world).await?);
        report.add(run::busy(&mut world).await?);
        report.add(fetch::all(&mut world).await?);
        report.add(first_log::all(&mut world).await?);
        report.add(rows::all(&mut world).await?);
        world.end()?;
    }
    if arguments.wants("jobs") {
        report.add(small_jobs::all(folder, scale).await?);
    }
    if arguments.wants("data") {
        report.add(data::all(folder, scale).await?);
    }
    if arguments.wants("trainings") {
        report.add(data::trainings(folder, scale).await?);
    }
    if arguments.wants("selects") {
        report.add(data::selects(folder, scale).await?);
    }
    if arguments.wants("access") {
        report.add(secured::all(folder, scale).await?);
    }
    if arguments.wants("soak") {
        report.add(soak::all(folder, scale).await?);
    }
    if arguments.wants("live") {
        report.add(live::all(folder, scale).await?);
    }
    if arguments.wants("polls") {
        report.add(polls::all(folder, scale).await?);
    }
    if arguments.wants("models") {
        report.add(models::all(folder, scale.model, scale.publications)?);
    }
    if arguments.wants("traces") {
        report.add(traced::all(folder, scale).await?);
    }
    if arguments.wants("pods") && nix::unistd::Uid::effective().is_root() {
        report.add(pods::all(scale.pods).await?);
    } else if arguments.wants("pods") {
        tell("not root: nothing was measured in Pods");
    }
    report.print();
    report.write(out)
}

#[expect(clippy::print_stderr, reason = "it is for who runs it")]
fn tell(text: &str) {
    eprintln!("{text}");
}
