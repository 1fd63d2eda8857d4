//! The twin of `shaders/cells/`: each cell's equations and their derivatives, over a batch, from the papers.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use super::{Cell, custom};
use crate::ops::Activation;
use crate::ops::elementwise::cpu::{derivative, value};
use crate::tensor::Real;

/// The state of a batch: h and, where the cell has one, c; both [B, H].
#[derive(Clone)]
pub(super) struct Memory<F> {
    pub(super) hidden: Array2<F>,
    pub(super) cell: Array2<F>,
}

/// What a step leaves: the gates that backward needs [B, G·H], what it needs beside them [B, H], the new state.
pub(super) struct Made<F> {
    pub(super) gates: Array2<F>,
    pub(super) saved: Option<Array2<F>>,
    pub(super) memory: Memory<F>,
}

/// The gradients of a step.
pub(super) struct Slopes<F> {
    /// At W_ih x + b_ih [B, G·H].
    pub(super) d_projected: Array2<F>,
    /// At W_hh h' + b_hh [B, G·H].
    pub(super) d_recurrent: Array2<F>,
    /// At the previous state, beside what passes through W_hh.
    pub(super) d_memory: Memory<F>,
}

/// Block `gate` of the columns.
fn block<F: Real>(gates: ArrayView2<'_, F>, gate: usize, hidden: usize) -> Array2<F> {
    gates.slice(s![.., gate * hidden..(gate + 1) * hidden]).to_owned()
}

fn joined<F: Real>(blocks: &[&Array2<F>]) -> Array2<F> {
    let views: Vec<_> = blocks.iter().map(|block| block.view()).collect();
    match concatenate(Axis(1), &views) {
        Ok(joined) => joined,
        Err(error) => unreachable!("all blocks are [B, H]: {error}"),
    }
}

fn sigmoid<F: Real>(x: &Array2<F>) -> Array2<F> {
    x.mapv(|x| value(Activation::Sigmoid, x))
}

fn tanh<F: Real>(x: &Array2<F>) -> Array2<F> {
    x.mapv(F::tanh)
}

/// σ'(a), given σ(a).
fn sigmoid_slope<F: Real>(y: &Array2<F>) -> Array2<F> {
    y.mapv(|y| y * (F::one() - y))
}

/// tanh'(a), given tanh(a).
fn tanh_slope<F: Real>(y: &Array2<F>) -> Array2<F> {
    y.mapv(|y| F::one() - y * y)
}

fn one_minus<F: Real>(x: &Array2<F>) -> Array2<F> {
    x.mapv(|x| F::one() - x)
}

pub(super) fn forward<F: Real>(
    cell: Cell,
    projected: ArrayView2<'_, F>,
    recurrent: &Array2<F>,
    before: &Memory<F>,
) -> Made<F> {
    let hidden = before.hidden.ncols();
    let gate = |gate| block(projected, gate, hidden) + block(recurrent.view(), gate, hidden);
    match cell {
        Cell::Vanilla(activation) => {
            let gates = &projected + recurrent;
            let memory = Memory { hidden: gates.mapv(|a| value(activation, a)), cell: before.cell.clone() };
            Made { gates, saved: None, memory }
        }
        Cell::Lstm => {
            let (i, f, g, o) = (sigmoid(&gate(0)), sigmoid(&gate(1)), tanh(&gate(2)), sigmoid(&gate(3)));
            let c = &f * &before.cell + &i * &g;
            let h = &o * &tanh(&c);
            let gates = joined(&[&i, &f, &g, &o]);
            Made { gates, saved: Some(c.clone()), memory: Memory { hidden: h, cell: c } }
        }
        Cell::Gru => {
            let (r, z) = (sigmoid(&gate(0)), sigmoid(&gate(1)));
            let q = block(recurrent.view(), 2, hidden);
            let n = tanh(&(block(projected, 2, hidden) + &r * &q));
            let h = one_minus(&z) * &n + &z * &before.hidden;
            let gates = joined(&[&r, &z, &n]);
            Made { gates, saved: Some(q), memory: Memory { hidden: h, cell: before.cell.clone() } }
        }
        Cell::Custom(cell) => custom::forward(cell, projected, recurrent, before),
    }
}

/// `gates` and `saved` are what [`forward`] made at this step, `hidden` its new state.
pub(super) fn backward<F: Real>(
    cell: Cell,
    gates: ArrayView2<'_, F>,
    saved: Option<ArrayView2<'_, F>>,
    before: &Memory<F>,
    hidden: ArrayView2<'_, F>,
    d_after: &Memory<F>,
) -> Slopes<F> {
    let units = before.hidden.ncols();
    let gate = |gate| block(gates, gate, units);
    let kept = || saved.map_or_else(|| Array2::zeros(before.hidden.raw_dim()), |saved| saved.to_owned());
    let nothing = || Array2::zeros(before.hidden.raw_dim());
    let d_h = &d_after.hidden;
    match cell {
        Cell::Vanilla(activation) => {
            let mut d_gates = d_h.clone();
            ndarray::Zip::from(&mut d_gates)
                .and(gates)
                .and(hidden)
                .for_each(|d, &a, &h| *d *= derivative(activation, a, h));
            let d_memory = Memory { hidden: nothing(), cell: nothing() };
            Slopes { d_projected: d_gates.clone(), d_recurrent: d_gates, d_memory }
        }
        Cell::Lstm => {
            let (i, f, g, o) = (gate(0), gate(1), gate(2), gate(3));
            let tanh_c = tanh(&kept());
            let d_c = &d_after.cell + &(d_h * &o * tanh_slope(&tanh_c));
            let d_i = &d_c * &g * sigmoid_slope(&i);
            let d_f = &d_c * &before.cell * sigmoid_slope(&f);
            let d_g = &d_c * &i * tanh_slope(&g);
            let d_o = d_h * &tanh_c * sigmoid_slope(&o);
            let d_gates = joined(&[&d_i, &d_f, &d_g, &d_o]);
            let d_memory = Memory { hidden: nothing(), cell: d_c * f };
            Slopes { d_projected: d_gates.clone(), d_recurrent: d_gates, d_memory }
        }
        Cell::Gru => {
            let (r, z, n) = (gate(0), gate(1), gate(2));
            let d_n = d_h * &one_minus(&z) * tanh_slope(&n);
            let d_z = d_h * &(&before.hidden - &n) * sigmoid_slope(&z);
            let d_r = &d_n * &kept() * sigmoid_slope(&r);
            let d_q = &d_n * &r;
            let d_memory = Memory { hidden: d_h * &z, cell: nothing() };
            Slopes {
                d_projected: joined(&[&d_r, &d_z, &d_n]),
                d_recurrent: joined(&[&d_r, &d_z, &d_q]),
                d_memory,
            }
        }
        Cell::Custom(cell) => custom::backward(cell, gates, saved, before, hidden, d_after),
    }
}
