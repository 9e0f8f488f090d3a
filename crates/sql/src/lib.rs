//! SQL: splitting a program into statements, parsing the extended ones, and planning the steps.
//!
//! Everything here is pure: no I/O, no clock, no panic on any input, time linear in the program. Callers use what is
//! re-exported below and start with [`compile`].
//!
//! ```text
//! program ─▶ scanner ─▶ splitter (clause_finder, stored_routines, escape_settings)
//!                         ├─▶ standard statement: tokens ─▶ classify, side_effects
//!                         └─▶ extended statement: clause_lexer ─▶ clause_parser, expression_parser ─▶ ast, expr
//! Program ─▶ semantics, feature_columns, estimator ─▶ steps (session, precheck, changes) ─▶ Compiled
//! Program ─▶ json, first_words
//! ```
//!
//! An extended statement needs two lexers. `scanner` reads its SELECT by the rules of the database, since only those say
//! where a string or a comment ends. `clause_lexer` reads the rest by SQLFlow's rules, which are the same for every
//! database.

mod ast;
mod changes;
mod classify;
mod clause_finder;
mod clause_lexer;
mod clause_parser;
mod dialect;
mod error;
mod escape_settings;
mod estimator;
mod expr;
mod expression_parser;
mod feature_columns;
mod first_words;
mod hint;
mod json;
mod model_name;
mod nodes;
mod overwrites;
mod pod_resources;
mod position;
mod precheck;
mod scanner;
mod semantics;
mod session;
mod side_effects;
mod splitter;
mod steps;
mod stored_routines;
mod suggest;
mod table_name_parser;
mod table_references;
mod tokens;

#[cfg(test)]
mod tests;

pub use ast::{
    Attribute, Body, Column, ColumnClause, Constraint, DescribeModel, Direction, DropModel, Evaluate,
    Explain, Name, Optimize, Predict, Program, Run, ShowTrain, Statement, Train,
};
pub use classify::{StandardKind, StandardStatement, classify};
pub use dialect::{Dialect, UnknownDialect};
pub use error::{SqlError, SqlErrorKind, SqlErrors};
pub use expr::{BinaryOp, Expr, StringLiteral, UnaryOp};
pub use feature_columns::{CategoryKind, CategorySource, CrossKey, FeatureColumn, Field};
pub use first_words::first_words;
pub use hint::hint;
pub use json::{attribute_json, expr_json, to_json};
pub use model_name::{MAX_MODEL_NAME, MAX_MODEL_SEGMENT, check_model_name};
pub use pod_resources::PodResource;
pub use position::Position;
pub use precheck::{Precheck, PrecheckEffect};
pub use semantics::{check_semantics, check_supported};
pub use splitter::parse_program;
pub use steps::{MAX_SETTINGS, MAX_STEPS, Step, StepKind, plan_steps};
pub use suggest::nearest;
pub use tokens::{leading_words, postgresql_strings};

/// Maximum length of a program in bytes.
pub const MAX_PROGRAM_BYTES: usize = 16 << 20;

/// A program that is ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Its statements.
    pub program: Program,
    /// Its steps, in order of execution.
    pub steps: Vec<Step>,
}

/// Parses and checks a program, and plans its steps: everything that `Run` does with a program before it accepts it.
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
/// All errors of the program, with their positions: what is not supported, what is inconsistent, and what needs a database
/// session across steps. There is only one error if the program is longer than [`MAX_PROGRAM_BYTES`], has no statement, or
/// does not parse.
pub fn compile(sql: &str, dialect: Dialect) -> Result<Compiled, SqlErrors> {
    if sql.len() > MAX_PROGRAM_BYTES {
        let message =
            format!("the program has {} bytes; the maximum is {MAX_PROGRAM_BYTES} (16 MiB)", sql.len());
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
