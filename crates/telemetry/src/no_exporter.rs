//! Replaces `exporter` in a program without the feature `otlp`.

use crate::batch::{Batch, ExportError};
use crate::settings::Settings;

/// Sends nothing.
#[derive(Debug, Clone)]
pub struct Exporter;

impl Exporter {
    /// Fails.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: Settings) -> anyhow::Result<Self> {
        anyhow::bail!("this program was built without OTLP")
    }

    /// Does nothing.
    ///
    /// # Errors
    /// Never.
    pub async fn export(&self, _: Vec<Batch>) -> Result<(), ExportError> {
        Ok(())
    }
}
