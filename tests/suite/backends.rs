//! GPU against the 64-bit CPU reference, operation by operation: the table of `refrain check`, with both
//! builds of the shaders, both ways to pass parameters and both strategies of recurrent layers. `equivalence`
//! shows that builds and parameters change no bit. With several adapters, each runs the table with the
//! strategy in which it runs no other module's tests, so that every adapter runs both strategies.

use libtest_mimic::Failed;
use refrain::GpuOptions;
use refrain::check;
use refrain::testing::{ParameterPath, ShaderBuild};
use refrain::tuning::RecurrentStrategy;

use crate::adapters::{Adapter, Outcome, Suite};

fn operations_agree(adapter: &Adapter, build: ShaderBuild, parameters: ParameterPath) -> Outcome {
    let device = adapter.open_with(&GpuOptions { build, parameters, ..GpuOptions::default() })?;
    let reports = check::operations(&device, |_| ())?;
    assert!(!reports.is_empty(), "no operation was checked");
    let mut failures = Vec::new();
    for report in reports {
        assert!(report.cases > 0, "{}: no case was checked", report.operation);
        // The verdict, and the numbers that it should follow from; NaN fails.
        let within = report.worst <= report.tolerance;
        if !within || !report.passed() {
            let reason = report.failure.as_deref().unwrap_or("beyond the tolerance");
            let (operation, worst, tolerance) = (&report.operation, report.worst, report.tolerance);
            failures.push(format!("{operation}: worst {worst:e}, tolerance {tolerance:e}: {reason}"));
        }
    }
    match failures.as_slice() {
        [] => Ok(()),
        _ => Err(Failed::from(failures.join("\n"))),
    }
}

fn operations_agree_with_the_f64_reference(adapter: &Adapter) -> Outcome {
    operations_agree(adapter, ShaderBuild::Trusted, ParameterPath::Fastest)
}

fn operations_agree_with_the_f64_reference_per_step_checked_with_uniforms(adapter: &Adapter) -> Outcome {
    operations_agree(adapter, ShaderBuild::Checked, ParameterPath::Uniforms)
}

pub(crate) fn register(suite: &mut Suite) {
    macro_rules! for_share {
        ($($turn:literal, $recurrent:ident: $claim:ident),+ $(,)?) => {
            $(suite.gpu_share(
                concat!(module_path!(), "::", stringify!($claim)),
                $turn,
                RecurrentStrategy::$recurrent,
                $claim,
            );)+
        };
    }
    // The other way round than `Suite::gpu_strategies`.
    for_share!(
        1, Sequence: operations_agree_with_the_f64_reference,
        0, PerStep: operations_agree_with_the_f64_reference_per_step_checked_with_uniforms,
    );
}
