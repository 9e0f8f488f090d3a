//! Near misses: the keyword that a misspelt word was meant to be.

/// Words longer than this are no misspelt keyword; also bounds the work.
const MAX_WORD: usize = 32;

/// The candidate closest to `word`, if at most two slips apart and shorter slips than the word itself.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let typed: Vec<char> = word.to_uppercase().chars().collect();
    candidates
        .iter()
        .filter(|candidate| candidate.len() <= MAX_WORD)
        .map(|candidate| {
            let meant: Vec<char> = candidate.to_uppercase().chars().collect();
            (slips(&typed, &meant), meant.len(), *candidate)
        })
        .filter(|&(slips, length, _)| (1..=2).contains(&slips) && slips * 2 <= length)
        .min_by_key(|&(slips, ..)| slips)
        .map(|(.., candidate)| candidate)
}

/// Edit distance where a swap of neighbours counts once (optimal string alignment).
fn slips(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(from != to)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
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
