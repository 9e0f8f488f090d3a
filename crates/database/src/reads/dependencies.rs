//! The views and functions that a text depends on.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::may_read;
use super::names::{calls, mentions, words};
use crate::Error;

/// Maximum number of names in one query.
const NAMES_PER_QUERY: usize = 1000;

/// An object with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) kind: ObjectKind,
    pub(super) name: String,
    /// `None`: the database does not show it to this user.
    pub(super) text: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ObjectKind {
    /// A statement of the program.
    Select,
    View,
    Function,
}

/// Names to look up, in lower case and without duplicates.
#[derive(Debug, Default)]
pub(super) struct Lookup<'a> {
    /// Possible names of views.
    pub(super) names: &'a [Rc<str>],
    /// Possible names of functions.
    pub(super) calls: &'a [Rc<str>],
}

/// The views and functions of a database.
pub(super) trait Catalog {
    /// The views and functions with some names.
    fn find(&mut self, lookup: &Lookup<'_>) -> Result<Vec<Object>, Error>;

    /// The possible names of views in a text, in lower case.
    fn names<'a>(&self, text: &'a str) -> Vec<Cow<'a, str>> {
        words(text)
    }
}

impl Object {
    /// A select, whose name is for messages.
    pub(super) fn select(select: &str) -> Self {
        Self { kind: ObjectKind::Select, name: String::new(), text: Some(select.to_owned()) }
    }

    pub(super) fn view(name: impl Into<String>, text: Option<String>) -> Self {
        Self { kind: ObjectKind::View, name: name.into(), text }
    }

    pub(super) fn function(name: impl Into<String>, text: Option<String>) -> Self {
        Self { kind: ObjectKind::Function, name: name.into(), text }
    }

    /// The text; empty if it is not shown.
    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Adds the text of another object of this name.
    fn add_text(&mut self, text: Option<String>) {
        self.text = self.text.take().zip(text).map(|(own, other)| own + "\n" + &other);
    }

    /// Its kind and name, for messages.
    pub(super) fn title(&self) -> String {
        let kind = match self.kind {
            ObjectKind::Select => return "select".to_owned(),
            ObjectKind::View => "view",
            ObjectKind::Function => "function",
        };
        format!("{kind} {}", self.name)
    }
}

/// These objects, and recursively all objects whose names occur in their texts. Each name is looked up once. Objects of
/// the same kind and name count as one.
///
/// The result may be too large, because any word is taken for a name. It is never too small, except for a name that is
/// composed at run time. In a select or view, only a word before a parenthesis can be a function. In a function, which
/// may be in another language, any word can be one.
///
/// Memory: a few times the size of the texts.
pub(super) fn dependencies(start: Vec<Object>, catalog: &mut dyn Catalog) -> Result<Vec<Object>, Error> {
    let (mut searched_names, mut searched_calls) = (Searched::default(), Searched::default());
    let mut places: HashMap<(ObjectKind, String), usize> = HashMap::new();
    let mut found = start;
    let mut next = 0;
    while next < found.len() {
        for object in &found[next..] {
            let text = object.text();
            searched_names.add(catalog.names(text));
            searched_calls.add(if object.kind == ObjectKind::Function { words(text) } else { calls(text) });
        }
        next = found.len();
        let (names, calls) = (searched_names.take_new(), searched_calls.take_new());
        for part in 0..names.len().max(calls.len()).div_ceil(NAMES_PER_QUERY) {
            let part = Lookup { names: slice(&names, part), calls: slice(&calls, part) };
            for object in catalog.find(&part)? {
                match places.get(&(object.kind, object.name.clone())) {
                    // Such as overloaded functions, and both parts of a package.
                    Some(place) if *place >= next => found[*place].add_text(object.text),
                    Some(_) => {}
                    None => {
                        places.insert((object.kind, object.name.clone()), found.len());
                        found.push(object);
                    }
                }
            }
        }
    }
    Ok(found)
}

/// A part of names.
fn slice(names: &[Rc<str>], part: usize) -> &[Rc<str>] {
    names.chunks(NAMES_PER_QUERY).nth(part).unwrap_or_default()
}

/// Names that have been looked up, or will be.
#[derive(Default)]
struct Searched {
    all: HashSet<Rc<str>>,
    new: Vec<Rc<str>>,
}

impl Searched {
    fn add(&mut self, names: Vec<Cow<'_, str>>) {
        for name in names {
            if !self.all.contains(name.as_ref()) {
                let name: Rc<str> = name.into();
                self.all.insert(Rc::clone(&name));
                self.new.push(name);
            }
        }
    }

    /// The names that are new since the last call, in order.
    fn take_new(&mut self) -> Vec<Rc<str>> {
        let mut new = std::mem::take(&mut self.new);
        new.sort_unstable();
        new
    }
}

/// Why a function may read a table. `None`: no function names it.
pub(super) fn function_reason(objects: &[Object], table: &str) -> Option<String> {
    let functions = objects.iter().filter(|it| it.kind == ObjectKind::Function);
    functions.into_iter().find_map(|it| match &it.text {
        None => Some(may_read(&format!("this user cannot see the text of function {}", it.name))),
        Some(text) if mentions(text, table) => Some(may_read(&format!("function {} names it", it.name))),
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Views `v0`, `v1` … of which each names the next one, and functions `f0` … that have the same texts.
    struct Chain {
        length: usize,
        queries: usize,
        asked: Vec<String>,
    }

    impl Catalog for Chain {
        fn find(&mut self, lookup: &Lookup<'_>) -> Result<Vec<Object>, Error> {
            assert!(lookup.names.len() <= NAMES_PER_QUERY && lookup.calls.len() <= NAMES_PER_QUERY);
            self.queries += 1;
            let number = |name: &str, kind| name.strip_prefix(kind)?.parse::<usize>().ok();
            let text = |number: usize| Some(format!("v{}, F{}()", number + 1, number + 1));
            let mut found = Vec::new();
            for name in lookup.names {
                self.asked.push(name.to_string());
                found.extend(
                    number(name, 'v')
                        .filter(|it| *it < self.length)
                        .map(|it| Object::view(&**name, text(it))),
                );
            }
            for name in lookup.calls {
                found.extend(
                    number(name, 'f').filter(|it| *it < 2).map(|it| Object::function(&**name, text(it))),
                );
                if &**name == "f1" {
                    found.push(Object::function("f1", Some("overloaded".to_owned())));
                }
            }
            Ok(found)
        }
    }

    #[test]
    fn objects_are_found_through_others_and_names_are_asked_once() {
        let mut catalog = Chain { length: 3, queries: 0, asked: Vec::new() };
        let found = dependencies(vec![Object::select("SELECT f0 FROM V0, v0")], &mut catalog).unwrap();
        let names: Vec<_> = found.iter().map(Object::title).collect();
        assert_eq!(names, ["select", "view v0", "view v1", "function f1", "view v2"]);
        assert_eq!(found[3].text(), "v2, F2()\noverloaded");
        let unique: HashSet<_> = catalog.asked.iter().collect();
        assert_eq!(unique.len(), catalog.asked.len());
    }

    #[test]
    fn names_are_asked_in_parts() {
        let mut catalog = Chain { length: 2500, queries: 0, asked: Vec::new() };
        let select: Vec<_> = (0..2500).map(|it| format!("v{it}")).collect();
        let found = dependencies(vec![Object::select(&select.join(" "))], &mut catalog).unwrap();
        assert_eq!((found.len(), catalog.queries), (1 + 2500 + 1, 3 + 3 + 1));
    }

    #[test]
    fn functions_name_tables_or_hide_whether_they_do() {
        let reason = |text: Option<&str>| {
            let objects = [Object::view("v", None), Object::function("f", text.map(str::to_owned))];
            function_reason(&objects, "outcome")
        };
        assert_eq!(reason(Some("SELECT a FROM outcomes")), None);
        assert_eq!(reason(Some("x.OUTCOME")).unwrap(), "the statement may read it: function f names it");
        assert_eq!(
            reason(None).unwrap(),
            "the statement may read it: this user cannot see the text of function f"
        );
    }
}
