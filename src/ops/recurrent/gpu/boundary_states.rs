//! Boundary states of the time loop on the GPU: the state before each step, the final state, the gradient of the
//! initial state. Kernels: `shaders/recurrent/states/{select_step,previous_states}.wgsl`. CPU reference:
//! `src/ops/recurrent/cpu/time_loop.rs`.

use super::operands::copy;
use super::split_k::{SplitK, send};
use super::step_flags::StepFlags;
use crate::Result;
use crate::gpu::{Context, Operand, Span, kernels, parameters, pieces};
use crate::ops::dropout::dropout_add_into;
use crate::ops::elementwise::add_into;
use crate::ops::recurrent::traversal::Traversal;
use crate::ops::recurrent::{Call, Direction, Sizes, StateTensors};
use crate::ops::{Activation, Form, matmul, unary};
use crate::shape::Shape;
use crate::tensor::{Tensor, View};

parameters!(SelectStepParameters {
    count: u32,
    /// Index of the first element of this dispatch in the block.
    first: u32,
    rows: u32,
    steps: u32,
    columns: u32,
    x_base: u32,
    x_width: u32,
    y_base: u32,
    y_width: u32,
    lengths_base: u32,
    step_flags_base: u32,
    /// The bound steps; rows whose step is not among them are left to other dispatches.
    first_step: u32,
    bound_steps: u32,
});
parameters!(PreviousParameters {
    count: u32,
    rows: u32,
    steps: u32,
    hidden_size: u32,
    width: u32,
    output_base: u32,
    initial_base: u32,
    step_flags_base: u32,
    y_base: u32,
    /// Index of the first element of this dispatch in the bound part of y.
    y_first: u32,
    /// The first bound step of y, and of the output.
    first_step: u32,
    first_bound: u32,
});

kernels! {
    SELECT_STEP: "recurrent/states/select_step" {
        uses: ["lib/elements", "recurrent/common/step_flag_bits"],
        parameters: SelectStepParameters,
        constants: [("LAST", 2), ("RAGGED", 2), ("HAS_STEP_FLAGS", 2)],
        bindings: [Read, Read, Read, Write],
    }
    PREVIOUS: "recurrent/states/previous_states" {
        uses: ["lib/elements", "recurrent/common/step_flag_bits"],
        parameters: PreviousParameters,
        constants: [("REVERSED", 2), ("HAS_STEP_FLAGS", 2)],
        bindings: [Read, Read, Read, Write],
    }
}

/// Which step of each row is selected.
#[derive(Clone, Copy, PartialEq)]
enum End {
    First,
    Last,
}

/// The array [T, B, width] to select from, columns from `column` on.
#[derive(Clone, Copy)]
struct Source<'a> {
    span: Span<'a>,
    column: usize,
}

/// The column block [B, width] to write.
struct SelectTarget<'a> {
    span: Span<'a>,
    column: usize,
    columns: usize,
}

fn select_step(
    context: &Context,
    traversal: &Traversal<'_>,
    sizes: Sizes,
    end: End,
    step_flags: StepFlags<'_>,
    from: Source<'_>,
    to: &SelectTarget<'_>,
) -> Result<()> {
    let Sizes { steps, rows, .. } = sizes;
    let step = from.span.len() / steps;
    let y = context.bind(to.span)?;
    let lengths = traversal.lengths.map(|lengths| context.bind(lengths.span())).transpose()?;
    // Without lengths the selected step is the same for every row: only that step is bound.
    let only = match (lengths, end) {
        (None, End::First) => 0..1,
        (None, End::Last) => steps - 1..steps,
        _ => 0..steps,
    };
    let fitting = (context.limits().binding_elements / step).max(1);
    for piece in pieces(only.len(), fitting) {
        let bound = only.start + piece.start..only.start + piece.end;
        let x = context.bind(from.span.slice(bound.start * step..bound.end * step))?;
        let step_flags = step_flags.bind(context, bound.start * rows..bound.end * rows)?;
        let constants = [(end == End::Last).into(), lengths.is_some().into(), step_flags.is_some().into()];
        let operands = [x, lengths.unwrap_or(x), step_flags.unwrap_or(x), y].map(Operand::All);
        context.elementwise(&SELECT_STEP, &constants, rows * to.columns, operands, |part, bases| {
            SelectStepParameters {
                count: part.len() as u32,
                first: part.start as u32,
                rows: rows as u32,
                steps: steps as u32,
                columns: to.columns as u32,
                x_base: x.base + from.column as u32,
                x_width: (step / rows) as u32,
                y_base: y.base + to.column as u32,
                y_width: (to.span.len() / rows) as u32,
                lengths_base: bases[1],
                step_flags_base: bases[2],
                first_step: bound.start as u32,
                bound_steps: bound.len() as u32,
            }
        })?;
    }
    Ok(())
}

/// Returns the state after each row's last step.
pub(crate) fn last_state(
    context: &Context,
    call: &Call<'_>,
    sizes: Sizes,
    output: &Tensor,
    saved: Option<&Tensor>,
) -> Result<StateTensors> {
    let Sizes { rows, hidden_size, projection_size, .. } = sizes;
    // The reverse direction computes the first step in time last.
    let end = if call.traversal.direction == Direction::Forward { End::Last } else { End::First };
    let part = |width: usize, from: Source<'_>, initial: View<'_>| {
        let part = match call.traversal.has_empty_rows() {
            true => copy(initial, &[rows, width])?,
            false => Tensor::unwritten(output.device(), &[rows, width])?,
        };
        let target = SelectTarget { span: part.view().span(), column: 0, columns: width };
        select_step(context, &call.traversal, sizes, end, StepFlags { span: None }, from, &target)?;
        Ok::<_, crate::Error>(part)
    };
    let cell = match (call.initial.cell, saved) {
        (Some(initial), Some(saved)) => {
            Some(part(hidden_size, Source { span: saved.view().span(), column: 0 }, initial)?)
        }
        _ => None,
    };
    let own = Source { span: output.view().span(), column: call.column };
    Ok(StateTensors { hidden: part(projection_size, own, call.initial.hidden)?, cell })
}

/// An array of states [T, B, width], of which the columns from `column` on are read, and the state before the
/// first step.
pub(crate) struct States<'a> {
    pub(crate) states: &'a Tensor,
    pub(crate) column: usize,
    pub(crate) columns: usize,
    pub(crate) initial: View<'a>,
}

/// Returns the state before each step [T, B, columns], with zeros in the padding.
pub(crate) fn previous(
    context: &Context,
    call: &Call<'_>,
    sizes: Sizes,
    of: &States<'_>,
    step_flags: StepFlags<'_>,
) -> Result<Tensor> {
    let Sizes { steps, rows, .. } = sizes;
    let (output, hidden) = (of.states, of.columns);
    let y = Tensor::uninitialized(context, output.device(), Shape::new(&[steps, rows, hidden])?)?;
    let width = output.shape().last();
    let initial = context.bind(of.initial.span())?;
    let fitting = (context.limits().binding_elements / (rows * width)).saturating_sub(1).max(1);
    for chunk in pieces(steps, fitting) {
        // A step's predecessor is the previous step in time, or the next one in reverse.
        let around = match call.traversal.direction {
            Direction::Forward => chunk.start.saturating_sub(1)..chunk.end,
            Direction::Reverse => chunk.start..(chunk.end + 1).min(steps),
        };
        let step = rows * width;
        let source = context.bind(output.view().span().slice(around.start * step..around.end * step))?;
        let step_flags = step_flags.bind(context, chunk.start * rows..chunk.end * rows)?;
        let own = y.view().span().slice(chunk.start * rows * hidden..chunk.end * rows * hidden);
        let constants = [call.traversal.reversed().into(), step_flags.is_some().into()];
        let [flags, target] = [Operand::All(step_flags.unwrap_or(source)), Operand::Each(own)];
        let operands = [Operand::All(source), Operand::All(initial), flags, target];
        context.elementwise(&PREVIOUS, &constants, own.len(), operands, |piece, bases| {
            PreviousParameters {
                count: piece.len() as u32,
                rows: rows as u32,
                steps: steps as u32,
                hidden_size: hidden as u32,
                width: width as u32,
                output_base: source.base + of.column as u32,
                initial_base: initial.base,
                step_flags_base: bases[2],
                y_base: bases[3],
                y_first: piece.start as u32,
                first_step: chunk.start as u32,
                first_bound: around.start as u32,
            }
        })?;
    }
    Ok(y)
}

/// The gate gradients of one step of every row, or of all steps.
#[derive(Clone, Copy)]
pub(crate) struct GateGradients<'a> {
    /// The gradient of the gates [.., B, G·H].
    pub(crate) gates: Span<'a>,
    /// The gradient of the last gate's recurrent part [.., B, H], where it differs.
    pub(crate) apart: Option<Span<'a>>,
}

/// Returns the gradient of the initial state [B, P]: `carry` plus each row's first gate gradients times W_hh,
/// clipped where the layer has a bound. For rows without steps it is the carry, unclipped. With `split`, the
/// product is computed in the same split-K slices as in the steps, so that a state inside a sequence gets the
/// same bits.
pub(crate) fn d_initial(
    context: &Context,
    call: &Call<'_>,
    sizes: Sizes,
    of: GateGradients<'_>,
    carry: View<'_>,
    step_flags: StepFlags<'_>,
    split: Option<SplitK>,
) -> Result<Tensor> {
    let Sizes { rows, hidden_size, projection_size, .. } = sizes;
    let equations = &call.equations;
    let all = equations.gates() * hidden_size;
    // The last gate may have sent its part already, in a separate product.
    let width = if equations.resets_before() { all - hidden_size } else { all };
    let empty = call.traversal.has_empty_rows();
    let sent = match empty {
        true => Tensor::zeros(carry.device(), &[rows, width])?,
        false => Tensor::unwritten(carry.device(), &[rows, width])?,
    };
    let end = if call.traversal.direction == Direction::Forward { End::First } else { End::Last };
    let gather = |span: Span<'_>, column: usize, columns: usize| {
        let target = SelectTarget { span: sent.view().span(), column, columns };
        select_step(context, &call.traversal, sizes, end, step_flags, Source { span, column: 0 }, &target)
    };
    match of.apart {
        Some(apart) => {
            gather(of.gates, 0, all - hidden_size)?;
            gather(apart, all - hidden_size, hidden_size)?;
        }
        None => gather(of.gates, 0, width)?,
    }
    let mut d_initial = copy(carry, &[rows, projection_size])?;
    let weight = call.weights.weight_hh.outer(0..width)?;
    let product = match split {
        Some(split) => send(context, split, sent.view(), weight)?,
        None => matmul(&sent, weight, Form::Plain, None)?,
    };
    match call.state_mask {
        Some(mask) => dropout_add_into(d_initial.view_mut()?, product.view(), mask)?,
        None => add_into(d_initial.view_mut()?, product.view())?,
    }
    match equations.options.clip_gradient {
        Some(bound) => {
            let bounded = unary(&d_initial, Activation::HardTanh { low: -bound, high: bound })?;
            // The gradient of the final state is not clipped, so it passes through a row without steps
            // unchanged.
            if empty { but_empty_rows(context, &call.traversal, &bounded, carry) } else { Ok(bounded) }
        }
        None => Ok(d_initial),
    }
}

/// Returns `result` [B, width], with `operands` in the rows without steps.
pub(crate) fn but_empty_rows(
    context: &Context,
    traversal: &Traversal<'_>,
    result: &Tensor,
    operands: View<'_>,
) -> Result<Tensor> {
    let [rows, width] = result.shape().exactly("a state", "[batch, width]")?;
    let all = copy(operands, &[rows, width])?;
    let target = SelectTarget { span: all.view().span(), column: 0, columns: width };
    let own = Source { span: result.view().span(), column: 0 };
    // A sequence of one step.
    let sizes = Sizes { steps: 1, rows, hidden_size: width, projection_size: width };
    select_step(context, traversal, sizes, End::First, StepFlags { span: None }, own, &target)?;
    Ok(all)
}
