//! Programs with known rows and effects.

use super::schedule::Kind;

/// A statement and its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    pub effect: Effect,
}

/// Effect of a statement that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Returned the numbers from 1 to this.
    Rows(i64),
    /// Added one row to `marks`, with this number.
    Mark(u32),
}

/// The program of a kind. Its inserts write the marker, which is unique to a `Run`.
pub fn program(kind: Kind, marker: &str) -> Vec<Statement> {
    match kind {
        Kind::Select => vec![rows(5000, 1), rows(40, 15_000)],
        Kind::SlowAnswer => vec![rows(1, 800_000), rows(100, 1)],
        Kind::Trickle => vec![rows(100, 8_000)],
        Kind::Insert => {
            vec![rows(3, 1), mark(marker, 1, 1), rows(20, 10_000), mark(marker, 2, 400_000), rows(50, 1)]
        }
        Kind::OnlyInsert => vec![mark(marker, 1, 200_000), mark(marker, 2, 1), mark(marker, 3, 400_000)],
    }
}

/// The text of a program.
pub fn sql(statements: &[Statement]) -> String {
    statements.iter().map(|statement| format!("{};\n", statement.sql)).collect()
}

fn counted(steps: i64) -> String {
    format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {steps})")
}

/// This many rows, each of which costs this many steps of SQLite.
fn rows(count: i64, cost: i64) -> Statement {
    let sql = format!("{} SELECT i / {cost} AS k FROM n WHERE i % {cost} = 0", counted(count * cost));
    Statement { sql, effect: Effect::Rows(count) }
}

fn mark(marker: &str, number: u32, cost: i64) -> Statement {
    let slow = counted(cost);
    let sql = format!(
        "INSERT INTO marks SELECT '{marker}', {number} FROM ({slow} SELECT count(*) AS c FROM n) WHERE c > 0"
    );
    Statement { sql, effect: Effect::Mark(number) }
}
