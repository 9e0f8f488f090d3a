//! The statements whose ends an attempt has recorded. A success is believed only with the end of each statement.

use super::Step;

/// The ends of statements that an attempt recorded. Statements end in the order of the program, so the first and the last
/// one say it all; an end that does not follow the last one does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatementEnds {
    /// Indexes of the first and the last statement.
    range: Option<(u32, u32)>,
    /// Whether records are missing that may have been ends.
    is_incomplete: bool,
}

impl StatementEnds {
    /// The ends of an attempt of which records are missing, or were counted by an earlier version.
    #[must_use]
    pub fn unknown() -> Self {
        Self { range: None, is_incomplete: true }
    }

    /// The ends of the statements from the first to the last of these.
    #[must_use]
    pub fn of(range: Option<(u32, u32)>) -> Self {
        Self { range, is_incomplete: false }
    }

    /// Indexes of the first and the last statement.
    #[must_use]
    pub fn range(&self) -> Option<(u32, u32)> {
        self.range
    }

    /// Whether records are missing that may have been ends.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// Adds the end of a statement.
    pub fn note(&mut self, statement: u32) {
        self.range = match self.range {
            None => Some((statement, statement)),
            Some((first, last)) if last.checked_add(1) == Some(statement) => Some((first, statement)),
            Some(range) => Some(range),
        };
    }

    /// Records of the attempt are missing, and may have been ends.
    pub fn lose(&mut self) {
        self.is_incomplete = true;
    }

    /// The first statement of the step whose end is missing. `None`: all have ended, or nobody knows.
    #[must_use]
    pub fn first_missing(&self, step: &Step) -> Option<u32> {
        if self.is_incomplete || step.statement_count == 0 {
            return None;
        }
        let next = match self.range {
            Some((first, last)) if first == step.first_statement => last.saturating_add(1),
            Some(_) | None => step.first_statement,
        };
        (next < step.first_statement.saturating_add(step.statement_count)).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn missing(statements: &[u32]) -> Option<u32> {
        let step = Step { first_statement: 3, statement_count: 2, ..fixture::step(false) };
        let mut ends = StatementEnds::default();
        statements.iter().for_each(|it| ends.note(*it));
        assert_eq!(StatementEnds::of(ends.range()), ends);
        ends.first_missing(&step)
    }

    #[test]
    fn each_statement_must_have_ended() {
        assert_eq!(missing(&[3, 4]), None);
        assert_eq!(missing(&[]), Some(3));
        assert_eq!(missing(&[3]), Some(4));
        assert_eq!(missing(&[3, 3]), Some(4), "one end does not count twice");
        assert_eq!(missing(&[4, 3]), Some(3), "they end in order");
        assert_eq!(missing(&[0, 1, 2, 3, 4]), Some(3), "ends of other steps do not count");
        assert_eq!(missing(&[u32::MAX, u32::MAX]), Some(3));
    }

    #[test]
    fn missing_records_prove_nothing() {
        let step = fixture::step(false);
        let mut ends = StatementEnds::default();
        assert_eq!(ends.first_missing(&step), Some(0));
        ends.lose();
        assert_eq!(ends.first_missing(&step), None);
        assert_eq!(StatementEnds::unknown().first_missing(&step), None);
    }
}
