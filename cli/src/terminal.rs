//! Standard output and standard error with escaped control characters.
//!
//! Texts, vocabularies, names of files, tensors and layers, and descriptions by drivers are untrusted. Their control
//! characters could clear the screen, change its title or reorder the text, so they are printed as escapes such as
//! `\u001b`, which JSON decodes to the original characters. All output goes through [`stdout`] or [`stderr`].

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Stderr, Stdout, Write};

/// A stream that escapes control characters, for `write!` and `writeln!`.
pub(crate) struct Escaping<W>(W);

/// Standard output.
pub(crate) fn stdout() -> Escaping<Stdout> {
    Escaping(io::stdout())
}

/// Standard error.
pub(crate) fn stderr() -> Escaping<Stderr> {
    Escaping(io::stderr())
}

impl<W: Write> Escaping<W> {
    /// Formats the text and writes it with one call.
    pub(crate) fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        self.0.write_all(escaped(&text.to_string()).as_bytes())
    }
}

/// `text` with control characters replaced by escapes of four hexadecimal digits; line breaks and tabs stay.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_control(character) {
            true => escaped += &format!("\\u{:04x}", u32::from(character)),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal could interpret `character` instead of showing it: the control characters of ASCII and ISO 8859
/// (C0, DEL and C1) except line break and tab, and the characters that override the writing direction.
fn is_control(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => character.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_all_others_stay() {
        let plain = "naïve – 東京\n\tשלום 🙂 \\u001b";
        assert_eq!(escaped(plain), plain);
        for (control, expected) in [
            ("\u{1b}[2J", "\\u001b[2J"),
            ("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007"),
            ("a\rb\0", "a\\u000db\\u0000"),
            ("\u{7f}\u{9b}31m", "\\u007f\\u009b31m"),
            ("\u{202e}txt.exe\u{2066}", "\\u202etxt.exe\\u2066"),
        ] {
            assert_eq!(escaped(control), expected);
        }
        for control in (0..=u32::from(char::MAX)).filter_map(char::from_u32).filter(|c| c.is_control()) {
            let stays = matches!(control, '\n' | '\t');
            assert_eq!(escaped(&control.to_string()) == control.to_string(), stays, "{control:?}");
        }
    }

    #[test]
    fn lines_of_json_stay_what_they_are() {
        let name = "a\u{1b}\u{9b}\u{202e}\u{7f}\n\t\"";
        let mut written = Vec::new();
        let line = serde_json::to_string(name).expect("JSON");
        writeln!(Escaping(&mut written), "{line}").expect("memory can be written");
        assert!(written.is_ascii(), "{written:?}");
        assert_eq!(serde_json::from_slice::<String>(&written).expect("JSON"), name);
    }
}
