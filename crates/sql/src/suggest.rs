//! Suggestions for misspelt words, and lists of names for messages.

/// Maximum length in bytes of a word that gets a suggestion. Bounds the time.
const MAX_WORD: usize = 32;

/// The candidate closest to `word`, in any case. At most two edits, and at most one for each two characters of the
/// candidate, may be between them (optimal string alignment distance).
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let typed = word.to_uppercase();
    candidates
        .iter()
        .filter(|candidate| candidate.len() <= MAX_WORD)
        .map(|candidate| {
            let upper = candidate.to_uppercase();
            // A transposition counts as one edit.
            (strsim::osa_distance(&typed, &upper), upper.chars().count(), *candidate)
        })
        .filter(|&(edits, length, _)| (1..=2).contains(&edits) && edits * 2 <= length)
        .min_by_key(|&(edits, ..)| edits)
        .map(|(.., candidate)| candidate)
}

/// Names of the same things in XGBoost's other interfaces and in other libraries.
const OTHER_NAMES: [(&str, &str); 10] = [
    ("n_estimators", "train.num_boost_round"),
    ("nrounds", "train.num_boost_round"),
    ("rounds", "train.num_boost_round"),
    ("num_iterations", "train.num_boost_round"),
    ("iterations", "train.num_boost_round"),
    ("num_trees", "train.num_boost_round"),
    ("early_stopping", "train.early_stopping_rounds"),
    ("random_state", "seed"),
    ("verbose", "verbosity"),
    ("metrics", "validation.metrics"),
];

/// The known name that `name` was meant to be: nearly the same, the same without its prefix (`num_boost_round` for
/// `train.num_boost_round`), another library's name, or the one with the same words and few others (`num_round`).
pub fn meant<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if name.len() > MAX_WORD {
        return None;
    }
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_lowercase();
    let typed = last(name);
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == typed).map(|(_, meant)| *meant);
    let without_prefix = || {
        let lasts: Vec<String> = known.iter().map(|it| last(it)).collect();
        let near = nearest(&typed, &lasts.iter().map(String::as_str).collect::<Vec<_>>())?;
        lasts.iter().position(|it| it == near).map(|at| known[at])
    };
    nearest(name, known)
        .or_else(|| known.iter().copied().find(|it| last(it) == typed))
        .or_else(|| known.iter().copied().find(|it| Some(*it) == other))
        .or_else(without_prefix)
        .or_else(|| with_words(&typed, known))
}

/// The name that has all words of `typed`, at least two, and the fewest others.
fn with_words<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    fn words(name: &str) -> Vec<&str> {
        name.split(['_', '.', ':', '-']).filter(|word| !word.is_empty()).collect()
    }
    let typed = words(typed);
    let has_all = |name: &&&str| {
        let own = words(name);
        typed.iter().all(|word| own.iter().any(|it| it.eq_ignore_ascii_case(word)))
    };
    let candidates = known.iter().filter(|_| typed.len() > 1).filter(has_all);
    candidates.min_by_key(|name| words(name).len()).copied()
}

/// A name that a message repeats: at most [`MAX_WORD`] characters.
pub fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_WORD) {
        Some((cut, _)) => format!("{}…", &name[..cut]),
        None => name.to_owned(),
    }
}

/// `a, b, c and 5 more`: at most `count` names in about `room` bytes, each of them whole.
pub fn listing(names: &[&str], count: usize, room: usize) -> String {
    const MORE: usize = " and 1000 more".len();
    let mut listed = String::new();
    let mut shown = 0;
    for name in names.iter().take(count) {
        if listed.len() + ", ".len() + name.len() + MORE > room {
            break;
        }
        if shown > 0 {
            listed.push_str(", ");
        }
        listed.push_str(name);
        shown += 1;
    }
    match names.len() - shown {
        0 => listed,
        more if shown == 0 => format!("{more} names"),
        more => format!("{listed} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::{listing, meant, nearest, shortened};

    #[test]
    fn nearest_candidate_is_within_two_edits() {
        let keywords = ["WITH", "COLUMN", "LABEL", "USING", "INTO", "BY"];
        assert_eq!(nearest("lable", &keywords), Some("LABEL"));
        assert_eq!(nearest("COLUMNS", &keywords), Some("COLUMN"));
        assert_eq!(nearest("INOT", &keywords), Some("INTO"));
        assert_eq!(nearest("xx", &keywords), None);
        assert_eq!(nearest("VALIDATE", &keywords), None);
        assert_eq!(nearest("", &keywords), None);
    }

    #[test]
    fn finds_names_with_other_prefixes_and_words() {
        let known = [
            "booster.max_depth",
            "eta",
            "seed",
            "train.epoch",
            "train.early_stopping_rounds",
            "train.num_boost_round",
        ];
        for (name, expected) in [
            ("num_round", Some("train.num_boost_round")),
            ("num_boost_round", Some("train.num_boost_round")),
            ("train.num_round", Some("train.num_boost_round")),
            ("num_boost_rounds", Some("train.num_boost_round")),
            ("n_estimators", Some("train.num_boost_round")),
            ("early_stopping_round", Some("train.early_stopping_rounds")),
            ("epochs", Some("train.epoch")),
            ("max_depht", Some("booster.max_depth")),
            ("random_state", Some("seed")),
            ("round", None),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(meant(name, &known), expected, "{name}");
        }
        assert_eq!(meant("n_estimators", &["eta"]), None, "only a name that is known");
        assert_eq!(meant(&"x_".repeat(1000), &known), None);
    }

    #[test]
    fn lists_have_whole_names() {
        let names = ["alpha", "beta", "gamma"];
        assert_eq!(listing(&names, 3, 100), "alpha, beta, gamma");
        assert_eq!(listing(&names, 2, 100), "alpha, beta and 1 more");
        for room in 0..60 {
            let listed = listing(&names, 3, room);
            assert!(listed.len() <= room.max("3 names".len()), "{room}: {listed}");
            let all = listed.replace(" and ", ", ");
            let is_whole = |it: &str| names.contains(&it) || it.ends_with(" more") || it == "3 names";
            assert!(all.split(", ").all(is_whole), "{room}: {listed}");
        }
        assert_eq!(shortened("é"), "é");
        assert_eq!(shortened(&"é".repeat(33)), format!("{}…", "é".repeat(32)));
    }
}
