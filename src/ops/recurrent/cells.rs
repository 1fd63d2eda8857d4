//! The twin of `shaders/cells/`: each cell's equations and their derivatives, over a batch, from the papers.

use ndarray::{Array2, Array3, ArrayView1, ArrayView2, Axis, Zip, concatenate, s};

use super::normalised::cpu::{self as normalised, Gains};
use super::{Call, Cell, Equations, Sizes, custom};
use crate::ops::Activation;
use crate::ops::elementwise::cpu::{derivative, slope, value};
use crate::tensor::Real;

/// The state of a batch: h [B, P] and, where the cell has one, c [B, H].
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

/// What is known of a step when its backward begins.
pub(super) struct Step<'a, F> {
    /// What [`forward`] made of the gates and beside them.
    pub(super) gates: ArrayView2<'a, F>,
    pub(super) saved: Option<ArrayView2<'a, F>>,
    pub(super) before: &'a Memory<F>,
    /// What it made of h.
    pub(super) hidden: ArrayView2<'a, F>,
}

/// The gradients of a step.
pub(super) struct Slopes<F> {
    /// At W_ih x + b_ih [B, G·H].
    pub(super) d_projected: Array2<F>,
    /// At W_hh h' + b_hh [B, G·H].
    pub(super) d_recurrent: Array2<F>,
    /// At the previous state.
    pub(super) d_memory: Memory<F>,
}

/// The recurrent weights as arrays.
pub(super) struct Matrices<'a, F> {
    /// W_hh [G·H, P].
    pub(super) weight: ArrayView2<'a, F>,
    pub(super) bias: Option<ArrayView1<'a, F>>,
    /// [3, H], rows i, f, o; [2, H] for coupled gates.
    peepholes: Option<ArrayView2<'a, F>>,
    /// W_hr [P, H].
    projection: Option<ArrayView2<'a, F>>,
    /// What the state is multiplied by on its way into the product [B, P].
    mask: Option<Array2<F>>,
    /// Those of layer normalisation, where there is such.
    pub(super) gains: Option<Gains<'a, F>>,
    /// H.
    pub(super) units: usize,
}

impl<'a, F: Real> Matrices<'a, F> {
    pub(super) fn new(call: &Call<'a>, sizes: Sizes) -> Self {
        let Sizes { rows, units, hidden, .. } = sizes;
        let weights = &call.weights;
        let mask = call.state_mask.map(|mask| {
            let scale = F::from_f64(1.0 / (1.0 - f64::from(mask.rate())));
            Array2::from_shape_fn((rows, hidden), |(row, unit)| {
                if mask.keeps(row * hidden + unit) { scale } else { F::zero() }
            })
        });
        Self {
            weight: weights.weight_hh.array2(),
            bias: weights.bias_hh.map(|bias| bias.array1()),
            peepholes: weights.peepholes.map(|peepholes| peepholes.array2()),
            projection: weights.projection.map(|projection| projection.array2()),
            mask,
            gains: weights.norms.map(|norms| Gains::new(&norms, call.equations.cell, units)),
            units,
        }
    }

    /// The state as the product sees it, or its gradient on the way back; the rows of a batch, or of several below each
    /// other.
    fn seen(&self, mut state: Array2<F>) -> Array2<F> {
        if let Some(mask) = &self.mask {
            for (row, mut state) in state.outer_iter_mut().enumerate() {
                state *= &mask.row(row % mask.nrows());
            }
        }
        state
    }

    /// The states of all steps as the product sees them.
    pub(super) fn seen_all(&self, mut states: Array3<F>) -> Array3<F> {
        if let Some(mask) = &self.mask {
            states *= mask;
        }
        states
    }

    /// The rows of W_hh for gates `from` to `to`.
    fn rows(&self, from: usize, to: usize) -> ArrayView2<'_, F> {
        self.weight.slice(s![from * self.units..to * self.units, ..])
    }

    /// W x + b for gates `from` to `to` of the source x.
    fn product(&self, source: &Array2<F>, from: usize, to: usize) -> Array2<F> {
        let product = source.dot(&self.rows(from, to).t());
        match self.bias {
            Some(bias) => product + bias.slice(s![from * self.units..to * self.units]),
            None => product,
        }
    }

    /// a + p c for peephole `index`; a where there are none.
    fn peeped(&self, a: Array2<F>, index: usize, c: &Array2<F>) -> Array2<F> {
        match self.peepholes {
            Some(peepholes) => a + &(c * &peepholes.row(index)),
            None => a,
        }
    }

    pub(super) fn is_projected(&self) -> bool {
        self.projection.is_some()
    }

    /// h, from what the cell made of it: projected where there is a projection.
    fn projected(&self, hidden: Array2<F>) -> Array2<F> {
        match self.projection {
            Some(projection) => hidden.dot(&projection.t()),
            None => hidden,
        }
    }

    /// The gradient at what the cell made, from that at h.
    fn before_projection(&self, d_hidden: &Array2<F>) -> Array2<F> {
        match self.projection {
            Some(projection) => d_hidden.dot(&projection),
            None => d_hidden.clone(),
        }
    }
}

/// Block `gate` of the columns.
pub(super) fn block<F: Real>(gates: ArrayView2<'_, F>, gate: usize, units: usize) -> Array2<F> {
    gates.slice(s![.., gate * units..(gate + 1) * units]).to_owned()
}

pub(super) fn joined<F: Real>(blocks: &[&Array2<F>]) -> Array2<F> {
    let views: Vec<_> = blocks.iter().map(|block| block.view()).collect();
    match concatenate(Axis(1), &views) {
        Ok(joined) => joined,
        Err(error) => unreachable!("all blocks are [B, H]: {error}"),
    }
}

fn clamped<F: Real>(x: F, bound: Option<f32>) -> F {
    match bound.map(F::from_f32) {
        Some(bound) if x > bound => bound,
        Some(bound) if x < -bound => -bound,
        _ => x,
    }
}

/// A gate's function with the bound on what enters it.
#[derive(Clone, Copy)]
struct Gate {
    function: Activation,
    bound: Option<f32>,
}

impl Gate {
    fn value<F: Real>(self, a: &Array2<F>) -> Array2<F> {
        a.mapv(|a| value(self.function, clamped(a, self.bound)))
    }

    /// f'(a), given f(a). What entered lay within the bound if its value lies between those at the bound.
    fn slope<F: Real>(self, y: &Array2<F>) -> Array2<F> {
        let ends = self.bound.map(|bound| {
            let (one, other) = (F::from_f32(-bound), F::from_f32(bound));
            let (one, other) = (value(self.function, one), value(self.function, other));
            if one < other { (one, other) } else { (other, one) }
        });
        y.mapv(|y| match ends {
            Some((low, high)) if y <= low || y >= high => F::zero(),
            _ => slope(self.function, y),
        })
    }
}

impl Equations {
    /// The functions of gates, candidate and output. The bound is for the sums of products: not for what leaves c.
    fn functions(&self) -> [Gate; 3] {
        let [gate, candidate, output] = self.activations();
        let bound = self.options.clip_gates;
        [
            Gate { function: gate, bound },
            Gate { function: candidate, bound },
            Gate { function: output, bound: None },
        ]
    }
}

pub(super) fn one_minus<F: Real>(x: &Array2<F>) -> Array2<F> {
    x.mapv(|x| F::one() - x)
}

/// The gates of an LSTM, in the order i, f, g, o.
fn lstm_gates<F: Real>(equations: &Equations, gates: ArrayView2<'_, F>, units: usize) -> [Array2<F>; 4] {
    let gate = |gate| block(gates, gate, units);
    match equations.options.coupled {
        false => [gate(0), gate(1), gate(2), gate(3)],
        true => [gate(0), one_minus(&gate(0)), gate(1), gate(2)],
    }
}

/// The places of an LSTM's peepholes for f and o.
fn peephole_places(equations: &Equations) -> (Option<usize>, usize) {
    if equations.options.coupled { (None, 1) } else { (Some(1), 2) }
}

pub(super) fn forward<F: Real>(
    equations: &Equations,
    matrices: &Matrices<'_, F>,
    projected: ArrayView2<'_, F>,
    before: &Memory<F>,
) -> Made<F> {
    if let Some(gains) = &matrices.gains {
        return normalised::forward(gains, matrices, projected, before);
    }
    let units = matrices.units;
    let [gate, candidate, output] = equations.functions();
    let seen = matrices.seen(before.hidden.clone());
    match equations.cell {
        Cell::Vanilla(function) => {
            let gates = &projected + &matrices.product(&seen, 0, 1);
            let hidden = Gate { function, ..gate }.value(&gates);
            Made { gates, saved: None, memory: Memory { hidden, cell: before.cell.clone() } }
        }
        Cell::Lstm => {
            let a = &projected + &matrices.product(&seen, 0, equations.gates());
            let at = |place| block(a.view(), place, units);
            let (peephole_f, peephole_o) = peephole_places(equations);
            let i = gate.value(&matrices.peeped(at(0), 0, &before.cell));
            let f = match peephole_f {
                Some(place) => gate.value(&matrices.peeped(at(1), place, &before.cell)),
                None => one_minus(&i),
            };
            let last = equations.gates() - 1;
            let g = candidate.value(&at(last - 1));
            let c = (&f * &before.cell + &i * &g).mapv(|c| clamped(c, equations.options.clip_cell));
            let o = gate.value(&matrices.peeped(at(last), peephole_o, &c));
            let hidden = matrices.projected(&o * &output.value(&c));
            let gates =
                if equations.options.coupled { joined(&[&i, &g, &o]) } else { joined(&[&i, &f, &g, &o]) };
            Made { gates, saved: Some(c.clone()), memory: Memory { hidden, cell: c } }
        }
        Cell::Gru => {
            let a = &projected.slice(s![.., ..2 * units]) + &matrices.product(&seen, 0, 2);
            let (r, z) = (gate.value(&block(a.view(), 0, units)), gate.value(&block(a.view(), 1, units)));
            let a_n = block(projected, 2, units);
            let (saved, n) = if equations.resets_before() {
                let source = &r * &seen;
                let n = candidate.value(&(a_n + matrices.product(&source, 2, 3)));
                (source, n)
            } else {
                let q = matrices.product(&seen, 2, 3);
                let n = candidate.value(&(a_n + &r * &q));
                (q, n)
            };
            let hidden = one_minus(&z) * &n + &z * &before.hidden;
            let memory = Memory { hidden, cell: before.cell.clone() };
            Made { gates: joined(&[&r, &z, &n]), saved: Some(saved), memory }
        }
        Cell::Custom(cell) => {
            let recurrent = matrices.product(&seen, 0, equations.gates());
            custom::forward(cell, projected, &recurrent, before)
        }
    }
}

/// What the cell made of h at a step, before its projection.
pub(super) fn unprojected<F: Real>(equations: &Equations, step: &Step<'_, F>) -> Array2<F> {
    let units = step.before.cell.ncols();
    let [.., output] = equations.functions();
    let c = step.saved.map_or_else(|| step.before.cell.clone(), |saved| saved.to_owned());
    let [.., o] = lstm_gates(equations, step.gates, units);
    o * output.value(&c)
}

/// The state that the cell made of a step's gates, where it is not the one that the step left; h of cells whose
/// backward has no use for it is left as it is.
pub(super) fn candidate<F: Real>(equations: &Equations, step: &Step<'_, F>) -> Memory<F> {
    let mut made = Memory { hidden: step.hidden.to_owned(), cell: step.before.cell.clone() };
    match equations.cell {
        Cell::Vanilla(function) => {
            let [gate, ..] = equations.functions();
            made.hidden = Gate { function, ..gate }.value(&step.gates.to_owned());
        }
        Cell::Lstm => {
            let [i, f, g, _] = lstm_gates(equations, step.gates, step.before.cell.ncols());
            let c = f * &step.before.cell + i * g;
            made.cell = c.mapv(|c| clamped(c, equations.options.clip_cell));
        }
        Cell::Gru | Cell::Custom(_) => {}
    }
    made
}

pub(super) fn backward<F: Real>(
    equations: &Equations,
    matrices: &Matrices<'_, F>,
    step: &Step<'_, F>,
    d_after: &Memory<F>,
) -> Slopes<F> {
    if let Some(gains) = &matrices.gains {
        return normalised::backward(gains, matrices, step, d_after);
    }
    let units = matrices.units;
    let Step { gates, saved, before, hidden } = *step;
    let at = |gate| block(gates, gate, units);
    let kept = || saved.map_or_else(|| Array2::zeros(before.cell.raw_dim()), |saved| saved.to_owned());
    let nothing = || Array2::zeros(d_after.cell.raw_dim());
    let [gate, candidate, output] = equations.functions();
    let d_h = matrices.before_projection(&d_after.hidden);
    match equations.cell {
        Cell::Vanilla(function) => {
            let bound = equations.options.clip_gates.map(F::from_f32);
            let mut d_gates = d_h;
            Zip::from(&mut d_gates).and(gates).and(hidden).for_each(|d, &a, &h| {
                let outside = bound.is_some_and(|bound| a >= bound || a <= -bound);
                *d *= if outside { F::zero() } else { derivative(function, a, h) };
            });
            let d_memory = Memory { hidden: matrices.seen(d_gates.dot(&matrices.weight)), cell: nothing() };
            Slopes { d_projected: d_gates.clone(), d_recurrent: d_gates, d_memory }
        }
        Cell::Lstm => {
            let [i, f, g, o] = lstm_gates(equations, gates, units);
            let (peephole_f, peephole_o) = peephole_places(equations);
            let c = kept();
            let y = output.value(&c);
            let d_o = &d_h * &y * gate.slope(&o);
            let d_c = &d_after.cell + &(&d_h * &o * output.slope(&y));
            let mut d_c = matrices.peeped(d_c, peephole_o, &d_o);
            if let Some(bound) = equations.options.clip_cell.map(F::from_f32) {
                Zip::from(&mut d_c).and(&c).for_each(|d, &c| {
                    if c >= bound || c <= -bound {
                        *d = F::zero();
                    }
                });
            }
            let d_g = &d_c * &i * candidate.slope(&g);
            let d_f = &d_c * &before.cell * gate.slope(&f);
            let d_i = match equations.options.coupled {
                false => &d_c * &g * gate.slope(&i),
                true => &d_c * &(&g - &before.cell) * gate.slope(&i),
            };
            let mut d_cell = matrices.peeped(&d_c * &f, 0, &d_i);
            if let Some(place) = peephole_f {
                d_cell = matrices.peeped(d_cell, place, &d_f);
            }
            let d_gates = match equations.options.coupled {
                false => joined(&[&d_i, &d_f, &d_g, &d_o]),
                true => joined(&[&d_i, &d_g, &d_o]),
            };
            let d_memory = Memory { hidden: matrices.seen(d_gates.dot(&matrices.weight)), cell: d_cell };
            Slopes { d_projected: d_gates.clone(), d_recurrent: d_gates, d_memory }
        }
        Cell::Gru => {
            let (r, z, n) = (at(0), at(1), at(2));
            let d_n = &d_h * &one_minus(&z) * candidate.slope(&n);
            let d_z = &d_h * &(&before.hidden - &n) * gate.slope(&z);
            let mut d_hidden = &d_h * &z;
            let (d_r, d_q) = if equations.resets_before() {
                let d_source = d_n.dot(&matrices.rows(2, 3));
                d_hidden += &matrices.seen(&d_source * &r);
                let seen = matrices.seen(before.hidden.clone());
                (&d_source * &seen * gate.slope(&r), d_n.clone())
            } else {
                let d_q = &d_n * &r;
                d_hidden += &matrices.seen(d_q.dot(&matrices.rows(2, 3)));
                (&d_n * &kept() * gate.slope(&r), d_q)
            };
            let d_both = joined(&[&d_r, &d_z]);
            d_hidden += &matrices.seen(d_both.dot(&matrices.rows(0, 2)));
            Slopes {
                d_projected: joined(&[&d_r, &d_z, &d_n]),
                d_recurrent: joined(&[&d_r, &d_z, &d_q]),
                d_memory: Memory { hidden: d_hidden, cell: nothing() },
            }
        }
        Cell::Custom(cell) => {
            let mut slopes = custom::backward(cell, step, d_after);
            slopes.d_memory.hidden += &matrices.seen(slopes.d_recurrent.dot(&matrices.weight));
            slopes
        }
    }
}
