//! Expressions of extended clauses, parsed by precedence climbing.

use super::clause_lexer::LexemeKind;
use super::clause_parser::ClauseParser;
use super::error::SqlError;
use super::expr::{BinaryOp, Expr, StringLiteral, UnaryOp};

/// Maximum nesting of brackets, calls and signs. Bounds the parser's stack.
pub(super) const MAX_NESTING: usize = 64;
/// Maximum number of operators in an expression. `1+1+…` makes a deep tree without brackets, and code that walks it recurses.
pub(super) const MAX_OPERATORS: usize = 1000;

impl ClauseParser<'_> {
    /// Parses an expression.
    pub(super) fn expression(&mut self) -> Result<Expr, SqlError> {
        self.nesting = 0;
        self.operators = 0;
        self.operation(0)
    }

    /// Parses operators of this precedence or a higher one.
    fn operation(&mut self, level: u8) -> Result<Expr, SqlError> {
        let mut left = self.operand()?;
        while let Some(op) = self.operator().filter(|op| op.level() >= level) {
            self.operators += 1;
            if self.operators > MAX_OPERATORS {
                return Err(self.too_large(format!("the expression has more than {MAX_OPERATORS} operators")));
            }
            self.take()?;
            let right = self.operation(op.level() + 1)?;
            left = Expr::Binary { op, left: Box::new(left), right: Box::new(right) };
        }
        Ok(left)
    }

    fn operator(&self) -> Option<BinaryOp> {
        match self.current.kind {
            LexemeKind::Symbol | LexemeKind::Keyword => BinaryOp::from_token(self.current.text),
            _ => None,
        }
    }

    /// Parses an operand.
    fn operand(&mut self) -> Result<Expr, SqlError> {
        if self.nesting == MAX_NESTING {
            return Err(self.too_large(format!("the expression is nested deeper than {MAX_NESTING}")));
        }
        self.nesting += 1;
        let operand = match self.current.kind {
            LexemeKind::Number => Expr::Number(self.take()?.text.to_owned()),
            LexemeKind::String => Expr::String(StringLiteral::new(self.take()?.text)),
            LexemeKind::Name => {
                let name = self.take()?.text.to_owned();
                self.call_or_name(name)?
            }
            LexemeKind::Quoted => Expr::Ident(self.any_name("a name")?.text),
            // The argument of a function, such as `label` in `INDICATOR(label)`.
            LexemeKind::Keyword if self.is_column_keyword(&[",", ")", "]"])? => {
                Expr::Ident(self.take()?.text.to_owned())
            }
            _ if self.current.is("NOT") => self.unary(UnaryOp::Not)?,
            _ if self.current.is_symbol("-") => self.unary(UnaryOp::Minus)?,
            _ if self.current.is_symbol("(") => {
                self.take()?;
                let inner = self.operation(0)?;
                self.require_symbol(")")?;
                Expr::Paren(Box::new(inner))
            }
            _ if self.current.is_symbol("[") => {
                self.take()?;
                Expr::List(self.items("]")?)
            }
            _ => return Err(self.expected("an expression")),
        };
        self.nesting -= 1;
        Ok(operand)
    }

    fn unary(&mut self, op: UnaryOp) -> Result<Expr, SqlError> {
        self.take()?;
        Ok(Expr::Unary { op, of: Box::new(self.operand()?) })
    }

    /// Parses the arguments after a name, if a parenthesis follows it.
    pub(super) fn call_or_name(&mut self, name: String) -> Result<Expr, SqlError> {
        if self.accept_symbol("(")? {
            Ok(Expr::Call { name, args: self.items(")")? })
        } else {
            Ok(Expr::Ident(name))
        }
    }

    /// Parses a list of expressions, perhaps empty, up to the closing bracket.
    fn items(&mut self, close: &'static str) -> Result<Vec<Expr>, SqlError> {
        if self.accept_symbol(close)? {
            return Ok(Vec::new());
        }
        let items = self.separated(|parser| parser.operation(0))?;
        self.require_symbol(close)?;
        Ok(items)
    }

    fn too_large(&self, message: String) -> SqlError {
        SqlError::too_large(self.current.position, message)
    }
}

/// Parses `text` as a single expression.
#[cfg(test)]
pub(super) fn parse_expression(text: &str) -> Result<Expr, SqlError> {
    let lexer = super::clause_lexer::Lexer::new(text, 0, super::position::PositionCursor::new(text));
    let mut parser = ClauseParser::new(lexer, super::nodes::Nodes::default())?;
    let expr = parser.expression()?;
    if parser.current.kind == LexemeKind::End { Ok(expr) } else { Err(parser.expected("an operator")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_follows_precedence_and_associativity() {
        let Expr::Binary { op: BinaryOp::And, left, right } =
            parse_expression("a + b * 2 >= -c and d").expect("the expression parses")
        else {
            panic!("AND binds loosest");
        };
        assert_eq!(left.to_string(), "a + b * 2 >=  -c");
        assert!(matches!(*left, Expr::Binary { op: BinaryOp::GreaterEqual, .. }));
        assert_eq!(right.to_string(), "d");
        let Ok(Expr::Binary { left, right, .. }) = parse_expression("1-2-3") else {
            panic!("it is a difference");
        };
        assert_eq!((left.to_string().as_str(), right.to_string().as_str()), ("1 - 2", "3"));
    }

    #[test]
    fn deep_or_long_expression_is_rejected() {
        for deep in ["(".repeat(1_000_000), "[".repeat(100_000), "f(".repeat(100_000), "- ".repeat(100_000)] {
            let error = parse_expression(&deep).expect_err("too deep");
            assert!(error.to_string().contains("nested deeper than 64"), "{error}");
        }
        let error = parse_expression(&"1+".repeat(100_000)).expect_err("too long");
        assert!(error.to_string().contains("more than 1000 operators"), "{error}");
    }
}
