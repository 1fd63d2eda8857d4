//! A stack of recurrent layers as the papers and PyTorch's documentation write it: one loop over the steps of one row of
//! the batch, gate by gate and number by number, without any of the library's code.

use std::collections::BTreeMap;

use refrain::nn::{Cell, Merge};
use refrain::ops::Activation;

use super::number::Number;

/// One number for each unit.
type Units = Vec<Number>;
/// Such at \[T\]\[B\].
type Sequence = Vec<Vec<Units>>;

/// Which way a direction reads a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Time {
    Forward,
    Reverse,
}

/// What the parameters' names do not tell of a stack.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) cell: Cell,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) directions: Vec<Time>,
    pub(super) merge: Merge,
    pub(super) residual: bool,
    /// The functions of gates, candidate and output.
    pub(super) functions: [Activation; 3],
    pub(super) coupled: bool,
    pub(super) reset_before: bool,
    pub(super) clip_gates: f64,
    pub(super) clip_cell: f64,
    pub(super) clip_gradient: f64,
    /// The share of the old hidden and cell state in the new one.
    pub(super) zoneout: [f64; 2],
    /// What each row's hidden state is multiplied by where it enters a product; nothing if this is empty.
    pub(super) state_mask: Vec<Vec<f64>>,
    /// A gradient ends at every step whose number is a multiple of this.
    pub(super) truncated: Option<usize>,
    /// The gradients at the outputs of every `[0]` steps go back through `[1]` steps.
    pub(super) windows: Option<[usize; 2]>,
}

/// A stack, its parameters by name, and what it reads.
pub(super) struct Stack<'a> {
    pub(super) options: &'a Options,
    pub(super) parameters: &'a BTreeMap<String, Units>,
    /// \[T\]\[B\]\[I\].
    pub(super) x: &'a Sequence,
    pub(super) lengths: &'a [usize],
    /// \[T\]\[B\].
    pub(super) resets: &'a [Vec<bool>],
    /// Hidden and cell states \[L·D\]\[B\].
    pub(super) initial: &'a [[Vec<Units>; 2]],
    /// The window whose gradients are wanted.
    pub(super) window: usize,
}

/// Outputs, and the last hidden and cell states in the order of the initial ones.
pub(super) struct Outputs {
    pub(super) y: Sequence,
    pub(super) last: Vec<[Vec<Units>; 2]>,
}

/// The parameters of one layer in one direction.
struct Weights<'a> {
    options: &'a Options,
    parameters: &'a BTreeMap<String, Units>,
    suffix: String,
}

fn zip(one: &[Number], two: &[Number], function: impl Fn(Number, Number) -> Number) -> Units {
    assert_eq!(one.len(), two.len());
    one.iter().zip(two).map(|(&one, &two)| function(one, two)).collect()
}

fn sum(numbers: impl IntoIterator<Item = Number>) -> Number {
    numbers.into_iter().fold(Number::constant(0.0), |sum, number| sum + number)
}

fn product(matrix: &[Number], vector: &[Number]) -> Units {
    matrix.chunks(vector.len()).map(|row| sum(zip(row, vector, |w, x| w * x))).collect()
}

fn tanh(x: Number) -> Number {
    let power = (-2.0 * x).exp();
    (1.0 + -1.0 * power) / (1.0 + power)
}

/// The functions of PyTorch's and ONNX's documentation.
fn apply(function: Activation, x: Number) -> Number {
    let elu = |alpha: f64| if x.is_above(0.0) { x } else { alpha * (-1.0 + x.exp()) };
    match function {
        Activation::Identity => x,
        Activation::Tanh => tanh(x),
        Activation::Relu => x.clamp(0.0, f64::INFINITY),
        Activation::Sigmoid => Number::constant(1.0) / (1.0 + (-1.0 * x).exp()),
        Activation::LeakyRelu { .. } if x.is_above(0.0) => x,
        Activation::LeakyRelu { slope } => f64::from(slope) * x,
        Activation::Elu { alpha } => elu(alpha.into()),
        Activation::Selu => 1.050_700_987_355_480_5 * elu(1.673_263_242_354_377_2),
        Activation::Softplus => (1.0 + x.exp()).ln(),
        Activation::HardSigmoid { alpha, beta } => (f64::from(beta) + f64::from(alpha) * x).clamp(0.0, 1.0),
        Activation::Softsign if x.is_above(0.0) => x / (1.0 + x),
        Activation::Softsign => x / (1.0 + -1.0 * x),
        Activation::Tan => x.tan(),
        Activation::Affine { alpha, beta } => f64::from(beta) + f64::from(alpha) * x,
        Activation::ThresholdedRelu { alpha } if x.is_above(alpha.into()) => x,
        Activation::ThresholdedRelu { .. } => Number::constant(0.0),
        Activation::ScaledTanh { alpha, beta } => f64::from(alpha) * tanh(f64::from(beta) * x),
        Activation::HardTanh { low, high } => x.clamp(low.into(), high.into()),
        other => panic!("no equation of {other:?}"),
    }
}

/// (x − μ) / √(σ² + ε) (Ba, Kiros & Hinton 2016), with PyTorch's ε.
fn standard(x: &[Number]) -> Units {
    let share = 1.0 / x.len() as f64;
    let mean = share * sum(x.iter().copied());
    let centred: Units = x.iter().map(|&x| x - mean).collect();
    let variance = share * sum(centred.iter().map(|&x| x * x));
    let deviation = (f64::from(1e-5f32) + variance).sqrt();
    centred.into_iter().map(|x| x / deviation).collect()
}

impl<'a> Weights<'a> {
    fn find(&self, kind: &str) -> Option<&'a [Number]> {
        self.parameters.get(&format!("rnn.{kind}_{}", self.suffix)).map(Vec::as_slice)
    }

    /// LN(W v) + b of the input's (`ih`) or the state's (`hh`) weights: one value for each row of W.
    fn affine(&self, which: &str, v: &[Number]) -> Units {
        let mut rows = product(self.find(&format!("weight_{which}")).expect("a weight"), v);
        if let Some(gain) = self.find(&format!("norm_{which}")) {
            let together = if self.options.cell == Cell::Gru { rows.len() / 3 * 2 } else { rows.len() };
            let (joint, rest) = rows.split_at(together);
            let normal =
                if rest.is_empty() { standard(joint) } else { [standard(joint), standard(rest)].concat() };
            rows = zip(&normal, gain, |x, gain| gain * x);
        }
        match self.find(&format!("bias_{which}")) {
            Some(bias) => zip(&rows, bias, |x, bias| x + bias),
            None => rows,
        }
    }

    /// f(clip(a)).
    fn gate(&self, function: Activation, a: &[Number]) -> Units {
        let bound = self.options.clip_gates;
        let clipped = |a: Number| if bound.is_finite() { a.clamp(-bound, bound) } else { a };
        a.iter().map(|&a| apply(function, clipped(a))).collect()
    }

    /// a + p c, with row `row` of the peepholes.
    fn peep(&self, row: usize, a: &[Number], c: &[Number]) -> Units {
        match self.find("weight_ch") {
            Some(peepholes) => {
                zip(a, &zip(&peepholes[row * c.len()..][..c.len()], c, |p, c| p * c), |a, p| a + p)
            }
            None => a.to_vec(),
        }
    }

    /// One step of a row: h and c after it.
    fn step(&self, row: usize, x: &[Number], [h, c]: [&[Number]; 2]) -> [Units; 2] {
        let &Options { ref cell, hidden, functions: [of_gates, of_candidate, of_output], .. } = self.options;
        let seen: Units = match self.options.state_mask.get(row) {
            Some(mask) => mask.iter().zip(h).map(|(&mask, &h)| mask * h).collect(),
            None => h.to_vec(),
        };
        let (u, q) = (self.affine("ih", x), self.affine("hh", &seen));
        let a = zip(&u, &q, |u, q| u + q);
        let a = |block: usize| &a[block * hidden..][..hidden];
        let (h_new, c_new) = match cell {
            Cell::Vanilla(function) => (self.gate(*function, a(0)), Vec::new()),
            Cell::Lstm => {
                // i, f, g, o; without f where it is 1 − i.
                let later = if self.options.coupled { 0 } else { 1 };
                let i = self.gate(of_gates, &self.peep(0, a(0), c));
                let f = match self.options.coupled {
                    true => i.iter().map(|&i| 1.0 + -1.0 * i).collect(),
                    false => self.gate(of_gates, &self.peep(1, a(1), c)),
                };
                let g = self.gate(of_candidate, a(1 + later));
                let mut c_new =
                    zip(&zip(&f, c, |f, c| f * c), &zip(&i, &g, |i, g| i * g), |old, new| old + new);
                let bound = self.options.clip_cell;
                if bound.is_finite() {
                    c_new.iter_mut().for_each(|c| *c = c.clamp(-bound, bound));
                }
                let o = self.gate(of_gates, &self.peep(1 + later, a(2 + later), &c_new));
                let normal = match self.find("norm_c") {
                    Some(norm) => {
                        let (gain, shift) = norm.split_at(hidden);
                        zip(&zip(&standard(&c_new), gain, |x, gain| gain * x), shift, |x, shift| x + shift)
                    }
                    None => c_new.clone(),
                };
                let h_new = zip(&o, &normal, |o, c| o * apply(of_output, c));
                (self.find("weight_hr").map_or(h_new.clone(), |weight| product(weight, &h_new)), c_new)
            }
            Cell::Gru => {
                let (r, z) = (self.gate(of_gates, a(0)), self.gate(of_gates, a(1)));
                let candidate = match self.options.reset_before {
                    true => self.affine("hh", &zip(&r, &seen, |r, h| r * h))[2 * hidden..].to_vec(),
                    false => zip(&r, &q[2 * hidden..], |r, q| r * q),
                };
                let n = self.gate(of_candidate, &zip(&u[2 * hidden..], &candidate, |u, q| u + q));
                let kept = zip(&z, h, |z, h| z * h);
                (zip(&zip(&z, &n, |z, n| (1.0 + -1.0 * z) * n), &kept, |new, old| new + old), Vec::new())
            }
            other => panic!("no equations of {other:?}"),
        };
        let [of_h, of_c] = self.options.zoneout;
        let mixed = |rate: f64, old: &[Number], new: &[Number]| {
            zip(old, new, |old, new| if rate > 0.0 { rate * old + (1.0 - rate) * new } else { new })
        };
        [mixed(of_h, h, &h_new), mixed(of_c, c, &c_new)]
    }
}

impl Stack<'_> {
    /// The outputs of a row whose gradients are wanted, and the step that they do not flow back past.
    pub(super) fn window(&self, row: usize) -> (std::ops::Range<usize>, usize) {
        let length = self.lengths[row];
        let Some([every, depth]) = self.options.windows else { return (0..length, 0) };
        let start = (self.window * every).min(length);
        let end = (start + every).min(length);
        (start..end, end.saturating_sub(depth))
    }

    /// One row in one direction: its outputs by step of the row, and the last state.
    fn row(
        &self,
        weights: &Weights<'_>,
        time: Time,
        row: usize,
        place: usize,
        input: &Sequence,
    ) -> (Sequence, [Units; 2]) {
        let length = self.lengths[row];
        let [mut h, mut c] = [0, 1].map(|part| self.initial[place][part][row].clone());
        let mut outputs = vec![vec![Vec::new()]; length];
        for number in 0..length {
            let step = if time == Time::Forward { number } else { length - 1 - number };
            // A mark stands between a step and the one before it in time.
            let parted = match time {
                Time::Forward => self.resets[step][row],
                Time::Reverse => step + 1 < length && self.resets[step + 1][row],
            };
            let ends = number > 0
                && (self.options.truncated.is_some_and(|every| number % every == 0)
                    || self.options.windows.is_some() && number == self.window(row).1);
            let bound = self.options.clip_gradient;
            for state in h.iter_mut().chain(&mut c) {
                let value = if parted { 0.0 } else { state.value };
                *state = if parted || ends { Number::constant(value) } else { state.bounded_gradient(bound) };
            }
            [h, c] = weights.step(row, &input[step][row], [&h, &c]);
            outputs[step][0] = h.clone();
        }
        (outputs, [h, c])
    }

    pub(super) fn run(&self) -> Outputs {
        let Options { layers, directions, merge, residual, .. } = self.options;
        let (mut input, mut last) = (self.x.clone(), Vec::new());
        for layer in 0..*layers {
            let mut sides = Vec::new();
            for &time in directions {
                let suffix = format!("l{layer}{}", if time == Time::Reverse { "_reverse" } else { "" });
                let weights = Weights { options: self.options, parameters: self.parameters, suffix };
                let rows: Vec<_> = (0..self.lengths.len())
                    .map(|row| self.row(&weights, time, row, last.len(), &input))
                    .collect();
                last.push([0, 1].map(|part| rows.iter().map(|(_, state)| state[part].clone()).collect()));
                sides.push(rows);
            }
            input = (0..self.x.len())
                .map(|step| {
                    (0..self.lengths.len())
                        .map(|row| {
                            if step >= self.lengths[row] {
                                return Vec::new();
                            }
                            let side = |side: usize| &sides[side][row].0[step][0];
                            let y = match (merge, sides.len()) {
                                (_, 1) => side(0).clone(),
                                (Merge::Concat, _) => [side(0).as_slice(), side(1)].concat(),
                                (Merge::Sum, _) => zip(side(0), side(1), |a, b| a + b),
                                (Merge::Mean, _) => zip(side(0), side(1), |a, b| 0.5 * (a + b)),
                                (Merge::Product, _) => zip(side(0), side(1), |a, b| a * b),
                            };
                            let below = &input[step][row];
                            if *residual && below.len() == y.len() { zip(&y, below, |y, x| y + x) } else { y }
                        })
                        .collect()
                })
                .collect();
        }
        Outputs { y: input, last }
    }
}
