//! Decodes text files.

use std::fmt;

use crate::io::sniff::{HEAD, sniff};
use crate::{Error, Result};

/// UTF-8's byte-order mark.
const MARK: &[u8] = "\u{feff}".as_bytes();
/// How many bytes are searched for the zero bytes of UTF-16.
const SAMPLE: usize = 1 << 16;

/// The content of a text file: UTF-8 without a byte-order mark, with `\n` as line end.
///
/// A character model would otherwise learn the byte-order mark and the `\r` of `\r\n` as characters. [`TextChanges`] counts
/// what was changed.
///
/// ```
/// use refrain::data::Text;
/// let text = Text::decode(b"\xef\xbb\xbfone\r\ntwo\r\n".to_vec())?;
/// assert_eq!(text.as_str(), "one\ntwo\n");
/// assert_eq!(text.changes().to_string(), "a byte-order mark was dropped and 2 line ends were changed to \\n");
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    characters: String,
    changes: TextChanges,
}

/// The changes that [`Text::decode`] made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextChanges {
    /// Byte-order marks dropped: 0 or 1.
    pub marks: usize,
    /// Line ends `\r\n` and `\r` replaced by `\n`.
    pub line_ends: usize,
}

impl TextChanges {
    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for TextChanges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = (self.marks > 0).then(|| "a byte-order mark was dropped".to_owned());
        let ends = match self.line_ends {
            0 => None,
            1 => Some("1 line end was changed to \\n".to_owned()),
            ends => Some(format!("{ends} line ends were changed to \\n")),
        };
        match (mark, ends) {
            (Some(mark), Some(ends)) => write!(formatter, "{mark} and {ends}"),
            (Some(change), None) | (None, Some(change)) => formatter.write_str(&change),
            (None, None) => formatter.write_str("nothing was changed"),
        }
    }
}

impl Text {
    /// Decodes UTF-8. Drops a byte-order mark at the start, and replaces the line ends `\r\n` and `\r` by `\n`.
    ///
    /// # Errors
    /// [`Error::Config`] for UTF-16 and UTF-32, which the message names, and for bytes that are not UTF-8, with the
    /// position of the first invalid byte.
    pub fn decode(mut bytes: Vec<u8>) -> Result<Self> {
        if let Some(encoding) = other_encoding(&bytes) {
            let message = format!(
                "is {encoding}, but UTF-8 is needed: convert it, for example with `iconv -f {encoding} -t UTF-8`"
            );
            return Err(Error::config("text", message));
        }
        let marks = usize::from(bytes.starts_with(MARK));
        bytes.drain(..marks * MARK.len());
        let characters = String::from_utf8(bytes).map_err(|error| {
            let head = error.as_bytes();
            if let Some(kind) = sniff(&head[..head.len().min(HEAD)]).filter(|kind| !kind.is_text) {
                return Error::config("text", format!("is {}, not text", kind.name));
            }
            let place = marks * MARK.len() + error.utf8_error().valid_up_to();
            let byte = error.as_bytes()[error.utf8_error().valid_up_to()];
            let message = format!(
                "is not UTF-8 text: byte {place} is {byte:#04x}, which is invalid there; convert the text to UTF-8, for \
                 example with `iconv -f ISO-8859-1 -t UTF-8`"
            );
            Error::config("text", message)
        })?;
        let (characters, line_ends) = with_plain_line_ends(characters);
        Ok(Self { characters, changes: TextChanges { marks, line_ends } })
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.characters
    }

    /// Returns the changes made when the text was decoded.
    pub fn changes(&self) -> TextChanges {
        self.changes
    }
}

/// Detects UTF-16 and UTF-32 by their byte-order mark or by zero bytes at every other position. Returns the name in iconv.
fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        // Tested before UTF-16, whose byte-order mark is a prefix of this one.
        [0xff, 0xfe, 0, 0, ..] => return Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32BE"),
        [0xff, 0xfe, ..] => return Some("UTF-16LE"),
        [0xfe, 0xff, ..] => return Some("UTF-16BE"),
        _ => {}
    }
    // Without a byte-order mark: in UTF-16, at least line breaks and spaces have one zero byte, always the first of two or
    // always the second. UTF-8 may contain zeros as separators, but then letters occur at the same positions.
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    let is_invalid = std::str::from_utf8(sample).is_err_and(|error| error.error_len().is_some());
    let count = |place: usize, bound: u8| sample.chunks_exact(2).filter(|pair| pair[place] < bound).count();
    let pairs = sample.len() / 2;
    let is_high = |place: usize| {
        let zeros = count(place, 1);
        zeros >= 2 && zeros * 10 >= pairs && (is_invalid || count(place, b' ') * 10 >= pairs * 9)
    };
    match (count(0, 1), count(1, 1)) {
        (_, 0) if is_high(0) => Some("UTF-16BE"),
        (0, _) if is_high(1) => Some("UTF-16LE"),
        _ => None,
    }
}

/// Replaces `\r\n` and a lone `\r` by `\n`; returns the text and the number of replacements.
fn with_plain_line_ends(text: String) -> (String, usize) {
    if !text.contains('\r') {
        return (text, 0);
    }
    let mut plain = String::with_capacity(text.len());
    let mut pieces = text.split('\r');
    plain.extend(pieces.next());
    let mut changed = 0;
    for piece in pieces {
        changed += 1;
        if !piece.starts_with('\n') {
            plain.push('\n');
        }
        plain.push_str(piece);
    }
    (plain, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> (String, TextChanges) {
        let text = Text::decode(bytes.to_vec()).unwrap();
        (text.as_str().to_owned(), text.changes())
    }

    fn refused(bytes: &[u8]) -> String {
        Text::decode(bytes.to_vec()).unwrap_err().to_string()
    }

    fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    #[test]
    fn one_mark_is_dropped_and_line_ends_become_line_feeds() {
        for (bytes, expected, marks, line_ends) in [
            ("".as_bytes(), "", 0, 0),
            (b"one\ntwo\n", "one\ntwo\n", 0, 0),
            (b"one\r\ntwo\r\n", "one\ntwo\n", 0, 2),
            (b"one\rtwo\r", "one\ntwo\n", 0, 2),
            (b"\r\r\n\n\r", "\n\n\n\n", 0, 3),
            ("\u{feff}".as_bytes(), "", 1, 0),
            ("\u{feff}\u{feff}a\r".as_bytes(), "\u{feff}a\n", 1, 1),
            ("a\u{feff}".as_bytes(), "a\u{feff}", 0, 0),
        ] {
            assert_eq!(decoded(bytes), (expected.to_owned(), TextChanges { marks, line_ends }), "{bytes:?}");
        }
    }

    #[test]
    fn utf_16_and_utf_32_are_named_with_and_without_a_mark() {
        for text in ["plain words", "Слова на русском\nязыке", "a\n"] {
            for (order, name) in
                [(u16::to_le_bytes as fn(u16) -> _, "UTF-16LE"), (u16::to_be_bytes, "UTF-16BE")]
            {
                for mark in ["", "\u{feff}"] {
                    let message = refused(&utf16(&format!("{mark}{text}"), order));
                    assert!(message.contains(&format!("is {name}, but UTF-8 is needed")), "{message}");
                }
            }
        }
        // Without a space or line break there are no zero bytes, so only the byte-order mark identifies the encoding.
        for (order, name) in
            [(u16::to_le_bytes as fn(u16) -> _, "is UTF-16LE"), (u16::to_be_bytes, "is UTF-16BE")]
        {
            let message = refused(&utf16("\u{feff}東京の夜", order));
            assert!(message.contains(name), "{message}");
        }
        let wide = |order: fn(u32) -> [u8; 4]| -> Vec<u8> {
            "\u{feff}ab".chars().flat_map(|character| order(character.into())).collect()
        };
        assert!(refused(&wide(u32::to_le_bytes)).contains("is UTF-32LE"));
        assert!(refused(&wide(u32::to_be_bytes)).contains("is UTF-32BE"));
    }

    #[test]
    fn a_text_that_has_some_zeros_is_still_utf_8() {
        for text in
            ["one\0two\0three\0", "\0", "a\0", "records of some length\0and others\0", "café\0thé\0é\0"]
        {
            assert_eq!(decoded(text.as_bytes()).0, text);
        }
    }

    #[test]
    fn the_first_invalid_byte_is_named_by_its_place_in_the_file() {
        assert!(refused(b"caf\xe9 au lait").contains("byte 3 is 0xe9"));
        assert!(refused(b"\xef\xbb\xbfcaf\xe9").contains("byte 6 is 0xe9"));
        assert!(refused(b"cut \xe6\x9d").contains("byte 4 is 0xe6"));
        assert_eq!(refused(b"\x89PNG\r\n\x1a\n"), "text: is a PNG image, not text");
    }
}
