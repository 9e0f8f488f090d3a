//! Similar names, for errors about names that do not exist.

use std::collections::HashSet;

use crate::form::is_part_of_word;
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
    let similar = suggestions(database, error, sql);
    if !similar.is_empty() {
        error.message = format!("{}; did you mean {}?", error.message, similar.join(" or "));
    }
}

/// Names that are similar to the one that does not exist, if that is the error. Columns are searched in the tables that
/// the statement names.
pub fn suggestions(database: &mut dyn Database, error: &Error, sql: &str) -> Vec<String> {
    let (name, known) = match &error.missing {
        None => return Vec::new(),
        Some(Missing::Table(name)) => (name, database.tables()),
        Some(Missing::Column(name)) => (name, columns_of_named_tables(database, sql)),
    };
    // For example, the transaction has failed.
    let known = known.unwrap_or_default();
    let name = name.rsplit('.').next().unwrap_or(name);
    similar_names(name, known.iter().map(String::as_str)).into_iter().map(str::to_owned).collect()
}

fn columns_of_named_tables(database: &mut dyn Database, sql: &str) -> Result<Vec<String>, Error> {
    let sql = sql.to_lowercase();
    let words: HashSet<&str> = sql.split(|it| !is_part_of_word(it)).collect();
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
    let mut found: Vec<(f64, String, &str)> = known
        .into_iter()
        .map(|it| (it.to_lowercase(), it))
        .filter(|(folded, _)| seen.insert(folded.clone()))
        .map(|(folded, it)| (similarity(&folded, &wanted), folded, it))
        .filter(|(similarity, ..)| *similarity >= MIN_SIMILARITY)
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| b.1.cmp(&a.1)));
    found.into_iter().take(MAX_SUGGESTIONS).map(|(.., name)| name).collect()
}

/// Similarity of two names from 0 to 1: the share of the characters that are in common parts (Ratcliff and Obershelp).
/// It suits names, where a word may be left out or a prefix differs. Names may be long, so the time is bounded.
fn similarity(a: &str, b: &str) -> f64 {
    const MAX_CHARACTERS: usize = 128;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let all = a.len() + b.len();
    if a.len() > MAX_CHARACTERS || b.len() > MAX_CHARACTERS || all == 0 {
        return if a == b { 1.0 } else { 0.0 };
    }
    let ratio = |common: usize| 2.0 * common as f64 / all as f64;
    // Most names differ too much in length.
    let most = ratio(a.len().min(b.len()));
    if most < MIN_SIMILARITY { most } else { ratio(common_characters(&a, &b)) }
}

/// Number of characters in the longest common part, and in common parts before and after it.
fn common_characters(a: &[char], b: &[char]) -> usize {
    let (mut length, mut end_in_a, mut end_in_b) = (0, 0, 0);
    // Length of the common part that ends before each place of `b`.
    let mut lengths = vec![0_usize; b.len() + 1];
    for (row, in_a) in a.iter().enumerate() {
        for (column, in_b) in b.iter().enumerate().rev() {
            lengths[column + 1] = if in_a == in_b { lengths[column] + 1 } else { 0 };
        }
        for (end, found) in lengths.iter().enumerate() {
            if *found > length {
                (length, end_in_a, end_in_b) = (*found, row + 1, end);
            }
        }
    }
    if length == 0 {
        return 0;
    }
    let before = common_characters(&a[..end_in_a - length], &b[..end_in_b - length]);
    before + length + common_characters(&a[end_in_a..], &b[end_in_b..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_found_in_any_case() {
        let known = ["iris", "Iris", "iris_new", "orders", "ORDER_ITEMS"];
        assert_eq!(similar_names("IRSI", known), ["iris"]);
        assert_eq!(similar_names("order", known), ["orders", "ORDER_ITEMS"]);
        assert_eq!(similar_names("order_item", known), ["ORDER_ITEMS", "orders"]);
        assert_eq!(similar_names("customers", known), [""; 0]);
    }

    /// The expected values are those of Python's `difflib.get_close_matches`.
    #[test]
    fn short_names_and_common_parts_are_similar() {
        let known = ["t", "a", "sepal_length", "petal_length", "name", "last_name", "größe"];
        assert_eq!(similar_names("tt", known), ["t"]);
        assert_eq!(similar_names("length", known), ["sepal_length", "petal_length"]);
        assert_eq!(similar_names("nam", known), ["name"]);
        assert_eq!(similar_names("first_name", known), ["last_name"]);
        assert_eq!(similar_names("GRÖSSE", known), ["größe"]);
        assert_eq!(similar_names("", known), [""; 0]);
        let long = "x".repeat(200);
        assert_eq!(similar_names(&long, [long.as_str(), "x"]), [long.as_str()]);
    }
}
