//! Values and untrusted text, formatted for terminals and web pages.

pub mod cell;
pub mod escape;
pub mod mention;

/// An error with its causes, because errors of libraries often say nothing by themselves.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
