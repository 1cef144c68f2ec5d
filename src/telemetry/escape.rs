//! Text from elsewhere, made safe to be read on a terminal.
//!
//! Reasons, messages and names of users are whatever somebody wrote. Shown as they are, they could clear the
//! screen, forge a line of a log, or turn the order of letters round.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The text with every character that moves the cursor, begins a line or changes the direction of writing
/// written out, as `\n` or `\u{1b}`.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    // A String takes everything.
    let _ = Escaping(&mut safe).write_str(text);
    Cow::Owned(safe)
}

/// Writes on what is written to it, escaped.
pub(super) struct Escaping<W>(pub(super) W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if is_unsafe(letter) {
                letter.escape_default().try_for_each(|letter| self.0.write_char(letter))?;
            } else {
                self.0.write_char(letter)?;
            }
        }
        Ok(())
    }
}

/// Control characters (C0, DEL and C1), the line and paragraph separators, and what has no width or changes
/// the direction (Unicode Standard Annex 9, section 2; Trojan Source, CVE-2021-42574).
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_do_something_to_a_terminal_is_written_out_and_all_else_stays() {
        for (text, expected) in [
            ("pod default/db-0 fits on no other node", "pod default/db-0 fits on no other node"),
            ("Überdruß, 容量不足, 🙂", "Überdruß, 容量不足, 🙂"),
            ("a\u{1b}[2Jb", r"a\u{1b}[2Jb"),
            ("a\nb\r\tc\u{0}", r"a\nb\r\tc\u{0}"),
            ("a\u{7f}\u{9b}31mb", r"a\u{7f}\u{9b}31mb"),
            ("safe\u{202e}efas\u{2066}x", r"safe\u{202e}efas\u{2066}x"),
            ("a\u{2028}b\u{200b}c\u{feff}d", r"a\u{2028}b\u{200b}c\u{feff}d"),
        ] {
            assert_eq!(escaped(text), expected);
            assert_eq!(escaped(&escaped(text)), expected, "once is enough");
        }
    }
}
