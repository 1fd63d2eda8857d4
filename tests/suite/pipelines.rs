//! How many pipelines a device compiles and caches: one for all values of a real-valued option, and at most a
//! given number.

use refrain::loss::CrossEntropy;
use refrain::nn::{Cell, Model, RandomKey, Rnn, Sequences};
use refrain::ops::{self, Activation, Reduction};
use refrain::optim::{Adam, AdamConfig, Sgd, SgdConfig};
use refrain::{Device, Error, GpuOptions, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_gpu, on_gpu_strategies};
use crate::custom::RIGHT;
use crate::support::{expect_same_bits, random};

/// Several kernels one after the other, among them those of a user's cell.
fn work(device: &Device) -> Result<Vec<f32>> {
    let x = random(device, 31, &[4, 3, 5], 1.0)?;
    let y = ops::softmax(&ops::unary(&x, Activation::Tanh)?)?;
    let y = ops::unary(&ops::permute(&y, &[1, 0, 2])?, Activation::Sigmoid)?;
    let sums = ops::sum_rows(&y.reshape(&[12, 5])?)?;
    let mut model = Model::new(2);
    let layer = model.add("rnn", Rnn::new(Cell::Custom(RIGHT.clone()), 5, 3))?;
    let parameters = model.initialize(device)?;
    let (outputs, last) = layer.infer(&parameters, &x, &layer.zero_state(device, 3)?)?;
    let parts = [y, sums, outputs, last.hidden()];
    Ok(parts.iter().map(Tensor::download).collect::<Result<Vec<_>>>()?.concat())
}

fn an_evicted_pipeline_recompiles_to_the_same_results(adapter: &Adapter) -> Outcome {
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
            let result = few.counters().pipelines;
            assert!(
                result >= round * (compiled - most as u64),
                "{result} compiled with {most} in round {round}"
            );
        }
    }
    let options = GpuOptions { pipelines: Some(0), ..GpuOptions::default() };
    let refused = adapter.open_anew_with(&options).map(drop);
    assert!(matches!(&refused, Err(Error::Config { .. })), "{refused:?}");
    Ok(())
}

/// A layer with a real-valued option, and by which name a failure knows it.
type RealOption = (&'static str, fn(f32) -> Rnn);

const HIDDEN: usize = 3;

/// Every real-valued option of a recurrent layer, for values above 0 and below 1.
const OPTIONS: [RealOption; 10] = [
    ("clip_gates of tanh", |value| of(Cell::tanh()).clip_gates(value)),
    ("clip_gates of an LSTM", |value| of(Cell::Lstm).clip_gates(value)),
    ("clip_gates of a GRU", |value| of(Cell::Gru).reset_before().clip_gates(value)),
    ("clip_cell", |value| of(Cell::Lstm).coupled().clip_cell(value / 4.0)),
    ("clip_gradient", |value| of(Cell::Gru).clip_gradient(value / 8.0)),
    ("clip_gradient with a projection", |value| of(Cell::Lstm).projection(2).clip_gradient(value / 400.0)),
    ("zoneout", |value| of(Cell::Lstm).zoneout(value, 1.0 - value)),
    ("elu", |value| of(Cell::Vanilla(Activation::Elu { alpha: value }))),
    ("gates", |value| {
        let gate = Activation::HardSigmoid { alpha: value / 2.0, beta: 0.5 };
        let candidate = Activation::ScaledTanh { alpha: 1.0 + value, beta: value };
        of(Cell::Gru).gate_activations(gate, candidate, Activation::Tanh)
    }),
    ("dropout", |value| {
        of(Cell::tanh()).layers(2).dropout(value).recurrent_dropout(value).weight_drop(value)
    }),
];

fn of(cell: Cell) -> Rnn {
    Rnn::new(cell, 2, HIDDEN)
}

/// Gradients at the inputs of a step of training with all real-valued numbers that may change from step to step.
fn step(device: &Device, stack: Rnn, value: f32, sequences: Sequences<'_>) -> Result<Vec<f32>> {
    let mut model = Model::new(5);
    let layer = model.add("rnn", stack)?;
    let mut parameters = model.initialize(device)?;
    let x = random(device, 32, &[4, 2, 2], 4.0)?;
    let state = layer.zero_state(device, 2)?;
    let (y, _, trace) = layer.forward_sequences(&parameters, &x, &state, sequences)?;
    let labels = Indices::from_slice(device, &[4, 2], &[0, 1, 0, 1, 1, 0, 1, 0])?;
    let loss = CrossEntropy::default().smoothing(value);
    loss.reduced(&y, &labels, Reduction::Sum)?;
    let mut gradients = parameters.zero_gradients()?;
    // The value reaches these by the layer alone.
    let (d_x, _) = trace.backward(&y, None, &mut gradients)?;
    gradients.clip_norm(value)?;
    let rate = f64::from(value);
    Adam::new(&parameters, AdamConfig::new(rate))?.step(&mut parameters, &gradients)?;
    let config = SgdConfig { learning_rate: rate, momentum: rate, ..Default::default() };
    Sgd::new(&parameters, config)?.step(&mut parameters, &gradients)?;
    d_x.download()
}

/// The last value has a pipeline of its own where kernels had the value as a constant.
fn all_values_of_a_real_valued_option_share_their_pipelines(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let mut training = 0;
    for (name, describe) in OPTIONS {
        let mut known = None;
        let mut results = Vec::new();
        for number in 1..=10 {
            let value = number as f32 / 11.0;
            training += 1;
            let random_key = RandomKey::new(4, training);
            let modes = [Sequences::whole().evaluation(), Sequences::whole().training(random_key)];
            for sequences in modes {
                results.push(step(&device, describe(value), value, sequences)?);
            }
            let compiled = device.counters().pipelines;
            assert_eq!(compiled, *known.get_or_insert(compiled), "{name} = {value}");
        }
        results.dedup();
        assert!(
            results.len() >= 10,
            "{name}: {} results for 10 values: the option is ignored",
            results.len()
        );
    }
    // A search over one of them.
    let compiled = device.counters().pipelines;
    for number in 1..=100 {
        let sequences = Sequences::whole();
        step(&device, of(Cell::Lstm).clip_gates(number as f32 / 50.0), 0.5, sequences)?;
    }
    assert_eq!(device.counters().pipelines, compiled);
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu!(suite, an_evicted_pipeline_recompiles_to_the_same_results);
    on_gpu_strategies!(suite, all_values_of_a_real_valued_option_share_their_pipelines);
}
