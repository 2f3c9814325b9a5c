//! Escapes external text for a terminal: an escape sequence in a dead letter must not clear the operator's console,
//! rename the window, or disguise a line.

/// At most `max` characters of the text; control and invisible characters are escaped.
pub(crate) fn text(bytes: &[u8], max: usize) -> String {
    let mut shown = String::new();
    let text = String::from_utf8_lossy(bytes);
    let mut chars = text.chars();
    for c in chars.by_ref().take(max) {
        if needs_escape(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Control characters (C0 and C1), line and paragraph separators, bidirectional controls and invisible characters.
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_that_a_terminal_interprets_is_escaped() {
        let hostile = "\x1b]0;owned\x07\x1b[2J\r\n\0\u{9b}31m\u{202e}evil\u{200b}\u{feff}";
        let shown = text(hostile.as_bytes(), 100);
        assert!(!shown.chars().any(needs_escape), "{shown:?}");
        assert!(shown.contains("\\u{1b}]0;owned\\u{7}") && shown.contains("evil"), "{shown}");
        assert_eq!(text(b"\xff\xfeok", 100), "\u{fffd}\u{fffd}ok");
        assert_eq!(text("Grüße".as_bytes(), 3), "Grü…", "other characters are unchanged");
        assert_eq!(text(b"", 3), "");
    }
}
