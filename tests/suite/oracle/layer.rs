//! A stack of recurrent layers as the papers and PyTorch's documentation write it: a loop over the steps of one row of the
//! batch, gate by gate and number by number, without any of the library's code.

use std::collections::BTreeMap;
use std::ops::Range;

use refrain::nn::{Cell, Merge};
use refrain::ops::Activation;

use super::number::{self, Number};

/// One number for each unit.
type Units = Vec<Number>;

/// The order in which a direction reads a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Time {
    Forward,
    Reverse,
}

/// The description of a stack, and the masks of training.
pub(super) struct Options {
    pub(super) cell: Cell,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) directions: &'static [Time],
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
    /// The gradient ends at every step whose number is a multiple of this.
    pub(super) truncated: Option<usize>,
    /// The gradients at the outputs of every `[0]` steps flow back through `[1]` steps.
    pub(super) windows: Option<[usize; 2]>,
    /// Factors of inputs \[B, I\], of hidden states in products \[B, H\], of the elements of W_hh, and of the outputs of all
    /// layers but the last \[T, B, ..\]; empty without them.
    pub(super) masks: Masks,
}

#[derive(Default)]
pub(super) struct Masks {
    pub(super) inputs: Vec<f64>,
    pub(super) states: Vec<f64>,
    pub(super) weights: Vec<f64>,
    pub(super) outputs: Vec<f64>,
}

/// Values by layer and direction.
type ByPlace = Vec<Vec<f64>>;

/// One row of a batch: x and the gradients at the outputs by step, the initial hidden and cell states and the gradients at the
/// final ones.
pub(super) struct Row {
    pub(super) number: usize,
    /// Steps and rows of the batch.
    pub(super) steps: usize,
    pub(super) batch: usize,
    pub(super) x: Vec<Vec<f64>>,
    pub(super) resets: Vec<bool>,
    pub(super) d_y: Vec<Vec<f64>>,
    pub(super) initial: [ByPlace; 2],
    pub(super) d_last: [ByPlace; 2],
}

/// The results for one row.
pub(super) struct RowResults {
    pub(super) y: Vec<Vec<f64>>,
    pub(super) last: [ByPlace; 2],
    pub(super) d_x: Vec<Vec<f64>>,
    pub(super) d_initial: [ByPlace; 2],
}

fn constants(values: &[f64]) -> Units {
    values.iter().map(|&value| Number::constant(value)).collect()
}

fn zip(one: &[Number], two: &[Number], function: impl Fn(Number, Number) -> Number) -> Units {
    assert_eq!(one.len(), two.len());
    one.iter().zip(two).map(|(&one, &two)| function(one, two)).collect()
}

/// Numbers times constant factors; all of them unless there are any.
fn masked(numbers: &[Number], mask: &[f64]) -> Units {
    match mask {
        [] => numbers.to_vec(),
        mask => numbers.iter().zip(mask).map(|(&number, &factor)| factor * number).collect(),
    }
}

/// The entries of row `row` of \[.., width\]; none if there is no array.
fn row_of(values: &[f64], row: usize, width: usize) -> &[f64] {
    values.get(row * width..(row + 1) * width).unwrap_or_default()
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
pub(crate) fn apply(function: Activation, x: Number) -> Number {
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

/// One layer in one direction.
struct Direction<'a> {
    options: &'a Options,
    parameters: &'a BTreeMap<String, Units>,
    suffix: String,
    time: Time,
}

impl<'a> Direction<'a> {
    fn find(&self, kind: &str) -> Option<&'a [Number]> {
        self.parameters.get(&format!("rnn.{kind}_{}", self.suffix)).map(Vec::as_slice)
    }

    /// LN(W v) + b of the input's (`ih`) or the state's (`hh`) weights: one value for each row of W.
    fn affine(&self, which: &str, v: &[Number]) -> Units {
        let mask = if which == "hh" { &*self.options.masks.weights } else { &[] };
        let mut rows = product(&masked(self.find(&format!("weight_{which}")).expect("a weight"), mask), v);
        if let Some(gain) = self.find(&format!("norm_{which}")) {
            // The candidate of a GRU is a group of its own.
            let gates = if self.options.cell == Cell::Gru { rows.len() / 3 * 2 } else { rows.len() };
            let groups = [&rows[..gates], &rows[gates..]].into_iter().filter(|group| !group.is_empty());
            rows = zip(&groups.flat_map(standard).collect::<Units>(), gain, |x, gain| gain * x);
        }
        match self.find(&format!("bias_{which}")) {
            Some(bias) => zip(&rows, bias, |x, bias| x + bias),
            None => rows,
        }
    }

    /// f(clip(a)).
    fn gate(&self, function: Activation, a: &[Number]) -> Units {
        let bound = self.options.clip_gates;
        a.iter().map(|&a| apply(function, clip(a, bound))).collect()
    }

    /// a + p c, with row `row` of the peepholes.
    fn peep(&self, row: usize, a: &[Number], c: &[Number]) -> Units {
        match self.find("weight_ch") {
            Some(peepholes) => {
                let weighted = zip(&peepholes[row * c.len()..][..c.len()], c, |p, c| p * c);
                zip(a, &weighted, |a, p| a + p)
            }
            None => a.to_vec(),
        }
    }

    /// One step of a row: h and c after it. `seen` is h where it enters a product.
    fn step(&self, x: &[Number], [h, c]: [&[Number]; 2], seen: &[Number]) -> [Units; 2] {
        let Options { hidden, functions: [of_gates, of_candidate, of_output], .. } = *self.options;
        let (u, q) = (self.affine("ih", x), self.affine("hh", seen));
        let a = zip(&u, &q, |u, q| u + q);
        let a = |block: usize| &a[block * hidden..][..hidden];
        let (h_new, c_new) = match &self.options.cell {
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
                let (kept, added) = (zip(&f, c, |f, c| f * c), zip(&i, &g, |i, g| i * g));
                let c_new = zip(&kept, &added, |kept, added| clip(kept + added, self.options.clip_cell));
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
                    true => self.affine("hh", &zip(&r, seen, |r, h| r * h))[2 * hidden..].to_vec(),
                    false => zip(&r, &q[2 * hidden..], |r, q| r * q),
                };
                let n = self.gate(of_candidate, &zip(&u[2 * hidden..], &candidate, |u, q| u + q));
                let new = zip(&z, &n, |z, n| (1.0 + -1.0 * z) * n);
                (zip(&new, &zip(&z, h, |z, h| z * h), |new, old| new + old), Vec::new())
            }
            other => panic!("no equations of {other:?}"),
        };
        let [of_h, of_c] = self.options.zoneout;
        let mixed = |rate: f64, old: &[Number], new: &[Number]| {
            zip(old, new, |old, new| if rate > 0.0 { rate * old + (1.0 - rate) * new } else { new })
        };
        [mixed(of_h, h, &h_new), mixed(of_c, c, &c_new)]
    }

    /// The time loop: the outputs of a row by step, and the last state. The gradient ends before step `cut`, unless that is 0.
    fn run(
        &self,
        row: &Row,
        x: &[Units],
        [mut h, mut c]: [Units; 2],
        cut: usize,
    ) -> (Vec<Units>, [Units; 2]) {
        let (length, masks) = (x.len(), &self.options.masks);
        let mut outputs = vec![Vec::new(); length];
        for number in 0..length {
            let step = if self.time == Time::Forward { number } else { length - 1 - number };
            // A reset separates a step from the one before it in time.
            let is_reset = match self.time {
                Time::Forward => row.resets[step],
                Time::Reverse => step + 1 < length && row.resets[step + 1],
            };
            let is_chunk = self.options.truncated.is_some_and(|every| number % every == 0);
            let ends = number > 0 && (is_chunk || number == cut);
            for state in h.iter_mut().chain(&mut c) {
                *state = match (is_reset, ends) {
                    (true, _) => Number::constant(0.0),
                    (false, true) => Number::constant(state.value),
                    (false, false) => state.clip_gradient(self.options.clip_gradient),
                };
            }
            let x = masked(&x[step], row_of(&masks.inputs, row.number, x[step].len()));
            let seen = masked(&h, row_of(&masks.states, row.number, h.len()));
            [h, c] = self.step(&x, [&h, &c], &seen);
            outputs[step] = h.clone();
        }
        (outputs, [h, c])
    }
}

fn clip(x: Number, bound: f64) -> Number {
    if bound.is_finite() { x.clamp(-bound, bound) } else { x }
}

impl Options {
    /// One layer over a row: both directions, merged, masked and added to the input.
    fn layer(
        &self,
        parameters: &BTreeMap<String, Units>,
        (layer, row): (usize, &Row),
        x: &[Units],
        initial: &[[Units; 2]],
        cut: usize,
    ) -> (Vec<Units>, Vec<[Units; 2]>) {
        let direction = |(&time, initial): (&Time, &[Units; 2])| {
            let suffix = format!("l{layer}{}", if time == Time::Reverse { "_reverse" } else { "" });
            let direction = Direction { options: self, parameters, suffix, time };
            direction.run(row, x, initial.clone(), cut)
        };
        let (sides, last): (Vec<_>, _) = self.directions.iter().zip(initial).map(direction).unzip();
        let merged = |step: usize| {
            let side = |side: usize| sides[side][step].as_slice();
            let y = match (self.merge, sides.len()) {
                (_, 1) => side(0).to_vec(),
                (Merge::Concat, _) => [side(0), side(1)].concat(),
                (Merge::Sum, _) => zip(side(0), side(1), |a, b| a + b),
                (Merge::Mean, _) => zip(side(0), side(1), |a, b| 0.5 * (a + b)),
                (Merge::Product, _) => zip(side(0), side(1), |a, b| a * b),
            };
            let mask = if layer + 1 < self.layers { &*self.masks.outputs } else { &[] };
            let y = masked(&y, row_of(mask, step * row.batch + row.number, y.len()));
            if self.residual && x[step].len() == y.len() { zip(&y, &x[step], |y, x| y + x) } else { y }
        };
        ((0..x.len()).map(merged).collect(), last)
    }

    /// The outputs whose gradients flow back together, and the step that they do not flow past. In all rows of a batch windows
    /// end at the same steps.
    fn windows(&self, row: &Row) -> Vec<(Range<usize>, usize)> {
        let length = row.x.len();
        let Some([every, depth]) = self.windows.filter(|_| length > 0) else { return vec![(0..length, 0)] };
        let ends = (0..length).step_by(every).map(|start| (start, row.steps.min(start + every)));
        ends.map(|(start, end)| (start..end.min(length), end.saturating_sub(depth))).collect()
    }

    /// A row forwards and backwards, layer by layer and window by window. Adds its share to the gradients of the parameters.
    pub(super) fn pass(
        &self,
        parameters: &BTreeMap<String, Vec<f64>>,
        row: &Row,
        gradients: &mut BTreeMap<String, Vec<f64>>,
    ) -> RowResults {
        // The tape of one layer: its parameters, inputs, initial states, outputs and last states.
        let run = |layer: usize, x: &[Vec<f64>], cut: usize| {
            number::clear();
            let leaves = parameters.iter().map(|(name, all)| (name.clone(), constants(all)));
            let leaves: BTreeMap<String, Units> = leaves.collect();
            let x: Vec<Units> = x.iter().map(|x| constants(x)).collect();
            let places = layer * self.directions.len()..(layer + 1) * self.directions.len();
            let state = |place: usize| [0, 1].map(|part| constants(&row.initial[part][place]));
            let initial: Vec<[Units; 2]> = places.map(state).collect();
            let (y, last) = self.layer(&leaves, (layer, row), &x, &initial, cut);
            (leaves, x, initial, y, last)
        };
        let values = |numbers: &Units| numbers.iter().map(|number| number.value).collect::<Vec<f64>>();
        let (mut inputs, mut last) = (vec![row.x.clone()], [Vec::new(), Vec::new()]);
        for layer in 0..self.layers {
            let (.., y, ends) = run(layer, &inputs[layer], 0);
            inputs.push(y.iter().map(values).collect());
            for [h, c] in &ends {
                last[0].push(values(h));
                last[1].push(values(c));
            }
        }
        let zeros = |all: &[Vec<f64>]| all.iter().map(|values| vec![0.0; values.len()]).collect::<ByPlace>();
        let mut d_initial = [0, 1].map(|part| zeros(&row.initial[part]));
        let mut d_y = row.d_y.clone();
        for layer in (0..self.layers).rev() {
            let mut d_x = zeros(&inputs[layer]);
            for (own, cut) in self.windows(row) {
                let (leaves, x, initial, y, ends) = run(layer, &inputs[layer], cut);
                let mut terms: Vec<(&Units, &Vec<f64>)> =
                    y[own.clone()].iter().zip(&d_y[own.clone()]).collect();
                let first = layer * self.directions.len();
                if own.end == row.x.len() {
                    let ends = ends.iter().enumerate();
                    let d_last = |part: usize, place: usize| &row.d_last[part][first + place];
                    terms.extend(ends.flat_map(|(at, [h, c])| [(h, d_last(0, at)), (c, d_last(1, at))]));
                }
                let products = |(numbers, upstream): (&Units, &Vec<f64>)| -> Units {
                    numbers.iter().zip(upstream).map(|(&number, &upstream)| upstream * number).collect()
                };
                let derivatives = number::derivatives(sum(terms.into_iter().flat_map(products)));
                let add = |total: &mut Vec<f64>, numbers: &Units| {
                    total.iter_mut().zip(numbers).for_each(|(total, &at)| *total += derivatives.at(at));
                };
                gradients.iter_mut().for_each(|(name, total)| add(total, &leaves[name]));
                d_x.iter_mut().zip(&x).for_each(|(total, x)| add(total, x));
                for (at, state) in initial.iter().enumerate() {
                    (0..2).for_each(|part| add(&mut d_initial[part][first + at], &state[part]));
                }
            }
            d_y = d_x;
        }
        RowResults { y: inputs.pop().unwrap_or_default(), last, d_x: d_y, d_initial }
    }
}
