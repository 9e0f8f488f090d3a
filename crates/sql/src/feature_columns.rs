//! Feature columns: the functions of a COLUMN clause and their arguments. They are those of upstream SQLFlow, whose
//! behaviour the shared test cases record.

use super::expr::Expr;
use super::suggest::nearest;

/// The column functions.
const FUNCTIONS: [&str; 11] = [
    "DENSE",
    "NUMERIC",
    "SPARSE",
    "BUCKET",
    "CATEGORY_ID",
    "SEQ_CATEGORY_ID",
    "CATEGORY_HASH",
    "CROSS",
    "EMBEDDING",
    "INDICATOR",
    "WEIGHTED_CATEGORY",
];

/// A column of the SELECT, and the format of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The column's name, or a pattern of names.
    pub name: String,
    /// The type of its values: `float32` or `int64`.
    pub dtype: String,
    /// Delimiter of the values of a vector; empty for single values.
    pub delimiter: String,
    /// Delimiter between key and value of a sparse vector; empty if there are only keys.
    pub key_value_delimiter: String,
    /// Shape of the vector; `None` if the function has no shape.
    pub shape: Option<Vec<i64>>,
    /// Whether the vector is sparse: only nonzero values are written.
    pub sparse: bool,
}

/// How a model reads a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeatureColumn {
    /// A plain name, `DENSE`, `NUMERIC` or `SPARSE`: numbers.
    Numeric(Field),
    /// `BUCKET(key, [1, 2])`: the interval of a number.
    Bucket {
        /// The number.
        key: Box<FeatureColumn>,
        /// Boundaries as written, in ascending order.
        boundaries: Vec<String>,
    },
    /// `CATEGORY_ID`, `SEQ_CATEGORY_ID` or `CATEGORY_HASH`: a category.
    Category {
        /// How the category is determined.
        kind: CategoryKind,
        /// The column.
        field: Field,
        /// Number of categories.
        bucket_size: i64,
    },
    /// `CROSS([a, b], size)`: each combination is a category.
    Cross {
        /// The combined columns.
        keys: Vec<CrossKey>,
        /// Number of categories.
        hash_bucket_size: i64,
    },
    /// `EMBEDDING(category, dimension, combiner, initializer)`.
    Embedding {
        /// The category.
        of: CategorySource,
        /// Dimension of the vectors.
        dimension: i64,
        /// Method to combine several categories: `sum` by default.
        combiner: String,
        /// Initializer of the weights; empty for the default.
        initializer: String,
    },
    /// `INDICATOR(category)`: one-hot encoding.
    Indicator(CategorySource),
    /// `WEIGHTED_CATEGORY(category)`: one number for each category, with weights.
    Weighted(Box<FeatureColumn>),
}

/// How a category is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CategoryKind {
    /// The value is the category's number.
    Id,
    /// The values are a sequence of such numbers.
    Sequence,
    /// The hash of the value is the category's number.
    Hash,
}

/// An argument of CROSS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrossKey {
    /// A column by its name.
    Name(String),
    /// A column function.
    Column(FeatureColumn),
}

/// Category of an EMBEDDING or INDICATOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CategorySource {
    /// A column whose categories are derived from the data.
    Name(String),
    /// A category column.
    Column(Box<FeatureColumn>),
}

impl FeatureColumn {
    /// Interprets an expression of a COLUMN clause.
    ///
    /// # Errors
    /// A message that says which arguments the function expects.
    pub fn from_expr(expr: &Expr) -> Result<Self, String> {
        match expr {
            Expr::Ident(name) => Ok(Self::Numeric(dense(name, Some(vec![1])))),
            // A name, or a pattern of names.
            Expr::String(name) => Ok(Self::Numeric(dense(&name.value(), Some(vec![1])))),
            Expr::Call { name, args } => Self::from_call(name, args),
            _ => Err(format!("{} is not a column", expr.to_string().trim_start())),
        }
    }

    fn from_call(function: &str, args: &[Expr]) -> Result<Self, String> {
        match (function.to_ascii_uppercase().as_str(), args) {
            ("DENSE" | "NUMERIC", [name, rest @ ..]) if rest.len() <= 3 => numeric(name, rest, false),
            ("SPARSE", [name, rest @ ..]) if (1..=5).contains(&rest.len()) => numeric(name, rest, true),
            ("BUCKET", [key, Expr::List(boundaries)]) => bucket(key, boundaries),
            ("CATEGORY_ID", [key, size]) => category(CategoryKind::Id, key, size),
            ("SEQ_CATEGORY_ID", [key, size]) => category(CategoryKind::Sequence, key, size),
            ("CATEGORY_HASH", [key, size]) => category(CategoryKind::Hash, key, size),
            ("CROSS", [Expr::List(keys), size]) if keys.len() >= 2 => Ok(Self::Cross {
                keys: keys.iter().map(cross_key).collect::<Result<_, _>>()?,
                hash_bucket_size: positive("CROSS", size)?,
            }),
            ("EMBEDDING", [key, dimension, rest @ ..]) if rest.len() <= 2 => Ok(Self::Embedding {
                of: category_source(key)?,
                dimension: positive("EMBEDDING", dimension)?,
                combiner: rest.first().map_or(Ok("sum".to_owned()), text)?,
                initializer: rest.get(1).map_or(Ok(String::new()), text)?,
            }),
            ("INDICATOR", [key]) => Ok(Self::Indicator(category_source(key)?)),
            ("WEIGHTED_CATEGORY", [key]) => match Self::from_expr(key)? {
                category @ Self::Category { .. } => Ok(Self::Weighted(Box::new(category))),
                _ => Err("WEIGHTED_CATEGORY needs CATEGORY_ID(…) or CATEGORY_HASH(…)".to_owned()),
            },
            (name, _) => Err(usage(name).map_or_else(
                || match nearest(function, &FUNCTIONS) {
                    Some(meant) => {
                        format!("column function {function} does not exist; did you mean {meant}?")
                    }
                    None => {
                        format!("column function {function} does not exist (known: {})", FUNCTIONS.join(", "))
                    }
                },
                |usage| format!("expected {usage}"),
            )),
        }
    }
}

/// Signature of a column function.
fn usage(function: &str) -> Option<&'static str> {
    Some(match function {
        "DENSE" => "DENSE(column[, shape[, delimiter[, dtype]]])",
        "NUMERIC" => "NUMERIC(column[, shape[, delimiter[, dtype]]])",
        "SPARSE" => "SPARSE(column, shape[, delimiter[, dtype[, key-value delimiter[, weight dtype]]]])",
        "BUCKET" => "BUCKET(column or DENSE(…), [boundary, …])",
        "CATEGORY_ID" => "CATEGORY_ID(column or DENSE(…) or SPARSE(…), bucket size)",
        "SEQ_CATEGORY_ID" => "SEQ_CATEGORY_ID(column or DENSE(…) or SPARSE(…), bucket size)",
        "CATEGORY_HASH" => "CATEGORY_HASH(column or DENSE(…) or SPARSE(…), bucket size)",
        "CROSS" => "CROSS([column, column, …], bucket size)",
        "EMBEDDING" => "EMBEDDING(column or category, dimension[, combiner[, initializer]])",
        "INDICATOR" => "INDICATOR(column or category)",
        "WEIGHTED_CATEGORY" => "WEIGHTED_CATEGORY(category)",
        _ => return None,
    })
}

fn dense(name: &str, shape: Option<Vec<i64>>) -> Field {
    Field {
        name: name.to_owned(),
        dtype: "float32".to_owned(),
        delimiter: String::new(),
        key_value_delimiter: String::new(),
        shape,
        sparse: false,
    }
}

fn numeric(name: &Expr, rest: &[Expr], sparse: bool) -> Result<FeatureColumn, String> {
    let mut field = dense(&text(name)?, Some(Vec::new()));
    field.sparse = sparse;
    if let Some(size) = rest.first() {
        field.shape = Some(shape(size)?);
    }
    if let Some(delimiter) = rest.get(1) {
        field.delimiter = self::delimiter(delimiter)?;
    }
    if let Some(dtype) = rest.get(2) {
        field.dtype = match text(dtype)?.to_ascii_lowercase().as_str() {
            "int" | "int64" => "int64".to_owned(),
            "float" | "float32" => "float32".to_owned(),
            other => return Err(format!("the type {other} is neither int nor float")),
        };
    }
    if let Some(delimiter) = rest.get(3) {
        field.key_value_delimiter = self::delimiter(delimiter)?;
    }
    match rest.get(4).map(text).transpose()? {
        Some(weight) if !weight.eq_ignore_ascii_case("float") => {
            Err(format!("the weights of SPARSE are float, not {weight}"))
        }
        _ => Ok(FeatureColumn::Numeric(field)),
    }
}

fn bucket(key: &Expr, boundaries: &[Expr]) -> Result<FeatureColumn, String> {
    let FeatureColumn::Numeric(field) = FeatureColumn::from_expr(key)? else {
        return Err("the first argument of BUCKET must be a column or DENSE(…)".to_owned());
    };
    let numbers: Option<Vec<f64>> = boundaries.iter().map(Expr::as_float).collect();
    let ascending = numbers.is_some_and(|numbers| !numbers.is_empty() && numbers.is_sorted_by(|a, b| a < b));
    if !ascending {
        return Err("the boundaries of BUCKET must be numbers in strictly ascending order".to_owned());
    }
    let boundaries = boundaries.iter().filter_map(Expr::signed_number).collect();
    Ok(FeatureColumn::Bucket { key: Box::new(FeatureColumn::Numeric(field)), boundaries })
}

fn category(kind: CategoryKind, key: &Expr, size: &Expr) -> Result<FeatureColumn, String> {
    let field = match key {
        Expr::Call { .. } => match FeatureColumn::from_expr(key)? {
            FeatureColumn::Numeric(field) => field,
            _ => {
                return Err(
                    "the first argument of a category must be a column, DENSE(…) or SPARSE(…)".to_owned()
                );
            }
        },
        _ => Field { dtype: "int64".to_owned(), ..dense(&text(key)?, None) },
    };
    Ok(FeatureColumn::Category { kind, field, bucket_size: positive("a category", size)? })
}

fn cross_key(key: &Expr) -> Result<CrossKey, String> {
    match key {
        Expr::Call { .. } => FeatureColumn::from_expr(key).map(CrossKey::Column),
        _ => text(key).map(CrossKey::Name),
    }
}

/// A sparse vector counts as a category whose numbers are its keys.
fn category_source(key: &Expr) -> Result<CategorySource, String> {
    let Expr::Call { .. } = key else {
        return text(key).map(CategorySource::Name);
    };
    let column = match FeatureColumn::from_expr(key)? {
        FeatureColumn::Numeric(field) => match field.shape.as_deref() {
            Some(&[bucket_size]) if field.sparse => {
                FeatureColumn::Category { kind: CategoryKind::Id, field, bucket_size }
            }
            _ => {
                return Err("expected a category, a SPARSE(…) of one dimension, or a column".to_owned());
            }
        },
        column => column,
    };
    Ok(CategorySource::Column(Box::new(column)))
}

fn shape(expr: &Expr) -> Result<Vec<i64>, String> {
    match expr {
        Expr::List(sizes) => sizes.iter().map(|size| positive("a shape", size)).collect(),
        size => Ok(vec![positive("a shape", size)?]),
    }
}

fn positive(what: &str, expr: &Expr) -> Result<i64, String> {
    match expr.as_integer() {
        Some(number) if number > 0 => Ok(number),
        _ => Err(format!("{what} needs a size above 0, not {}", expr.to_string().trim_start())),
    }
}

fn text(expr: &Expr) -> Result<String, String> {
    match expr {
        Expr::Ident(name) => Ok(name.clone()),
        Expr::String(literal) => Ok(literal.value()),
        _ => Err(format!("expected a name or a string, found {}", expr.to_string().trim_start())),
    }
}

/// A delimiter, by name or as text.
fn delimiter(expr: &Expr) -> Result<String, String> {
    let text = text(expr)?;
    Ok(match (expr, text.to_ascii_uppercase().as_str()) {
        (Expr::Ident(_), "COMMA") => ",".to_owned(),
        (Expr::Ident(_), "SPACE") => " ".to_owned(),
        (Expr::Ident(_), "TAB") => "\t".to_owned(),
        (Expr::Ident(_), "COLON") => ":".to_owned(),
        _ => text,
    })
}

#[cfg(test)]
mod tests {
    use super::super::expression_parser::parse_expression;
    use super::*;

    fn read(text: &str) -> Result<FeatureColumn, String> {
        FeatureColumn::from_expr(&parse_expression(text).expect("the expression parses"))
    }

    #[test]
    fn invalid_arguments_are_rejected_with_the_expected_ones() {
        for (text, message) in [
            ("DENSE(a, 0)", "a shape needs a size above 0, not 0"),
            ("DENSE(a, [2, -1])", "a shape needs a size above 0, not -1"),
            ("DENSE(a, 1, COMMA, text)", "the type text is neither int nor float"),
            ("SPARSE(a, 9, COMMA, int, \":\", int)", "the weights of SPARSE are float, not int"),
            ("BUCKET(a, [1, 1])", "the boundaries of BUCKET must be numbers in strictly ascending order"),
            ("BUCKET(INDICATOR(a), [1])", "the first argument of BUCKET must be a column or DENSE(…)"),
            ("CATEGORY_HASH(a, x)", "a category needs a size above 0, not x"),
            ("CROSS([a], 10)", "expected CROSS([column, column, …], bucket size)"),
            ("EMBEDDING(DENSE(a), 8)", "expected a category, a SPARSE(…) of one dimension, or a column"),
            ("WEIGHTED_CATEGORY(a)", "WEIGHTED_CATEGORY needs CATEGORY_ID(…) or CATEGORY_HASH(…)"),
            ("INDICATR(a)", "column function INDICATR does not exist; did you mean INDICATOR?"),
            ("1 + 2", "1 + 2 is not a column"),
        ] {
            assert_eq!(read(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn delimiter_may_be_given_by_name() {
        let Ok(FeatureColumn::Numeric(field)) = read("sparse(\"re.*\", [10, 2], SPACE, int64, COLON, float)")
        else {
            panic!("SPARSE is numeric");
        };
        assert_eq!((field.name.as_str(), field.dtype.as_str()), ("re.*", "int64"));
        assert_eq!((field.delimiter.as_str(), field.key_value_delimiter.as_str()), (" ", ":"));
        assert_eq!((field.shape, field.sparse), (Some(vec![10, 2]), true));
        let bucket = read("BUCKET(DENSE(a), [-1, .5])").expect("it is a bucket");
        assert!(matches!(bucket, FeatureColumn::Bucket { boundaries, .. } if boundaries == ["-1", ".5"]));
    }
}
