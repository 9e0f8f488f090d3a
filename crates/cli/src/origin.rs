//! Origin of an option's value, for error messages: the command line, an environment variable, or a line of the
//! configuration file.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// The origin of an option's value, for people: `--listen`, `SQLFLOW_LISTEN` or `listen in FILE`.
#[must_use]
pub fn of(matches: &ArgMatches, arg: &Arg, file: Option<&Path>) -> String {
    let flag = arg.get_long().unwrap_or_else(|| arg.get_id().as_str());
    let source = matches.try_contains_id(arg.get_id().as_str()).ok().and_then(|_| {
        let id = arg.get_id().as_str();
        matches.value_source(id)
    });
    match (source, file) {
        (Some(ValueSource::EnvVariable), _) => variable(arg),
        (Some(ValueSource::DefaultValue) | None, Some(file)) => format!("{flag} in {}", file.display()),
        _ => format!("--{flag}"),
    }
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The message of an error about a value, with the value's origin. `file` has the configuration file and its content as
/// flags.
#[must_use]
pub fn named(
    error: &clap::Error,
    command: &Command,
    args: &[OsString],
    file: Option<(&Path, &[String])>,
) -> String {
    // Not Display, which adds a backtrace.
    let text = error.render().to_string();
    let (Some(shown), Some(value)) =
        (context(error, ContextKind::InvalidArg), context(error, ContextKind::InvalidValue))
    else {
        return text;
    };
    let mut command = command.clone();
    // An argument can only be printed after the command is built.
    command.build();
    let all = command.get_subcommands().flat_map(Command::get_arguments).chain(command.get_arguments());
    let Some(arg) = all.into_iter().find(|arg| arg.to_string() == shown) else { return text };
    match place(arg, value, args, file) {
        Some(place) => text.replacen(&format!("'{shown}'"), &format!("'{shown}' (from {place})"), 1),
        None => text,
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// `None`: it is on the command line, where the user sees it.
fn place(arg: &Arg, value: &str, args: &[OsString], file: Option<(&Path, &[String])>) -> Option<String> {
    let flag = format!("--{}", arg.get_long()?);
    let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let on_command_line = args.windows(2).any(|pair| pair[0] == flag && pair[1] == value)
        || args.iter().any(|arg| *arg == format!("{flag}={value}"));
    if on_command_line {
        return None;
    }
    if arg.get_env().and_then(std::env::var_os).is_some_and(|set| set.to_string_lossy() == value) {
        return Some(format!("the environment variable {}", variable(arg)));
    }
    let (file, flags) = file?;
    let in_file = flags.contains(&format!("{flag}={value}"));
    in_file.then(|| format!("{} in {}", flag.trim_start_matches('-'), file.display()))
}
