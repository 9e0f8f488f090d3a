//! What the names in a text of MySQL can mean.

use super::names::{folded, mentions};
use super::tokens::{Escapes, Tokens};

/// Words before a table.
const BEFORE_TABLE: [&str; 3] = ["from", "join", "straight_join"];

/// Whether a SELECT, as the server printed it, has a table of this name: after FROM, JOIN, or a parenthesis after
/// these.
pub(super) fn has_table(select: &str, name: &str) -> bool {
    // The server prints literals in single quotes with backslashes in any SQL mode, and names perhaps in double quotes.
    let tokens = Tokens::of_mysql(select, Escapes::of_mode("ANSI_QUOTES"));
    let name = folded(name);
    let mut follows = false;
    for place in 0..tokens.len() {
        if follows && tokens.is_sign(place, "(") {
            continue;
        }
        if follows && tokens.is_name(last_part(&tokens, place), &name) {
            return true;
        }
        follows = tokens.is_word(place, &BEFORE_TABLE);
    }
    false
}

/// The last part of the name at this place, which may have a database.
fn last_part(tokens: &Tokens<'_>, mut place: usize) -> usize {
    while place + 2 < tokens.len() && tokens.is_sign(place + 1, ".") {
        place += 2;
    }
    place
}

/// A table, and where a text is interpreted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The table's database.
    pub(super) schema: &'a str,
    pub(super) name: &'a str,
    /// The database that a name without one means.
    pub(super) default_schema: &'a str,
    pub(super) escapes: Escapes,
}

/// Whether a text can mean a table, and not a part of another name or what a WITH clause defines.
pub(super) fn may_refer_to(text: &str, wanted: Wanted<'_>) -> bool {
    if !mentions(text, wanted.name) {
        return false;
    }
    let tokens = Tokens::of_mysql(text, wanted.escapes);
    let (schema, name) = (folded(wanted.schema), folded(wanted.name));
    let is_default = schema == folded(wanted.default_schema);
    let places: Vec<usize> = (0..tokens.len()).filter(|place| tokens.is_name(*place, &name)).collect();
    let defined = Definitions::new(&tokens, &places);
    places.iter().any(|&place| {
        if tokens.is_sign(place + 1, ".") {
            return false;
        }
        match place.checked_sub(1) {
            Some(before) if tokens.is_sign(before, ".") => {
                before.checked_sub(1).is_some_and(|it| tokens.is_name(it, &schema))
            }
            _ => is_default && !defined.is_at(place),
        }
    })
}

/// Where a name means what a WITH clause defines.
struct Definitions {
    /// For each token, how many definitions begin there less those that end.
    changes: Vec<i32>,
}

impl Definitions {
    /// The definitions of a name that occurs at these places.
    fn new(tokens: &Tokens<'_>, places: &[usize]) -> Self {
        let parentheses = Parentheses::new(tokens);
        let first_recursive = (0..tokens.len()).find(|place| tokens.is_word(*place, &["recursive"]));
        let mut changes = vec![0; tokens.len() + 2];
        for &place in places {
            let Some(body) = body(tokens, &parentheses, place) else { continue };
            // The definition's own name is no reference.
            changes[place] += 1;
            changes[place + 1] -= 1;
            let is_recursive = first_recursive.is_some_and(|it| it < place);
            // The definition holds until the parenthesis around the WITH clause is closed.
            let after = parentheses.closing(body);
            let begin = if is_recursive { body } else { after };
            let end = parentheses.closing(after);
            if begin < end {
                changes[begin + 1] += 1;
                changes[end] -= 1;
            }
        }
        let mut depth = 0;
        for change in &mut changes {
            depth += *change;
            *change = depth;
        }
        Self { changes }
    }

    fn is_at(&self, place: usize) -> bool {
        self.changes[place] > 0
    }
}

/// The place of the parenthesis that opens the definition of the name here in a WITH clause, if that is what is here.
fn body(tokens: &Tokens<'_>, parentheses: &Parentheses, place: usize) -> Option<usize> {
    let before = place.checked_sub(1)?;
    if !tokens.is_word(before, &["with", "recursive"]) && !tokens.is_sign(before, ",") {
        return None;
    }
    let mut after = place + 1;
    if tokens.is_sign(after, "(") {
        after = parentheses.closing(after) + 1;
    }
    (tokens.is_word(after, &["as"]) && tokens.is_sign(after + 1, "(")).then_some(after + 1)
}

/// Which parenthesis closes which.
struct Parentheses {
    /// For each token, the group of parentheses that it opens or is in.
    groups: Vec<u32>,
    /// For each group, the place of the parenthesis that closes it, or the end.
    closings: Vec<usize>,
}

impl Parentheses {
    fn new(tokens: &Tokens<'_>) -> Self {
        let end = tokens.len();
        let mut found = Self { groups: Vec::with_capacity(end), closings: vec![end] };
        let mut open = vec![0];
        for place in 0..end {
            if tokens.is_sign(place, "(") {
                open.push(found.new_group(end));
            } else if tokens.is_sign(place, ")") {
                if let Some(group) = open.pop() {
                    found.closings[group as usize] = place;
                }
                if open.is_empty() {
                    // It had no partner.
                    open.push(found.new_group(end));
                }
            }
            found.groups.push(open.last().copied().unwrap_or_default());
        }
        found
    }

    fn new_group(&mut self, end: usize) -> u32 {
        let group = u32::try_from(self.closings.len()).unwrap_or(u32::MAX);
        self.closings.push(end);
        group
    }

    /// The place of the parenthesis that closes the one here, or else the one around it, or the end.
    fn closing(&self, place: usize) -> usize {
        let end = self.groups.len();
        self.groups.get(place).and_then(|group| self.closings.get(*group as usize)).copied().unwrap_or(end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refers(text: &str) -> bool {
        let escapes = Escapes::of_mode("");
        may_refer_to(text, Wanted { schema: "d", name: "Outcome", default_schema: "D", escapes })
    }

    #[test]
    fn names_are_tables_unless_a_with_clause_defines_them() {
        for text in [
            "SELECT * FROM outcome",
            "SELECT * FROM d.`OUTCOME`",
            "SELECT * FROM `D`.outcome.a, d.outcome",
            "SELECT 1 FROM x WHERE a IN (SELECT a FROM(outcome))",
            "WITH outcome AS (SELECT a FROM outcome) SELECT a FROM outcome",
            "SELECT * FROM (WITH outcome AS (SELECT 1) SELECT * FROM outcome) q, outcome",
            "WITH other(outcome) AS (SELECT 1) SELECT * FROM other, outcome",
            "SELECT 'it''s' /*!50000 FROM outcome */",
            "SELECT * FROM e.outcome, outcome",
            "SELECT \"outcome\"",
        ] {
            assert!(refers(text), "{text}");
        }
        for text in [
            "SELECT outcome.a FROM x",
            "SELECT * FROM e.outcome",
            "SELECT 'outcome', a -- outcome\n FROM x # outcome",
            "SELECT 'it\\'s outcome' FROM x /* outcome */",
            "WITH outcome AS (SELECT 1) SELECT a FROM outcome WHERE a IN (SELECT a FROM outcome)",
            "WITH RECURSIVE outcome(a) AS (SELECT 1 UNION SELECT a FROM outcome) SELECT * FROM outcome",
            "WITH x AS (SELECT 1), `outcome` (a, b) AS (SELECT 1, 2) SELECT * FROM outcome",
            "SELECT outcomes, out FROM x",
        ] {
            assert!(!refers(text), "{text}");
        }
        let escapes = Escapes::of_mode("");
        let elsewhere = Wanted { schema: "d", name: "outcome", default_schema: "e", escapes };
        assert!(!may_refer_to("SELECT * FROM outcome", elsewhere));
        assert!(may_refer_to("SELECT * FROM outcome, d.outcome", elsewhere));
        let plain =
            Wanted { default_schema: "d", escapes: Escapes::of_mode("NO_BACKSLASH_ESCAPES"), ..elsewhere };
        assert!(may_refer_to("SELECT '\\', a FROM outcome", plain));
    }

    #[test]
    fn tables_of_printed_selects_are_found() {
        for select in [
            "/* select#1 */ select `d`.`o`.`a` AS `a` from `d`.`o`",
            "select 1 from (`x` join `o` on(1))",
            "select 1 from ((`o`))",
            "select 1 from x straight_join o",
        ] {
            assert!(has_table(select, "O"), "{select}");
        }
        for select in ["select o from x", "select 1 from `o`.`x`", "select 'from o' from x o", ""] {
            assert!(!has_table(select, "o"), "{select}");
        }
    }

    /// As `Definitions`, in time quadratic in the text.
    fn is_defined(tokens: &Tokens<'_>, place: usize) -> bool {
        let closing = |from: usize| {
            let mut depth = 1;
            for at in from + 1..tokens.len() {
                depth += i32::from(tokens.is_sign(at, "(")) - i32::from(tokens.is_sign(at, ")"));
                if depth == 0 {
                    return at;
                }
            }
            tokens.len()
        };
        (0..=place).filter(|start| tokens.is_name(*start, "o")).any(|start| {
            let Some(body) = body(tokens, &Parentheses::new(tokens), start) else { return false };
            let is_recursive = (0..start).any(|it| tokens.is_word(it, &["recursive"]));
            let begin = if is_recursive { body } else { closing(body) };
            start == place || begin < place && place < closing(closing(body))
        })
    }

    proptest! {
        #[test]
        fn definitions_are_those_of_a_simple_search(
            words in proptest::collection::vec(
                prop::sample::select("with recursive o p as ( ) (o , . ' ` /*".split(' ').collect::<Vec<_>>()),
                0..40,
            ),
        ) {
            let text = words.join(" ");
            let tokens = Tokens::of_mysql(&text, Escapes::of_mode(""));
            let places: Vec<usize> = (0..tokens.len()).filter(|it| tokens.is_name(*it, "o")).collect();
            let defined = Definitions::new(&tokens, &places);
            for place in places {
                prop_assert_eq!(defined.is_at(place), is_defined(&tokens, place), "{} {}", text, place);
            }
            let _ = has_table(&text, "o");
        }

        #[test]
        fn no_text_panics(text in "[a-z'\"`(),.*/#\\\\ \n!M5ä😀-]{0,60}") {
            for mode in ["", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"] {
                let escapes = Escapes::of_mode(mode);
                may_refer_to(&text, Wanted { schema: "d", name: "a", default_schema: "d", escapes });
            }
            has_table(&text, "a");
        }
    }
}
