//! Numbers, sizes and lines of JSON as text.

use std::io;

use serde::Serialize;

use crate::failure::Result;
use crate::terminal::stdout;

/// A number with thousands separators.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with a suitable unit.
pub(crate) fn bytes(size: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{size} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// One line of JSON.
pub(crate) fn json(line: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(line).map_err(io::Error::from)?)
}

/// Prints `line` to standard output, as JSON or as the row of a table.
pub(crate) fn print<L: Serialize>(line: &L, as_json: bool, row: impl FnOnce(&L) -> String) -> Result<()> {
    let text = if as_json { json(line)? } else { row(line) };
    Ok(writeln!(stdout(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_read_well() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(52_166), "52,166");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
