//! Back-propagation through time by hand, one plain step after another: what truncations and clips of the gradient are
//! compared with.
//!
//! Long, because it holds all that lies between steps and layers: directions, lengths, merges, residual connections.
//!
//! A step is a pass of a layer without either over a sequence of length one, and its backward what finite differences
//! confirm. What flows between steps, and how far, is decided here.

use std::collections::BTreeMap;
use std::ops::Range;

use refrain::nn::{Layer, Merge, Model, Parameters, RandomKey, Rnn, Sequences, State};
use refrain::{Device, Indices, Result, Tensor, ops};

use crate::support::all_gradients;

/// Truncation and clipping of gradients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// After this many steps the gradients of the outputs since the last time flow back,
    pub(crate) every: usize,
    /// through this many steps.
    pub(crate) depth: usize,
    /// The bound of each entry of the gradient at a state.
    pub(crate) bound: Option<f64>,
}

/// One layer in one direction over rows of equal length.
struct Strand<'a> {
    layer: &'a Layer<Rnn>,
    parameters: &'a Parameters,
    random_key: Option<RandomKey>,
    /// Input of each step \[1, B, I\].
    x: Vec<Tensor>,
    /// Where the state becomes zero before a step \[1, B\].
    resets: Vec<Option<Indices>>,
    /// The states before each step, and the last one.
    states: Vec<State>,
    batch: usize,
}

/// The results of a backward pass.
struct Back {
    /// The gradients of all parameters, concatenated.
    parameters: Vec<f64>,
    /// \[T, B, I\].
    d_x: Vec<f64>,
    /// Hidden and, where there is one, cell state.
    d_initial: Vec<Vec<f64>>,
}

/// The values of the parts of a state, hidden first.
pub(crate) fn parts(state: &State) -> Result<Vec<Vec<f64>>> {
    let all = [Some(state.hidden()), state.cell()];
    all.into_iter().flatten().map(|part| part.download_f64()).collect()
}

/// A state of one layer in one direction for `batch` rows.
fn state_of(batch: usize, parts: &[Vec<f64>]) -> Result<State> {
    let part = |values: &Vec<f64>| {
        Tensor::from_slice_f64(&Device::reference(), &[1, batch, values.len() / batch], values)
    };
    match parts {
        [hidden, cell] => State::from_hidden_and_cell(&part(hidden)?, &part(cell)?),
        _ => State::from_hidden(&part(&parts[0])?),
    }
}

fn add(total: &mut [f64], values: &[f64]) {
    for (total, value) in total.iter_mut().zip(values) {
        *total += value;
    }
}

impl<'a> Strand<'a> {
    /// Runs over x \[T, B, I\] from `initial`; also returns the outputs \[T, B, ..\].
    fn run(
        layer: &'a Layer<Rnn>,
        parameters: &'a Parameters,
        random_key: Option<RandomKey>,
        [steps, batch]: [usize; 2],
        x: &[f64],
        resets: Option<&[u32]>,
        initial: State,
    ) -> Result<(Self, Vec<f64>)> {
        let device = Device::reference();
        let mut strand = Self {
            layer,
            parameters,
            random_key,
            x: Vec::new(),
            resets: Vec::new(),
            states: vec![initial],
            batch,
        };
        let (inputs, mut y) = (x.len() / steps / batch, Vec::new());
        for (step, x) in x.chunks(batch * inputs).enumerate() {
            strand.x.push(Tensor::from_slice_f64(&device, &[1, batch, inputs], x)?);
            let resets = resets
                .map(|resets| Indices::from_slice(&device, &[1, batch], &resets[step * batch..][..batch]));
            strand.resets.push(resets.transpose()?);
            let (state, sequences) = (&strand.states[step], strand.sequences(step));
            let (output, next) = layer.infer_sequences(parameters, &strand.x[step], state, sequences)?;
            y.extend(output.download_f64()?);
            strand.states.push(next);
        }
        Ok((strand, y))
    }

    fn sequences(&self, step: usize) -> Sequences<'_> {
        let whole = Sequences::whole();
        let sequences = self.resets[step].as_ref().map_or(whole, |resets| whole.resets(resets));
        match self.random_key {
            Some(random_key) => sequences.training(random_key),
            None => sequences.evaluation(),
        }
    }

    /// Computes window after window, each from its last step backwards, and adds all gradients.
    fn back(&self, plan: Plan, d_y: &[f64], d_last: Option<&[Vec<f64>]>) -> Result<Back> {
        let steps = self.x.len();
        let step_values = d_y.len() / steps;
        let zero: Vec<Vec<f64>> =
            parts(&self.states[steps])?.iter().map(|part| vec![0.0; part.len()]).collect();
        let mut gradients = self.parameters.zero_gradients()?;
        let mut d_x = vec![Vec::new(); steps];
        let mut d_initial = zero.clone();
        for start in (0..steps).step_by(plan.every) {
            let end = (start + plan.every).min(steps) - 1;
            let mut carry = match d_last {
                Some(d_last) if end + 1 == steps => d_last.to_vec(),
                _ => zero.clone(),
            };
            for step in (0..=end).rev().take(plan.depth) {
                let own = step >= start;
                let d_y: Vec<f64> = d_y[step * step_values..][..step_values]
                    .iter()
                    .map(|value| if own { *value } else { 0.0 })
                    .collect();
                let (state, sequences) = (&self.states[step], self.sequences(step));
                let (y, _, trace) =
                    self.layer.forward_sequences(self.parameters, &self.x[step], state, sequences)?;
                let d_y = Tensor::from_slice_f64(&Device::reference(), y.shape().dimensions(), &d_y)?;
                let d_after = state_of(self.batch, &carry)?;
                let (d_own, d_before) = trace.backward(&d_y, Some(&d_after), &mut gradients)?;
                let d_own = d_own.download_f64()?;
                d_x[step].resize(d_own.len(), 0.0);
                add(&mut d_x[step], &d_own);
                carry = parts(&d_before)?;
                if let Some(bound) = plan.bound {
                    carry.iter_mut().flatten().for_each(|value| *value = value.clamp(-bound, bound));
                }
                if step == 0 {
                    d_initial.iter_mut().zip(&carry).for_each(|(total, carry)| add(total, carry));
                }
            }
        }
        Ok(Back { parameters: all_gradients(self.parameters, &gradients)?, d_x: d_x.concat(), d_initial })
    }
}

/// A stack assembled from single layers in single directions.
pub(crate) struct ByHand<'a> {
    /// One layer in one direction over this many inputs, without clipping of the gradient or truncation.
    pub(crate) describe: &'a dyn Fn(usize) -> Rnn,
    /// The parameters of the stack, which is named `rnn`.
    pub(crate) parameters: &'a Parameters,
    pub(crate) layers: usize,
    pub(crate) directions: &'a [Time],
    pub(crate) merge: Merge,
    pub(crate) residual: bool,
    /// The factors of the outputs of all layers except the last.
    pub(crate) mask: Option<Vec<f64>>,
    pub(crate) random_key: Option<RandomKey>,
    pub(crate) steps: usize,
    /// Steps of each row.
    pub(crate) lengths: Vec<usize>,
    pub(crate) resets: Option<Vec<u32>>,
    pub(crate) plan: Plan,
}

/// The direction of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Time {
    Forward,
    Reverse,
}

/// One layer in one direction, and its input.
struct Lane {
    layer: Layer<Rnn>,
    parameters: Parameters,
    time: Time,
    x: Vec<f64>,
    /// Hidden and cell \[B, ..\].
    initial: Vec<Vec<f64>>,
}

/// The results of a stack.
pub(crate) struct Yield {
    pub(crate) y: Vec<f64>,
    pub(crate) d_x: Vec<f64>,
    /// Hidden and cell \[L·D, B, ..\].
    pub(crate) d_initial: Vec<Vec<f64>>,
    /// By the stack's names of its parameters, without those of an initial state.
    pub(crate) gradients: BTreeMap<String, Vec<f64>>,
}

impl ByHand<'_> {
    /// Rows of equal length run together; where rows differ, each runs alone.
    fn groups(&self) -> Vec<(Range<usize>, usize)> {
        match self.lengths.iter().all(|length| *length == self.steps) {
            true => vec![(0..self.lengths.len(), self.steps)],
            false => self.lengths.iter().enumerate().map(|(row, &length)| (row..row + 1, length)).collect(),
        }
    }

    /// The places of the first `steps` steps of some rows in an array \[T, B, ..\], in the order of this
    /// direction.
    fn places(&self, rows: &Range<usize>, steps: usize, time: Time) -> Vec<usize> {
        let step = |step| if time == Time::Forward { step } else { steps - 1 - step };
        let batch = self.lengths.len();
        (0..steps).flat_map(|at| rows.clone().map(move |row| step(at) * batch + row)).collect()
    }

    /// Which of the steps at `places`, in the order of this direction, start from zeros. A reset separates a
    /// step from the previous one in time: forward, its own step starts from zeros; in reverse, the step
    /// before it.
    fn restarts(&self, resets: &[u32], time: Time, places: &[usize], rows: usize) -> Vec<u32> {
        let marks = places.iter().map(|&place| resets[place]);
        match time {
            Time::Forward => marks.collect(),
            Time::Reverse => std::iter::repeat_n(0, rows).chain(marks).take(places.len()).collect(),
        }
    }

    fn lane(&self, place: usize, x: &[f64], initial: &[Vec<f64>]) -> Result<Lane> {
        let (steps, batch, directions) = (self.steps, self.lengths.len(), self.directions.len());
        let mut model = Model::new(0);
        let layer = model.add("rnn", (self.describe)(x.len() / steps / batch))?;
        let mut parameters = model.initialize(&Device::reference())?;
        for spec in model.specs() {
            let view = self.parameters.view(&self.name(place, &spec.name))?;
            let (shape, own) = (view.shape().dimensions(), view.download_f64()?);
            parameters.set_all([(spec.name.as_str(), shape, own.as_slice())])?;
        }
        let places = self.layers * directions;
        let initial = initial.iter().map(|part| {
            let width = part.len() / places;
            part[place * width..][..width].to_vec()
        });
        let (time, initial) = (self.directions[place % directions], initial.collect());
        Ok(Lane { layer, parameters, time, x: x.to_vec(), initial })
    }

    /// The stack's name for a parameter of the lane at `place`.
    fn name(&self, place: usize, own: &str) -> String {
        let (layer, direction) = (place / self.directions.len(), place % self.directions.len());
        let suffix = if self.directions[direction] == Time::Reverse { "_reverse" } else { "" };
        own.replace("_l0", &format!("_l{layer}{suffix}"))
    }

    /// Calls `take` with the strand and the outputs of each group of rows, and with their places.
    fn strands(
        &self,
        lane: &Lane,
        mut take: impl FnMut(Strand<'_>, Vec<f64>, &Range<usize>, &[usize]) -> Result<()>,
    ) -> Result<()> {
        let inputs = lane.x.len() / self.steps / self.lengths.len();
        for (rows, steps) in self.groups() {
            let places = self.places(&rows, steps, lane.time);
            let x = pick(&lane.x, &places, inputs);
            let resets =
                self.resets.as_ref().map(|resets| self.restarts(resets, lane.time, &places, rows.len()));
            let initial = of_rows(&lane.initial, &rows, self.lengths.len());
            let initial = state_of(rows.len(), &initial)?;
            let sizes = [steps, rows.len()];
            let Lane { layer, parameters, .. } = lane;
            let (strand, y) =
                Strand::run(layer, parameters, self.random_key, sizes, &x, resets.as_deref(), initial)?;
            take(strand, y, &rows, &places)?;
        }
        Ok(())
    }

    /// The outputs of a lane \[T, B, ..\]; zeros in the padding.
    fn outputs(&self, lane: &Lane) -> Result<Vec<f64>> {
        let width = lane.layer.description().outputs();
        let mut all = vec![0.0; self.steps * self.lengths.len() * width];
        self.strands(lane, |_, y, _, places| {
            put(&mut all, &y, places, width);
            Ok(())
        })?;
        Ok(all)
    }

    fn lane_back(&self, lane: &Lane, d_y: &[f64], d_last: Option<&[Vec<f64>]>) -> Result<Back> {
        let batch = self.lengths.len();
        let (width, inputs) = (lane.layer.description().outputs(), lane.x.len() / self.steps / batch);
        let mut all = Back {
            parameters: vec![0.0; lane.parameters.count()],
            d_x: vec![0.0; lane.x.len()],
            d_initial: lane.initial.iter().map(|part| vec![0.0; part.len()]).collect(),
        };
        self.strands(lane, |strand, _, rows, places| {
            let d_last = d_last.map(|d_last| of_rows(d_last, rows, batch));
            let back = strand.back(self.plan, &pick(d_y, places, width), d_last.as_deref())?;
            add(&mut all.parameters, &back.parameters);
            put(&mut all.d_x, &back.d_x, places, inputs);
            for (all, own) in all.d_initial.iter_mut().zip(&back.d_initial) {
                let width = all.len() / batch;
                all[rows.start * width..rows.end * width].copy_from_slice(own);
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// The forward and backward pass of all layers. `d_last` is the gradient of the final state.
    pub(crate) fn pass(
        &self,
        x: &[f64],
        initial: &[Vec<f64>],
        d_y: &[f64],
        d_last: Option<&[Vec<f64>]>,
    ) -> Result<Yield> {
        let directions = self.directions.len();
        let (mut input, mut layers) = (self.without_padding(x), Vec::new());
        for layer in 0..self.layers {
            let lanes =
                (0..directions).map(|direction| self.lane(layer * directions + direction, &input, initial));
            let lanes: Vec<Lane> = lanes.collect::<Result<_>>()?;
            let outputs = lanes.iter().map(|lane| self.outputs(lane)).collect::<Result<Vec<_>>>()?;
            let output = self.side_by_side(&outputs)?;
            let mut given = match self.merge {
                Merge::Concat => output.download_f64()?,
                merge => ops::merge(&output, merge)?.download_f64()?,
            };
            if layer + 1 < self.layers {
                given = self.masked(given);
            }
            if self.is_residual(layer, input.len(), given.len()) {
                add(&mut given, &input);
            }
            let read = std::mem::replace(&mut input, given);
            layers.push((lanes, output, read.len()));
        }
        let y = input;
        let mut gradients = BTreeMap::new();
        let mut d_initial: Vec<Vec<f64>> = initial.iter().map(|part| vec![0.0; part.len()]).collect();
        let mut d_given = self.without_padding(d_y);
        for (layer, (lanes, output, read)) in layers.iter().enumerate().rev() {
            let d_merged =
                if layer + 1 < self.layers { self.masked(d_given.clone()) } else { d_given.clone() };
            let d_output = self.unmerged(output, &d_merged)?;
            let residual = self.is_residual(layer, *read, d_given.len());
            let mut d_x = if residual { d_given } else { vec![0.0; *read] };
            for (direction, lane) in lanes.iter().enumerate() {
                let place = layer * directions + direction;
                let of_place = |parts: &[Vec<f64>]| -> Vec<Vec<f64>> {
                    let cut = |part: &Vec<f64>| {
                        let width = part.len() / (self.layers * directions);
                        part[place * width..][..width].to_vec()
                    };
                    parts.iter().map(cut).collect()
                };
                let d_own = d_last.map(of_place);
                let back = self.lane_back(lane, &d_output[direction], d_own.as_deref())?;
                add(&mut d_x, &back.d_x);
                for (all, own) in d_initial.iter_mut().zip(&back.d_initial) {
                    all[place * own.len()..][..own.len()].copy_from_slice(own);
                }
                let mut rest = back.parameters.as_slice();
                for name in lane.parameters.names() {
                    let (own, after) = rest.split_at(lane.parameters.view(name)?.shape().elements());
                    gradients.insert(self.name(place, name), own.to_vec());
                    rest = after;
                }
            }
            d_given = d_x;
        }
        Ok(Yield { y, d_x: d_given, d_initial, gradients })
    }

    fn is_residual(&self, layer: usize, read: usize, given: usize) -> bool {
        self.residual && (layer > 0 || read == given)
    }

    /// The same values with zeros in the padding, which residual connections would pass on.
    fn without_padding(&self, values: &[f64]) -> Vec<f64> {
        let (batch, mut values) = (self.lengths.len(), values.to_vec());
        let width = values.len() / self.steps / batch;
        let rows = values.chunks_mut(width).enumerate();
        let padding = rows.filter(|(place, _)| place / batch >= self.lengths[place % batch]);
        padding.for_each(|(_, values)| values.fill(0.0));
        values
    }

    fn masked(&self, values: Vec<f64>) -> Vec<f64> {
        match &self.mask {
            Some(mask) => values.iter().zip(mask).map(|(value, factor)| value * factor).collect(),
            None => values,
        }
    }

    fn tensor(&self, values: &[f64]) -> Result<Tensor> {
        let (steps, batch) = (self.steps, self.lengths.len());
        Tensor::from_slice_f64(&Device::reference(), &[steps, batch, values.len() / steps / batch], values)
    }

    /// \[T, B, W\] of each direction as \[T, B, D·W\].
    fn side_by_side(&self, outputs: &[Vec<f64>]) -> Result<Tensor> {
        let width = outputs[0].len() / self.steps / self.lengths.len();
        let places = 0..self.steps * self.lengths.len();
        let row = |place: usize| outputs.iter().flat_map(move |output| &output[place * width..][..width]);
        self.tensor(&places.flat_map(row).copied().collect::<Vec<f64>>())
    }

    /// The gradient of the outputs of each direction.
    fn unmerged(&self, output: &Tensor, d_merged: &[f64]) -> Result<Vec<Vec<f64>>> {
        let d_output = match self.merge {
            Merge::Concat => d_merged.to_vec(),
            merge => ops::merge_backward(output, &self.tensor(d_merged)?, merge)?.download_f64()?,
        };
        let directions = self.directions.len();
        let width = output.shape().last() / directions;
        let own = |direction: usize| {
            d_output.chunks(width).skip(direction).step_by(directions).flatten().copied().collect()
        };
        Ok((0..directions).map(own).collect())
    }
}

/// The entries of \[T·B, `width`\] at these places.
fn pick(values: &[f64], places: &[usize], width: usize) -> Vec<f64> {
    places.iter().flat_map(|place| &values[place * width..][..width]).copied().collect()
}

fn put(values: &mut [f64], part: &[f64], places: &[usize], width: usize) {
    for (place, part) in places.iter().zip(part.chunks(width)) {
        values[place * width..][..width].copy_from_slice(part);
    }
}

/// Some rows of the parts of a state.
fn of_rows(parts: &[Vec<f64>], rows: &Range<usize>, batch: usize) -> Vec<Vec<f64>> {
    let cut = |part: &Vec<f64>| {
        let width = part.len() / batch;
        part[rows.start * width..rows.end * width].to_vec()
    };
    parts.iter().map(cut).collect()
}
