//! How many pipelines a device compiles and keeps: as few as it is told to, and the numbers stay the same.

use refrain::nn::{Cell, Model, Rnn};
use refrain::ops::{self, Activation};
use refrain::{Device, Error, GpuOptions, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::custom::RIGHT;
use crate::support::{expect_same_bits, random};

/// Several kernels one after the other, among them those of a user's cell.
fn work(device: &Device) -> Result<Vec<f32>> {
    let x = random(device, 31, &[4, 3, 5], 1.0)?;
    let y = ops::softmax(&ops::unary(&x, Activation::Tanh)?)?;
    let y = ops::unary(&ops::permute(&y, &[1, 0, 2])?, Activation::Sigmoid)?;
    let sums = ops::sum_rows(&y.reshape(&[12, 5])?)?;
    let mut model = Model::new(2);
    let layer = model.add("rnn", Rnn::new(Cell::Custom(&RIGHT), 5, 3))?;
    let parameters = model.initialize(device)?;
    let (outputs, last) = layer.infer(&parameters, &x, &layer.zero_state(device, 3)?)?;
    let parts = [y, sums, outputs, last.hidden()];
    Ok(parts.iter().map(Tensor::download).collect::<Result<Vec<_>>>()?.concat())
}

fn a_pipeline_that_was_let_go_comes_back_with_the_same_numbers(adapter: &Adapter) -> Outcome {
    let all = adapter.open_anew()?;
    let expected = work(&all)?;
    let compiled = all.counters().pipelines;
    assert!(compiled > 6, "{compiled} pipelines");
    expect_same_bits("with all", &expected, &work(&all)?)?;
    assert_eq!(all.counters().pipelines, compiled, "all are kept");
    for most in [1, 4] {
        let options = GpuOptions { pipelines: Some(most), ..GpuOptions::default() };
        let few = adapter.open_anew_with(&options)?;
        for round in 1..=3 {
            expect_same_bits(&format!("with {most}"), &expected, &work(&few)?)?;
            let made = few.counters().pipelines;
            assert!(made >= round * (compiled - most as u64), "{made} compiled with {most} in round {round}");
        }
    }
    let options = GpuOptions { pipelines: Some(0), ..GpuOptions::default() };
    let refused = adapter.open_anew_with(&options).map(drop);
    assert!(matches!(&refused, Err(Error::Config { .. })), "{refused:?}");
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu!(suite, a_pipeline_that_was_let_go_comes_back_with_the_same_numbers);
}
