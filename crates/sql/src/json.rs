//! JSON of a parsed program, for `sqlflowctl parse` and the shared test cases. The keys are those of upstream SQLFlow's
//! parser.

use serde_json::{Map, Value, json};

use super::ast::{
    Attribute, Body, ColumnClause, Constraint, Direction, Name, Optimize, Program, Statement, Train,
};
use super::expr::Expr;

/// A program as `{"statements": […]}`. Expressions are canonical text, and absent names are empty strings.
#[must_use]
pub fn to_json(program: &Program) -> Value {
    json!({ "statements": program.statements.iter().map(statement_json).collect::<Vec<_>>() })
}

fn statement_json(statement: &Statement) -> Value {
    let mut object = body_json(&statement.body);
    object.insert("original".to_owned(), statement.text.clone().into());
    object.insert("extended".to_owned(), (!matches!(statement.body, Body::Standard(_))).into());
    if !matches!(statement.body, Body::Standard(_)) {
        object.insert("kind".to_owned(), statement.body.kind().into());
    }
    if let Some(select) = statement.body.select() {
        object.insert("select".to_owned(), select.into());
    }
    if statement.body.select().is_some() && !matches!(statement.body, Body::Run(_)) {
        object.insert("with".to_owned(), attributes_text(statement.body.attributes()));
    }
    Value::Object(object)
}

/// The keys that only this kind of statement has.
fn body_json(body: &Body) -> Map<String, Value> {
    let value = match body {
        Body::Standard(_) => json!({}),
        Body::Train(train) => train_json(train),
        Body::Predict(predict) => json!({ "into": predict.target.text, "model": predict.model.text }),
        Body::Explain(explain) => json!({
            "model": explain.model.text,
            "using": optional(explain.using.as_ref()),
            "into": optional(explain.into.as_ref()),
        }),
        Body::Evaluate(evaluate) => json!({
            "model": evaluate.model.text,
            "label": evaluate.label.text,
            "into": optional(evaluate.into.as_ref()),
        }),
        Body::ShowTrain(show) => json!({ "model": show.model.text }),
        Body::ShowModels => json!({}),
        Body::DescribeModel(describe) => json!({ "model": describe.model.text }),
        Body::DropModel(drop) => json!({ "model": drop.model.text, "if_exists": drop.if_exists }),
        Body::Run(run) => json!({
            "image": run.image.text,
            "cmd": absent_if_empty(run.command.iter().map(|argument| argument.as_str().into()).collect()),
            "into": absent_if_empty(run.into.iter().map(|table| table.text.as_str().into()).collect()),
        }),
        Body::Optimize(optimize) => optimize_json(optimize),
    };
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn train_json(train: &Train) -> Value {
    json!({
        "estimator": train.estimator.text,
        "column": columns_text(&train.columns),
        "label": optional(train.label.as_ref()),
        "using": optional(train.using.as_ref()),
        "into": train.into.text,
    })
}

fn optimize_json(optimize: &Optimize) -> Value {
    let constraint = |Constraint { expr, group_by }: &Constraint| json!({ "expr": expr.to_string(), "group_by": optional(group_by.as_ref()) });
    json!({
        "direction": match optimize.direction {
            Direction::Maximize => "MAXIMIZE",
            Direction::Minimize => "MINIMIZE",
        },
        "objective": optimize.objective.to_string(),
        "constraints": optimize.constraints.iter().map(constraint).collect::<Vec<_>>(),
        "using": optional(optimize.using.as_ref()),
        "into": optimize.into.text,
    })
}

fn optional(name: Option<&Name>) -> &str {
    name.map_or("", |name| &name.text)
}

fn absent_if_empty(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

fn attributes_text(attributes: &[Attribute]) -> Value {
    attributes
        .iter()
        .map(|attribute| (attribute.name.text.clone(), Value::from(attribute.value.to_string())))
        .collect()
}

fn columns_text(clauses: &[ColumnClause]) -> Value {
    let texts = |clause: &ColumnClause| -> Value {
        clause.columns.iter().map(|column| Value::from(column.expr.to_string())).collect()
    };
    clauses.iter().map(|clause| (clause.target.clone(), texts(clause))).collect()
}

/// An attribute's value in a step document. Numbers, strings and lists are those of JSON, `true` and `false` in any case are
/// booleans, other names are strings, and any other expression has the form of [`expr_json`].
#[must_use]
pub fn attribute_json(value: &Expr) -> Value {
    match value {
        Expr::String(literal) => literal.value().into(),
        Expr::Ident(name) => value.as_bool().map_or_else(|| name.as_str().into(), Value::Bool),
        Expr::List(items) => items.iter().map(attribute_json).collect(),
        Expr::Number(_) | Expr::Unary { .. } => number_json(value).unwrap_or_else(|| expr_json(value)),
        Expr::Paren(_) | Expr::Call { .. } | Expr::Binary { .. } => expr_json(value),
    }
}

/// An expression as a tree: `{"number": 1}`, `{"string": "x"}`, `{"ident": "x"}`, `{"list": […]}`,
/// `{"call": "F", "args": […]}`, `{"unary": "-", "of": …}`, `{"binary": "+", "left": …, "right": …}`. Parentheses
/// are left out, because the tree has the order of evaluation.
#[must_use]
pub fn expr_json(expr: &Expr) -> Value {
    match expr {
        // A number outside the range of JSON numbers stays text.
        Expr::Number(text) => json!({ "number": number_json(expr).unwrap_or_else(|| text.as_str().into()) }),
        Expr::String(literal) => json!({ "string": literal.value() }),
        Expr::Ident(name) => json!({ "ident": name }),
        Expr::List(items) => json!({ "list": items.iter().map(expr_json).collect::<Vec<_>>() }),
        Expr::Paren(inner) => expr_json(inner),
        Expr::Call { name, args } => {
            json!({ "call": name, "args": args.iter().map(expr_json).collect::<Vec<_>>() })
        }
        Expr::Unary { op, of } => json!({ "unary": op.symbol(), "of": expr_json(of) }),
        Expr::Binary { op, left, right } => {
            json!({ "binary": op.symbol(), "left": expr_json(left), "right": expr_json(right) })
        }
    }
}

fn number_json(expr: &Expr) -> Option<Value> {
    expr.as_integer().map(Value::from).or_else(|| expr.as_float().map(Value::from))
}

#[cfg(test)]
mod tests {
    use super::super::expression_parser::parse_expression;
    use super::*;

    #[test]
    fn expression_has_json_forms_as_attribute_and_as_tree() {
        let expr = |text| parse_expression(text).expect("an expression");
        for (text, attribute, tree) in [
            ("3", json!(3), json!({"number": 3})),
            ("-.5", json!(-0.5), json!({"unary": "-", "of": {"number": 0.5}})),
            ("TRUE", json!(true), json!({"ident": "TRUE"})),
            ("multi:softmax", json!("multi:softmax"), json!({"ident": "multi:softmax"})),
            (r#""a\"b""#, json!("a\"b"), json!({"string": "a\"b"})),
            ("[1, x]", json!([1, "x"]), json!({"list": [{"number": 1}, {"ident": "x"}]})),
            ("1e999", json!({"number": "1e999"}), json!({"number": "1e999"})),
        ] {
            assert_eq!(attribute_json(&expr(text)), attribute, "{text}");
            assert_eq!(expr_json(&expr(text)), tree, "{text}");
        }
        let tree =
            json!({"binary": "+", "left": {"call": "F", "args": [{"ident": "a"}]}, "right": {"number": 1}});
        assert_eq!(attribute_json(&expr("F(a) + (1)")), tree);
    }
}
