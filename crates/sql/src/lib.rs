//! SQL: splitting a program into statements, parsing the extended ones, and planning the steps.
//!
//! Everything here is pure: no I/O, no clock, no panic on any input, time linear in the program. Callers use what is
//! re-exported below; [`compile`] is the way in.
//!
//! ```text
//! program ── scan, clause_finder, routine, string_rules ──▶ split ──▶ Standard: classify, effects
//!                                     │
//!                                     └──────▶ extended: lex ─▶ clause, clause_expr ─▶ ast, expr
//! Program ──▶ check, columns, estimator ──▶ steps, session, ahead, changes ──▶ Compiled         Program ──▶ json, first_words
//! ```
//!
//! The two halves of an extended statement have two lexers: `scan` follows the database's rules, because only those
//! say where a string or a comment ends; `lex` follows SQLFlow's own, which are the same everywhere.

mod ahead;
mod ast;
mod changes;
mod check;
mod classify;
mod clause;
mod clause_expr;
mod clause_finder;
mod columns;
mod dialect;
mod effects;
mod error;
mod estimator;
mod expr;
mod first_words;
mod hint;
mod json;
mod lex;
mod overwrites;
mod pod_resources;
mod position;
mod routine;
mod scan;
mod session;
mod split;
mod steps;
mod string_rules;
mod suggest;
mod tables_read;

#[cfg(test)]
mod tests;

pub use ahead::{Ahead, Effect};
pub use ast::{
    Attribute, Body, Column, ColumnClause, Constraint, DescribeModel, Direction, DropModel, Evaluate,
    Explain, Name, Optimize, Predict, Program, Run, ShowTrain, Statement, Train,
};
pub use check::{MAX_MODEL_NAME, MAX_MODEL_SEGMENT, check_model_name, check_semantics, check_supported};
pub use classify::{StandardKind, StandardStatement, classify};
pub use columns::{CategoryKind, CategorySource, CrossKey, FeatureColumn, Field};
pub use dialect::{Dialect, UnknownDialect};
pub use error::{SqlError, SqlErrorKind, SqlErrors};
pub use expr::{BinaryOp, Expr, StringLiteral, UnaryOp};
pub use first_words::first_words;
pub use hint::hint;
pub use json::{attribute_json, expr_json, to_json};
pub use pod_resources::PodResource;
pub use position::Position;
pub use split::parse_program;
pub use steps::{MAX_SETTINGS, MAX_STEPS, Step, StepKind, plan_steps};
pub use suggest::nearest;

/// Longest program in bytes.
pub const MAX_PROGRAM_BYTES: usize = 16 << 20;

/// A program that is ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Its statements.
    pub program: Program,
    /// What runs when.
    pub steps: Vec<Step>,
}

/// Parses and checks a program, and plans its steps. It is all that Run does with a program before it accepts it.
///
/// ```
/// use sqlflow_sql::{Dialect, StepKind, compile};
///
/// let program = "SELECT 1; SELECT * FROM iris TO TRAIN xgboost.gbtree LABEL class INTO flowers;";
/// let compiled = compile(program, Dialect::Mysql)?;
/// let kinds: Vec<_> = compiled.program.statements.iter().map(|it| it.body.kind()).collect();
/// assert_eq!(kinds, ["standard", "train"]);
/// assert!(matches!(compiled.steps[1].kind, StepKind::Extended(1)));
///
/// let errors = compile("SELECT * FROM iris TO TRAIN xgboost.gbtree INTO;", Dialect::Mysql).unwrap_err();
/// assert!(errors.to_string().starts_with("line 1, column "));
/// # Ok::<(), sqlflow_sql::SqlErrors>(())
/// ```
///
/// # Errors
/// All errors of the program, with their positions. An error is alone if the program is longer than
/// [`MAX_PROGRAM_BYTES`], has no statement, or does not parse. Otherwise the errors are: what is not supported, what is
/// inconsistent, and what needs a database session across steps.
pub fn compile(sql: &str, dialect: Dialect) -> Result<Compiled, SqlErrors> {
    if sql.len() > MAX_PROGRAM_BYTES {
        let message =
            format!("the program has {} bytes; {MAX_PROGRAM_BYTES} (16 MiB) is the most", sql.len());
        return Err(SqlError::too_large(Position::START, message).into());
    }
    let program = parse_program(sql, dialect)?;
    if program.statements.is_empty() {
        return Err(SqlError::new(Position::START, SqlErrorKind::Empty).into());
    }
    let mut errors = check_supported(&program);
    errors.extend(check_semantics(&program));
    errors.extend(estimator::check_estimators(&program));
    let steps = plan_steps(&program).unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    match SqlErrors::of(errors) {
        None => Ok(Compiled { program, steps }),
        Some(errors) => Err(errors),
    }
}
