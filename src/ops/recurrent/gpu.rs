//! Dispatch of `shaders/recurrent_{forward,backward}.wgsl`: one call for each time step, in one pass.

use super::stretch::{Arrays, Reach, blocks};
use super::support::{self, Marks};
use super::{Call, Cell, Gradients, Sizes, StateView, Steps, custom};
use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel, Span, kernel, parameters};
use crate::ops::Activation;
use crate::shape::Shape;
use crate::tensor::{Tensor, View, ViewMut};

parameters!(ForwardParameters {
    rows: u32,
    hidden: u32,
    width: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    bias_base: u32,
    has_bias: u32,
    initial_base: u32,
    initial_cell_base: u32,
    marks_base: u32,
    gates_base: u32,
    output_base: u32,
    saved_base: u32,
    previous_output_base: u32,
    previous_saved_base: u32,
    starts: u32,
    alpha: f32,
    beta: f32,
});
parameters!(BackwardParameters {
    rows: u32,
    hidden: u32,
    width: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    marks_base: u32,
    next_marks_base: u32,
    next_gates_base: u32,
    next_saved_base: u32,
    output_base: u32,
    d_output_base: u32,
    previous_output_base: u32,
    gates_base: u32,
    saved_base: u32,
    previous_saved_base: u32,
    carry_base: u32,
    carry_cell_base: u32,
    starts: u32,
    ends: u32,
    alpha: f32,
    beta: f32,
});

/// Declares the two step kernels of a cell.
macro_rules! cell_kernels {
    ($forward:ident: $forward_name:literal, $backward:ident: $backward_name:literal,
     files: [$($file:literal),+], constants: [$($constant:tt),*]) => {
        kernel!($forward: $forward_name {
            files: ["math", "recurrent_marks", "recurrent", $($file),+, "recurrent_forward"],
            parameters: ForwardParameters,
            constants: [("MARKED", 2) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Write, Write, Write],
        });
        kernel!($backward: $backward_name {
            files: ["math", "recurrent_marks", "recurrent", $($file),+, "recurrent_backward"],
            parameters: BackwardParameters,
            constants: [("MARKED", 2) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Read, Write, Write, Write],
        });
    };
}

cell_kernels!(
    VANILLA_FORWARD: "recurrent_forward.vanilla", VANILLA_BACKWARD: "recurrent_backward.vanilla",
    files: ["activations", "cells/vanilla"], constants: [("FUNCTION", Activation::ALL.len() as u32)]
);
cell_kernels!(
    LSTM_FORWARD: "recurrent_forward.lstm", LSTM_BACKWARD: "recurrent_backward.lstm",
    files: ["cells/lstm"], constants: []
);
cell_kernels!(
    GRU_FORWARD: "recurrent_forward.gru", GRU_BACKWARD: "recurrent_backward.gru",
    files: ["cells/gru"], constants: []
);

#[cfg(test)]
pub(crate) static KERNELS: &[&Kernel] =
    &[&VANILLA_FORWARD, &VANILLA_BACKWARD, &LSTM_FORWARD, &LSTM_BACKWARD, &GRU_FORWARD, &GRU_BACKWARD];

/// What the step kernels of a user's cell are made of.
pub(super) struct Template {
    /// The stem of the step's file.
    pub(super) stem: &'static str,
    /// All WGSL but the cell's.
    pub(super) around: &'static str,
    /// A kernel with the same parameters and bindings.
    pub(super) like: &'static Kernel,
}

/// A step's WGSL without the cell.
macro_rules! around {
    ($($file:literal),+) => {
        concat!($(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file, ".wgsl"))),+)
    };
}

/// Those of the forward and the backward step.
pub(super) fn templates() -> [Template; 2] {
    [
        Template {
            stem: "recurrent_forward",
            around: around!("math", "recurrent_marks", "recurrent", "recurrent_forward"),
            like: &LSTM_FORWARD,
        },
        Template {
            stem: "recurrent_backward",
            around: around!("math", "recurrent_marks", "recurrent", "recurrent_backward"),
            like: &LSTM_BACKWARD,
        },
    ]
}

/// What a cell brings to the two step kernels.
pub(super) struct CellKernels {
    pub(super) forward: &'static Kernel,
    pub(super) backward: &'static Kernel,
    /// Values of the constants after MARKED.
    pub(super) constants: Option<u32>,
    pub(super) alpha: f32,
    pub(super) beta: f32,
}

impl CellKernels {
    fn of(cell: Cell) -> Result<Self> {
        let plain = |forward, backward| Self { forward, backward, constants: None, alpha: 0.0, beta: 0.0 };
        Ok(match cell {
            Cell::Vanilla(activation) => {
                let (alpha, beta) = activation.constants();
                let constants = Some(activation.code());
                Self { constants, alpha, beta, ..plain(&VANILLA_FORWARD, &VANILLA_BACKWARD) }
            }
            Cell::Lstm => plain(&LSTM_FORWARD, &LSTM_BACKWARD),
            Cell::Gru => plain(&GRU_FORWARD, &GRU_BACKWARD),
            Cell::Custom(cell) => custom::kernels(cell)?,
        })
    }

    fn constants(&self, marked: bool) -> Vec<u32> {
        std::iter::once(u32::from(marked)).chain(self.constants).collect()
    }
}

/// The state's parts as one binding, and where the cell state starts in it.
fn bind_state<'a>(context: &Context, state: StateView<'a>) -> Result<(Bound<'a>, u32)> {
    let hidden = state.hidden.span();
    let (whole, apart) = state.cell.map_or((hidden, 0), |cell| hidden.hull(&cell.span()));
    let bound = context.bind(whole)?;
    Ok((bound, bound.base + apart as u32))
}

/// What [`forward`] makes beside the gates and the output.
pub(super) struct Made {
    pub(super) saved: Option<Tensor>,
    pub(super) marks: Option<crate::gpu::Buffer>,
    pub(super) last: Tensor,
}

pub(super) fn forward(
    context: &Context,
    call: &Call<'_>,
    sizes: Sizes,
    projected: &mut Tensor,
    output: &mut Tensor,
) -> Result<Made> {
    let Sizes { steps, rows, hidden } = sizes;
    let device = projected.device().clone();
    let kernels = CellKernels::of(call.cell)?;
    let saved = match call.cell.saves() {
        true => Some(Tensor::uninitialized(context, &device, Shape::new(&[steps, rows, hidden])?)?),
        false => None,
    };
    let marks = support::marks(context, &call.walk, steps, rows)?;
    let marks_span = marks.as_ref().map(|marks| Span::new(marks, 0, steps * rows));
    let scrap = context.allocate(1, "a stand-in for what a cell does not save")?;
    let width = output.shape().last();
    {
        let (gates, target) = (projected.view_mut()?, output.view_mut()?);
        let arrays = Arrays {
            gates: (gates.span(), Reach { before: 0, after: 0 }),
            output: (target.span(), Reach { before: 1, after: 0 }),
            d_output: None,
            saved: saved.as_ref().map(|saved| (saved.view().span(), Reach { before: 1, after: 0 })),
            marks: marks_span.map(|marks| (marks, Reach { before: 0, after: 0 })),
            scrap: Span::new(&scrap, 0, 1),
            column: call.column,
            reversed: call.walk.reversed(),
        };
        let weight = context.bind(call.weights.weight_hh.span())?;
        let bias = call.weights.bias_hh.map(|bias| context.bind(bias.span())).transpose()?;
        let (initial, initial_cell_base) = bind_state(context, call.initial)?;
        let blocks = blocks(context, sizes);
        let constants = kernels.constants(marks.is_some());
        let mut stretches = arrays.stretches(context, sizes)?;
        if call.walk.reversed() {
            stretches.reverse();
        }
        for stretch in &stretches {
            let bound_marks = stretch.marks.map_or(weight, |marks| marks.bound);
            let bindings = [
                weight,
                // What is missing is replaced by something else, and not read.
                bias.unwrap_or(weight),
                initial,
                bound_marks,
                stretch.gates.bound,
                stretch.output.bound,
                stretch.saved.bound,
            ];
            for t in call.walk.order_of(stretch.steps.clone()) {
                let before = call.walk.neighbour(t, steps);
                let previous = before.unwrap_or(t);
                for block in &blocks {
                    context.dispatch(Dispatch {
                        kernel: kernels.forward,
                        constants: &constants,
                        parameters: ForwardParameters {
                            rows: rows as u32,
                            hidden: hidden as u32,
                            width: width as u32,
                            first_row: block.rows.start as u32,
                            first_unit: block.units.start as u32,
                            weight_base: weight.base,
                            bias_base: bias.map_or(0, |bias| bias.base),
                            has_bias: bias.is_some().into(),
                            initial_base: initial.base,
                            initial_cell_base,
                            marks_base: stretch.marks.map_or(0, |marks| marks.at(t)),
                            gates_base: stretch.gates.at(t),
                            output_base: stretch.output.at(t),
                            saved_base: stretch.saved.at(t),
                            previous_output_base: stretch.output.at(previous),
                            previous_saved_base: stretch.saved.at(previous),
                            starts: before.is_none().into(),
                            alpha: kernels.alpha,
                            beta: kernels.beta,
                        },
                        bindings: &bindings,
                        grid: block.grid(),
                    })?;
                }
            }
        }
    }
    let last = support::last_state(context, call, sizes, output, saved.as_ref())?;
    Ok(Made { saved, marks, last })
}

pub(super) fn backward(
    context: &Context,
    call: &Call<'_>,
    sizes: Sizes,
    kept: Steps,
    output: &Tensor,
    d_output: View<'_>,
    d_last: Option<StateView<'_>>,
) -> Result<Gradients> {
    let Sizes { steps, rows, hidden } = sizes;
    let Steps { mut gates, saved, marks, .. } = kept;
    let kernels = CellKernels::of(call.cell)?;
    let carry = support::carry(call, sizes, d_last)?;
    let marks = Marks { span: marks.as_ref().map(|marks| Span::new(marks, 0, steps * rows)) };
    let previous = support::previous(context, call, sizes, output, marks)?;
    let scrap = context.allocate(1, "a stand-in for what a cell does not save")?;
    {
        let own: ViewMut<'_> = gates.view_mut()?;
        let arrays = Arrays {
            gates: (own.span(), Reach { before: 0, after: 1 }),
            output: (output.view().span(), Reach { before: 1, after: 0 }),
            d_output: Some(d_output.span()),
            saved: saved.as_ref().map(|saved| (saved.view().span(), Reach { before: 1, after: 1 })),
            marks: marks.span.map(|marks| (marks, Reach { before: 0, after: 1 })),
            scrap: Span::new(&scrap, 0, 1),
            column: call.column,
            reversed: call.walk.reversed(),
        };
        let weight = context.bind(call.weights.weight_hh.span())?;
        let (initial, initial_cell_base) = bind_state(context, call.initial)?;
        let (carried, carry_cell_base) = bind_state(context, StateView::of(carry.view())?)?;
        let blocks = blocks(context, sizes);
        let constants = kernels.constants(marks.span.is_some());
        let mut stretches = arrays.stretches(context, sizes)?;
        if !call.walk.reversed() {
            stretches.reverse();
        }
        for stretch in &stretches {
            let Some(d_window) = stretch.d_output else { unreachable!("given above") };
            let bound_marks = stretch.marks.map_or(weight, |marks| marks.bound);
            let bindings = [
                weight,
                stretch.output.bound,
                d_window.bound,
                initial,
                // Where there are no marks something else is bound, and not read.
                bound_marks,
                stretch.gates.bound,
                stretch.saved.bound,
                carried,
            ];
            for t in call.walk.order_of(stretch.steps.clone()).into_iter().rev() {
                let (before, after) = (call.walk.neighbour(t, steps), call.walk.successor(t, steps));
                let (previous, next) = (before.unwrap_or(t), after.unwrap_or(t));
                for block in &blocks {
                    context.dispatch(Dispatch {
                        kernel: kernels.backward,
                        constants: &constants,
                        parameters: BackwardParameters {
                            rows: rows as u32,
                            hidden: hidden as u32,
                            width: output.shape().last() as u32,
                            first_row: block.rows.start as u32,
                            first_unit: block.units.start as u32,
                            weight_base: weight.base,
                            initial_base: initial.base,
                            initial_cell_base,
                            marks_base: stretch.marks.map_or(0, |marks| marks.at(t)),
                            next_marks_base: stretch.marks.map_or(0, |marks| marks.at(next)),
                            next_gates_base: stretch.gates.at(next),
                            next_saved_base: stretch.saved.at(next),
                            output_base: stretch.output.at(t),
                            d_output_base: d_window.at(t),
                            previous_output_base: stretch.output.at(previous),
                            gates_base: stretch.gates.at(t),
                            saved_base: stretch.saved.at(t),
                            previous_saved_base: stretch.saved.at(previous),
                            carry_base: carried.base,
                            carry_cell_base,
                            starts: before.is_none().into(),
                            ends: after.is_none().into(),
                            alpha: kernels.alpha,
                            beta: kernels.beta,
                        },
                        bindings: &bindings,
                        grid: block.grid(),
                    })?;
                }
            }
        }
    }
    let d_apart = saved.filter(|_| call.cell.last_gate_apart());
    let d_initial = support::d_initial(context, call, sizes, &gates, d_apart.as_ref(), carry, marks)?;
    Ok(Gradients { d_projected: gates, d_apart, previous, d_initial })
}
