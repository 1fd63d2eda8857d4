//! Claims about a whole process, such as its memory: each runs in a process of its own, which is this binary again.

use std::process::{Command, ExitCode};

use crate::adapters::Outcome;

/// Names the claim that this process is to check, and nothing else.
const VARIABLE: &str = "REFRAIN_SUITE_CHILD";

/// A claim that has a process of its own.
pub(crate) type Claim = (&'static str, fn() -> Outcome);

/// Checks the claim of `claims` that this process was started for; `None` if it was started for all tests.
pub(crate) fn asked_for(claims: &[&[Claim]]) -> Option<ExitCode> {
    let wanted = std::env::var(VARIABLE).ok()?;
    let Some((_, claim)) = claims.iter().copied().flatten().find(|(name, _)| *name == wanted) else {
        eprintln!("there is no claim `{wanted}`");
        return Some(ExitCode::FAILURE);
    };
    Some(match claim() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{}", failed.message().unwrap_or("failed"));
            ExitCode::FAILURE
        }
    })
}

/// What a process may have.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    None,
    /// KiB of address space.
    AddressSpace(u64),
}

/// Checks `name` in a process of its own.
pub(crate) fn run(name: &str, limit: Limit) -> Outcome {
    let binary = std::env::current_exe()?;
    let mut command = match limit {
        Limit::None => Command::new(&binary),
        Limit::AddressSpace(kibibytes) => {
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("ulimit -v {kibibytes} && exec \"$0\"")).arg(&binary);
            command
        }
    };
    let output = command.env(VARIABLE, name).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} in a process of its own: {}\n{said}", output.status).into())
}
