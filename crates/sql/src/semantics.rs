//! Semantic checks of a program that parses: unsupported statements, and invalid names, values and columns.

use super::ast::{
    Attribute, Body, ColumnClause, Evaluate, Explain, Name, Predict, Program, Statement, Train,
};
use super::classify::{StandardKind, classify};
use super::clause_parser::EXCEPT;
use super::dialect::Dialect;
use super::error::{Found, SqlError};
use super::expr::Expr;
use super::feature_columns::FeatureColumn;
use super::model_name::check_model_name;
use super::pod_resources::PodResource;
use super::scanner::TokenKind;
use super::table_name_parser::{has_quoted_capital, parts};
use super::table_references::referenced_tables;
use super::tokens::Tokens;

/// Attribute that allows a statement to replace a table that it reads, or that SQLFlow did not create.
const REPLACE: &str = "result.replace";
/// First words of statements. No database has another statement whose first word differs from one of these by one letter.
const FIRST_WORDS: [&str; 8] =
    ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "REPLACE", "TRUNCATE"];

/// Rejects statements that parse but that the submitter cannot execute. Returns an error for each, with its position.
#[must_use]
pub fn check_supported(program: &Program) -> Vec<SqlError> {
    let refused = program.statements.iter().filter(|it| matches!(it.body, Body::Run(_) | Body::Optimize(_)));
    let error = |it: &Statement| {
        SqlError::unsupported(it.position, format!("{} is not supported yet", it.body.title()))
    };
    refused.map(error).collect()
}

/// Rejects inconsistent statements: a SELECT that writes, an invalid name of a result table or a model, an attribute that is
/// not a value, a column function with wrong arguments. Returns the first error of each statement, with its position.
#[must_use]
pub fn check_semantics(program: &Program) -> Vec<SqlError> {
    let results = program.statements.iter().map(|statement| check_statement(statement, program.dialect));
    results.filter_map(Result::err).collect()
}

fn check_statement(statement: &Statement, dialect: Dialect) -> Result<(), SqlError> {
    check_select(statement, dialect)?;
    check_result(statement, dialect)?;
    match &statement.body {
        Body::Standard(_) => check_first_word(statement, dialect),
        Body::ShowModels | Body::Run(_) | Body::Optimize(_) => Ok(()),
        Body::Train(train) => check_train(train),
        Body::Predict(predict) => {
            check_attributes(&predict.attributes)?;
            check_target(predict)?;
            check_model(&predict.model)
        }
        Body::Explain(explain) => {
            check_attributes(&explain.attributes)?;
            check_model(&explain.model)?;
            explain.into.as_ref().map_or(Ok(()), check_table)
        }
        Body::Evaluate(evaluate) => {
            check_attributes(&evaluate.attributes)?;
            check_model(&evaluate.model)?;
            evaluate.into.as_ref().map_or(Ok(()), check_table)
        }
        Body::ShowTrain(show) => check_model(&show.model),
        Body::DescribeModel(describe) => check_model(&describe.model),
        Body::DropModel(drop) => check_model(&drop.model),
    }
}

/// Extended statements are repeated after a lost attempt, so their SELECT must be repeatable.
fn check_select(statement: &Statement, dialect: Dialect) -> Result<(), SqlError> {
    let Some(select) = statement.body.select() else {
        return Ok(());
    };
    let standard = classify(select, dialect);
    // Variables that it sets, as in `SELECT @row := @row + 1`, end with the session.
    if standard.repeatable && matches!(standard.kind, StandardKind::Query | StandardKind::SetVariables { .. })
    {
        return Ok(());
    }
    let message = format!("the SELECT before {} must only read", statement.body.title());
    Err(SqlError::semantic(statement.position, message))
}

/// A result table that the statement's own SELECT reads may be replaced only on request. If two names may mean the same
/// table, such as `t` and `d.t`, the submitter decides with the database's help.
fn check_result(statement: &Statement, dialect: Dialect) -> Result<(), SqlError> {
    let position = match &statement.body {
        Body::Predict(predict) => predict.target.position,
        Body::Evaluate(Evaluate { into: Some(into), .. })
        | Body::Explain(Explain { into: Some(into), .. }) => into.position,
        _ => return Ok(()),
    };
    let Some(table) = statement.body.result_table() else { return Ok(()) };
    let is_requested = |it: &Attribute| it.name.text == REPLACE && it.value.as_bool() != Some(false);
    let attributes = statement.body.attributes();
    if dialect == Dialect::Postgresql && has_quoted_capital(table) {
        // The SELECT may read another table, whose name differs in case only. The data process knows.
        return Ok(());
    }
    let written: Vec<String> = parts(table).map(str::to_lowercase).collect();
    let select = statement.body.select().unwrap_or_default();
    if attributes.iter().any(is_requested)
        || referenced_tables(select, dialect, |it| it == written).is_empty()
    {
        return Ok(());
    }
    let message = format!(
        "cannot write table {table}: the statement reads it; choose another name (WITH {REPLACE} = true replaces it: what it \
         holds now is lost)"
    );
    Err(SqlError::semantic(position, message))
}

fn check_train(train: &Train) -> Result<(), SqlError> {
    if train.image_and_class().1.is_empty() {
        let message = format!("{} has no model class after its last slash", train.estimator.text);
        return Err(SqlError::semantic(train.estimator.position, message));
    }
    check_attributes(&train.attributes)?;
    for column in train.columns.iter().flat_map(|ColumnClause { columns, .. }| columns) {
        if matches!(&column.expr, Expr::Call { name, .. } if name == EXCEPT) {
            continue;
        }
        FeatureColumn::from_expr(&column.expr)
            .map_err(|message| SqlError::semantic(column.position, message))?;
    }
    train.using.as_ref().map_or(Ok(()), check_model)?;
    check_model(&train.into)
}

fn check_attributes(attributes: &[Attribute]) -> Result<(), SqlError> {
    for Attribute { name, value, position } in attributes {
        if let Some(what) = name.text.strip_prefix(PodResource::PREFIX) {
            PodResource::check(what, value).map_err(|message| SqlError::semantic(*position, message))?;
        }
        if !is_value(value) {
            let message = format!(
                "attribute {} is {}, expected a number, a string, a name or a list of them",
                name.text,
                value.to_string().trim_start()
            );
            return Err(SqlError::semantic(*position, message));
        }
    }
    Ok(())
}

fn is_value(expr: &Expr) -> bool {
    match expr {
        Expr::String(_) | Expr::Ident(_) => true,
        Expr::List(items) => {
            items.iter().all(|item| is_value(item) || FeatureColumn::from_expr(item).is_ok())
        }
        Expr::Number(_) | Expr::Unary { .. } => expr.as_float().is_some(),
        Expr::Paren(_) | Expr::Call { .. } | Expr::Binary { .. } => false,
    }
}

fn check_target(predict: &Predict) -> Result<(), SqlError> {
    let target = &predict.target;
    match predict.table_and_column() {
        Some(_) => Ok(()),
        None => Err(SqlError::semantic(
            target.position,
            format!("the result {} is not of the form [db.]table.column", target.text),
        )),
    }
}

fn check_table(table: &Name) -> Result<(), SqlError> {
    let parts: Vec<&str> = table.text.split('.').collect();
    if parts.len() <= 3 && parts.iter().all(|part| !part.is_empty()) {
        return Ok(());
    }
    Err(SqlError::semantic(
        table.position,
        format!("the result {} is not of the form [db.]table", table.text),
    ))
}

/// Rejects a misspelt first word. The database would find it only when the statement's turn comes, perhaps after hours.
fn check_first_word(statement: &Statement, dialect: Dialect) -> Result<(), SqlError> {
    let Some(first) = Tokens::new(&statement.text, dialect).next() else { return Ok(()) };
    let word = first.text.to_uppercase();
    let is_near = |it: &&&str| first.kind == TokenKind::Word && strsim::osa_distance(&word, it) == 1;
    match FIRST_WORDS.iter().find(is_near) {
        Some(meant) => Err(SqlError::syntax(statement.position, Found::Text(first.text), &[meant])),
        None => Ok(()),
    }
}

fn check_model(model: &Name) -> Result<(), SqlError> {
    check_model_name(&model.text).map_err(|message| SqlError::semantic(model.position, message))
}

#[cfg(test)]
mod tests {
    use super::super::splitter::parse_program;
    use super::*;

    fn refusal(sql: &str) -> String {
        let program = parse_program(sql, Dialect::Mysql).expect("the program parses");
        let errors = [check_supported(&program), check_semantics(&program)].concat();
        errors.first().expect(sql).to_string()
    }

    #[test]
    fn result_table_that_is_not_read_or_may_be_replaced_is_accepted() {
        for sql in [
            "SELECT t FROM a TO PREDICT t.y USING m",
            "SELECT * FROM b.t TO PREDICT a.t.y USING m",
            "SELECT * FROM t TO PREDICT t.y WITH result.replace=true USING m",
            "SELECT * FROM t TO EVALUATE m WITH result.replace=true LABEL y INTO t",
        ] {
            let program = parse_program(sql, Dialect::Mysql).expect("the program parses");
            assert_eq!(check_semantics(&program), [], "{sql}");
        }
    }

    #[test]
    fn semantic_error_has_message_and_position() {
        for (sql, message) in [
            ("SELECT 1;\nSELECT 1 TO RUN a:1 CMD 'x'", "line 2, column 1: TO RUN is not supported yet"),
            (
                "SELECT 1;\n -- x\n selec 1",
                "line 3, column 2: found \"selec\", expected SELECT; did you mean SELECT?",
            ),
            (
                "CREAET TABLE t (a INT)",
                "line 1, column 1: found \"CREAET\", expected CREATE; did you mean CREATE?",
            ),
            ("SELECT 1 TO MINIMIZE x WITH a=1 INTO t", "line 1, column 1: TO MINIMIZE is not supported yet"),
            (
                "SELECT 1 TO PREDICT t USING m",
                "line 1, column 21: the result t is not of the form [db.]table.column",
            ),
            (
                "SELECT 1 TO EVALUATE m LABEL l INTO a..b",
                "line 1, column 37: the result a..b is not of the form [db.]table",
            ),
            (
                "SHOW TRAIN a/../b",
                "line 1, column 12: the model name \"a/../b\" has the segment \"..\", which is not allowed",
            ),
            (
                "SELECT 1 TO TRAIN a/ LABEL l INTO m",
                "line 1, column 19: a/ has no model class after its last slash",
            ),
            (
                "SELECT 1 TO TRAIN E WITH a=1, b = 1+2 LABEL l INTO m",
                "line 1, column 35: attribute b is 1 + 2, expected a number, a string, a name or a list of them",
            ),
            (
                "SELECT * FROM t FOR UPDATE TO TRAIN E LABEL l INTO m",
                "line 1, column 1: the SELECT before TO TRAIN must only read",
            ),
            (
                "SELECT * FROM D.t AS x TO PREDICT d.T.y USING m",
                "line 1, column 35: cannot write table d.T: the statement reads it; choose another name (WITH result.replace \
                 = true replaces it: what it holds now is lost)",
            ),
            (
                "SELECT 1 FROM a, b TO EXPLAIN m WITH result.replace=false INTO b",
                "line 1, column 64: cannot write table b: the statement reads it; choose another name (WITH result.replace \
                 = true replaces it: what it holds now is lost)",
            ),
            (
                "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x TO EXPLAIN m",
                "line 1, column 1: the SELECT before TO EXPLAIN must only read",
            ),
        ] {
            assert_eq!(refusal(sql), message);
        }
    }

    #[test]
    fn first_word_of_any_statement_is_accepted() {
        let words = "ABORT ANALYZE ATTACH BEGIN CALL CHECKPOINT CLOSE CLUSTER COMMENT COMMIT COPY DEALLOCATE DECLARE DESC \
            DESCRIBE DETACH DISCARD DO DROP END EXECUTE EXPLAIN FETCH FLUSH GRANT HANDLER IMPORT INSTALL KILL LISTEN LOAD \
            LOCK MERGE MOVE NOTIFY OPTIMIZE PRAGMA PREPARE PURGE REASSIGN REFRESH REINDEX RELEASE RENAME REPAIR RESET \
            REVOKE ROLLBACK SAVEPOINT SECURITY SET SHOW SIGNAL START TABLE UNLISTEN UNLOCK USE VACUUM VALUES WITH XA";
        for word in words.split_whitespace().chain(FIRST_WORDS) {
            for dialect in [Dialect::Mysql, Dialect::Postgresql, Dialect::Sqlite] {
                let program = parse_program(&format!("{word} x"), dialect).expect("the program parses");
                assert_eq!(check_semantics(&program), [], "{word}");
            }
        }
    }
}
