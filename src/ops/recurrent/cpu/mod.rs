//! The time loop on the CPU, in ndarray: the reference for the shaders of `shaders/recurrent/`. This module
//! converts tensors to arrays and back; `time_loop` has the loop, `cells` the equations.

mod batch_split;
pub(crate) mod cells;
mod gates;
mod sliding_windows;
mod time_loop;
pub(crate) mod weights;
mod zoneout;

use ndarray::{Array3, ArrayView3, Ix3, s};

use self::batch_split::CellStateMut;
use self::cells::layer_norm::OverTime;
use self::time_loop::{Backward, Forward, GradientArrays, SavedSteps, TimeLoop};
use self::weights::{Matrices, Rows};
use super::weight_gradients;
use crate::Result;
use crate::device::Host;
use crate::ops::recurrent::{
    Call, Cell, CellState, Pass, PassGradients, SavedActivations, Sizes, StateTensors, StateView,
};
use crate::tensor::{Real, Tensor, View, expect_capacity, unwritten};

pub(crate) fn forward<F: Real>(
    host: &Host,
    call: &Call<'_>,
    sizes: Sizes,
    mut projected: Tensor,
    entered: Option<Tensor>,
    output: &mut Tensor,
) -> Result<SavedActivations> {
    let Sizes { steps, rows, hidden_size, projection_size } = sizes;
    let device = projected.device().clone();
    expect_capacity(&device, scratch(call, sizes, Pass::Forward), "a recurrent layer")?;
    let matrices = Matrices::new(call, sizes, Pass::Forward);
    let equations = &call.equations;
    let initial = call.initial.cell_state::<F>(hidden_size);
    let mut last = CellState::zeros(rows, projection_size, hidden_size);
    let saves = equations.saves() || matrices.gains.is_some();
    let saved = saves.then(|| unwritten(host, Ix3(steps, rows, hidden_size), "what a recurrent layer saves"));
    let mut saved = saved.transpose()?;
    let mut whole = output.view_mut()?;
    let mut gates = projected.view_mut()?;
    TimeLoop { matrices: &matrices, traversal: &call.traversal, steps }.forward(Forward {
        rows: Rows { first: 0, all: rows },
        gates: gates.array3(),
        saved: saved.as_mut().map(|saved| saved.view_mut()),
        output: whole.array3().slice_move(s![.., .., call.column..call.column + projection_size]),
        initial: initial.view(),
        last: CellStateMut::of(&mut last),
    });
    Ok(SavedActivations {
        gates: Some(projected),
        saved: saved.map(|saved| Tensor::from_array(&device, saved)).transpose()?,
        unprojected: None,
        entered,
        product: None,
        step_flags: None,
        last: vec![StateTensors::new(&device, equations, last)?],
    })
}

/// The arrays that a backward pass writes.
struct BackwardArrays<F> {
    previous: Array3<F>,
    cells: Option<Array3<F>>,
    unprojected: Option<Array3<F>>,
    d_apart: Option<Array3<F>>,
    d_hidden: Option<Array3<F>>,
    d_initial: CellState<F>,
}

impl<F: Real> BackwardArrays<F> {
    fn new(host: &Host, call: &Call<'_>, sizes: Sizes) -> Result<Self> {
        let Sizes { steps, rows, hidden_size, projection_size } = sizes;
        let equations = &call.equations;
        let what = "the gradient of a recurrent layer";
        let array = |asked: bool, width: usize| {
            asked.then(|| unwritten(host, Ix3(steps, rows, width), what)).transpose()
        };
        let projected = call.weights.projection.is_some();
        let sees_cells = equations.peepholes() > 0 || call.traversal.windows().is_some();
        Ok(Self {
            previous: unwritten(host, Ix3(steps, rows, projection_size), what)?,
            cells: array(sees_cells, hidden_size)?,
            unprojected: array(projected, hidden_size)?,
            d_apart: array(equations.last_gate_apart(), hidden_size)?,
            d_hidden: array(projected || call.weights.norms.is_some(), projection_size)?,
            d_initial: CellState::zeros(rows, projection_size, hidden_size),
        })
    }
}

/// The most elements of temporary arrays of a pass.
fn scratch(call: &Call<'_>, sizes: Sizes, pass: Pass) -> usize {
    let Sizes { steps, rows, hidden_size, projection_size } = sizes;
    let gates = call.equations.gates() * hidden_size;
    let state = hidden_size + projection_size;
    // The packed weights, padded to whole panels, and the arrays of one step.
    let weights = 2 * (gates + hidden_size) * (projection_size + 64);
    let step = |rows: usize| rows * (6 * gates + 16 * state);
    let of_steps = match (pass, call.traversal.windows()) {
        (Pass::Backward, Some(windows)) => steps * rows * gates + step(windows.ends(steps).len() * rows),
        _ => 0,
    };
    // Products and their gradients, before and after the normalisation.
    let normalised = match (pass, call.weights.norms) {
        (Pass::Backward, Some(_)) => steps * rows * (3 * gates + 8 * hidden_size),
        _ => 0,
    };
    weights + step(rows) + of_steps + normalised
}

pub(crate) fn backward<F: Real>(
    host: &Host,
    call: &Call<'_>,
    mut steps: SavedActivations,
    sizes: Sizes,
    output: &Tensor,
    d_output: View<'_>,
    d_last: Option<StateView<'_>>,
) -> Result<PassGradients> {
    let Sizes { rows, hidden_size, projection_size, .. } = sizes;
    let device = output.device();
    let mut arrays = BackwardArrays::new(host, call, sizes)?;
    expect_capacity(device, scratch(call, sizes, Pass::Backward), "the gradient of a recurrent layer")?;
    let matrices = Matrices::<F>::new(call, sizes, Pass::Backward);
    let own = s![.., .., call.column..call.column + projection_size];
    let initial = call.initial.cell_state::<F>(hidden_size);
    let d_last = d_last.map_or_else(
        || CellState::zeros(rows, projection_size, hidden_size),
        |d_last| d_last.cell_state(hidden_size),
    );
    let mut d_gates = steps.take_gates();
    let saved: Option<ArrayView3<'_, F>> = steps.saved.as_ref().map(|saved| saved.view().array3());
    let normalises_state = matrices.gains.is_some() && *call.equations.cell == Cell::Lstm;
    let mut gates = d_gates.view_mut()?;
    let mut gates = gates.array3::<F>();
    // The loop overwrites the gates.
    let last_gate = normalises_state.then(|| {
        let first = gates.dim().2 - hidden_size;
        gates.slice(s![.., .., first..]).to_owned()
    });
    let all = TimeLoop { matrices: &matrices, traversal: &call.traversal, steps: sizes.steps };
    let pass = Backward {
        saved_steps: SavedSteps {
            rows: Rows { first: 0, all: rows },
            saved,
            output: output.view().array3().slice_move(own),
            initial: initial.view(),
        },
        gates: gates.view_mut(),
        d_output: d_output.array3().slice_move(own),
        d_last: d_last.view(),
        d_initial: CellStateMut::of(&mut arrays.d_initial),
        arrays: GradientArrays {
            previous: arrays.previous.view_mut(),
            cells: arrays.cells.as_mut().map(|cells| cells.view_mut()),
            unprojected: arrays.unprojected.as_mut().map(|unprojected| unprojected.view_mut()),
            d_apart: arrays.d_apart.as_mut().map(|d_apart| d_apart.view_mut()),
            d_hidden: arrays.d_hidden.as_mut().map(|d_hidden| d_hidden.view_mut()),
        },
    };
    match call.traversal.windows() {
        None => all.backward(pass),
        Some(sizes) => sliding_windows::backward(&all, pass, sizes),
    }
    let product = matrices.gains.as_ref().map(|gains| {
        let state = match (saved, &last_gate, &arrays.d_hidden) {
            (Some(saved), Some(o), Some(d_hidden)) => Some([saved, o.view(), d_hidden.view()]),
            _ => None,
        };
        let (d_product, d_norms) = cells::layer_norm::all_steps(
            gains,
            &matrices,
            &OverTime {
                previous: arrays.previous.view(),
                d_gates: gates.view(),
                d_apart: arrays.d_apart.as_ref().map(|d_apart| d_apart.view()),
                state,
            },
        );
        let d_norms = Tensor::from_array(device, d_norms)?;
        Ok::<_, crate::Error>(weight_gradients::RecurrentNormGradients {
            d_product: Tensor::from_array(device, d_product)?,
            d_norms,
        })
    });
    finish(call, d_gates, steps, arrays, &matrices, product.transpose()?)
}

/// Converts the gradients to tensors; the gates' gradients are in the buffer of the gates.
fn finish<F: Real>(
    call: &Call<'_>,
    d_projected: Tensor,
    steps: SavedActivations,
    arrays: BackwardArrays<F>,
    matrices: &Matrices<'_, F>,
    product: Option<weight_gradients::RecurrentNormGradients>,
) -> Result<PassGradients> {
    let equations = &call.equations;
    let device = d_projected.device().clone();
    let tensor = |array: Array3<F>| Tensor::from_array(&device, array);
    let saved = steps.saved.as_ref();
    Ok(PassGradients {
        gates: equations.gates(),
        d_apart: arrays.d_apart.map(tensor).transpose()?,
        previous: tensor(matrices.seen_all(arrays.previous))?,
        modulated: if equations.resets_before() { saved.cloned() } else { None },
        cells: match (equations.peepholes(), arrays.cells, saved) {
            (1.., Some(cells), Some(saved)) => Some((tensor(cells)?, saved.clone())),
            _ => None,
        },
        projection: match (call.weights.projection, arrays.d_hidden, arrays.unprojected) {
            (Some(_), Some(d_hidden), Some(unprojected)) => Some((tensor(d_hidden)?, tensor(unprojected)?)),
            _ => None,
        },
        product,
        entry: None,
        d_initial: StateTensors::new(&device, equations, arrays.d_initial)?,
        d_projected,
    })
}
