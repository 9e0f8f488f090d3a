//! Number of nodes of a program's tree. A node takes a hundred bytes of memory and the program a few for it, so the
//! length of a program is no bound.

use std::cell::Cell;
use std::rc::Rc;

use super::error::SqlError;
use super::position::Position;

/// Maximum number of nodes of a program: statements, and in extended clauses and lists of names each name, value,
/// operator and bracket.
pub const MAX_NODES: usize = 100_000;

/// Counts the nodes of a program while it is parsed.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes(Rc<Cell<usize>>);

impl Nodes {
    /// Counts more of them.
    ///
    /// # Errors
    /// They are too many.
    pub(super) fn add(&self, count: usize, at: Position) -> Result<(), SqlError> {
        let all = self.0.get().saturating_add(count);
        self.0.set(all);
        if all <= MAX_NODES {
            return Ok(());
        }
        let message = format!(
            "the program has more than {MAX_NODES} statements, names, values and operators; split it into several programs"
        );
        Err(SqlError::too_large(at, message))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Dialect, compile};

    /// Each of them took up to a hundred times its length.
    #[test]
    fn programs_of_too_many_nodes_are_refused() {
        let many = 110_000;
        let train = |attributes: &str, columns: &str| {
            format!("SELECT 1 TO TRAIN a.b WITH x={attributes} COLUMN {columns} LABEL c INTO m;")
        };
        for program in [
            train(&format!("[{}]", "1,".repeat(many) + "1"), "c"),
            train(&format!("[{}]", "[],".repeat(many) + "1"), "c"),
            train(&format!("f({})", "a,".repeat(many) + "1"), "c"),
            train("1", &("a,".repeat(many) + "a")),
            "SELECT 1 TO RUN i CMD ".to_owned() + &"\"a\",".repeat(many) + "\"a\";",
            "a;".repeat(many),
            "DROP TABLE ".to_owned() + &"a,".repeat(many) + "a;",
            "SET ".to_owned() + &"@a=f(),".repeat(many) + "@a=1;",
        ] {
            let errors = compile(&program, Dialect::Mysql).unwrap_err().to_string();
            assert!(errors.contains("the program has more than 100000"), "{}: {errors}", &program[..40]);
        }
        // A long statement for the database is one node.
        compile(&format!("INSERT INTO t VALUES {}(1);", "(1,2,3),".repeat(many)), Dialect::Mysql).unwrap();
    }
}
