//! GPU against the 64-bit twin, operation by operation: the table of `refrain check`, run in all four variants.

use libtest_mimic::Failed;
use refrain::check;

use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::equivalence::variants;

fn operations_agree_with_the_f64_twin_in_all_variants(adapter: &Adapter) -> Outcome {
    let mut failures = Vec::new();
    for options in variants() {
        let device = adapter.open_with(&options)?;
        let reports = check::operations(&device, |_| ())?;
        assert!(!reports.is_empty(), "{options:?}: no operation was checked");
        for report in reports {
            assert!(report.cases > 0, "{}: no case was checked", report.operation);
            // Written so that NaN fails.
            let within = report.worst <= report.tolerance;
            if !within || report.failure.is_some() {
                failures.push(format!(
                    "{options:?}: {}, {} cases, worst {:e}, tolerance {:e}: {}",
                    report.operation,
                    report.cases,
                    report.worst,
                    report.tolerance,
                    report.failure.as_deref().unwrap_or("beyond the tolerance"),
                ));
            }
        }
    }
    match failures.as_slice() {
        [] => Ok(()),
        _ => Err(Failed::from(failures.join("\n"))),
    }
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu!(suite, operations_agree_with_the_f64_twin_in_all_variants);
}
