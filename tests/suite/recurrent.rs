//! The recurrent family as a whole: every combination of cell, direction, depth, bias, lengths, resets and final
//! gradient against finite differences. What else a stack may have is tested in pairs, in `pairs`.

use refrain::nn::{Cell, Layer, Model, Parameters, RandomKey, Rnn, Sequences, State};
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::gradients::check;
use crate::support::{all_gradients, values};

const STEPS: usize = 4;
const BATCH: usize = 3;
const INPUTS: usize = 2;
/// Any order, length 1 and the full length included.
const LENGTHS: [u32; BATCH] = [2, 4, 1];
const CELLS: [&Cell; 3] = [&Cell::tanh(), &Cell::Lstm, &Cell::Gru];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Forward,
    Reverse,
    Both,
}

/// One combination of options.
#[derive(Clone, Copy, Debug)]
struct Options {
    cell: &'static Cell,
    way: Way,
    layers: usize,
    bias: bool,
    ragged: bool,
    resets: bool,
    hidden: usize,
}

impl Options {
    fn directions(&self) -> usize {
        if self.way == Way::Both { 2 } else { 1 }
    }

    /// Parts, layers times directions, batch, units of a state.
    fn state_values(&self) -> usize {
        self.layers * self.directions() * BATCH * self.hidden
    }

    fn model(&self) -> Result<(Model, Layer<Rnn>)> {
        let mut model = Model::new(5);
        let mut stack = Rnn::new(self.cell.clone(), INPUTS, self.hidden).layers(self.layers);
        if !self.bias {
            stack = stack.without_bias();
        }
        let stack = match self.way {
            Way::Forward => stack,
            Way::Reverse => stack.reverse(),
            Way::Both => stack.bidirectional(),
        };
        let layer = model.add("rnn", stack)?;
        Ok((model, layer))
    }

    /// All combinations.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for cell in CELLS {
            for way in [Way::Forward, Way::Reverse, Way::Both] {
                for bits in 0..16 {
                    let bit = |place: u32| bits >> place & 1 == 1;
                    let layers = if bit(0) { 2 } else { 1 };
                    let (bias, ragged, resets) = (bit(1), bit(2), bit(3));
                    all.push(Self { cell, way, layers, bias, ragged, resets, hidden: 2 });
                }
            }
        }
        all
    }
}

/// Lengths and resets on a device.
struct Marks {
    lengths: Indices,
    resets: Indices,
}

impl Marks {
    fn new(device: &Device) -> Result<Self> {
        // One reset inside, one at a first step, one at the first step of a reversed row.
        let resets: Vec<u32> =
            (0..STEPS * BATCH).map(|place| u32::from([1, 3, 4, 8].contains(&place))).collect();
        Ok(Self {
            lengths: Indices::from_slice(device, &[BATCH], &LENGTHS)?,
            resets: Indices::from_slice(device, &[STEPS, BATCH], &resets)?,
        })
    }

    fn sequences(&self, options: &Options) -> Sequences<'_> {
        let whole = if options.ragged { Sequences::ragged(&self.lengths) } else { Sequences::whole() };
        if options.resets { whole.resets(&self.resets) } else { whole }
    }
}

fn state(device: &Device, options: &Options, hidden: &[f64], cell: &[f64]) -> Result<State> {
    let sizes = [options.layers * options.directions(), BATCH, options.hidden];
    let part = |values: &[f64]| Tensor::from_slice_f64(device, &sizes, values);
    match options.cell.has_cell_state() {
        true => State::from_hidden_and_cell(&part(hidden)?, &part(cell)?),
        false => State::from_hidden(&part(hidden)?),
    }
}

/// Hidden and cell states, one after the other.
fn state_values(state: &State) -> Result<Vec<f64>> {
    let mut all = state.hidden().download_f64()?;
    if let Some(cell) = state.cell() {
        all.extend(cell.download_f64()?);
    }
    Ok(all)
}

fn dot(one: &[f64], two: &[f64]) -> f64 {
    one.iter().zip(two).map(|(a, b)| a * b).sum()
}

/// A combination as a function of one vector: weights, x, initial state.
struct Function {
    options: Options,
    model: Model,
    layer: Layer<Rnn>,
    marks: Marks,
    d_y: Vec<f64>,
    /// The gradient at the final state, hidden then cell; none where the final state is not used.
    d_last: Option<Vec<f64>>,
}

impl Function {
    fn new(options: Options, uses_last: bool) -> Result<Self> {
        let (model, layer) = options.model()?;
        let outputs = STEPS * BATCH * options.hidden * options.directions();
        let parts = if options.cell.has_cell_state() { 2 } else { 1 };
        Ok(Self {
            options,
            model,
            layer,
            marks: Marks::new(&Device::reference())?,
            d_y: values(61, outputs, 1.0),
            d_last: uses_last.then(|| values(62, parts * options.state_values(), 1.0)),
        })
    }

    fn weights(&self) -> usize {
        self.model.specs().iter().map(|spec| spec.shape.elements()).sum()
    }

    fn point(&self) -> Vec<f64> {
        let parts = if self.options.cell.has_cell_state() { 2 } else { 1 };
        values(60, self.weights() + STEPS * BATCH * INPUTS + parts * self.options.state_values(), 1.0)
    }

    fn tensors(&self, point: &[f64]) -> Result<(Parameters, Tensor, State)> {
        let device = Device::reference();
        let mut parameters = self.model.initialize(&device)?;
        let mut rest = point;
        let mut take = |count: usize| {
            let (section, after) = rest.split_at(count);
            rest = after;
            section
        };
        let specs = self.model.specs().iter();
        parameters.set_all(
            specs.map(|spec| (spec.name.as_str(), spec.shape.dimensions(), take(spec.shape.elements()))),
        )?;
        let x = Tensor::from_slice_f64(&device, &[STEPS, BATCH, INPUTS], take(STEPS * BATCH * INPUTS))?;
        let (hidden, cell) = rest.split_at(self.options.state_values());
        Ok((parameters, x, state(&device, &self.options, hidden, cell)?))
    }

    fn value(&self, point: &[f64]) -> Result<f64> {
        let (parameters, x, initial) = self.tensors(point)?;
        let sequences = self.marks.sequences(&self.options);
        let (y, last) = self.layer.infer_sequences(&parameters, &x, &initial, sequences)?;
        let from_last = match &self.d_last {
            Some(d_last) => dot(&state_values(&last)?, d_last),
            None => 0.0,
        };
        Ok(dot(&y.download_f64()?, &self.d_y) + from_last)
    }

    fn gradient(&self, point: &[f64]) -> Result<Vec<f64>> {
        let device = Device::reference();
        let (parameters, x, initial) = self.tensors(point)?;
        let sequences = self.marks.sequences(&self.options);
        let (y, _, trace) = self.layer.forward_sequences(&parameters, &x, &initial, sequences)?;
        let d_y = Tensor::from_slice_f64(&device, y.shape().dimensions(), &self.d_y)?;
        let d_last = self.d_last.as_ref().map(|d_last| {
            let (hidden, cell) = d_last.split_at(self.options.state_values());
            state(&device, &self.options, hidden, cell)
        });
        let mut gradients = parameters.zero_gradients()?;
        let (d_x, d_initial) = trace.backward(&d_y, d_last.transpose()?.as_ref(), &mut gradients)?;
        Ok([all_gradients(&parameters, &gradients)?, d_x.download_f64()?, state_values(&d_initial)?].concat())
    }
}

fn every_combination_of_options_matches_finite_differences() -> Outcome {
    for options in Options::all() {
        for uses_last in [false, true] {
            let function = Function::new(options, uses_last)?;
            let point = function.point();
            let name = format!("{options:?}, final gradient {uses_last}");
            check(&name, &point, &function.gradient(&point)?, |point| function.value(point))?;
        }
    }
    Ok(())
}

/// Steps and rows of a batch whose rows threads share out, and how many of the steps are so few that they do not.
const LONG: usize = 40;
const MANY: usize = 24;
const FEW: usize = 2;

/// Outputs of the first few steps and gradients at their inputs, from a pass over `steps` steps.
fn first_steps(stack: Rnn, steps: usize, is_ragged: bool) -> Result<Vec<f32>> {
    let device = Device::cpu();
    let mut model = Model::new(5);
    let layer = model.add("rnn", stack)?;
    let parameters = model.initialize(&device)?;
    let width = layer.description().outputs();
    let numbers = |count: usize| (0..count).map(|place| (place as f32 * 0.37).sin()).collect::<Vec<_>>();
    let x = Tensor::from_slice(&device, &[steps, MANY, INPUTS], &numbers(steps * MANY * INPUTS))?;
    let mut d_y = numbers(FEW * MANY * width);
    d_y.resize(steps * MANY * width, 0.0);
    let d_y = Tensor::from_slice(&device, &[steps, MANY, width], &d_y)?;
    let lengths: Vec<u32> = (0..MANY).map(|row| (1 + row * 7 % LONG).min(steps) as u32).collect();
    let resets: Vec<u32> = (0..steps * MANY).map(|place| u32::from(place % 5 == 3)).collect();
    let lengths = Indices::from_slice(&device, &[MANY], &lengths)?;
    let resets = Indices::from_slice(&device, &[steps, MANY], &resets)?;
    let sequences = if is_ragged { Sequences::ragged(&lengths).resets(&resets) } else { Sequences::whole() };
    let state = layer.zero_state(&device, MANY)?;
    let sequences = sequences.training(RandomKey::new(5, 1));
    let (y, _, trace) = layer.forward_sequences(&parameters, &x, &state, sequences)?;
    let mut gradients = parameters.zero_gradients()?;
    let (d_x, _) = trace.backward(&d_y, None, &mut gradients)?;
    let (y, d_x) = (y.download()?, d_x.download()?);
    Ok([&y[..FEW * MANY * width], &d_x[..FEW * MANY * INPUTS]].concat())
}

/// A pass over many steps is shared out among threads, one over few steps is not: what they have in common is the same to
/// the bit. The gradient ends before the steps that only the long one has.
fn threads_change_no_bit_of_a_time_loop() -> Outcome {
    let stacks = [
        Rnn::new(Cell::tanh(), INPUTS, 128),
        Rnn::new(Cell::Lstm, INPUTS, 64),
        Rnn::new(Cell::Lstm, INPUTS, 64).peepholes().projection(40),
        Rnn::new(Cell::Lstm, INPUTS, 64).zoneout(0.2, 0.3).recurrent_dropout(0.3),
        Rnn::new(Cell::Lstm, INPUTS, 64).layer_norm(),
        Rnn::new(Cell::Gru, INPUTS, 80),
        Rnn::new(Cell::Gru, INPUTS, 80).reset_before().recurrent_dropout(0.3),
    ];
    for stack in stacks {
        for is_ragged in [false, true] {
            let (long, few) =
                (first_steps(stack.clone(), LONG, is_ragged)?, first_steps(stack.clone(), FEW, is_ragged)?);
            assert!(few.iter().any(|&value| value != 0.0));
            assert_eq!(long, few, "{stack:?}, ragged {is_ragged}");
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        every_combination_of_options_matches_finite_differences,
        threads_change_no_bit_of_a_time_loop,
    );
}
