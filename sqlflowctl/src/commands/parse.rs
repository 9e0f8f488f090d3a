//! `parse`: a program as JSON, without a server.

use std::str::FromStr as _;

use sqlflow_sql::{Dialect, compile, to_json};

use super::read::read_program;
use crate::args::Parse;
use crate::console::Console;
use crate::failure::Failure;
use crate::render::Screen as _;
use crate::render::program_error::program_error;

pub(super) fn parse(args: &Parse, console: &mut Console) -> Result<(), Failure> {
    let dialect = Dialect::from_str(&args.dialect).map_err(|error| Failure::Usage(error.to_string()))?;
    let sql = read_program(&args.program)?;
    // The errors and the exit status of a rejected Run.
    let compiled =
        compile(&sql, dialect).map_err(|error| Failure::Usage(program_error(&error.to_string(), &sql)))?;
    let text = serde_json::to_string_pretty(&to_json(&compiled.program))
        .map_err(|error| Failure::Other(error.into()))?;
    console.results(format!("{text}\n").as_bytes())?;
    console.flush()
}
