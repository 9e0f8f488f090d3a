//! Parser of extended clauses: from `TO` to the `;`, with a function for each rule of the grammar.
//!
//! Keywords that were tried and did not match are collected in `wanted` until a token is consumed, so that an error lists
//! all possible tokens.

use std::collections::HashSet;

use super::ast::{
    Attribute, Body, Column, ColumnClause, Constraint, DescribeModel, Direction, DropModel, Evaluate,
    Explain, Name, Optimize, Predict, Run, ShowTrain, Train,
};
use super::clause_lexer::{Lexeme, LexemeKind, Lexer};
use super::error::SqlError;
use super::expr::{Expr, StringLiteral};
use super::nodes::Nodes;

/// Target of a COLUMN clause without FOR.
pub(super) const DEFAULT_TARGET: &str = "feature_columns";
/// All columns except these: `* EXCEPT (a, b)`. The word is not reserved: a column may have this name.
pub(super) const EXCEPT: &str = "EXCEPT";

/// What may follow a column in COLUMN, and in LABEL.
const AFTER_COLUMN: [&str; 7] = [",", ")", "FOR", "COLUMN", "LABEL", "USING", "INTO"];
const AFTER_LABEL: [&str; 2] = ["USING", "INTO"];

/// Parses one extended clause.
pub(super) struct ClauseParser<'a> {
    lexer: Lexer<'a>,
    pub(super) current: Lexeme<'a>,
    /// End of the last consumed token.
    pub(super) end: usize,
    pub(super) wanted: Vec<&'static str>,
    /// Nesting depth of the current expression, and its number of operators so far.
    pub(super) nesting: usize,
    pub(super) operators: usize,
    nodes: Nodes,
}

impl<'a> ClauseParser<'a> {
    /// Starts at the next token of `lexer`.
    pub(super) fn new(mut lexer: Lexer<'a>, nodes: Nodes) -> Result<Self, SqlError> {
        let current = lexer.next()?;
        Ok(Self { lexer, current, end: current.end, wanted: Vec::new(), nesting: 0, operators: 0, nodes })
    }

    /// Parses `TRAIN …`, `PREDICT …` and so on. Returns the content and the offset after the statement.
    pub(super) fn extended(mut self, select: &str) -> Result<(Body, usize), SqlError> {
        let select = select.to_owned();
        let body = if self.accept("TRAIN")? {
            Body::Train(self.train(select)?)
        } else if self.accept("PREDICT")? {
            Body::Predict(self.predict(select)?)
        } else if self.accept("EXPLAIN")? {
            Body::Explain(self.explain(select)?)
        } else if self.accept("EVALUATE")? {
            Body::Evaluate(self.evaluate(select)?)
        } else if self.accept("RUN")? {
            Body::Run(self.run(select)?)
        } else if self.accept("MAXIMIZE")? {
            Body::Optimize(self.optimize(select, Direction::Maximize)?)
        } else if self.accept("MINIMIZE")? {
            Body::Optimize(self.optimize(select, Direction::Minimize)?)
        } else {
            return Err(self.unexpected());
        };
        self.finish(body)
    }

    /// Parses the rest of `SHOW TRAIN`.
    pub(super) fn show_train(mut self) -> Result<(Body, usize), SqlError> {
        let model = self.name("a model name")?;
        self.finish(Body::ShowTrain(ShowTrain { model }))
    }

    /// Parses the rest of `SHOW MODELS`, which is empty.
    pub(super) fn show_models(self) -> Result<(Body, usize), SqlError> {
        self.finish(Body::ShowModels)
    }

    /// Parses the rest of `DESCRIBE MODEL`.
    pub(super) fn describe_model(mut self) -> Result<(Body, usize), SqlError> {
        let model = self.name("a model name")?;
        self.finish(Body::DescribeModel(DescribeModel { model }))
    }

    /// Parses the rest of `DROP MODEL`.
    pub(super) fn drop_model(mut self) -> Result<(Body, usize), SqlError> {
        let if_exists = self.accept("IF")?;
        let model = if if_exists {
            self.required_name("EXISTS", "a model name")?
        } else {
            self.name("a model name")?
        };
        self.finish(Body::DropModel(DropModel { model, if_exists }))
    }

    fn train(&mut self, select: String) -> Result<Train, SqlError> {
        let estimator = self.name("a model class")?;
        let attributes = self.attributes()?;
        let columns = self.columns()?;
        let label = self.label()?;
        if attributes.is_empty() && columns.is_empty() && label.is_none() {
            return Err(self.unexpected());
        }
        let using = self.optional_name("USING", "a model name")?;
        let into = self.required_name("INTO", "a model name")?;
        Ok(Train { select, estimator, attributes, columns, label, using, into })
    }

    fn predict(&mut self, select: String) -> Result<Predict, SqlError> {
        let target = self.table_name("[db.]table.column")?;
        let attributes = self.attributes()?;
        let model = self.required_name("USING", "a model name")?;
        Ok(Predict { select, target, attributes, model })
    }

    fn explain(&mut self, select: String) -> Result<Explain, SqlError> {
        let model = self.name("a model name")?;
        let attributes = self.attributes()?;
        let using = self.optional_name("USING", "an explainer")?;
        let into = self.optional_table()?;
        Ok(Explain { select, model, attributes, using, into })
    }

    fn evaluate(&mut self, select: String) -> Result<Evaluate, SqlError> {
        let model = self.name("a model name")?;
        let attributes = self.attributes()?;
        let Some(label) = self.label()? else {
            return Err(self.unexpected());
        };
        let into = self.optional_table()?;
        Ok(Evaluate { select, model, attributes, label, into })
    }

    fn run(&mut self, select: String) -> Result<Run, SqlError> {
        let image = self.name("an image")?;
        let mut command = Vec::new();
        let mut into = Vec::new();
        if self.accept("CMD")? {
            command = self.separated(|parser| Ok(parser.string("a string")?.value()))?;
            if self.accept("INTO")? {
                into = self.separated(|parser| parser.table_name("a table name"))?;
            }
        }
        Ok(Run { select, image, command, into })
    }

    fn optimize(&mut self, select: String, direction: Direction) -> Result<Optimize, SqlError> {
        let objective = self.expression()?;
        let constraints =
            if self.accept("CONSTRAINT")? { self.separated(Self::constraint)? } else { Vec::new() };
        let attributes = self.attributes()?;
        if attributes.is_empty() {
            return Err(self.unexpected());
        }
        let using = self.optional_name("USING", "a solver")?;
        let Some(into) = self.optional_table()? else {
            return Err(self.unexpected());
        };
        Ok(Optimize { select, direction, objective, constraints, attributes, using, into })
    }

    fn constraint(&mut self) -> Result<Constraint, SqlError> {
        let expr = self.expression()?;
        let group_by = if self.accept("GROUP")? { Some(self.required_name("BY", "a column")?) } else { None };
        Ok(Constraint { expr, group_by })
    }

    fn attributes(&mut self) -> Result<Vec<Attribute>, SqlError> {
        if !self.accept("WITH")? {
            return Ok(Vec::new());
        }
        let mut seen = HashSet::new();
        self.separated(|parser| {
            let name = parser.name("an attribute's name")?;
            if !seen.insert(name.text.clone()) {
                let message = format!("attribute {} is given twice", name.text);
                return Err(SqlError::semantic(name.position, message));
            }
            parser.require_symbol("=")?;
            let position = parser.current.position;
            let value = parser.expression()?;
            Ok(Attribute { name, value, position })
        })
    }

    fn columns(&mut self) -> Result<Vec<ColumnClause>, SqlError> {
        let mut clauses = Vec::new();
        let mut seen = HashSet::new();
        while self.accept("COLUMN")? {
            let columns = self.separated(Self::column)?;
            let position = self.current.position;
            // Only the first clause may omit its target; a second one would replace its columns.
            let target = match self.optional_name("FOR", "a name")? {
                Some(name) => name.text,
                None if clauses.is_empty() => DEFAULT_TARGET.to_owned(),
                None => return Err(self.unexpected()),
            };
            if !seen.insert(target.clone()) {
                return Err(SqlError::semantic(position, format!("columns for {target} are given twice")));
            }
            clauses.push(ColumnClause { target, columns });
        }
        Ok(clauses)
    }

    fn column(&mut self) -> Result<Column, SqlError> {
        let position = self.current.position;
        let expr = if self.accept_symbol("*")? {
            if self.accept(EXCEPT)? { self.all_except()? } else { Expr::Ident("*".to_owned()) }
        } else if matches!(self.current.kind, LexemeKind::String | LexemeKind::Quoted) {
            self.any_column()?
        } else if self.is_column_keyword(&AFTER_COLUMN)? {
            Expr::Ident(self.take()?.text.to_owned())
        } else {
            let name = self.column_word()?;
            self.call_or_name(name.text)?
        };
        Ok(Column { expr, position })
    }

    /// `* EXCEPT a`, `* EXCEPT (a, "b c")`.
    fn all_except(&mut self) -> Result<Expr, SqlError> {
        let args = if self.accept_symbol("(")? {
            let names = self.separated(Self::any_column)?;
            self.require_symbol(")")?;
            names
        } else {
            vec![self.any_column()?]
        };
        Ok(Expr::Call { name: EXCEPT.to_owned(), args })
    }

    /// A column's name: a word, a name in backquotes, or a string.
    fn any_column(&mut self) -> Result<Expr, SqlError> {
        if self.current.kind == LexemeKind::String {
            return self.string("a column").map(Expr::String);
        }
        if self.is_column_keyword(&AFTER_COLUMN)? {
            return Ok(Expr::Ident(self.take()?.text.to_owned()));
        }
        match self.current.name() {
            Some(text) => self.take().map(|_| Expr::Ident(text)),
            None => self.column_word().map(|name| Expr::Ident(name.text)),
        }
    }

    /// Whether the current keyword is the name of a column, such as `label`: only if the next token cannot begin the name
    /// that the keyword needs.
    pub(super) fn is_column_keyword(&self, after: &[&str]) -> Result<bool, SqlError> {
        if self.current.kind != LexemeKind::Keyword {
            return Ok(false);
        }
        let next = self.lexer.clone().next()?;
        Ok(match next.kind {
            LexemeKind::Semicolon | LexemeKind::End => true,
            _ => after.iter().any(|it| next.is(it) || next.is_symbol(it)),
        })
    }

    /// A column's name that is a word. The error for a keyword says how to write a column of that name.
    fn column_word(&mut self) -> Result<Name, SqlError> {
        let keyword = self.current;
        self.name("a column").map_err(|error| match keyword.kind {
            LexemeKind::Keyword => {
                error.with_note(&format!("; a column of that name needs quotes, as in \"{}\"", keyword.text))
            }
            _ => error,
        })
    }

    /// A name: a word, or any text in backquotes.
    pub(super) fn any_name(&mut self, what: &'static str) -> Result<Name, SqlError> {
        match self.current.name() {
            Some(text) => Ok(Name { text, position: self.take()?.position }),
            None => self.name(what),
        }
    }

    fn label(&mut self) -> Result<Option<Name>, SqlError> {
        if !self.accept("LABEL")? {
            return Ok(None);
        }
        if self.current.kind == LexemeKind::String {
            let position = self.current.position;
            let text = self.string("a column")?.value();
            return Ok(Some(Name { text, position }));
        }
        if self.is_column_keyword(&AFTER_LABEL)? {
            let taken = self.take()?;
            return Ok(Some(Name { text: taken.text.to_owned(), position: taken.position }));
        }
        match self.current.name() {
            Some(text) => Ok(Some(Name { text, position: self.take()?.position })),
            None => self.column_word().map(Some),
        }
    }

    /// `item {"," item}`.
    pub(super) fn separated<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        let mut items = vec![item(self)?];
        while self.accept_symbol(",")? {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn optional_name(&mut self, keyword: &'static str, what: &'static str) -> Result<Option<Name>, SqlError> {
        if self.accept(keyword)? { self.name(what).map(Some) } else { Ok(None) }
    }

    fn required_name(&mut self, keyword: &'static str, what: &'static str) -> Result<Name, SqlError> {
        match self.optional_name(keyword, what)? {
            Some(name) => Ok(name),
            None => Err(self.unexpected()),
        }
    }

    fn name(&mut self, what: &'static str) -> Result<Name, SqlError> {
        if self.current.kind != LexemeKind::Name {
            self.wanted.push(what);
            let is_quoted = matches!(self.current.kind, LexemeKind::String | LexemeKind::Quoted);
            let note = if is_quoted { ", without quotes" } else { "" };
            return Err(self.unexpected().with_note(note));
        }
        let taken = self.take()?;
        Ok(Name { text: taken.text.to_owned(), position: taken.position })
    }

    fn string(&mut self, what: &'static str) -> Result<StringLiteral, SqlError> {
        if self.current.kind != LexemeKind::String {
            self.wanted.push(what);
            return Err(self.unexpected());
        }
        Ok(StringLiteral::new(self.take()?.text))
    }

    pub(super) fn accept(&mut self, word: &'static str) -> Result<bool, SqlError> {
        let is_it = self.current.is(word);
        self.take_if(is_it, word)
    }

    pub(super) fn accept_symbol(&mut self, symbol: &'static str) -> Result<bool, SqlError> {
        let is_it = self.current.is_symbol(symbol);
        self.take_if(is_it, symbol)
    }

    pub(super) fn require_symbol(&mut self, symbol: &'static str) -> Result<(), SqlError> {
        if self.accept_symbol(symbol)? { Ok(()) } else { Err(self.unexpected()) }
    }

    fn take_if(&mut self, is_it: bool, what: &'static str) -> Result<bool, SqlError> {
        if is_it {
            self.take()?;
        } else {
            self.wanted.push(what);
        }
        Ok(is_it)
    }

    /// Consumes the current token and returns it.
    pub(super) fn take(&mut self) -> Result<Lexeme<'a>, SqlError> {
        let taken = self.current;
        if ![",", ")", "]", "="].iter().any(|it| taken.is_symbol(it)) {
            self.nodes.add(1, taken.position)?;
        }
        self.end = taken.end;
        self.wanted.clear();
        self.current = self.lexer.next()?;
        Ok(taken)
    }

    /// The error that another token was expected.
    pub(super) fn expected(&mut self, what: &'static str) -> SqlError {
        self.wanted.push(what);
        self.unexpected()
    }

    pub(super) fn unexpected(&self) -> SqlError {
        SqlError::syntax(self.current.position, self.current.found(), &self.wanted)
    }

    fn finish(mut self, body: Body) -> Result<(Body, usize), SqlError> {
        match self.current.kind {
            LexemeKind::Semicolon => Ok((body, self.current.end)),
            LexemeKind::End => Ok((body, self.end)),
            _ => Err(self.expected(";")),
        }
    }
}
