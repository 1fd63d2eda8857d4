//! Trains a character model on one sentence and prints its loss: `cargo run --release --example train`.

use refrain::data::{Vocabulary, Windows};
use refrain::nn::{Cell, Embedding, Linear, Model, Rnn};
use refrain::optim::{Adam, AdamConfig};
use refrain::{Device, loss};

fn main() -> refrain::Result<()> {
    let text = "the rain in spain stays mainly in the plain. ".repeat(40);
    let vocabulary = Vocabulary::of(&text)?;
    let windows = Windows::new(vocabulary.encode(&text)?, 8, 16)?;

    let device = Device::auto()?;
    println!("device: {device}");
    let mut model = Model::new(1);
    model.add("embedding", Embedding::new(vocabulary.len(), 16))?;
    model.add("rnn", Rnn::new(Cell::tanh(), 16, 64))?;
    model.add("head", Linear::new(64, vocabulary.len()))?;
    let mut parameters = model.initialize(&device)?;
    let mut adam = Adam::new(&parameters, AdamConfig::new(0.01))?;

    let mut state = model.zero_state(&device, 8)?;
    for step in 1..=60 {
        let window = windows.window(step - 1);
        if window.begins {
            state = model.zero_state(&device, 8)?;
        }
        let (tokens, targets) = window.to_device(&device)?;
        let (logits, next, trace) = model.forward(&parameters, &tokens, &state)?;
        let (loss, d_logits) = loss::cross_entropy(&logits, &targets)?;
        let mut gradients = parameters.zero_gradients()?;
        trace.backward(&d_logits, &mut gradients)?;
        gradients.clip_norm(1.0)?;
        adam.step(&mut parameters, &gradients)?;
        state = next;
        if step % 10 == 0 {
            println!("step {step:3}: loss {:.4}", loss.read()?);
        }
    }
    Ok(())
}
