//! The text of a job's token: `sqlflow` and hexadecimal digits, optionally followed by `.` and a cursor.

/// Number of characters of a job's id.
pub(crate) const ID_LENGTH: usize = 26;

/// Whether the text is a token. Otherwise it is a job's id.
pub(crate) fn is_token(text: &str) -> bool {
    let (plain, _) = split(text);
    plain
        .strip_prefix("sqlflow")
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether the text is the whole id of a job, with or without a cursor.
pub(crate) fn is_job_id(text: &str) -> bool {
    let (id, _) = split(text);
    id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// Splits a text into token or id, and cursor.
pub(crate) fn split(text: &str) -> (&str, Option<u64>) {
    match text.rsplit_once('.') {
        Some((plain, cursor)) => match cursor.parse() {
            Ok(cursor) => (plain, Some(cursor)),
            Err(_) => (text, None),
        },
        None => (text, None),
    }
}

/// The token with this cursor, which replaces an existing one.
pub(crate) fn at(token: &str, cursor: u64) -> String {
    format!("{}.{cursor}", split(token).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_split_from_the_token() {
        assert_eq!(split("sqlflow00ff.42"), ("sqlflow00ff", Some(42)));
        assert_eq!(split("01jabc"), ("01jabc", None));
        assert_eq!(at("sqlflow00ff.42", 0), "sqlflow00ff.0");
        assert!(
            is_job_id("01jabcdefghjkmnpqrstvwxyz0.7") && !is_job_id("01jabc") && !is_job_id("sqlflow00ff")
        );
        assert!(is_token("sqlflow00ff.42") && !is_token("01jabc.42") && !is_token("sqlflow"));
    }
}
