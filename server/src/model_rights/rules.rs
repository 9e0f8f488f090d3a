//! The operator's rules for models, by the models' names: who reads them, and who makes new ones.
//!
//! ```toml
//! ["risk/*"]                            # a name, or its beginning
//! read = ["group:cert:risk"]            # without it: everybody who may use the server
//! create = ["token:ana"]                # likewise
//!
//! ["{user}/*"]                          # for each caller: the models below their own name
//! ```

use std::borrow::Cow;
use std::io;
use std::path::Path;

use serde::Deserialize;
use sqlflow_identity::{Caller, Pattern, PatternError};
use sqlflow_os::reloaded::Reloaded;
use sqlflow_proto::model_visibility::deciding_rule;
use sqlflow_sql::check_model_name;

use crate::codegen::VisibilityRule;

/// Maximum number of rules: those that hide a model go to the agent of each attempt.
const MAX_RULES: usize = 1000;

/// Variables that may be a segment of a rule's name: the caller's name, with the method and without it.
const PRINCIPAL: &str = "{principal}";
const USER: &str = "{user}";

/// The file's content. Of two rules with the same name for a caller the last one decides, so those with a variable are
/// first.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

/// A rule for models with a name, or with a beginning.
#[derive(Debug)]
struct Rule {
    name: String,
    is_prefix: bool,
    /// Whether the name differs from caller to caller.
    has_variable: bool,
    /// `None`: everybody who may use the server.
    read: Option<Vec<Pattern>>,
    /// The same.
    create: Option<Vec<Pattern>>,
}

/// A rule with its name for a caller.
struct Named<'a> {
    name: Cow<'a, str>,
    rule: &'a Rule,
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

    /// The rule for this caller; `None`: it concerns no model of theirs.
    fn named(&self, caller: &Caller) -> Option<Named<'_>> {
        if !self.has_variable {
            return Some(Named { name: Cow::Borrowed(&self.name), rule: self });
        }
        let principal = caller.principal()?.name();
        let (_, user) = principal.split_once(':')?;
        // A name of several segments could lie below the name of somebody else.
        let is_segment = |name: &str| !name.contains('/') && check_model_name(name).is_ok();
        let name = || self.name.replace(PRINCIPAL, principal).replace(USER, user);
        (is_segment(principal) && is_segment(user)).then(|| Named { name: Cow::Owned(name()), rule: self })
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
        let named = self.named(caller);
        let rule = deciding_rule(&named, |it| (&*it.name, it.rule.is_prefix), model)?.rule;
        (!rule.gives(right, caller)).then(|| rule.written())
    }

    /// Which models the caller may know of; empty: all.
    pub(super) fn visible(&self, caller: &Caller) -> Vec<VisibilityRule> {
        let visible = |Named { name, rule }: Named<'_>| VisibilityRule {
            name: name.into_owned(),
            is_prefix: rule.is_prefix,
            is_visible: rule.gives(Right::Read, caller),
        };
        let rules: Vec<_> = self.named(caller).into_iter().map(visible).collect();
        if rules.iter().all(|it| it.is_visible) { Vec::new() } else { rules }
    }

    /// Beginning of the names that this caller, and nobody else, may give to new models.
    pub(super) fn own_beginning(&self, caller: &Caller) -> Option<String> {
        let mut own = self.named(caller).into_iter().filter(|it| it.rule.has_variable && it.rule.is_prefix);
        own.find(|it| it.rule.gives(Right::Create, caller)).map(|it| it.name.into_owned())
    }

    fn named(&self, caller: &Caller) -> Vec<Named<'_>> {
        self.0.iter().filter_map(|rule| rule.named(caller)).collect()
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
    let rules = table.into_iter().map(|(name, value)| rule(&name, value));
    let mut rules: Vec<Rule> = rules.collect::<Result<_, _>>()?;
    rules.sort_by_key(|rule| !rule.has_variable);
    Ok(Rules(rules))
}

fn rule(written: &str, value: toml::Value) -> Result<Rule, String> {
    let wrong = |why: &str| format!("models {written:?}: {why}");
    let (name, is_prefix) = written.strip_suffix('*').map_or((written, false), |name| (name, true));
    if name.contains('*') || (name.is_empty() && !is_prefix) {
        return Err(wrong("write a name, or its beginning with * at the end"));
    }
    let has_variable = has_variable(name).map_err(|why| wrong(&why))?;
    if !value.is_table() {
        return Err(wrong("a rule has the keys read and create"));
    }
    let Written { read, create } =
        value.try_into().map_err(|error: toml::de::Error| wrong(error.message()))?;
    let users = |users: Option<Vec<String>>| {
        let parsed = users.map(|all| all.iter().map(|it| it.parse()).collect::<Result<_, PatternError>>());
        parsed.transpose().map_err(|error| wrong(&error.to_string()))
    };
    Ok(Rule { read: users(read)?, create: users(create)?, name: name.to_owned(), is_prefix, has_variable })
}

/// Whether a name, without its `*`, has a variable. Each is a whole segment: `{user}*` would also be the names of others.
fn has_variable(name: &str) -> Result<bool, String> {
    let is_variable = |segment: &&str| [PRINCIPAL, USER].contains(segment);
    let mut segments: Vec<&str> = name.split('/').collect();
    let last = segments.pop().unwrap_or_default();
    let has_variable = segments.iter().any(is_variable);
    segments.retain(|segment| !is_variable(segment));
    if last.contains(['{', '}']) || segments.iter().any(|it| it.contains(['{', '}'])) {
        return Err(format!("write {USER} or {PRINCIPAL} as a whole segment before a slash, as in {USER}/*"));
    }
    Ok(has_variable)
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
    fn each_caller_has_names_of_their_own() {
        let rules = parse(
            "
            ['{user}/*']
            ['{principal}/*']
            ['bob/taken']
            create = ['token:ana']
            ['eve/*']
            create = []
            ['*']
            create = []
            ",
        );
        let rules = rules.unwrap();
        let may_create =
            |name: &str, model: &str| rules.refuses(Right::Create, &caller(name), model).is_none();
        for (name, model) in [
            ("ana", "ana/m"),
            ("ana", "ana/a/b"),
            ("ana", "token:ana/m"),
            ("ana", "bob/taken"),
            ("op", "ana/m"),
        ] {
            assert!(may_create(name, model), "{name} {model}");
        }
        for (name, model) in [
            ("ana", "ana"),
            ("ana", "anabel/m"),
            ("ana", "bob/m"),
            ("ana", "m"),
            ("ana", "{user}/m"),
            ("bob", "bob/taken"),
            // A rule that spells the name out decides.
            ("eve", "eve/m"),
            // Below the name of somebody else, or no name of a folder.
            ("ana/x", "ana/x/m"),
            ("..", "../m"),
        ] {
            assert!(!may_create(name, model), "{name} {model}");
        }
        let nobody = Policy::default().caller(None);
        assert!(rules.refuses(Right::Create, &nobody, "anonymous/m").is_some());
        assert_eq!(rules.own_beginning(&nobody), None);
        let of_user = parse("['models/{user}/*']").unwrap().own_beginning(&caller("ana"));
        assert_eq!(of_user.as_deref(), Some("models/ana/"));
    }

    #[test]
    fn models_of_others_are_hidden_from_a_caller() {
        let rules = parse("['{user}/*']\n['*']\nread = []").unwrap();
        let seen = |name| {
            let rules = rules.visible(&caller(name)).into_iter().map(Into::into).collect();
            sqlflow_proto::agent::ModelVisibility { rules, own: Vec::new() }
        };
        assert!(seen("ana").shows("ana/m") && !seen("ana").shows("bob/m") && !seen("ana").shows("m"));
        assert!(rules.visible(&caller("op")).is_empty());
    }

    #[test]
    fn wrong_rules_are_named() {
        let many: String = (0..=MAX_RULES).map(|it| format!("[m{it}]\n")).collect();
        for (text, part) in [
            ("['a*b']", "models \"a*b\": write a name"),
            ("['']", "models \"\": write a name"),
            ("['{user}*']", "models \"{user}*\": write {user} or {principal} as a whole segment"),
            ("['{user}']", "as a whole segment before a slash, as in {user}/*"),
            ("['of-{user}/*']", "as a whole segment"),
            ("['{name}/*']", "as a whole segment"),
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
