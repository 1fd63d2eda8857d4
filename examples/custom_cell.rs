//! A user-defined cell: the minimal gated unit (Zhou, Wu, Zhang & Zhou 2016, "Minimal gated unit for recurrent neural
//! networks"), with its gate applied after the product as in PyTorch's GRU:
//!
//! f = σ(p_f + q_f), n = tanh(p_n + f q_n), h = (1 − f) h' + f n, with p = W_ih x + b_ih and q = W_hh h' + b_hh.
//!
//! The program checks the cell, then trains it to add the two marked numbers of a sequence (Hochreiter & Schmidhuber
//! 1997). `cargo run --release --example custom_cell [STEPS]`.

use refrain::nn::{
    Cell, CustomCell, Linear, Model, Parameters, Rnn, State, UnitBackward, UnitEquations, UnitForward,
    UnitState, UnitStep,
};
use refrain::ops::{self, Binary};
use refrain::optim::{Adam, AdamConfig};
use refrain::random::Stream;
use refrain::{Device, Error, Result, Tensor, check};

/// The minimal gated unit.
#[derive(Debug)]
struct Mgu;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl UnitEquations for Mgu {
    fn name(&self) -> &str {
        "mgu"
    }

    fn gates(&self) -> usize {
        2
    }

    /// q_n is multiplied by f, so its gradient differs from that of p_n.
    fn last_gate_apart(&self) -> bool {
        true
    }

    fn wgsl(&self) -> &str {
        "
        fn cell_forward(p: array<f32, GATES>, q: array<f32, GATES>, previous: CellState) -> Forward {
            let f = accurate_sigmoid(p[0] + q[0]);
            let n = accurate_tanh(p[1] + f * q[1]);
            let h = (1.0 - f) * previous.hidden + f * n;
            return Forward(array<f32, GATES>(f, n), q[1], h);
        }

        fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
            let f = step.gates[0];
            let n = step.gates[1];
            let d_n = d_hidden * f * (1.0 - n * n);
            let d_f = (d_hidden * (n - step.previous.hidden) + d_n * step.saved) * f * (1.0 - f);
            return Backward(array<f32, GATES>(d_f, d_n), d_n * f, d_hidden * (1.0 - f), 0.0);
        }
        "
    }

    fn forward(&self, p: &[f64], q: &[f64], previous: UnitState, gates: &mut [f64]) -> UnitForward {
        let f = sigmoid(p[0] + q[0]);
        let n = (p[1] + f * q[1]).tanh();
        gates.copy_from_slice(&[f, n]);
        UnitForward { saved: q[1], hidden: (1.0 - f) * previous.hidden + f * n }
    }

    fn backward(&self, step: &UnitStep<'_>, d_after: UnitState, d_gates: &mut [f64]) -> UnitBackward {
        let (f, n, d_h) = (step.gates[0], step.gates[1], d_after.hidden);
        let d_n = d_h * f * (1.0 - n * n);
        let d_f = (d_h * (n - step.previous.hidden) + d_n * step.saved) * f * (1.0 - f);
        d_gates.copy_from_slice(&[d_f, d_n]);
        UnitBackward { d_apart: d_n * f, d_hidden: d_h * (1.0 - f), d_cell: 0.0 }
    }
}

const BATCH: usize = 64;
const LENGTH: usize = 20;
/// The variance of the sum of two uniform numbers from 0 to 1: the error of always predicting 1.
const BASELINE: f64 = 1.0 / 6.0;

/// Numbers with marks \[T, B, 2\], and the sums of the two marked numbers \[B, 1\].
fn batch(device: &Device, number: u64) -> Result<(Tensor, Tensor)> {
    let random = Stream::new(5, number);
    let place = |row: usize, half: usize| {
        half * LENGTH / 2 + random.bits((row * 2 + half) as u64) as usize % (LENGTH / 2)
    };
    let numbers = Stream::new(6, number);
    let value = |step: usize, row: usize| numbers.uniform((step * BATCH + row) as u64) as f32;
    let mut inputs = Vec::with_capacity(LENGTH * BATCH * 2);
    for step in 0..LENGTH {
        for row in 0..BATCH {
            let marked = (0..2).any(|half| place(row, half) == step);
            inputs.extend([value(step, row), f32::from(u8::from(marked))]);
        }
    }
    let sums: Vec<f32> =
        (0..BATCH).map(|row| (0..2).map(|half| value(place(row, half), row)).sum()).collect();
    Ok((
        Tensor::from_slice(device, &[LENGTH, BATCH, 2], &inputs)?,
        Tensor::from_slice(device, &[BATCH, 1], &sums)?,
    ))
}

/// The mean squared error on a batch that does not occur in training.
fn evaluate(model: &Model, parameters: &Parameters) -> Result<f64> {
    let device = parameters.device();
    let (x, sums) = batch(device, 1_000_000)?;
    let (y, _) = model.infer(parameters, &x, &model.zero_state(device, BATCH)?)?;
    let last = y.download()?.split_off((LENGTH - 1) * BATCH);
    let errors = last.iter().zip(sums.download()?).map(|(found, sum)| f64::from(found - sum).powi(2));
    Ok(errors.sum::<f64>() / BATCH as f64)
}

fn main() -> Result<()> {
    let steps = std::env::args().nth(1).map_or(Ok(600), |count| count.parse());
    let steps: u64 = steps.map_err(|error| Error::Config {
        what: "STEPS".to_owned(),
        message: format!("must be a number: {error}"),
    })?;
    let device = Device::auto()?;

    let mgu = CustomCell::new(Mgu);
    let report = check::custom_cell(&mgu, &device)?;
    print!("{report}");
    if !report.passed() {
        return Err(Error::Config { what: "mgu".to_owned(), message: "fails its own checks".to_owned() });
    }

    let mut model = Model::new(1);
    let rnn = model.add("rnn", Rnn::new(Cell::Custom(mgu), 2, 32))?;
    let head = model.add("head", Linear::new(32, 1))?;
    let mut parameters = model.initialize(&device)?;
    let mut adam = Adam::new(&parameters, AdamConfig::new(0.005))?;
    let zero = rnn.zero_state(&device, BATCH)?;
    println!(
        "before: mean squared error {:.4}, {BASELINE:.4} for always predicting 1",
        evaluate(&model, &parameters)?
    );
    for step in 0..steps {
        let (x, sums) = batch(&device, step)?;
        let (states, last, rnn_trace) = rnn.forward(&parameters, &x, &zero)?;
        let (y, head_trace) = head.forward(&parameters, &last.hidden())?;
        let d_y =
            ops::scale(&ops::binary(&y.reshape(&[BATCH, 1])?, &sums, Binary::Sub)?, 2.0 / BATCH as f32)?;
        let mut gradients = parameters.zero_gradients()?;
        let d_last = head_trace.backward(&d_y.reshape(&[1, BATCH, 1])?, &mut gradients)?;
        let none = Tensor::zeros(&device, states.shape().dimensions())?;
        rnn_trace.backward(&none, Some(&State::from_hidden(&d_last)?), &mut gradients)?;
        gradients.clip_norm(1.0)?;
        adam.step(&mut parameters, &gradients)?;
        if (step + 1) % 100 == 0 {
            println!("step {}: mean squared error {:.4}", step + 1, evaluate(&model, &parameters)?);
        }
    }
    println!("after: mean squared error {:.4}", evaluate(&model, &parameters)?);
    Ok(())
}
