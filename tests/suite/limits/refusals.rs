//! What no cutting helps with: a row larger than a binding, and limits too low to work with.

use refrain::loss::cross_entropy;
use refrain::nn::{Cell, Model, Rnn};
use refrain::ops::{self, Form};
use refrain::{Error, GpuOptions, Indices, Result, Tensor};

use super::{TOO_WIDE, low_limits};
use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::misuse::refuses;
use crate::support::random;

fn expect_exceeds<T>(what: &str, result: Result<T>) -> Outcome {
    match result {
        Err(error @ Error::ExceedsLimit { needed, limit, .. }) => {
            assert!(needed > limit, "{what}: {error}");
            let message = error.to_string();
            for part in ["row", &needed.to_string(), &limit.to_string()] {
                assert!(message.contains(part), "{what}: `{message}` does not say `{part}`");
            }
            Ok(())
        }
        Err(other) => Err(format!("{what}: {other:?} instead of a limit").into()),
        Ok(_) => Err(format!("{what}: a row larger than a binding was taken").into()),
    }
}

fn a_row_larger_than_a_binding_is_an_error(adapter: &Adapter) -> Outcome {
    let device = low_limits(adapter)?;
    let wide = random(&device, 50, &[2, TOO_WIDE], 1.0)?;
    let labels = Indices::from_slice(&device, &[2], &[0, 1])?;
    expect_exceeds("softmax", ops::softmax(&wide))?;
    expect_exceeds("cross-entropy", cross_entropy(&wide, &labels))?;
    expect_exceeds("matmul", ops::matmul(&wide, &wide, Form::RightTransposed, None))?;
    expect_exceeds("embedding", ops::embedding(&labels, &wide))?;
    let mut model = Model::new(1);
    let rnn = model.add("rnn", Rnn::new(Cell::tanh(), 3, TOO_WIDE))?;
    let parameters = model.initialize(&device)?;
    let x = random(&device, 51, &[2, 1, 3], 1.0)?;
    let state = rnn.zero_state(&device, 1)?;
    let before = device.counters().dispatches;
    expect_exceeds("recurrent step", rnn.infer(&parameters, &x, &state))?;
    // The inputs may have been projected; turning W_hh in such small pieces takes millions.
    let calls = device.counters().dispatches - before;
    assert!(calls < TOO_WIDE as u64, "{calls} dispatches before a row was refused");
    // The device is as good as before.
    let small = Tensor::from_slice(&device, &[2], &[1.0, 2.0])?;
    assert_eq!(ops::sum(&small)?.read()?, 3.0);
    Ok(())
}

fn limits_too_low_to_work_with_are_refused(adapter: &Adapter) -> Outcome {
    // None at all is refused before an adapter is sought: see `misuse`.
    let options = GpuOptions { binding_bytes: Some(64), ..GpuOptions::default() };
    refuses!(Config, adapter.open_with(&options), "GPU options");
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_gpu!(suite, a_row_larger_than_a_binding_is_an_error, limits_too_low_to_work_with_are_refused);
}
