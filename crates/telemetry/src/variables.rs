//! Parsers of `OTEL_*` variables. As in
//! [the specification](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), an empty variable
//! counts as unset. A malformed variable is an error that names it. The SDK's own parser is not used: it ignores malformed
//! variables, and reads only the environment of the process.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::collector::Signal;

/// Source of variables: the environment, or an assignment.
pub(crate) struct Variables<'a>(pub(crate) &'a dyn Fn(&str) -> Option<String>);

/// A variable that is set.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Variable {
    /// An error about the value, which is not shown because it may be a secret.
    pub(crate) fn error_without_value(&self, why: impl Display) -> anyhow::Error {
        anyhow::anyhow!("cannot use {}: {why}", self.name)
    }

    /// An error about the value, which is shown.
    pub(crate) fn error(&self, why: impl Display) -> anyhow::Error {
        anyhow::anyhow!("cannot use {}={:?}: {why}", self.name, self.value)
    }

    fn is(&self, value: &str) -> bool {
        self.value.eq_ignore_ascii_case(value)
    }
}

impl Variables<'_> {
    /// This variable, if it is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<Variable> {
        let value = (self.0)(name)?.trim().to_owned();
        (!value.is_empty()).then(|| Variable { name: name.to_owned(), value })
    }

    /// A setting of the exporter: the variable for this signal, or else the one for all signals.
    pub(crate) fn exporter(&self, signal: Signal, setting: &str) -> Option<Variable> {
        let of_signal = self.get(&format!("OTEL_EXPORTER_OTLP_{}_{setting}", signal.variable()));
        of_signal.or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{setting}")))
    }

    /// `true` or `false`; false if it is unset.
    pub(crate) fn boolean(&self, name: &str) -> anyhow::Result<bool> {
        self.get(name).map_or(Ok(false), |it| boolean(&it))
    }

    /// A whole number.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(it) = self.get(name) else { return Ok(None) };
        let number = it.value.parse().ok().with_context(|| it.error("it is not a whole number"))?;
        Ok(Some(number))
    }

    /// A number of milliseconds.
    pub(crate) fn duration(&self, name: &str) -> anyhow::Result<Option<Duration>> {
        self.get(name).as_ref().map(duration).transpose()
    }

    /// A number of milliseconds that is not 0.
    pub(crate) fn positive_duration(&self, name: &str, default: Duration) -> anyhow::Result<Duration> {
        let time = self.duration(name)?.unwrap_or(default);
        if time.is_zero() {
            bail!("cannot use {name}=0: it is not a number of milliseconds from 1");
        }
        Ok(time)
    }

    /// One of these values.
    pub(crate) fn choice<const N: usize>(
        &self,
        name: &str,
        values: [&'static str; N],
    ) -> anyhow::Result<Option<&'static str>> {
        self.get(name).map(|it| choice(&it, values)).transpose()
    }
}

pub(crate) fn boolean(it: &Variable) -> anyhow::Result<bool> {
    if !it.is("true") && !it.is("false") {
        bail!(it.error("it is neither true nor false"));
    }
    Ok(it.is("true"))
}

pub(crate) fn duration(it: &Variable) -> anyhow::Result<Duration> {
    let millis = it.value.parse().map_err(|_| it.error("it is not a number of milliseconds"))?;
    Ok(Duration::from_millis(millis))
}

/// The variable's value, which must be one of these, in any case.
pub(crate) fn choice<const N: usize>(
    it: &Variable,
    values: [&'static str; N],
) -> anyhow::Result<&'static str> {
    let chosen = values.into_iter().find(|value| it.is(value));
    chosen.with_context(|| it.error(format!("supported: {}", values.join(", "))))
}

/// `key=value,key=value` with percent-encoded values: the format of W3C Baggage, without properties.
pub(crate) fn pairs(it: &Variable) -> anyhow::Result<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (key, value) =
            pair.split_once('=').with_context(|| it.error_without_value("a part of it is not key=value"))?;
        let value = percent_encoding::percent_decode_str(value.trim());
        let value = value.decode_utf8().map_err(|_| it.error_without_value("a value is not UTF-8"))?;
        let key = key.trim();
        if key.is_empty() {
            bail!(it.error_without_value("a key is empty"));
        }
        Ok((key.to_owned(), value.into_owned()))
    };
    it.value.split(',').filter(|it| !it.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(value: &str) -> Variable {
        Variable { name: "OTEL_X".to_owned(), value: value.to_owned() }
    }

    #[test]
    fn pairs_are_percent_decoded() {
        let all = pairs(&variable("Api-Key=a%20b, x=100%25 of 5% é%C3%A9,")).unwrap();
        let expected = [("Api-Key", "a b"), ("x", "100% of 5% éé")];
        assert_eq!(all, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn malformed_pairs_name_the_variable_and_hide_the_value() {
        for bad in ["secret", "=secret", "a=b,secret", "a=%ff"] {
            let error = format!("{:#}", pairs(&variable(bad)).unwrap_err());
            assert!(error.starts_with("cannot use OTEL_X: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn empty_variable_counts_as_unset() {
        let get = |_: &str| Some(" ".to_owned());
        assert!(Variables(&get).get("OTEL_X").is_none());
        assert!(!Variables(&get).boolean("OTEL_X").unwrap());
    }
}
