//! Near misses: the keyword that a misspelt word was meant to be.

/// Words longer than this are no misspelt keyword; also bounds the work.
const MAX_WORD: usize = 32;

/// The candidate closest to `word`, if at most two slips apart and shorter slips than the word itself.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let typed = word.to_uppercase();
    candidates
        .iter()
        .filter(|candidate| candidate.len() <= MAX_WORD)
        .map(|candidate| {
            let meant = candidate.to_uppercase();
            // A swap of neighbours counts once.
            (strsim::osa_distance(&typed, &meant), meant.chars().count(), *candidate)
        })
        .filter(|&(slips, length, _)| (1..=2).contains(&slips) && slips * 2 <= length)
        .min_by_key(|&(slips, ..)| slips)
        .map(|(.., candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_what_was_meant() {
        let keywords = ["WITH", "COLUMN", "LABEL", "USING", "INTO", "BY"];
        assert_eq!(nearest("lable", &keywords), Some("LABEL"));
        assert_eq!(nearest("COLUMNS", &keywords), Some("COLUMN"));
        assert_eq!(nearest("INOT", &keywords), Some("INTO"));
        assert_eq!(nearest("xx", &keywords), None);
        assert_eq!(nearest("VALIDATE", &keywords), None);
        assert_eq!(nearest("", &keywords), None);
    }
}
