//! Syntax tree of a program.

use std::borrow::Cow;
use std::ops::Range;

use super::classify::StandardStatement;
use super::dialect::Dialect;
use super::expr::Expr;
use super::position::Position;

/// A program: the statements of one Run, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Dialect of its standard SQL.
    pub dialect: Dialect,
    /// Its statements; empty if the program has only comments.
    pub statements: Vec<Statement>,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Text as written: from the end of the previous statement, with whitespace and comments, to its `;`. The text of an
    /// extended statement includes the whitespace that follows, and SHOW TRAIN starts at its first word, as in upstream
    /// SQLFlow.
    pub text: String,
    /// Byte range of `text` in the program. Ranges are ascending and do not overlap; between them are only whitespace,
    /// comments and empty statements.
    pub span: Range<usize>,
    /// Position of its first word.
    pub position: Position,
    /// Parsed content.
    pub body: Body,
}

/// Parsed content of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each kind's own type says what it is")]
pub enum Body {
    Standard(StandardStatement),
    Train(Train),
    Predict(Predict),
    Explain(Explain),
    Evaluate(Evaluate),
    ShowTrain(ShowTrain),
    ShowModels,
    DescribeModel(DescribeModel),
    DropModel(DropModel),
    Run(Run),
    Optimize(Optimize),
}

impl Body {
    /// Name of the kind in JSON, step documents and logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Standard(_) => "standard",
            Self::Train(_) => "train",
            Self::Predict(_) => "predict",
            Self::Explain(_) => "explain",
            Self::Evaluate(_) => "evaluate",
            Self::ShowTrain(_) => "show_train",
            Self::ShowModels => "show_models",
            Self::DescribeModel(_) => "describe_model",
            Self::DropModel(_) => "drop_model",
            Self::Run(_) => "run",
            Self::Optimize(_) => "optimize",
        }
    }

    /// Name of the kind in messages, such as `TO TRAIN`.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        match self {
            Self::Standard(_) => "standard SQL",
            Self::Train(_) => "TO TRAIN",
            Self::Predict(_) => "TO PREDICT",
            Self::Explain(_) => "TO EXPLAIN",
            Self::Evaluate(_) => "TO EVALUATE",
            Self::ShowTrain(_) => "SHOW TRAIN",
            Self::ShowModels => "SHOW MODELS",
            Self::DescribeModel(_) => "DESCRIBE MODEL",
            Self::DropModel(_) => "DROP MODEL",
            Self::Run(_) => "TO RUN",
            Self::Optimize(Optimize { direction: Direction::Maximize, .. }) => "TO MAXIMIZE",
            Self::Optimize(Optimize { direction: Direction::Minimize, .. }) => "TO MINIMIZE",
        }
    }

    /// SELECT of an extended statement, as written, up to `TO`.
    #[must_use]
    pub fn select(&self) -> Option<&str> {
        match self {
            Self::Standard(_)
            | Self::ShowTrain(_)
            | Self::ShowModels
            | Self::DescribeModel(_)
            | Self::DropModel(_) => None,
            Self::Train(Train { select, .. })
            | Self::Predict(Predict { select, .. })
            | Self::Explain(Explain { select, .. })
            | Self::Evaluate(Evaluate { select, .. })
            | Self::Run(Run { select, .. })
            | Self::Optimize(Optimize { select, .. }) => Some(select),
        }
    }

    /// All SELECTs: the one before TO, then those in attributes such as `validation.select`.
    pub(super) fn selects(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let in_attributes = self.attributes().iter().filter_map(|it| match &it.value {
            Expr::String(sql) if it.name.text.ends_with("select") => Some(Cow::Owned(sql.value())),
            _ => None,
        });
        self.select().map(Cow::Borrowed).into_iter().chain(in_attributes)
    }

    /// Result table, in the user's database.
    #[must_use]
    pub fn result_table(&self) -> Option<&str> {
        match self {
            Self::Predict(predict) => predict.table_and_column().map(|(table, _)| table),
            Self::Evaluate(evaluate) => evaluate.into.as_ref().map(|into| into.text.as_str()),
            Self::Explain(explain) => explain.into.as_ref().map(|into| into.text.as_str()),
            Self::Standard(_)
            | Self::Train(_)
            | Self::ShowTrain(_)
            | Self::ShowModels
            | Self::DescribeModel(_)
            | Self::DropModel(_)
            | Self::Run(_)
            | Self::Optimize(_) => None,
        }
    }

    /// The attributes of its WITH clause, in order.
    #[must_use]
    pub fn attributes(&self) -> &[Attribute] {
        match self {
            Self::Standard(_)
            | Self::ShowTrain(_)
            | Self::ShowModels
            | Self::DescribeModel(_)
            | Self::DropModel(_)
            | Self::Run(_) => &[],
            Self::Train(Train { attributes, .. })
            | Self::Predict(Predict { attributes, .. })
            | Self::Explain(Explain { attributes, .. })
            | Self::Evaluate(Evaluate { attributes, .. })
            | Self::Optimize(Optimize { attributes, .. }) => attributes,
        }
    }
}

/// A name with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name as written.
    pub text: String,
    /// Its position.
    pub position: Position,
}

/// `name = value` of a WITH clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name, unique in the statement.
    pub name: Name,
    /// Its value.
    pub value: Expr,
    /// Position of the value.
    pub position: Position,
}

/// `COLUMN a, b FOR target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnClause {
    /// The name after FOR. Only the first clause may omit it: the default is `feature_columns`.
    pub target: String,
    /// The columns, in order; at least one.
    pub columns: Vec<Column>,
}

/// A column of a COLUMN clause: a name, a call, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The column.
    pub expr: Expr,
    /// Its position.
    pub position: Position,
}

/// `select TO TRAIN estimator … INTO into`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Train {
    /// The SELECT.
    pub select: String,
    /// The model class, optionally with an image before its last `/`.
    pub estimator: Name,
    /// WITH.
    pub attributes: Vec<Attribute>,
    /// COLUMN, in order.
    pub columns: Vec<ColumnClause>,
    /// LABEL; `None` for clustering.
    pub label: Option<Name>,
    /// USING: a model to start from.
    pub using: Option<Name>,
    /// INTO: the model's name.
    pub into: Name,
}

impl Train {
    /// Image of the model class, and the class: `hub/team/models:v1/Net` is `hub/team/models:v1` and `Net`.
    #[must_use]
    pub fn image_and_class(&self) -> (Option<&str>, &str) {
        match self.estimator.text.rsplit_once('/') {
            Some((image, class)) => (Some(image), class),
            None => (None, &self.estimator.text),
        }
    }
}

/// `select TO PREDICT target … USING model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predict {
    /// The SELECT.
    pub select: String,
    /// `[db.]table.column` for the predictions. Quoted parts are in double quotes, without dots and quotes inside, as in
    /// all names of result tables.
    pub target: Name,
    /// WITH.
    pub attributes: Vec<Attribute>,
    /// USING: the model.
    pub model: Name,
}

impl Predict {
    /// Table and column of the result. `check_semantics` ensures that both are present.
    #[must_use]
    pub fn table_and_column(&self) -> Option<(&str, &str)> {
        let parts: Vec<&str> = self.target.text.split('.').collect();
        if (2..=3).contains(&parts.len()) && parts.iter().all(|part| !part.is_empty()) {
            self.target.text.rsplit_once('.')
        } else {
            None
        }
    }
}

/// `select TO EXPLAIN model …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explain {
    /// The SELECT.
    pub select: String,
    /// The model.
    pub model: Name,
    /// WITH.
    pub attributes: Vec<Attribute>,
    /// USING: the explainer.
    pub using: Option<Name>,
    /// INTO: a table for the result.
    pub into: Option<Name>,
}

/// `select TO EVALUATE model … LABEL label [INTO into]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluate {
    /// The SELECT.
    pub select: String,
    /// The model.
    pub model: Name,
    /// WITH.
    pub attributes: Vec<Attribute>,
    /// LABEL.
    pub label: Name,
    /// INTO: a table for the result, which is also shown.
    pub into: Option<Name>,
}

/// `SHOW TRAIN model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowTrain {
    /// The model.
    pub model: Name,
}

/// `DESCRIBE MODEL model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeModel {
    /// The model.
    pub model: Name,
}

/// `DROP MODEL [IF EXISTS] model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropModel {
    /// The model.
    pub model: Name,
    /// Whether it is no error if the model does not exist.
    pub if_exists: bool,
}

/// `select TO RUN image CMD … INTO …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The SELECT.
    pub select: String,
    /// The image.
    pub image: Name,
    /// CMD: program and arguments.
    pub command: Vec<String>,
    /// INTO: the tables it writes.
    pub into: Vec<Name>,
}

/// `select TO MAXIMIZE objective …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Optimize {
    /// The SELECT.
    pub select: String,
    /// MAXIMIZE or MINIMIZE.
    pub direction: Direction,
    /// Expression to maximize or minimize.
    pub objective: Expr,
    /// CONSTRAINT, in order.
    pub constraints: Vec<Constraint>,
    /// WITH.
    pub attributes: Vec<Attribute>,
    /// USING: the solver.
    pub using: Option<Name>,
    /// INTO: a table for the result.
    pub into: Name,
}

/// Direction of an optimization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say it themselves")]
pub enum Direction {
    Maximize,
    Minimize,
}

/// `expr [GROUP BY column]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// The condition.
    pub expr: Expr,
    /// Column for each of whose values the condition must hold.
    pub group_by: Option<Name>,
}
