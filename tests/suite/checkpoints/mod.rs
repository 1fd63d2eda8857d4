//! Checkpointing over time: it changes no bit of what a stack gives and learns from, keeps to its budget, and is refused
//! where it makes no sense.
//!
//! Here stand the sizes of a pass, the kinds of it, and all that one yields; the rooms compare them.

mod memory;
mod options;
mod passes;

use refrain::nn::{Layer, Model, RandomKey, Rnn, Sequences};
use refrain::random::Stream;
use refrain::{Device, Indices, Result};

use crate::adapters::{Outcome, Suite};
use crate::stacks::Stack;
use crate::support::{expect_same_bits, random};

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

/// The results of passes, by name.
type Named = (&'static str, Vec<f64>);

/// A stack whose learned initial states are not zero, where they begin, which would hide them.
fn built(device: &Device, stack: &Rnn) -> Result<Stack> {
    let mut built = Stack::new(device, stack.clone())?;
    let names: Vec<String> = built.parameters.names().map(str::to_owned).collect();
    for name in names.iter().filter(|name| name.contains("initial")) {
        built.parameters.set(name, &[5], &[0.3, -0.2, 0.5, 0.1, -0.4])?;
    }
    Ok(built)
}

/// All that two passes of a stack yield; the gradients of the second are added to those of the first.
fn passes(device: &Device, stack: &Rnn, kind: Kind) -> Result<Vec<Named>> {
    let stack = built(device, stack)?;
    let lengths = indices(device, 902, &[BATCH], |bits| bits % (STEPS + 1) as u32)?;
    let resets = indices(device, 903, &[STEPS, BATCH], |bits| u32::from(bits % 11 == 0))?;
    let mut sequences = match kind.is_ragged() {
        true => Sequences::ragged(&lengths).resets(&resets),
        false => Sequences::whole(),
    };
    if kind.is_random() {
        sequences = sequences.training(RandomKey::new(6, 3));
    }
    let mut operands = stack.operands([STEPS, BATCH])?;
    if matches!(kind, Kind::Learned) {
        operands.initial = stack.layer.initial_state(&stack.parameters, BATCH)?;
    }
    let mut gradients = stack.parameters.zero_gradients()?;
    let mut all = Vec::new();
    for stream in [908, 909] {
        operands.d_y = random(device, stream, operands.d_y.shape().dimensions(), 1.0)?;
        all.extend(stack.adding_pass(&operands, sequences, &mut gradients)?.0.values()?);
    }
    Ok(all)
}

/// Fails unless both hold the same bits; NaN anywhere fails too.
fn expect_same(what: &str, one: &[Named], two: &[Named]) -> Outcome {
    let mut both = one.iter().zip(two);
    both.try_for_each(|((name, one), (_, two))| expect_same_bits(&format!("{what}: {name}"), one, two))
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
