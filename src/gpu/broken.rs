//! Deliberate faults for `crate::testing`: calls that a driver refuses immediately, and calls that it refuses
//! when they are submitted.

use std::borrow::Cow;

use super::context::Context;
use super::kernel::{Kernel, Origin, parameters};
use super::pool::Purpose;
use super::recorder::Dispatch;
use super::span::Span;
use crate::Result;

parameters!(NoParameters { unused: u32 });

/// Valid WGSL that no device compiles to a pipeline: its constant has no value.
static REFUSED: Kernel = Kernel {
    name: Cow::Borrowed("refused"),
    source: Cow::Borrowed(
        "override no_value: u32;
@compute @workgroup_size(1) fn main() { _ = parameters.unused + no_value; }
",
    ),
    // No other kernel of a user has this number: they are counted from zero.
    origin: Origin::User(u64::MAX),
    constants: &[],
    bindings: &[],
    members: NoParameters::MEMBERS,
    parameter_bytes: size_of::<NoParameters>(),
};

impl Context {
    /// Dispatches a kernel that the driver refuses to compile.
    pub(crate) fn refused_kernel(&self) -> Result<()> {
        let parameters = NoParameters { unused: 0 };
        self.dispatch(Dispatch { kernel: &REFUSED, constants: &[], parameters, bindings: &[], grid: [1; 3] })
    }

    /// Records a command on a destroyed buffer, for which the driver refuses the whole submission.
    pub(crate) fn break_submission(&self) -> Result<()> {
        self.recorder().driver.faults.check()?;
        let buffer = self.pool().take(Purpose::Storage, 4, "a destroyed buffer")?;
        buffer.raw.buffer().destroy();
        self.recorder().clear(Span::new(&buffer, 0, 1))?;
        buffer.discard();
        Ok(())
    }
}
