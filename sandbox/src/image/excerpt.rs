//! Text from strangers as it appears in our messages: short, and without control characters that a terminal would obey.

/// Most characters shown of a hostile string.
const SHOWN_MAX: usize = 120;

/// The start of `text`, control characters escaped.
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown = String::new();
    let mut characters = text.chars();
    for character in characters.by_ref().take(SHOWN_MAX) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The same for bytes that need not be UTF-8, such as file names.
pub(crate) fn excerpt_bytes(bytes: &[u8]) -> String {
    // A character has four bytes at most: no need to convert a megabyte to show its start.
    let start = bytes.get(..SHOWN_MAX * 4 + 4).unwrap_or(bytes);
    excerpt(&String::from_utf8_lossy(start))
}

#[cfg(test)]
mod tests {
    use super::{excerpt, excerpt_bytes};

    #[test]
    fn long_and_hostile_text_is_cut_and_escaped() {
        assert_eq!(excerpt("plain ü"), "plain ü");
        assert_eq!(excerpt("\u{1b}[31mred\n"), "\\u{1b}[31mred\\n");
        assert_eq!(excerpt(&"x".repeat(121)), format!("{}…", "x".repeat(120)));
        assert_eq!(excerpt_bytes(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(excerpt_bytes(&[b'y'; 1_000_000]), format!("{}…", "y".repeat(120)));
    }
}
