//! Statements that put their result in the place of something that they read: run again, they would read that result.

use super::ast::Body;
use super::dialect::Dialect;
use super::tokens::Tokens;

/// Whether the statement does. What a view reads is not known.
pub(super) fn overwrites_input(body: &Body, dialect: Dialect) -> bool {
    match body {
        Body::Train(train) => train.using.as_ref().is_some_and(|using| using.text == train.into.text),
        _ => body
            .select()
            .zip(body.result_table())
            .is_some_and(|(select, table)| names(select, table, dialect)),
    }
}

/// Whether the select has the table's name anywhere, in whatever spelling and database.
fn names(select: &str, table: &str, dialect: Dialect) -> bool {
    let name = bare_name(table);
    Tokens::new(select, dialect).any(|token| token.name().as_deref() == Some(&name))
}

/// A table's own name, as tokens give names: `d.T` → `t`.
pub(super) fn bare_name(table: &str) -> String {
    table.rsplit('.').next().unwrap_or(table).trim_matches(['`', '"', '[', ']']).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;

    #[test]
    fn what_replaces_what_it_reads_is_found_in_any_spelling() {
        let overwrites = |sql: &str| {
            let compiled = compile(sql, Dialect::Mysql).unwrap();
            compiled.steps.last().unwrap().overwrites_input
        };
        let train = |using: &str| {
            let with = "WITH objective=\"reg:squarederror\"";
            format!("SELECT a, y FROM t TO TRAIN xgboost.gbtree {with} LABEL y {using} INTO m;")
        };
        assert!(overwrites(&train("USING m")) && !overwrites(&train("USING n")) && !overwrites(&train("")));
        assert!(overwrites("SELECT a FROM T TO PREDICT t.y WITH result.replace=true USING m;"));
        assert!(overwrites("SELECT a FROM b JOIN `t` ON 1=1 TO PREDICT db.t.y USING m;"));
        assert!(!overwrites("SELECT a FROM 't' TO PREDICT s.t USING m;"), "s is not read");
        assert!(overwrites("SELECT a, y FROM t TO EVALUATE m WITH result.replace=true LABEL y INTO t;"));
        assert!(!overwrites("SELECT a, y FROM t TO EVALUATE m LABEL y INTO u;"));
    }
}
