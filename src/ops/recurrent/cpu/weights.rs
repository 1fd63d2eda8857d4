//! The recurrent weights, packed for matrix products.

use ndarray::{Array2, Array3, ArrayView1, ArrayView2, ArrayViewMut2, CowArray, Ix2, s};

use crate::ops::recurrent::layer_norm::groups as normalised_groups;
use crate::ops::recurrent::{Call, Cell, Equations, Pass, Sizes};
use crate::tensor::Real;

/// The rows of a batch that an array holds.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) first: usize,
    /// B.
    pub(crate) all: usize,
}

/// The gains of layer normalisation in the time loop.
pub(crate) struct Gains<'a, F> {
    /// The widths of the groups of gates that are normalised together.
    pub(crate) groups: Vec<usize>,
    /// The gain of W_hh h' [G·H].
    pub(crate) product: ArrayView1<'a, F>,
    /// Gain and shift of c [2, H], for an LSTM.
    pub(crate) state: Option<ArrayView2<'a, F>>,
}

/// The equations of a layer in one direction, and its recurrent weights as arrays.
pub(crate) struct Matrices<'a, F: Real> {
    pub(crate) equations: Equations<'a>,
    /// W_hh [G·H, P].
    pub(crate) weight: ArrayView2<'a, F>,
    pub(crate) bias: Option<ArrayView1<'a, F>>,
    /// [3, H], rows i, f, o; [2, H] for coupled gates.
    pub(crate) peepholes: Option<ArrayView2<'a, F>>,
    /// The packed weights of each group of gates: all gates; in a GRU the last gate is a group of its own.
    groups: Vec<F::Right<'a>>,
    /// W_hr [P, H].
    projection: Option<F::Right<'a>>,
    /// The dropout mask of the state in the product [B, P].
    mask: Option<Array2<F>>,
    pub(crate) gains: Option<Gains<'a, F>>,
    /// H and P.
    pub(crate) hidden_size: usize,
    pub(crate) projection_size: usize,
}

impl<'a, F: Real> Matrices<'a, F> {
    pub(crate) fn new(call: &Call<'a>, sizes: Sizes, pass: Pass) -> Self {
        let Sizes { rows, hidden_size, projection_size, .. } = sizes;
        let weights = &call.weights;
        let mask = call.state_mask.map(|mask| {
            let scale = F::from_f64(1.0 / (1.0 - f64::from(mask.rate())));
            Array2::from_shape_fn((rows, projection_size), |(row, unit)| {
                if mask.keeps(row * projection_size + unit) { scale } else { F::zero() }
            })
        });
        let weight = weights.weight_hh.array2::<F>();
        let bias = weights.bias_hh.map(|bias| bias.array1::<F>());
        let all = call.equations.gates();
        let groups = match call.equations.cell {
            Cell::Gru => vec![0..all - 1, all - 1..all],
            _ => std::iter::once(0..all).collect(),
        };
        let group = |gates: std::ops::Range<usize>| {
            let rows = gates.start * hidden_size..gates.end * hidden_size;
            let block = weight.slice_move(s![rows.clone(), ..]);
            match pass {
                Pass::Forward => F::right(block.reversed_axes(), bias.map(|bias| bias.slice_move(s![rows]))),
                Pass::Backward => F::right(block, None),
            }
        };
        let projection = weights.projection.map(|projection| match pass {
            Pass::Forward => F::right(projection.array2().reversed_axes(), None),
            Pass::Backward => F::right(projection.array2(), None),
        });
        Self {
            equations: call.equations,
            weight,
            bias,
            peepholes: weights.peepholes.map(|peepholes| peepholes.array2()),
            groups: groups.into_iter().map(group).collect(),
            projection,
            mask,
            gains: weights.norms.map(|norms| Gains {
                groups: normalised_groups(call.equations.cell, hidden_size),
                product: norms.recurrent.array1(),
                state: norms.cell.map(|cell| cell.array2()),
            }),
            hidden_size,
            projection_size,
        }
    }

    /// The state, or its gradient, multiplied by the mask. The rows are those of one batch, or of several
    /// concatenated.
    pub(crate) fn seen<'s>(&self, state: ArrayView2<'s, F>, rows: Rows) -> CowArray<'s, F, Ix2> {
        let Some(mask) = &self.mask else { return state.into() };
        let mut state = state.to_owned();
        for (row, mut state) in state.outer_iter_mut().enumerate() {
            state *= &mask.row((rows.first + row) % rows.all);
        }
        state.into()
    }

    /// As [`Self::seen`], for the states of all steps.
    pub(crate) fn seen_all(&self, mut states: Array3<F>) -> Array3<F> {
        if let Some(mask) = &self.mask {
            states *= mask;
        }
        states
    }

    /// target += W x + b for a group of gates; in the backward pass xᵀ W.
    pub(crate) fn add_product(&self, group: usize, x: ArrayView2<'_, F>, target: ArrayViewMut2<'_, F>) {
        F::add_product(x, &self.groups[group], target);
    }

    /// target += the gradient of the state that gradients of a group of gates send through W.
    pub(crate) fn add_back(&self, group: usize, d: ArrayView2<'_, F>, rows: Rows, target: &mut Array2<F>) {
        if self.mask.is_none() {
            return self.add_product(group, d, target.view_mut());
        }
        let mut product = Array2::zeros(target.raw_dim());
        self.add_product(group, d, product.view_mut());
        *target += &self.seen(product.view(), rows);
    }

    pub(crate) fn is_projected(&self) -> bool {
        self.projection.is_some()
    }

    /// Returns h = W_hr m; in the backward pass the gradient of m from that of h. Without a projection
    /// returns `source`.
    pub(crate) fn projected<'s>(&self, source: ArrayView2<'s, F>, width: usize) -> CowArray<'s, F, Ix2> {
        let Some(projection) = &self.projection else { return source.into() };
        let mut result = Array2::zeros((source.nrows(), width));
        F::add_product(source, projection, result.view_mut());
        result.into()
    }
}
