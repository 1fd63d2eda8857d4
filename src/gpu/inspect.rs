//! WGSL of a user's own, looked at before a driver sees it.

use wgpu::naga;
use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};

/// What is wrong with `source`, whose first `own` lines are the user's: the compiler's message, which shows the
/// place by its line in the source.
pub(crate) fn inspect(source: &str, own: usize) -> Result<(), String> {
    let describe = |line: Option<u32>, message: String, summary: String| match line {
        Some(line) if line as usize <= own => message.trim_end().to_owned(),
        // The place is in the layer's own part, whose lines the user has never seen.
        _ => {
            format!("{summary}: what the layer around it needs of the cell is not there, or of another type")
        }
    };
    let module = naga::front::wgsl::parse_str(source).map_err(|error| {
        let line = error.location(source).map(|place| place.line_number);
        describe(line, error.emit_to_string(source), error.message().to_owned())
    })?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    let checked = validator.validate(&module).map(|_| ());
    checked.map_err(|error| {
        let line = error.location(source).map(|place| place.line_number);
        describe(line, error.emit_to_string(source), error.as_inner().to_string())
    })
}
