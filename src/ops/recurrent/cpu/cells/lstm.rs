//! The equations of an LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000) and their
//! derivatives, one row of the batch at a time. With a = W_ih x + b_ih + W_hh h' + b_hh and the state h', c'
//! before the step:
//!
//! ```text
//! i = σ(a_i)    f = σ(a_f)    g = tanh(a_g)    o = σ(a_o)
//! c = f c' + i g              h = o tanh(c)
//! ```
//!
//! Backward, from the gradient dh at h and the gradient at c from the step after, dc_after:
//!
//! ```text
//! dc = dc_after + dh o (1 − tanh²(c))
//! di = dc g              da_i = di i (1 − i)
//! df = dc c'             da_f = df f (1 − f)
//! dg = dc i              da_g = dg (1 − g²)
//! do = dh tanh(c)        da_o = do o (1 − o)
//! dc' = dc f             dh' = W_hhᵀ da
//! ```
//!
//! Peepholes add p_i c', p_f c' and p_o c to the gates' arguments, so p_o da_o to dc and p_i da_i + p_f da_f to
//! dc'. With coupled gates f = 1 − i, so di = dc (g − c'). Where c is clipped, dc is 0. The gradients da replace
//! the gates in place.
//!
//! The same equations on GPUs: `shaders/recurrent/cells/lstm.wgsl`.

use ndarray::{Array2, ArrayView2};

use super::super::gates::{Gate, clamped, units, units_mut};
use super::super::weights::Matrices;
use super::{Step, StepGradients, StepTarget};
use crate::ops::recurrent::CellStateView;
use crate::tensor::Real;

/// The operands that the equations of all rows share.
struct Lstm<'a, F> {
    gate: Gate,
    candidate: Gate,
    output: Gate,
    /// f = 1 − i, without weights of its own.
    coupled: bool,
    clip_cell: Option<F>,
    /// Rows for i, f and o; for i and o with coupled gates.
    peepholes: Option<ArrayView2<'a, F>>,
}

/// The gates of a row; no f with coupled gates.
struct GateBlocks<'a, F> {
    i: &'a mut [F],
    f: &'a mut [F],
    g: &'a mut [F],
    o: &'a mut [F],
}

impl<'a, F: Real> Lstm<'a, F> {
    fn new(matrices: &Matrices<'a, F>) -> Self {
        let equations = &matrices.equations;
        let [gate, candidate, output] = equations.functions();
        Self {
            gate,
            candidate,
            output,
            coupled: equations.options.coupled,
            clip_cell: equations.options.clip_cell.map(F::from_f32),
            peepholes: matrices.peepholes,
        }
    }

    fn blocks<'r>(&self, row: &'r mut [F], units: usize) -> GateBlocks<'r, F> {
        let (i, rest) = row.split_at_mut(units);
        let (f, rest) = rest.split_at_mut(if self.coupled { 0 } else { units });
        let (g, o) = rest.split_at_mut(units);
        GateBlocks { i, f, g, o }
    }

    /// a ← a + p c, with the peepholes of a gate.
    fn peep(&self, gate: usize, a: &mut [F], c: &[F]) {
        let Some(peepholes) = &self.peepholes else { return };
        for ((a, &p), &c) in a.iter_mut().zip(peepholes.row(gate)).zip(c) {
            *a += p * c;
        }
    }

    /// The index of o's peepholes: the last.
    fn output_peephole(&self) -> usize {
        if self.coupled { 1 } else { 2 }
    }

    /// Computes the gates, c, and h before a projection.
    fn forward(&self, row: &mut [F], c_before: &[F], c: &mut [F], h: &mut [F]) {
        let units = c.len();
        let c_before = &c_before[..units];
        let GateBlocks { i, f, g, o } = self.blocks(row, units);
        self.peep(0, i, c_before);
        self.gate.apply(i);
        if !self.coupled {
            self.peep(1, f, c_before);
            self.gate.apply(f);
        }
        self.candidate.apply(g);
        self.state([i, f, g], c_before, c);
        self.peep(self.output_peephole(), o, c);
        self.gate.apply(o);
        self.hidden(o, c, h);
    }

    /// c = f c' + i g.
    fn state(&self, [i, f, g]: [&[F]; 3], c_before: &[F], c: &mut [F]) {
        let units = c.len();
        let (i, g, c_before) = (&i[..units], &g[..units], &c_before[..units]);
        if self.coupled {
            for u in 0..units {
                c[u] = (F::one() - i[u]) * c_before[u] + i[u] * g[u];
            }
        } else {
            let f = &f[..units];
            for u in 0..units {
                c[u] = f[u] * c_before[u] + i[u] * g[u];
            }
        }
        if self.clip_cell.is_some() {
            for c in c {
                *c = clamped(*c, self.clip_cell);
            }
        }
    }

    /// h = o tanh(c).
    fn hidden(&self, o: &[F], c: &[F], h: &mut [F]) {
        h.copy_from_slice(c);
        self.output.apply(h);
        for (h, &o) in h.iter_mut().zip(o) {
            *h *= o;
        }
    }

    /// Overwrites the gates with their gradients and computes the gradient of c', from `known`: the gradients of h
    /// (before a projection) and of c, and the states c' and c. `scratch` becomes tanh(c), later g, and the gradient of c.
    fn backward(&self, row: &mut [F], known: [&[F]; 4], d_c_before: &mut [F], scratch: &mut [Vec<F>; 2]) {
        let units = d_c_before.len();
        let GateBlocks { i, f, g, o } = self.blocks(row, units);
        let (i, g, o) = (&mut i[..units], &mut g[..units], &mut o[..units]);
        // Slices of the same known length, so that the compiler removes bounds checks.
        let [d_h, d_c_after, c_before, c] = known.map(|slice| &slice[..units]);
        let [y, d_c] = scratch.each_mut().map(|buffer| &mut buffer[..units]);
        y.copy_from_slice(c);
        self.output.apply(y);
        d_c.copy_from_slice(y);
        self.output.back(d_c, |u| d_h[u] * o[u]);
        self.gate.back(o, |u| d_h[u] * y[u]);
        for u in 0..units {
            d_c[u] += d_c_after[u];
        }
        self.peep(self.output_peephole(), d_c, o);
        if let Some(bound) = self.clip_cell {
            for u in 0..units {
                if c[u] >= bound || c[u] <= -bound {
                    d_c[u] = F::zero();
                }
            }
        }
        let g_before = y;
        g_before.copy_from_slice(g);
        self.candidate.back(g, |u| d_c[u] * i[u]);
        if self.coupled {
            for u in 0..units {
                d_c_before[u] = d_c[u] * (F::one() - i[u]);
            }
            self.gate.back(i, |u| d_c[u] * (g_before[u] - c_before[u]));
        } else {
            let f = &mut f[..units];
            for u in 0..units {
                d_c_before[u] = d_c[u] * f[u];
            }
            self.gate.back(f, |u| d_c[u] * c_before[u]);
            self.gate.back(i, |u| d_c[u] * g_before[u]);
            self.peep(1, d_c_before, f);
        }
        self.peep(0, d_c_before, i);
    }
}

pub(crate) fn forward<F: Real>(
    matrices: &Matrices<'_, F>,
    before: CellStateView<'_, F>,
    seen: ArrayView2<'_, F>,
    target: &mut StepTarget<'_, F>,
) {
    let StepTarget { gates, saved, after } = target;
    let lstm = Lstm::new(matrices);
    matrices.add_product(0, seen, gates.view_mut());
    let mut result = matrices.is_projected().then(|| Array2::zeros(after.cell.raw_dim()));
    let hidden = result.as_mut().unwrap_or(&mut after.hidden);
    for (row, h) in hidden.outer_iter_mut().enumerate() {
        let c = units_mut(after.cell.row_mut(row));
        lstm.forward(units_mut(gates.row_mut(row)), units(before.cell.row(row)), c, units_mut(h));
    }
    if let Some(result) = result {
        after.hidden.assign(&matrices.projected(result.view(), matrices.projection_size));
    }
    if let Some(saved) = saved {
        saved.assign(&after.cell);
    }
}

pub(crate) fn backward<F: Real>(
    matrices: &Matrices<'_, F>,
    step: &Step<'_, F>,
    d_after: CellStateView<'_, F>,
    gradients: &mut StepGradients<'_, F>,
) {
    let StepGradients { gates, d_before, .. } = gradients;
    let lstm = Lstm::new(matrices);
    let d_h = matrices.projected(d_after.hidden, matrices.hidden_size);
    let current = step.saved.unwrap_or(step.before.cell);
    let mut scratch = [(); 2].map(|()| vec![F::zero(); matrices.hidden_size]);
    for (row, d_c_before) in d_before.cell.outer_iter_mut().enumerate() {
        let known = [d_h.row(row), d_after.cell.row(row), step.before.cell.row(row), current.row(row)];
        let gates = units_mut(gates.row_mut(row));
        lstm.backward(gates, known.map(units), units_mut(d_c_before), &mut scratch);
    }
    d_before.hidden.fill(F::zero());
    matrices.add_back(0, gates.view(), step.rows, &mut d_before.hidden);
}

/// Recomputes c from the gates.
pub(crate) fn state<F: Real>(
    matrices: &Matrices<'_, F>,
    mut gates: Array2<F>,
    before: CellStateView<'_, F>,
) -> Array2<F> {
    let lstm = Lstm::new(matrices);
    let mut result = Array2::zeros(before.cell.raw_dim());
    for (row, c) in result.outer_iter_mut().enumerate() {
        let GateBlocks { i, f, g, .. } = lstm.blocks(units_mut(gates.row_mut(row)), matrices.hidden_size);
        lstm.state([i, f, g], units(before.cell.row(row)), units_mut(c));
    }
    result
}

/// Recomputes h, before a projection, from the gates and c.
pub(crate) fn hidden<F: Real>(
    matrices: &Matrices<'_, F>,
    gates: ArrayView2<'_, F>,
    current: ArrayView2<'_, F>,
) -> Array2<F> {
    let lstm = Lstm::new(matrices);
    let mut result = Array2::zeros(current.raw_dim());
    for (row, h) in result.outer_iter_mut().enumerate() {
        let gates = units(gates.row(row));
        let o = &gates[gates.len() - matrices.hidden_size..];
        lstm.hidden(o, units(current.row(row)), units_mut(h));
    }
    result
}
