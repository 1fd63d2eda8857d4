//! Checks the WGSL of a custom cell before a driver compiles it: it compiles, terminates, and accesses only
//! its arguments.
//!
//! [`text`] limits the source before any compiler reads it; [`work`] limits what its functions do, from
//! naga's intermediate representation.

mod text;
mod work;

use wgpu::naga::front::wgsl::{Frontend, Options};
use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};

use super::stack::on_compiler_stack;

/// The device is opened without any optional shader capability.
const CAPABILITIES: Capabilities = Capabilities::empty();

/// Checks `own`, the user's WGSL, and `source`: `own` followed by the shader of this crate that calls it.
/// Functions of this crate may call the user's functions in `provides`; the user's functions may call this
/// crate's functions in `offers`.
///
/// # Errors
/// A description of the problem, with its line in `own`.
pub(crate) fn inspect(own: &str, source: &str, rules: &Rules) -> Result<(), String> {
    text::expect_within_limits(own)?;
    on_compiler_stack(|| compile(own, source, rules)).map_err(|error| error.to_string())?
}

/// Which functions may be called between the user's text and this crate's.
pub(crate) struct Rules {
    /// The user's functions that this crate calls.
    pub(crate) provides: &'static [&'static str],
    /// This crate's functions that the user may call.
    pub(crate) offers: &'static [&'static str],
}

fn compile(own: &str, source: &str, rules: &Rules) -> Result<(), String> {
    let lines = own.lines().count();
    let describe = |line: Option<u32>, message: String, summary: String| match line {
        Some(line) if line as usize <= lines => message.trim_end().to_owned(),
        // The error is in this crate's part of the source, whose lines the user does not see.
        _ if summary.starts_with("redefinition of") => {
            format!("{summary}: the layer around the cell uses this name, choose another")
        }
        _ => {
            format!("{summary}: a declaration that the cell must provide is missing or has another type")
        }
    };
    let mut options = Options::new();
    options.capabilities = CAPABILITIES;
    let module = Frontend::new_with_options(options).parse(source).map_err(|error| {
        let line = error.location(source).map(|place| place.line_number);
        describe(line, error.emit_to_string(source), error.message().to_owned())
    })?;
    let info = Validator::new(ValidationFlags::all(), CAPABILITIES).validate(&module).map_err(|error| {
        let line = error.location(source).map(|place| place.line_number);
        describe(line, error.emit_to_string(source), error.as_inner().to_string())
    })?;
    work::expect_bounded(&module, &info, own, rules)
}

/// The line number, from 1, of an offset in `text`.
fn line_of(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|&byte| byte == b'\n').count() + 1
}
