//! Suggestions for misspelt words.

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

#[cfg(test)]
mod tests {
    use super::nearest;

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
}
