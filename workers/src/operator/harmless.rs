//! Text from outside, made harmless for a terminal: an escape sequence in a dead letter must not clear an operator's
//! screen, rename the window, or make one line look like another.

/// At most `longest` characters of it; what is no plain character is shown as its escape.
pub(crate) fn text(bytes: &[u8], longest: usize) -> String {
    let mut shown = String::new();
    let text = String::from_utf8_lossy(bytes);
    let mut chars = text.chars();
    for c in chars.by_ref().take(longest) {
        if does_something(c) {
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

/// Control characters of both sets, line and paragraph separators, and what turns the direction of writing or is not
/// seen at all.
fn does_something(c: char) -> bool {
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
    fn nothing_that_a_terminal_acts_upon_gets_through() {
        let hostile = "\x1b]0;owned\x07\x1b[2J\r\n\0\u{9b}31m\u{202e}evil\u{200b}\u{feff}";
        let shown = text(hostile.as_bytes(), 100);
        assert!(!shown.chars().any(does_something), "{shown:?}");
        assert!(shown.contains("\\u{1b}]0;owned\\u{7}") && shown.contains("evil"), "{shown}");
        assert_eq!(text(b"\xff\xfeok", 100), "\u{fffd}\u{fffd}ok");
        assert_eq!(text("Grüße".as_bytes(), 3), "Grü…", "plain letters stay what they are");
        assert_eq!(text(b"", 3), "");
    }
}
