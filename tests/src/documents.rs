//! Commands and programs in the docs.

use std::fs;

use crate::python::repository;

/// The text of a page, such as `docs/sql.md`.
pub fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).expect("the page is there")
}

/// The fenced blocks of a page in this language.
pub fn blocks(name: &str, language: &str) -> Vec<String> {
    let text = page(name);
    let fence = format!("\n```{language}\n");
    let begun = text.split(&fence).skip(1);
    begun.map(|rest| rest.split_once("```").expect("the block ends").0.to_owned()).collect()
}

/// The only block of commands of a page that contains this text.
pub fn commands(name: &str, says: &str) -> String {
    let mut found: Vec<String> = blocks(name, "sh").into_iter().filter(|it| it.contains(says)).collect();
    assert_eq!(found.len(), 1, "{name}: {says}");
    found.remove(0)
}
