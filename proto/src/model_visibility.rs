//! Rules for models by their names: whole names, or beginnings of names.

use crate::agent::{ModelVisibility, ModelVisibilityRule};

/// The one of some rules that decides about a model: the one with its whole name, otherwise the one with the longest
/// beginning. `name_of` returns a rule's name, and whether it is a beginning.
pub fn deciding_rule<'a, R>(
    rules: impl IntoIterator<Item = &'a R>,
    name_of: impl Fn(&R) -> (&str, bool),
    model: &str,
) -> Option<&'a R> {
    let rank = |rule: &R| {
        let (name, is_prefix) = name_of(rule);
        let fits = if is_prefix { model.starts_with(name) } else { model == name };
        fits.then_some((!is_prefix, name.len()))
    };
    let fitting = rules.into_iter().filter_map(|rule| Some((rank(rule)?, rule)));
    fitting.max_by_key(|(rank, _)| *rank).map(|(_, rule)| rule)
}

impl ModelVisibility {
    /// Whether the user may know of this model.
    #[must_use]
    pub fn shows(&self, model: &str) -> bool {
        let rule = deciding_rule(&self.rules, |it: &ModelVisibilityRule| (&it.name, it.is_prefix), model);
        rule.is_none_or(|it| it.is_visible) || self.own.iter().any(|it| it == model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, is_visible: bool) -> ModelVisibilityRule {
        let (name, is_prefix) = name.strip_suffix('*').map_or((name, false), |it| (it, true));
        ModelVisibilityRule { name: name.to_owned(), is_prefix, is_visible }
    }

    #[test]
    fn whole_name_and_then_the_longest_beginning_decides() {
        let hides_all_but =
            ModelVisibility { rules: vec![rule("*", false), rule("open/*", true)], ..Default::default() };
        assert!(!hides_all_but.shows("m") && hides_all_but.shows("open/m") && !hides_all_but.shows("open"));
        let visibility = ModelVisibility {
            rules: vec![
                rule("risk/shown/m", false),
                rule("risk/shown/*", true),
                rule("risk/*", false),
                rule("risk/m", true),
                rule("risk/m*", false),
            ],
            own: vec!["risk/of_ana".to_owned()],
        };
        for (model, is_visible) in [
            ("iris", true),
            ("risk/x", false),
            ("risk/m", true),
            ("risk/mm", false),
            ("risk/shown/x", true),
            ("risk/shown/m", false),
            ("risk/of_ana", true),
            ("risk/of_ana2", false),
        ] {
            assert_eq!(visibility.shows(model), is_visible, "{model}");
        }
        assert!(ModelVisibility::default().shows("anything"));
    }
}
