//! The copy memory task (Hochreiter & Schmidhuber 1997, as in Arjovsky, Shah & Bengio 2016): read symbols, wait
//! for a number of steps, then write the symbols. `cargo run --release --example copy [STEPS]`.

use refrain::nn::{Cell, Linear, Model, ModelState, OneHot, Parameters, Rnn};
use refrain::optim::{Adam, AdamConfig};
use refrain::random::Stream;
use refrain::{Device, IGNORED, Indices, Result, loss};

const BATCH: usize = 32;
/// The number of different symbols, and how many of them a sequence contains.
const SYMBOLS: usize = 4;
const REMEMBERED: usize = 3;
/// The number of blank steps between the last symbol read and the first one written.
const GAP: usize = 10;
const STEPS: usize = 2 * REMEMBERED + GAP;
/// The tokens other than symbols: blank, and the signal to write.
const BLANK: u32 = SYMBOLS as u32;
const WRITE: u32 = SYMBOLS as u32 + 1;

/// Inputs and targets \[T, B\] of batch `number`: symbols, blanks, then one signal per symbol; only the steps with a
/// signal have targets.
fn batch(device: &Device, number: u64) -> Result<(Indices, Indices)> {
    let random = Stream::new(3, number);
    let symbol = |step: usize, row: usize| random.bits((step * BATCH + row) as u64) % SYMBOLS as u32;
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        for row in 0..BATCH {
            let (input, target) = match step {
                step if step < REMEMBERED => (symbol(step, row), IGNORED),
                step if step < REMEMBERED + GAP => (BLANK, IGNORED),
                step => (WRITE, symbol(step - REMEMBERED - GAP, row)),
            };
            inputs.push(input);
            targets.push(target);
        }
    }
    let sizes = [STEPS, BATCH];
    Ok((Indices::from_slice(device, &sizes, &inputs)?, Indices::from_slice(device, &sizes, &targets)?))
}

/// The loss, and the fraction of correctly written symbols, on a batch that does not occur in training.
fn evaluate(model: &Model, parameters: &Parameters, zero: &ModelState) -> Result<(f32, f64)> {
    let (inputs, targets) = batch(parameters.device(), 1_000_000)?;
    let (logits, _) = model.infer(parameters, &inputs, zero)?;
    let (loss, _) = loss::cross_entropy(&logits, &targets)?;
    let likeliest = |row: &[f32]| (0..SYMBOLS).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let values = logits.download()?;
    let written = values.chunks(SYMBOLS).map(likeliest).zip(targets.values());
    let right = written.filter(|(symbol, target)| *symbol == Some(**target as usize)).count();
    Ok((loss.read()?, right as f64 / targets.counted() as f64))
}

fn main() -> Result<()> {
    let steps = std::env::args().nth(1).map_or(Ok(600), |count| count.parse());
    let steps: u64 = steps.map_err(|error| refrain::Error::Config {
        what: "STEPS".to_owned(),
        message: format!("must be a number: {error}"),
    })?;
    let device = Device::auto()?;
    let mut model = Model::new(1);
    model.add("one_hot", OneHot::new(SYMBOLS + 2))?;
    model.add("rnn", Rnn::new(Cell::Gru, SYMBOLS + 2, 64))?;
    model.add("head", Linear::new(64, SYMBOLS))?;
    let mut parameters = model.initialize(&device)?;
    let mut adam = Adam::new(&parameters, AdamConfig::new(0.01))?;
    let zero = model.zero_state(&device, BATCH)?;

    // Without memory all symbols are equally likely.
    let memoryless = (SYMBOLS as f64).ln();
    let (before, right) = evaluate(&model, &parameters, &zero)?;
    println!("device {device}; without a memory: loss {memoryless:.4}, {:.3} correct", 1.0 / SYMBOLS as f64);
    println!("before: loss {before:.4}, {right:.3} correct");
    for step in 1..=steps {
        let (inputs, targets) = batch(&device, step)?;
        let (logits, _, trace) = model.forward(&parameters, &inputs, &zero)?;
        let (loss, d_logits) = loss::cross_entropy(&logits, &targets)?;
        let mut gradients = parameters.zero_gradients()?;
        trace.backward(&d_logits, &mut gradients)?;
        gradients.clip_norm(1.0)?;
        adam.step(&mut parameters, &gradients)?;
        if step % 100 == 0 {
            println!("step {step:3}: loss {:.4}", loss.read()?);
        }
    }
    let (after, right) = evaluate(&model, &parameters, &zero)?;
    println!("after:  loss {after:.4}, {right:.3} correct");
    Ok(())
}
