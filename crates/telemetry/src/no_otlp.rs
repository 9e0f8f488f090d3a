//! In place of `otlp`, for a program without the feature of that name.

use std::time::Duration;

use crate::Span;

/// Sends nothing.
#[derive(Debug, Clone)]
pub struct Exporter;

impl Exporter {
    /// # Errors
    /// None.
    pub fn to(_: &str, _: &impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        Ok(Self)
    }

    /// # Errors
    /// None.
    pub fn from_env(_: &impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        Ok(None)
    }

    /// Nothing is sent.
    #[must_use]
    pub fn within(self, _: Duration) -> Self {
        self
    }

    /// # Errors
    /// Always.
    pub async fn send(&self, _: Vec<(&'static str, Vec<Span>)>) -> anyhow::Result<()> {
        anyhow::bail!("this program was built without OTLP")
    }
}
