//! The commands.

mod data_source;
mod fetch;
mod jobs;
mod login;
mod models;
mod parse;
mod read;
mod run;

use std::path::Path;

use crate::args::{Cli, Command, Format};
use crate::client::Client;
use crate::connection::ConnectionArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::manual;
use crate::render::result_set::Style;
use crate::render::{Screen as _, Tone};
use data_source::DataSource;

/// Runs one command.
pub(crate) async fn run(cli: Cli, console: &mut Console) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    let json = global.output == Format::Json;
    let csv = global.output == Format::Csv;
    let form = Form { json, style: console.style(csv, global.expanded) };
    let connection = &global.connection;
    reject_csv(csv, &command)?;
    console.page(!global.no_pager && is_paged(&command));
    let ended = match command {
        Command::Run(args) => {
            let source = DataSource { text: global.datasource, origin: global.datasource_origin };
            run::run(&args, &source, form, client(connection, console).await?, console).await
        }
        Command::Fetch(fetch) => {
            fetch::fetch(&fetch, form, client(connection, console).await?, console).await
        }
        Command::Logs(logs) => fetch::logs(&logs, json, client(connection, console).await?, console).await,
        Command::Cancel(job) => jobs::cancel(&job, json, client(connection, console).await?, console).await,
        Command::List(list) => jobs::list(&list, form, client(connection, console).await?, console).await,
        Command::Describe(job) => {
            jobs::describe(&job, json, client(connection, console).await?, console).await
        }
        Command::Login => login::login(connection, console).await,
        Command::Logout => login::logout(console),
        Command::Models(args) => models::models(args, form, console).await,
        Command::Parse(parse) => parse::parse(&parse, console),
        Command::Completion(args) => console.results(&manual::completion(args.shell)).map_err(Failure::from),
        Command::Man { folder } => man(&folder, console),
    };
    console.end_paging(ended)
}

/// A client of the server, which is started if it is the user's own and does not run.
async fn client(args: &ConnectionArgs, console: &mut Console) -> Result<Client, Failure> {
    let connection = args.connection()?;
    let mut client = Client::new(&connection)?;
    if let Some(own) = &connection.own
        && let Some(warning) = own.ensure(&mut client).await?
    {
        console.line(Tone::Warning, &warning);
    }
    Ok(client)
}

/// Output format of results.
#[derive(Debug, Clone, Copy)]
struct Form {
    json: bool,
    style: Style,
}

/// Whether the command's output is complete at once, and may be long. Rows of a job arrive while it runs, with its log.
fn is_paged(command: &Command) -> bool {
    match command {
        Command::List(_) | Command::Describe(_) | Command::Models(_) | Command::Parse(_) => true,
        Command::Logs(logs) => !logs.follow,
        Command::Run(_)
        | Command::Fetch(_)
        | Command::Cancel(_)
        | Command::Login
        | Command::Logout
        | Command::Completion(_)
        | Command::Man { .. } => false,
    }
}

/// Rejects CSV for commands without rows.
fn reject_csv(csv: bool, command: &Command) -> Result<(), Failure> {
    let name = match command {
        Command::Logs(_) => "logs",
        Command::Cancel(_) => "cancel",
        Command::Describe(_) => "describe",
        Command::Parse(_) => "parse",
        _ => return Ok(()),
    };
    if csv {
        return Err(Failure::Usage(format!("cannot write CSV: {name} has no rows; use --output json")));
    }
    Ok(())
}

fn man(folder: &Path, console: &mut Console) -> Result<(), Failure> {
    let count = manual::write_pages(folder)?;
    console.line(Tone::Plain, &format!("wrote {count} manual pages to {}", folder.display()));
    Ok(())
}
