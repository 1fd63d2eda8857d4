//! Validation of option values that several commands share.

use std::sync::LazyLock;

use refrain::nn::Cell;
use refrain::ops::Activation;

use crate::failure::{Failure, Result};

/// Rejects a temperature that is negative or too large.
pub(crate) fn temperature(value: f64) -> Result<()> {
    number("--temperature", value, (0.0..=100.0).contains(&value), "between 0 and 100")
}

/// Rejects a count outside `smallest..=largest`.
pub(crate) fn count(option: &str, found: usize, smallest: usize, largest: usize) -> Result<()> {
    if (smallest..=largest).contains(&found) {
        return Ok(());
    }
    let bound = match largest {
        usize::MAX => format!("at least {smallest}"),
        largest => format!("between {smallest} and {largest}"),
    };
    Err(Failure::option(option, format!("must be {bound}, not {found}")))
}

/// Rejects a number unless `sensible`; `expected` describes the valid values.
pub(crate) fn number(option: &str, found: f64, sensible: bool, expected: &str) -> Result<()> {
    match sensible {
        true => Ok(()),
        false => Err(Failure::option(option, format!("must be {expected}, but is {found}"))),
    }
}

/// Parses an integer, with an error message of its own.
pub(crate) fn whole<N: TryFrom<u64>>(text: &str) -> std::result::Result<N, String> {
    if let Some(number) = text.parse::<u64>().ok().and_then(|number| N::try_from(number).ok()) {
        return Ok(number);
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    Err(match text.strip_prefix('-') {
        Some(rest) if is_number(rest) => "must not be negative",
        None if is_number(text) => "is too large",
        _ => "is not a whole number in digits",
    }
    .to_owned())
}

/// Parses the name of a cell.
pub(crate) fn cell(name: &str) -> std::result::Result<&'static Cell, String> {
    static ALL: LazyLock<Vec<Cell>> = LazyLock::new(|| {
        [Cell::Lstm, Cell::Gru].into_iter().chain(Activation::ALL.map(Cell::Vanilla)).collect()
    });
    let known = || ALL.iter().map(Cell::name).collect::<Vec<_>>().join(", ");
    let found = ALL.iter().find(|cell| cell.name() == name);
    found.ok_or_else(|| format!("is not a cell; the cells are {}", known()))
}

/// The options of a command, parsed from words separated by spaces, the first of which is its name.
#[cfg(test)]
pub(crate) fn parsed<A: clap::Args>(words: &str) -> A {
    let command = A::augment_args(clap::Command::new("test"));
    let matches = command.try_get_matches_from(words.split(' ')).expect("options that clap accepts");
    A::from_arg_matches(&matches).expect("all options of the command")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_number_is_told_apart() {
        assert_eq!(whole::<usize>("12"), Ok(12));
        assert_eq!(whole::<u64>("18446744073709551615"), Ok(u64::MAX));
        for (text, expected) in [
            ("-5", "negative"),
            ("-0", "negative"),
            ("18446744073709551616", "too large"),
            ("1e3", "digits"),
            ("1.5", "digits"),
            ("-1.5", "digits"),
            ("", "digits"),
            ("-", "digits"),
            ("ten", "digits"),
        ] {
            let refused = whole::<u64>(text).expect_err(text);
            assert!(refused.contains(expected), "{text}: {refused}");
        }
        assert!(whole::<u8>("256").is_err_and(|refused| refused.contains("too large")));
    }

    #[test]
    fn cells_go_by_their_names_and_vanilla_ones_by_their_activations() {
        assert_eq!(cell("lstm"), Ok(&Cell::Lstm));
        assert_eq!(cell("gru"), Ok(&Cell::Gru));
        assert_eq!(cell("relu"), Ok(&Cell::relu()));
        let refused = cell("swish").expect_err("no cell");
        assert!(refused.contains("lstm") && refused.contains("softsign"), "{refused}");
    }
}
