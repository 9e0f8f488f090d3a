//! Expressions of extended clauses: attribute values, columns, objectives and constraints.

use std::fmt;

/// An expression, as written except for whitespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// A number as written: `3`, `.5`, `1e-3`.
    Number(String),
    /// A string.
    String(StringLiteral),
    /// A name, `true`, `multi:softmax`, or the `*` of a column clause.
    Ident(String),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `(a)`, which the canonical text keeps.
    Paren(Box<Expr>),
    /// `name(a, b)`.
    Call {
        /// The function's name as written.
        name: String,
        /// Its arguments.
        args: Vec<Expr>,
    },
    /// `-a`, `NOT a`.
    Unary {
        /// The operator.
        op: UnaryOp,
        /// Its operand.
        of: Box<Expr>,
    },
    /// `a + b`.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
}

impl Expr {
    /// The name; `None` for other expressions.
    #[must_use]
    pub fn as_ident(&self) -> Option<&str> {
        match self {
            Self::Ident(name) => Some(name),
            _ => None,
        }
    }

    /// The boolean value of the name `true` or `false`, in any case.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        let name = self.as_ident()?;
        if name.eq_ignore_ascii_case("true") {
            Some(true)
        } else if name.eq_ignore_ascii_case("false") {
            Some(false)
        } else {
            None
        }
    }

    /// The value of a whole number with an optional sign.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        self.signed_number()?.parse().ok()
    }

    /// The value of a number with an optional sign, if it is finite as a float.
    #[must_use]
    pub fn as_float(&self) -> Option<f64> {
        self.signed_number()?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Text of a literal number or its negation.
    pub(super) fn signed_number(&self) -> Option<String> {
        match self {
            Self::Number(number) => Some(number.clone()),
            Self::Unary { op: UnaryOp::Minus, of } => match of.as_ref() {
                Self::Number(number) => Some(format!("-{number}")),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A string literal with its quotes, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringLiteral(String);

impl StringLiteral {
    /// From the text of a token, which begins and ends with the same quote.
    pub(super) fn new(text: &str) -> Self {
        debug_assert!(text.len() >= 2 && text.starts_with(['\'', '"']), "not a string token: {text}");
        Self(text.to_owned())
    }

    /// The text between the quotes, with its backslashes.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.0[1..self.0.len() - 1]
    }

    /// The value of the literal, with Python's escapes: `\"` is a quote and `\n` a newline, because upstream SQLFlow inserts
    /// these strings into Python programs. A backslash before any other character is kept.
    #[must_use]
    pub fn value(&self) -> String {
        let mut value = String::with_capacity(self.raw().len());
        let mut chars = self.raw().chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                value.push(c);
                continue;
            }
            match chars.next() {
                Some(quoted @ ('\\' | '\'' | '"')) => value.push(quoted),
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(other) => value.extend(['\\', other]),
                None => value.push('\\'),
            }
        }
        value
    }
}

/// A unary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-`
    Minus,
    /// `NOT`
    Not,
}

impl UnaryOp {
    /// The operator as SQL writes it.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Minus => "-",
            Self::Not => "NOT",
        }
    }
}

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "`symbol` has the symbol of each")]
pub enum BinaryOp {
    And,
    Or,
    Greater,
    Less,
    Equal,
    GreaterEqual,
    LessEqual,
    NotEqual,
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
}

impl BinaryOp {
    /// All operators.
    pub const ALL: [Self; 13] = [
        Self::And,
        Self::Or,
        Self::Greater,
        Self::Less,
        Self::Equal,
        Self::GreaterEqual,
        Self::LessEqual,
        Self::NotEqual,
        Self::Plus,
        Self::Minus,
        Self::Times,
        Self::Divide,
        Self::Modulo,
    ];

    /// The operator's canonical symbol.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Greater => ">",
            Self::Less => "<",
            Self::Equal => "=",
            Self::GreaterEqual => ">=",
            Self::LessEqual => "<=",
            Self::NotEqual => "!=",
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }

    /// Precedence: a higher level binds tighter, and operators of equal level associate to the left. `AND` and `OR` have the
    /// same level, as in upstream SQLFlow.
    pub(super) const fn level(self) -> u8 {
        match self {
            Self::And | Self::Or => 0,
            Self::Greater
            | Self::Less
            | Self::Equal
            | Self::GreaterEqual
            | Self::LessEqual
            | Self::NotEqual => 1,
            Self::Plus | Self::Minus => 2,
            Self::Times | Self::Divide | Self::Modulo => 3,
        }
    }

    /// The operator of a token.
    pub(super) fn from_token(text: &str) -> Option<Self> {
        if text == "<>" {
            return Some(Self::NotEqual);
        }
        Self::ALL.into_iter().find(|op| op.symbol().eq_ignore_ascii_case(text))
    }
}

/// The canonical text, which parses to the same expression. A space precedes a minus, as in upstream SQLFlow, so that two
/// of them do not begin a comment.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(text) => f.write_str(text),
            Self::Ident(name) if needs_quotes(name) => write!(f, "`{}`", name.replace('`', "``")),
            Self::Ident(name) => f.write_str(name),
            Self::String(literal) => f.write_str(&literal.0),
            Self::List(items) => {
                f.write_str("[")?;
                write_list(f, items)?;
                f.write_str("]")
            }
            Self::Paren(inner) => write!(f, "({inner})"),
            Self::Call { name, args } => {
                write!(f, "{name}(")?;
                write_list(f, args)?;
                f.write_str(")")
            }
            Self::Unary { op: UnaryOp::Minus, of } => write!(f, " -{of}"),
            Self::Unary { op: UnaryOp::Not, of } => write!(f, "NOT {of}"),
            Self::Binary { op, left, right } => write!(f, "{left} {} {right}", op.symbol()),
        }
    }
}

/// Whether a name must be written in backquotes.
fn needs_quotes(name: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '-' | '/');
    name != "*" && !(name.starts_with(char::is_alphabetic) && name.chars().all(is_plain))
}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[Expr]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_literal_has_raw_text_and_value() {
        let literal = StringLiteral::new(r#""a\"b\\n\n\d""#);
        assert_eq!(literal.raw(), r#"a\"b\\n\n\d"#);
        assert_eq!(literal.value(), "a\"b\\n\n\\d");
    }
}
