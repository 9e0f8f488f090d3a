//! Statements whose result replaces one of their inputs. Such a statement is not repeatable after its commit: it would read
//! its own result.

use super::ast::Body;
use super::dialect::Dialect;
use super::tokens::Tokens;

/// Whether the statement's result replaces one of its inputs. Tables behind views are not known here.
pub(super) fn overwrites_input(body: &Body, dialect: Dialect) -> bool {
    match body {
        Body::Train(train) => train.using.as_ref().is_some_and(|using| using.text == train.into.text),
        _ => body
            .select()
            .zip(body.result_table())
            .is_some_and(|(select, table)| references(select, table, dialect)),
    }
}

/// Whether the SELECT contains the table's name, in any spelling and with any schema.
fn references(select: &str, table: &str, dialect: Dialect) -> bool {
    let name = bare_name(table);
    Tokens::new(select, dialect).any(|token| token.name().as_deref() == Some(&name))
}

/// A table's name without schema and quotes, in lower case: `d.T` → `t`.
pub(super) fn bare_name(table: &str) -> String {
    table.rsplit('.').next().unwrap_or(table).trim_matches(['`', '"', '[', ']']).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;

    #[test]
    fn statement_that_replaces_its_input_is_found_in_any_spelling() {
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
