//! Rows of length 0: nothing happens in them, and the other rows do not notice.

use refrain::nn::{Cell, Merge, Rnn, Sequences, State};
use refrain::ops::Activation;
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu_strategies};
use crate::custom::RIGHT;
use crate::stacks::{Operands, Pass, Stack};
use crate::support::{by_entry, components, expect_close, expect_same_bits};

const INPUTS: usize = 2;

const STEPS: usize = 5;
/// Empty rows at either end and inside, alone and with others. A GPU shares out the sums of a step by the number of rows, the same
/// way for up to four: only there the bits of a batch and of a part of it are equal.
const LENGTHS: [&[u32]; 5] = [&[0], &[0, 0, 0], &[0, 3], &[5, 0, 1, 0], &[0, 2, 0, 5, 3, 0, 1, 4, 0]];

/// Every cell, and whatever treats the state, the gradient at it or the outputs of a row in a way of its own.
fn cases() -> Vec<Rnn> {
    let of = |cell| Rnn::new(cell, INPUTS, 6);
    let elu = Activation::Elu { alpha: 0.7 };
    vec![
        of(Cell::tanh()).layers(2),
        of(Cell::Vanilla(elu)).reverse().truncated(2),
        of(Cell::Lstm).bidirectional().layers(2).residual(),
        of(Cell::Lstm).peepholes().projection(4).clip_gradient(0.05).bidirectional(),
        of(Cell::Lstm).layer_norm().bidirectional().merge(Merge::Mean),
        of(Cell::Lstm).clip_gradient(0.05).windowed(2),
        of(Cell::Gru).bidirectional().merge(Merge::Sum),
        of(Cell::Gru).reset_before().reverse().layers(2).residual(),
        of(Cell::Gru).layer_norm().layers(2),
        of(Cell::Gru).clip_gradient(0.05).truncated_every(3, 4),
        of(Cell::Custom(RIGHT.clone())).bidirectional(),
    ]
}

/// The entries of some rows in an array [.., B, width].
fn rows_of(values: &[f64], batch: usize, width: usize, keep: &[usize]) -> Vec<f64> {
    let blocks = values.chunks(batch * width);
    blocks
        .flat_map(|block| keep.iter().flat_map(move |row| &block[row * width..][..width]))
        .copied()
        .collect()
}

fn tensor_of(all: &Tensor, keep: &[usize]) -> Result<Tensor> {
    let [first, batch, width] = all.shape().exactly("an array", "[.., batch, width]")?;
    let own = rows_of(&all.download_f64()?, batch, width, keep);
    Tensor::from_slice_f64(all.device(), &[first, keep.len(), width], &own)
}

fn state_of(all: &State, keep: &[usize]) -> Result<State> {
    let hidden = tensor_of(&all.hidden(), keep)?;
    match all.cell() {
        Some(cell) => State::from_hidden_and_cell(&hidden, &tensor_of(&cell, keep)?),
        None => State::from_hidden(&hidden),
    }
}

fn empty_rows_change_nothing(device: &Device, stack: &Rnn, lengths: &[u32]) -> Outcome {
    let what = format!("{stack:?}, {lengths:?}");
    let batch = lengths.len();
    let stack = Stack::new(device, stack.clone())?;
    let operands = stack.operands([STEPS, batch])?;
    let indices = |values: &[u32]| Indices::from_slice(device, &[values.len()], values);
    let pass = stack.pass(&operands, Sequences::ragged(&indices(lengths)?))?;
    let (empty, others): (Vec<usize>, Vec<usize>) = (0..batch).partition(|&row| lengths[row] == 0);

    // Outputs and gradients at the input are zero, and states and gradients at them pass.
    for (name, own) in [("y", &pass.y), ("d_x", &pass.d_x)] {
        let own = tensor_of(own, &empty)?.download_f64()?;
        assert!(own.iter().all(|&value| value == 0.0), "{what}: {name} of the empty rows is {own:?}");
    }
    for (after, before) in [(&pass.last, &operands.initial), (&pass.d_initial, &operands.d_last)] {
        let [after, before] = [after, before].map(|state| state_of(state, &empty));
        expect_same_bits(&what, &components(&after?)?.concat(), &components(&before?)?.concat())?;
    }
    if others.is_empty() {
        assert!(pass.gradients.iter().all(|&value| value == 0.0), "{what}: {:?}", pass.gradients);
        return Ok(());
    }

    // The other rows are those of a batch without the empty ones.
    let without: Vec<u32> = others.iter().map(|&row| lengths[row]).collect();
    let without = stack.pass(
        &Operands {
            x: tensor_of(&operands.x, &others)?,
            d_y: tensor_of(&operands.d_y, &others)?,
            initial: state_of(&operands.initial, &others)?,
            d_last: state_of(&operands.d_last, &others)?,
        },
        Sequences::ragged(&indices(&without)?),
    )?;
    let of_others = Pass {
        y: tensor_of(&pass.y, &others)?,
        last: state_of(&pass.last, &others)?,
        d_x: tensor_of(&pass.d_x, &others)?,
        d_initial: state_of(&pass.d_initial, &others)?,
        gradients: pass.gradients,
    };
    of_others.expect_same_rows(&what, &without)?;
    // The same terms, and zeros between them.
    let rounding = by_entry(200.0 * f64::from(f32::EPSILON), &without.gradients);
    expect_close(&what, &of_others.gradients, &without.gradients, rounding)
}

fn all(device: &Device, stacks: &[Rnn], lengths: &[&[u32]]) -> Outcome {
    for stack in stacks {
        for lengths in lengths {
            empty_rows_change_nothing(device, stack, lengths)?;
        }
    }
    Ok(())
}

fn rows_of_length_zero_pass_the_state_and_change_no_other_row_on_the_cpu() -> Outcome {
    all(&Device::cpu(), &cases(), &LENGTHS)?;
    all(&Device::reference(), &cases(), &LENGTHS)
}

fn rows_of_length_zero_pass_the_state_and_change_no_other_row(adapter: &Adapter) -> Outcome {
    // All but the first and the last few, whose ways others have too.
    all(&adapter.open()?, &cases()[1..7], &LENGTHS[..4])
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(suite, rows_of_length_zero_pass_the_state_and_change_no_other_row_on_the_cpu);
    on_gpu_strategies!(suite, rows_of_length_zero_pass_the_state_and_change_no_other_row);
}
