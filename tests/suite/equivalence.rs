//! One adapter, four ways to run on it: checked or trusted shaders, by immediates or uniforms. All give the same
//! bits, whichever way recurrent layers run, so a fault of one way that a test of another would miss cannot hide.

use libtest_mimic::Failed;
use refrain::GpuOptions;
use refrain::testing::{ParameterPath, ShaderBuild};
use refrain::tuning::RecurrentStrategy;

use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::support::{Rule, Setup, expect_same_bits};

/// Both shader builds by both ways of passing parameters.
fn variants(recurrent: RecurrentStrategy) -> Vec<GpuOptions> {
    let mut variants = Vec::new();
    for build in [ShaderBuild::Checked, ShaderBuild::Trusted] {
        for parameters in [ParameterPath::Fastest, ParameterPath::Uniforms] {
            variants.push(GpuOptions { build, parameters, recurrent, ..GpuOptions::default() });
        }
    }
    variants
}

fn all_variants_train_to_the_same_bits(adapter: &Adapter) -> Outcome {
    let (adam, sgd) = (Rule::Adam, Rule::Sgd { momentum: 0.9 });
    for (rule, recurrent) in [
        (adam, RecurrentStrategy::Sequence),
        (sgd, RecurrentStrategy::Sequence),
        (adam, RecurrentStrategy::PerStep),
    ] {
        let setup = Setup { rule, ..Setup::SMALL };
        let mut first = None;
        for options in variants(recurrent) {
            let run = setup.train(&adapter.open_with(&options)?, 8)?;
            let first = first.get_or_insert_with(|| run.clone());
            let context = |failed: Failed| {
                let reason = failed.message().unwrap_or("differs").to_owned();
                Failed::from(format!("{rule:?}, {options:?}: {reason}"))
            };
            expect_same_bits("losses", &first.losses, &run.losses).map_err(context)?;
            expect_same_bits("parameters", &first.parameters, &run.parameters).map_err(context)?;
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu!(suite, all_variants_train_to_the_same_bits);
}
