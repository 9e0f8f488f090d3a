//! Names and values in messages.

/// Maximum length of a list in a message, in characters.
const MAX_LISTED: usize = 1_000;
/// Maximum length of a value in a message.
const MAX_PREVIEW: usize = 60;

/// `a, b and 5 more`: at most `count` names, each of them whole unless it is the first.
pub(super) fn listing(names: &[String], count: usize) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut length = 0;
    for name in names.iter().take(count) {
        let mut name = name.clone();
        if let (true, Some((end, _))) = (shown.is_empty(), name.char_indices().nth(MAX_LISTED)) {
            name.truncate(end);
            name.push('…');
        }
        length += name.chars().count() + 2;
        if !shown.is_empty() && length > MAX_LISTED {
            break;
        }
        shown.push(name);
    }
    let listed = shown.join(", ");
    match names.len() - shown.len() {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// Bytes for a message, as Python writes them.
pub(super) fn preview(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut text = format!("b{quote}");
    // Each byte has at least one character.
    for byte in bytes.iter().take(MAX_PREVIEW) {
        match byte {
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' if char::from(*byte) == quote => text.extend(['\\', quote]),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push(quote);
    if text.len() > MAX_PREVIEW {
        text.truncate(MAX_PREVIEW - 3);
        text.push('…');
    }
    text
}
