//! What each command does.

mod fetch;
mod inspect;
mod models;
mod parse;
mod read;
mod run;

use crate::args::{Cli, Command, Format};
use crate::client::Client;
use crate::console::Console;
use crate::failure::Failure;

/// Runs one command.
pub(crate) async fn run(cli: Cli, console: &mut Console) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    let json = global.output == Format::Json;
    let client = || Client::new(&global.server);
    match command {
        Command::Run(run) => run::run(&run, global.datasource.as_deref(), json, client()?, console).await,
        Command::Fetch(fetch) => fetch::fetch(&fetch, json, client()?, console).await,
        Command::Logs(logs) => fetch::logs(&logs, json, client()?, console).await,
        Command::Cancel(job) => inspect::cancel(&job, json, client()?, console).await,
        Command::List(list) => inspect::list(&list, json, client()?, console).await,
        Command::Describe(job) => inspect::describe(&job, json, client()?, console).await,
        Command::Models(args) => models::models(args, json, console).await,
        Command::Parse(parse) => parse::parse(&parse, console),
    }
}
