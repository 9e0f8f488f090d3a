//! The operator's rules for models, by the models' names: who reads them, and who makes new ones.
//!
//! ```toml
//! ["risk/*"]                            # a name, or its beginning
//! read = ["group:cert:risk"]            # without it: everybody who may use the server
//! create = ["token:ana"]                # likewise
//! ```

use std::io;
use std::path::Path;

use serde::Deserialize;
use sqlflow_identity::{Caller, Pattern, PatternError};
use sqlflow_os::reloaded::Reloaded;
use sqlflow_proto::model_visibility::deciding_rule;

use crate::codegen::VisibilityRule;

/// Maximum number of rules: those that hide a model go to the agent of each attempt.
const MAX_RULES: usize = 1000;

/// The file's content.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

/// A rule for models with a name, or with a beginning.
#[derive(Debug)]
struct Rule {
    name: String,
    is_prefix: bool,
    /// `None`: everybody who may use the server.
    read: Option<Vec<Pattern>>,
    /// The same.
    create: Option<Vec<Pattern>>,
}

/// What a rule gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Create,
}

impl Rule {
    fn gives(&self, right: Right, caller: &Caller) -> bool {
        let users = match right {
            Right::Read => &self.read,
            Right::Create => &self.create,
        };
        users.as_ref().is_none_or(|users| caller.is_one_of(users))
    }

    /// As it is written.
    fn written(&self) -> String {
        format!("{}{}", self.name, if self.is_prefix { "*" } else { "" })
    }
}

impl Rules {
    /// The rule that refuses this right for a model, as it is written; `None`: the caller has it. It does not depend on
    /// whether the model exists.
    pub(super) fn refuses(&self, right: Right, caller: &Caller, model: &str) -> Option<String> {
        let rule = deciding_rule(&self.0, |it| (&it.name, it.is_prefix), model)?;
        (!rule.gives(right, caller)).then(|| rule.written())
    }

    /// Which models the caller may know of; empty: all.
    pub(super) fn visible(&self, caller: &Caller) -> Vec<VisibilityRule> {
        let visible = |rule: &Rule| VisibilityRule {
            name: rule.name.clone(),
            is_prefix: rule.is_prefix,
            is_visible: rule.gives(Right::Read, caller),
        };
        let rules: Vec<_> = self.0.iter().map(visible).collect();
        if rules.iter().all(|it| it.is_visible) { Vec::new() } else { rules }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    read: Option<Vec<String>>,
    create: Option<Vec<String>>,
}

/// Reads the file.
///
/// # Errors
/// It cannot be read, or a rule is wrong.
pub fn read(path: &Path) -> io::Result<Reloaded<Rules>> {
    Reloaded::open(path, parse)
}

fn parse(text: &str) -> Result<Rules, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    if table.len() > MAX_RULES {
        return Err(format!("it has {} rules; {MAX_RULES} is the most", table.len()));
    }
    table.into_iter().map(|(name, value)| rule(&name, value)).collect::<Result<_, _>>().map(Rules)
}

fn rule(written: &str, value: toml::Value) -> Result<Rule, String> {
    let wrong = |why: &str| format!("models {written:?}: {why}");
    let (name, is_prefix) = written.strip_suffix('*').map_or((written, false), |name| (name, true));
    if name.contains('*') || (name.is_empty() && !is_prefix) {
        return Err(wrong("write a name, or its beginning with * at the end"));
    }
    if !value.is_table() {
        return Err(wrong("a rule has the keys read and create"));
    }
    let Written { read, create } =
        value.try_into().map_err(|error: toml::de::Error| wrong(error.message()))?;
    let users = |users: Option<Vec<String>>| {
        let parsed = users.map(|all| all.iter().map(|it| it.parse()).collect::<Result<_, PatternError>>());
        parsed.transpose().map_err(|error| wrong(&error.to_string()))
    };
    Ok(Rule { read: users(read)?, create: users(create)?, name: name.to_owned(), is_prefix })
}

#[cfg(test)]
pub(super) mod tests {
    use sqlflow_identity::{Method, Policy, Principal};

    use super::*;

    pub(in crate::model_rights) const FILE: &str = "
        ['risk/*']
        read = ['token:ana', 'group:token:risk']
        create = ['token:ana']
        ['risk/public']
        create = []
        ['*']
        create = ['token:*']
    ";

    pub(in crate::model_rights) fn caller(name: &str) -> Caller {
        let known = |it: &str| vec![it.parse().unwrap()];
        let policy = Policy { allowed: known("token:*"), admins: known("token:op"), ..Policy::default() };
        let principal = Principal::new(Method::Token, name);
        policy.caller(Some(match name {
            "eve" => principal.with_groups(Method::Token, ["risk"]),
            _ => principal,
        }))
    }

    #[test]
    fn rights_follow_from_the_name() {
        let rules = parse(FILE).unwrap();
        for (name, model, may_read, may_create) in [
            ("ana", "risk/a", true, true),
            ("eve", "risk/a", true, false),
            ("bob", "risk/a", false, false),
            ("bob", "risk/public", true, false),
            ("ana", "risk/public", true, false),
            ("op", "risk/public", true, true),
            ("bob", "risks", true, true),
        ] {
            let has = |right| rules.refuses(right, &caller(name), model).is_none();
            assert_eq!((has(Right::Read), has(Right::Create)), (may_read, may_create), "{name} {model}");
        }
        assert_eq!(rules.refuses(Right::Read, &caller("bob"), "risk/a").as_deref(), Some("risk/*"));
    }

    #[test]
    fn agent_gets_rules_only_if_a_model_is_hidden() {
        let rules = parse(FILE).unwrap();
        assert!(rules.visible(&caller("ana")).is_empty() && rules.visible(&caller("op")).is_empty());
        let hidden: Vec<_> =
            rules.visible(&caller("bob")).into_iter().filter(|it| !it.is_visible).map(|it| it.name).collect();
        assert_eq!(hidden, ["risk/"]);
        assert_eq!(rules.visible(&caller("bob")).len(), 3, "the others decide about parts of it");
    }

    #[test]
    fn wrong_rules_are_named() {
        let many: String = (0..=MAX_RULES).map(|it| format!("[m{it}]\n")).collect();
        for (text, part) in [
            ("['a*b']", "models \"a*b\": write a name"),
            ("['']", "models \"\": write a name"),
            ("a = 1", "models \"a\": a rule has the keys read and create"),
            ("[a]\nwrite = []", "models \"a\": unknown field `write`"),
            ("[a]\nread = ['ana']", "models \"a\": \"ana\" names no principal"),
            (many.as_str(), "it has 1001 rules"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
