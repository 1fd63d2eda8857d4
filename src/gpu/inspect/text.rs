//! Limits on the text of a user's WGSL, checked before any compiler reads it: compilers recurse as deep as
//! the source nests.

use super::line_of;

/// The most bytes of source.
const MAX_BYTES: usize = 64 << 10;
/// The deepest nesting of blocks, brackets, chains of `else` and operators: `a + b + c` nests (a + b) in a
/// sum.
const MAX_NESTING: usize = 128;

/// Keywords that require capabilities the device is opened without, or values that the crate does not set.
const REFUSED: [(&str, &str); 3] = [
    ("enable", "the device is opened without optional extensions of WGSL"),
    ("requires", "the device is opened without optional extensions of WGSL"),
    ("override", "nothing sets the value of an override: declare a `const`"),
];

/// Checks the length and nesting of a source, and the keywords that no cell may use.
pub(super) fn expect_within_limits(source: &str) -> Result<(), String> {
    if source.len() > MAX_BYTES {
        return Err(format!("it has {} bytes, and may have at most {MAX_BYTES}", source.len()));
    }
    // For each open bracket, the depth of its current expression or statement.
    let mut open = vec![0];
    let mut before = "";
    for (place, token) in Tokens::of(source) {
        let line = || line_of(source, place);
        if let Some((word, why)) = REFUSED.iter().find(|(word, _)| *word == token) {
            return Err(format!("line {}: `{word}` is refused: {why}", line()));
        }
        let is_global = open.len() == 1;
        if token == "var" && is_global {
            let message = "a cell has no variables outside its functions: it computes from its arguments";
            return Err(format!("line {}: {message}", line()));
        }
        // A block ends a statement, unless an `else` nests another in it.
        if before == "}" && token != "else" {
            *innermost(&mut open) = 0;
        }
        before = token;
        match token {
            "{" | "(" | "[" => open.push(0),
            "}" | ")" | "]" if open.len() > 1 => drop(open.pop()),
            "," | ";" => *innermost(&mut open) = 0,
            "else" => *innermost(&mut open) += 1,
            _ if token.starts_with(|first: char| first.is_ascii_punctuation() && first != '_') => {
                *innermost(&mut open) += 1;
            }
            _ => {}
        }
        if open.len() - 1 + open.iter().sum::<usize>() > MAX_NESTING {
            return Err(format!(
                "line {}: blocks, brackets and operators nest deeper than {MAX_NESTING}: name parts of the expression by `let`",
                line()
            ));
        }
    }
    Ok(())
}

fn innermost(open: &mut [usize]) -> &mut usize {
    let last = open.len() - 1;
    &mut open[last]
}

/// The tokens of a source with their offsets, without comments and blanks.
struct Tokens<'a> {
    source: &'a str,
    place: usize,
}

impl<'a> Tokens<'a> {
    fn of(source: &'a str) -> Self {
        Self { source, place: 0 }
    }

    /// Skips a comment, if one begins here.
    fn skips_comment(&mut self) -> bool {
        let rest = &self.source[self.place..];
        if rest.starts_with("//") {
            let ends = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
            self.place += rest.find(ends).unwrap_or(rest.len());
            return true;
        }
        if !rest.starts_with("/*") {
            return false;
        }
        let (mut depth, mut at) = (0, 0);
        while at < rest.len() {
            let step = match &rest.as_bytes()[at..] {
                [b'/', b'*', ..] => {
                    depth += 1;
                    2
                }
                [b'*', b'/', ..] => {
                    depth -= 1;
                    2
                }
                _ => 1,
            };
            at += step;
            if depth == 0 {
                break;
            }
        }
        self.place += at;
        true
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = &self.source[self.place..];
            let first = rest.chars().next()?;
            if first.is_whitespace() {
                self.place += first.len_utf8();
            } else if !self.skips_comment() {
                let dot = if first.is_ascii_digit() { '.' } else { '_' };
                let word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == dot;
                let end = rest.find(|letter| !word(letter)).unwrap_or(rest.len());
                let start = self.place;
                self.place += end.max(first.len_utf8());
                return Some((start, &self.source[start..self.place]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_words_and_characters_without_comments() {
        let source = "let a_1 = 2.5 /* no /* nested */ override */ + b; // enable\n}é";
        let tokens: Vec<&str> = Tokens::of(source).map(|(_, token)| token).collect();
        assert_eq!(tokens, ["let", "a_1", "=", "2.5", "+", "b", ";", "}", "é"]);
        assert_eq!(Tokens::of("/* never closed").count(), 0);
        assert_eq!(Tokens::of("/*/").count(), 0);
    }

    #[test]
    fn nesting_is_counted_over_brackets_blocks_and_operators() {
        let body = |text: &str| expect_within_limits(&format!("fn f(a: f32) -> f32 {{ {text} }}"));
        let chain = |terms: usize| body(&format!("return a{};", "+a".repeat(terms)));
        assert!(chain(MAX_NESTING - 20).is_ok() && chain(MAX_NESTING).is_err());
        for (text, part) in [
            ("(".repeat(200), "nest deeper than 128"),
            ("if a > 0 { a } else ".repeat(200), "nest deeper than 128"),
            ("{".repeat(200), "nest deeper than 128"),
            ("abs(-".repeat(100), "nest deeper than 128"),
            (" ".repeat(MAX_BYTES), "at most 65536"),
            ("\n\noverride x: f32;".to_owned(), "line 3: `override`"),
        ] {
            let message = body(&text).expect_err("too much");
            assert!(message.contains(part), "{part} in {message}");
        }
        // Many statements or arguments nest no deeper than one.
        assert!(body(&"let b = a + a * a;".repeat(1000)).is_ok());
        assert!(body(&format!("array<f32, 500>({})", "a * a, ".repeat(500))).is_ok());
    }
}
