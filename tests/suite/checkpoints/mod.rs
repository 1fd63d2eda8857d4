//! Checkpointing over time: it changes no bit of what a stack gives and learns from, keeps to its budget, and is refused
//! where it makes no sense.
//!
//! Here stand the sizes of a pass, the kinds of it, and all that one yields; the rooms compare them.

mod memory;
mod options;
mod passes;

use libtest_mimic::Failed;
use refrain::nn::{Layer, Model, Parameters, RandomKey, Rnn, Sequences, State};
use refrain::random::Stream;
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Outcome, Suite};
use crate::support::{all_gradients, random};

/// Gradients of weights are summed in blocks of this many steps of [`BATCH`] rows.
const BLOCK: usize = 4;
const BATCH: usize = 128;
/// Five blocks and a part of one.
const STEPS: usize = 5 * BLOCK + 3;
const INPUTS: usize = 3;
const HIDDEN: usize = 5;
/// No multiple of a block: segments of two, and a shorter one at the end.
const EVERY: usize = BLOCK + 1;

/// What a pass is like beside its cell.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Dropout between layers and on recurrent weights.
    Random,
    /// Rows of all lengths, empty ones among them, with resets.
    Ragged,
    /// As `Ragged`, in chunks whose ends are and are not those of segments.
    Chunks(usize),
    /// As `Ragged`, with a bound on the gradient at the state.
    Clipped,
    /// Residual connections, locked masks on inputs and a learned initial state, with everything else.
    Learned,
}

impl Kind {
    fn of(self, stack: Rnn) -> Rnn {
        match self {
            Self::Random => {
                let second = if stack.cell().has_cell_state() { 0.5 } else { 0.0 };
                stack.dropout(0.3).weight_drop(0.4).recurrent_dropout(0.2).zoneout(0.3, second)
            }
            Self::Ragged => stack,
            Self::Chunks(steps) => stack.truncated(steps),
            // So narrow that it holds in many places.
            Self::Clipped => stack.clip_gradient(0.02),
            Self::Learned => {
                stack.dropout(0.3).input_dropout(0.2).weight_drop(0.4).residual().learned_initial_state()
            }
        }
    }

    fn is_ragged(self) -> bool {
        !matches!(self, Self::Random)
    }

    fn is_random(self) -> bool {
        matches!(self, Self::Random | Self::Learned)
    }
}

fn indices(device: &Device, stream: u64, dimensions: &[usize], of: impl Fn(u32) -> u32) -> Result<Indices> {
    let stream = Stream::new(9, stream);
    let count = dimensions.iter().product::<usize>() as u64;
    let values: Vec<u32> = (0..count).map(|index| of(stream.bits(index))).collect();
    Indices::from_slice(device, dimensions, &values)
}

/// A number of a pass: what it is of, and its values.
type Named = (&'static str, Vec<f64>);

fn state_values(name: &'static str, state: &State) -> Result<Named> {
    let mut values = state.hidden().download_f64()?;
    if let Some(cell) = state.cell() {
        values.extend(cell.download_f64()?);
    }
    Ok((name, values))
}

/// A state whose parts are random.
fn random_state(device: &Device, like: &State, stream: u64) -> Result<State> {
    let part = |like: &Tensor, stream| random(device, stream, like.shape().dimensions(), 0.5);
    let hidden = part(&like.hidden(), stream)?;
    match like.cell() {
        Some(cell) => State::from_hidden_and_cell(&hidden, &part(&cell, stream + 1)?),
        None => State::from_hidden(&hidden),
    }
}

struct Built {
    layer: Layer<Rnn>,
    parameters: Parameters,
}

impl Built {
    fn new(device: &Device, stack: &Rnn) -> Result<Self> {
        let mut model = Model::new(4);
        let layer = model.add("rnn", stack.clone())?;
        let mut parameters = model.initialize(device)?;
        // Initial states that are learned begin at zero, which would hide them.
        let names: Vec<String> = parameters.names().map(str::to_owned).collect();
        for name in names.iter().filter(|name| name.contains("initial")) {
            parameters.set(name, &[5], &[0.3, -0.2, 0.5, 0.1, -0.4])?;
        }
        Ok(Self { layer, parameters })
    }

    /// All that a pass yields, gradients twice over: the second time added to the first.
    fn pass(&self, device: &Device, kind: Kind) -> Result<Vec<Named>> {
        let Self { layer, parameters } = self;
        let x = random(device, 901, &[STEPS, BATCH, INPUTS], 1.0)?;
        let lengths = indices(device, 902, &[BATCH], |bits| bits % (STEPS + 1) as u32)?;
        let resets = indices(device, 903, &[STEPS, BATCH], |bits| u32::from(bits % 11 == 0))?;
        let mut sequences = match kind.is_ragged() {
            true => Sequences::ragged(&lengths).resets(&resets),
            false => Sequences::whole(),
        };
        if kind.is_random() {
            sequences = sequences.training(RandomKey::new(6, 3));
        }
        let zero = layer.zero_state(device, BATCH)?;
        let initial = match kind {
            Kind::Learned => layer.initial_state(parameters, BATCH)?,
            _ => random_state(device, &zero, 904)?,
        };
        let d_last = random_state(device, &zero, 906)?;
        let mut gradients = parameters.zero_gradients()?;
        let mut all = Vec::new();
        for pass in 0..2 {
            let (y, last, trace) = layer.forward_sequences(parameters, &x, &initial, sequences)?;
            let d_y = random(device, 908 + pass, y.shape().dimensions(), 1.0)?;
            let (d_x, d_initial) = trace.backward(&d_y, Some(&d_last), &mut gradients)?;
            all.push(("y", y.download_f64()?));
            all.push(state_values("the final state", &last)?);
            all.push(("d_x", d_x.download_f64()?));
            all.push(state_values("d_initial", &d_initial)?);
            all.push(("the gradients", all_gradients(parameters, &gradients)?));
        }
        Ok(all)
    }
}

/// Fails unless both hold the same bits; NaN anywhere fails too.
fn expect_same(what: &str, one: &[Named], two: &[Named]) -> Outcome {
    for ((name, one), (_, two)) in one.iter().zip(two) {
        let differs = |(a, b): (&f64, &f64)| a.to_bits() != b.to_bits() || a.is_nan();
        if let Some(place) = one.iter().zip(two).position(differs) {
            let (a, b) = (one[place], two[place]);
            return Err(Failed::from(format!("{what}: {name}[{place}]: {a:e} and {b:e}")));
        }
        if one.len() != two.len() {
            return Err(Failed::from(format!("{what}: {name} has {} and {} values", one.len(), two.len())));
        }
    }
    Ok(())
}

/// A model of one stack, for its cost.
fn model(stack: Rnn) -> Result<(Model, Layer<Rnn>)> {
    let mut model = Model::new(1);
    let layer = model.add("rnn", stack)?;
    Ok((model, layer))
}

pub(crate) fn register(suite: &mut Suite) {
    passes::register(suite);
    memory::register(suite);
    options::register(suite);
}
