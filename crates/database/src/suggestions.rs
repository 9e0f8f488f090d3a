//! Similar names, for errors about names that do not exist.

use std::collections::HashSet;

use crate::{Database, Error, Missing};

/// Maximum number of tables whose columns are searched.
const MAX_NAMED_TABLES: usize = 20;
/// Similarity from which a name is suggested, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.6;
/// Maximum number of suggestions.
const MAX_SUGGESTIONS: usize = 3;

/// Adds similar names to the message of an error about a name that does not exist. Columns are searched in the tables
/// that the statement names.
pub fn add_suggestions(database: &mut dyn Database, error: &mut Error, sql: &str) {
    let known = match &error.missing {
        None => return,
        Some(Missing::Table(_)) => database.tables(),
        Some(Missing::Column(_)) => columns_of_named_tables(database, sql),
    };
    let (Some(Missing::Table(name) | Missing::Column(name)), Ok(known)) = (&error.missing, known) else {
        // For example, the transaction has failed.
        return;
    };
    let name = name.rsplit('.').next().unwrap_or(name);
    let similar = similar_names(name, known.iter().map(String::as_str));
    if !similar.is_empty() {
        error.message = format!("{}; did you mean {}?", error.message, similar.join(" or "));
    }
}

fn columns_of_named_tables(database: &mut dyn Database, sql: &str) -> Result<Vec<String>, Error> {
    let sql = sql.to_lowercase();
    let words: HashSet<&str> = sql.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let tables = database.tables()?;
    let named = tables.iter().filter(|table| words.contains(table.to_lowercase().as_str()));
    let mut columns = Vec::new();
    for table in named.take(MAX_NAMED_TABLES) {
        let select = format!("SELECT * FROM {}", database.quote(table));
        columns.extend(database.describe(&select)?.into_iter().map(|column| column.name));
    }
    Ok(columns)
}

/// Up to three of the known names that are similar to `name`, in any case, the most similar first.
pub fn similar_names<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    let mut seen = HashSet::new();
    let mut found: Vec<(f64, &str)> = known
        .into_iter()
        .filter(|it| seen.insert(it.to_lowercase()))
        .map(|it| (similarity(&wanted, &it.to_lowercase()), it))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().take(MAX_SUGGESTIONS).map(|(_, name)| name).collect()
}

/// Similarity of two names from 0 to 1. Names may be long, so the time is bounded.
fn similarity(a: &str, b: &str) -> f64 {
    const MAX_CHARACTERS: usize = 128;
    if a.len() > MAX_CHARACTERS || b.len() > MAX_CHARACTERS {
        return if a == b { 1.0 } else { 0.0 };
    }
    strsim::normalized_damerau_levenshtein(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_found_in_any_case() {
        let known = ["iris", "Iris", "iris_new", "orders", "ORDER_ITEMS"];
        assert_eq!(similar_names("IRSI", known), ["iris"]);
        assert_eq!(similar_names("order", known), ["orders"]);
        assert_eq!(similar_names("order_item", known), ["ORDER_ITEMS"]);
        assert_eq!(similar_names("customers", known), [""; 0]);
    }
}
