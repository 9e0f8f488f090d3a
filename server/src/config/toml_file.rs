//! Configuration file: TOML, with options under their long names.

use anyhow::bail;
use clap::CommandFactory as _;
use sqlflow_sql::nearest;

use super::Options;

/// The file's options as flags, without those that the environment sets.
pub(super) fn args(text: &str) -> anyhow::Result<Vec<String>> {
    let table: toml::Table = text.parse()?;
    let command = Options::command();
    let mut args = Vec::new();
    for (key, value) in table {
        let known = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(&key) && !NOT_IN_FILES.contains(&key.as_str()));
        let Some(arg) = known else { bail!("there is no option {key:?}; {}", hint(&command, &key)) };
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Array(items) if arg.get_value_delimiter().is_some() => joined(&key, &items)?,
            other => bail!("option {key:?} takes a text or a number, not {}", other.type_str()),
        };
        if arg.get_env().is_none_or(|name| std::env::var_os(name).is_none()) {
            args.push(format!("--{key}={value}"));
        }
    }
    Ok(args)
}

/// Options that are allowed on the command line only.
const NOT_IN_FILES: [&str; 2] = ["config", "check"];

fn joined(key: &str, items: &[toml::Value]) -> anyhow::Result<String> {
    let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
    match texts {
        Some(texts) => Ok(texts.join(",")),
        None => bail!("option {key:?} takes a list of texts"),
    }
}

/// Suggestion for an unknown key.
fn hint(command: &clap::Command, key: &str) -> String {
    let names: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !NOT_IN_FILES.contains(name)).collect();
    if NOT_IN_FILES.contains(&key) {
        return format!("--{key} is for the command line");
    }
    let hyphens = key.to_ascii_lowercase().replace('_', "-");
    let meant = names
        .iter()
        .copied()
        .find(|name| *name == hyphens || Some(*name) == hyphens.strip_prefix("sqlflow-"));
    match meant.or_else(|| nearest(&hyphens, &names)) {
        Some(name) => format!("write {name}"),
        None => "sqlflow-server --help lists them".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_option_gets_a_suggestion() {
        for (text, part) in [
            ("grave = 3", "there is no option \"grave\"; write grace"),
            ("http_listen = '127.0.0.1:1'", "write http-listen"),
            ("SQLFLOW_HTTP_LISTEN = '127.0.0.1:1'", "write http-listen"),
            ("statedir = '/x'", "write state-dir"),
            ("colour = 'red'", "sqlflow-server --help lists them"),
            ("config = 'x'", "--config is for the command line"),
            ("grace = [1]", "takes a text or a number, not array"),
        ] {
            let error = args(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn toml_list_becomes_a_comma_separated_flag() {
        assert_eq!(args("pod-attributes = ['cpu', 'gpu']").unwrap(), ["--pod-attributes=cpu,gpu"]);
    }
}
