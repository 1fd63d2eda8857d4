//! The recurrent family as a whole: every combination of cell, direction, depth, bias, lengths, resets and final
//! gradient against finite differences, and the properties that hold whatever the numbers are.
//!
//! Long, because all properties share one description of a layer and its batch.

use refrain::nn::{Cell, Layer, Model, Parameters, Rnn, Sequences, State};
use refrain::ops::permute;
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu};
use crate::gradients::check;
use crate::support::{all_gradients, expect_close, expect_same_bits, largest, random, values, wide};

const STEPS: usize = 4;
const BATCH: usize = 3;
const INPUTS: usize = 2;
/// Any order, length 1 and the full length included.
const LENGTHS: [u32; BATCH] = [2, 4, 1];
const CELLS: [Cell; 3] = [Cell::tanh(), Cell::Lstm, Cell::Gru];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Forward,
    Reverse,
    Both,
}

/// One combination of options.
#[derive(Clone, Copy, Debug)]
struct Options {
    cell: Cell,
    way: Way,
    layers: usize,
    bias: bool,
    ragged: bool,
    resets: bool,
    hidden: usize,
}

impl Options {
    fn plain(cell: Cell, way: Way, hidden: usize) -> Self {
        Self { cell, way, layers: 2, bias: true, ragged: false, resets: false, hidden }
    }

    fn directions(&self) -> usize {
        if self.way == Way::Both { 2 } else { 1 }
    }

    /// Parts, layers times directions, batch, units of a state.
    fn state_values(&self) -> usize {
        self.layers * self.directions() * BATCH * self.hidden
    }

    fn model(&self) -> Result<(Model, Layer<Rnn>)> {
        let mut model = Model::new(5);
        let mut stack = Rnn::new(self.cell, INPUTS, self.hidden).layers(self.layers);
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
        let named: Vec<(&str, &[f64])> =
            self.model.specs().iter().map(|spec| (spec.name.as_str(), take(spec.shape.elements()))).collect();
        parameters.set_all(named)?;
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

/// One pass over a batch: outputs, final state, gradients of the weights, of x and of the initial state.
struct Pass {
    y: Vec<f32>,
    last: Vec<f64>,
    weights: Vec<f64>,
    d_x: Vec<f32>,
    d_initial: Vec<f64>,
}

fn pass(
    device: &Device,
    options: &Options,
    x: &Tensor,
    d_y: &Tensor,
    initial: &State,
    sequences: Sequences<'_>,
) -> Result<Pass> {
    let (model, layer) = options.model()?;
    let parameters = model.initialize(device)?;
    let mut gradients = parameters.zero_gradients()?;
    let (y, last, trace) = layer.forward_sequences(&parameters, x, initial, sequences)?;
    let (d_x, d_initial) = trace.backward(d_y, None, &mut gradients)?;
    Ok(Pass {
        y: y.download()?,
        last: state_values(&last)?,
        weights: all_gradients(&parameters, &gradients)?,
        d_x: d_x.download()?,
        d_initial: state_values(&d_initial)?,
    })
}

/// Random x, dy and initial state for `options`.
fn inputs(device: &Device, options: &Options) -> Result<(Tensor, Tensor, State)> {
    let width = options.hidden * options.directions();
    let x = random(device, 71, &[STEPS, BATCH, INPUTS], 1.0)?;
    let d_y = random(device, 72, &[STEPS, BATCH, width], 1.0)?;
    let (hidden, cell) = (values(73, options.state_values(), 1.0), values(74, options.state_values(), 1.0));
    Ok((x, d_y, state(device, options, &hidden, &cell)?))
}

/// The rounding that two orders of the same sums may show, for numbers of the size of `values`: K terms of at most
/// T·B + H + I a sum, over T steps.
fn rounding(values: &[f64], hidden: usize) -> f64 {
    let terms = (STEPS * BATCH + hidden + INPUTS) * STEPS;
    terms as f64 * f64::from(f32::EPSILON) * largest(values).max(1.0)
}

fn all_plain() -> impl Iterator<Item = Options> {
    CELLS.into_iter().flat_map(|cell| {
        [Way::Forward, Way::Reverse, Way::Both].into_iter().map(move |way| Options::plain(cell, way, 5))
    })
}

fn padding_garbage_changes_nothing_on(device: &Device) -> Outcome {
    let marks = Marks::new(device)?;
    for options in all_plain() {
        let (x, d_y, initial) = inputs(device, &options)?;
        let sequences = Sequences::ragged(&marks.lengths);
        let clean = pass(device, &options, &x, &d_y, &initial, sequences)?;
        let spoil = |tensor: &Tensor| -> Result<Tensor> {
            let mut values = tensor.download()?;
            let width = tensor.shape().last();
            for (place, value) in values.iter_mut().enumerate() {
                let (step, row) = (place / width / BATCH, place / width % BATCH);
                if step >= LENGTHS[row] as usize {
                    *value = f32::NAN;
                }
            }
            Tensor::from_slice(device, tensor.shape().dimensions(), &values)
        };
        let spoiled = pass(device, &options, &spoil(&x)?, &spoil(&d_y)?, &initial, sequences)?;
        let name = format!("{options:?}");
        expect_same_bits(&name, &clean.y, &spoiled.y)?;
        expect_same_bits(&name, &clean.d_x, &spoiled.d_x)?;
        assert_eq!(clean.weights, spoiled.weights, "{name}");
        assert_eq!(clean.last, spoiled.last, "{name}");
        assert_eq!(clean.d_initial, spoiled.d_initial, "{name}");
        for (values, width) in [(&clean.y, options.hidden * options.directions()), (&clean.d_x, INPUTS)] {
            for (place, value) in values.iter().enumerate() {
                let (step, row) = (place / width / BATCH, place / width % BATCH);
                assert!(step < LENGTHS[row] as usize || *value == 0.0, "{name}: {value} in the padding");
            }
        }
    }
    Ok(())
}

/// Row `row` of a tensor [T, B, F], its first `steps` steps, as a batch of one.
fn row_of(device: &Device, tensor: &Tensor, row: usize, steps: usize) -> Result<Tensor> {
    let width = tensor.shape().last();
    let all = tensor.download_f64()?;
    let own: Vec<f64> =
        (0..steps).flat_map(|step| all[(step * BATCH + row) * width..][..width].to_vec()).collect();
    Tensor::from_slice_f64(device, &[steps, 1, width], &own)
}

fn a_ragged_batch_equals_its_rows_one_by_one_on(device: &Device) -> Outcome {
    let marks = Marks::new(device)?;
    for options in all_plain() {
        let (x, d_y, _) = inputs(device, &options)?;
        let (model, layer) = options.model()?;
        let parameters = model.initialize(device)?;
        let zero = layer.zero_state(device, BATCH)?;
        let whole = pass(device, &options, &x, &d_y, &zero, Sequences::ragged(&marks.lengths))?;
        let width = options.hidden * options.directions();
        let mut gradients = parameters.zero_gradients()?;
        for (row, &length) in LENGTHS.iter().enumerate() {
            let length = length as usize;
            let own = row_of(device, &x, row, length)?;
            let (y, _, trace) = layer.forward(&parameters, &own, &layer.zero_state(device, 1)?)?;
            let d_own = row_of(device, &d_y, row, length)?;
            let (d_x, _) = trace.backward(&d_own, None, &mut gradients)?;
            let pick = |values: &[f32], width: usize| -> Vec<f64> {
                let at = |step: usize| &values[(step * BATCH + row) * width..][..width];
                wide(&(0..length).flat_map(|step| at(step).to_vec()).collect::<Vec<_>>())
            };
            let name = format!("{options:?}, row {row}");
            let (y, d_x) = (y.download_f64()?, d_x.download_f64()?);
            expect_close(&name, &pick(&whole.y, width), &y, rounding(&y, options.hidden))?;
            expect_close(&name, &pick(&whole.d_x, INPUTS), &d_x, rounding(&d_x, options.hidden))?;
        }
        let alone = all_gradients(&parameters, &gradients)?;
        expect_close(&format!("{options:?}"), &whole.weights, &alone, rounding(&alone, options.hidden))?;
    }
    Ok(())
}

/// The same tensor [T, B, F] with time running backwards.
fn reversed(device: &Device, tensor: &Tensor) -> Result<Tensor> {
    let stride = BATCH * tensor.shape().last();
    let all = tensor.download_f64()?;
    let turned: Vec<f64> = all.chunks(stride).rev().flatten().copied().collect();
    Tensor::from_slice_f64(device, tensor.shape().dimensions(), &turned)
}

fn reverse_is_forward_over_reversed_time_on(device: &Device) -> Outcome {
    for cell in CELLS {
        let (forward, reverse) =
            (Options::plain(cell, Way::Forward, 5), Options::plain(cell, Way::Reverse, 5));
        let (x, d_y, initial) = inputs(device, &forward)?;
        let one = pass(device, &forward, &x, &d_y, &initial, Sequences::whole())?;
        let (x, d_y) = (reversed(device, &x)?, reversed(device, &d_y)?);
        let two = pass(device, &reverse, &x, &d_y, &initial, Sequences::whole())?;
        let name = format!("{cell:?}");
        let turn = |values: &[f32]| -> Vec<f32> {
            values.chunks(values.len() / STEPS).rev().flatten().copied().collect()
        };
        expect_same_bits(&name, &one.y, &turn(&two.y))?;
        expect_same_bits(&name, &one.d_x, &turn(&two.d_x))?;
        assert_eq!(one.last, two.last, "{name}");
        // The sums over time run the other way round.
        expect_close(&name, &one.weights, &two.weights, rounding(&one.weights, 5))?;
    }
    Ok(())
}

fn permuting_the_batch_permutes_the_result_on(device: &Device) -> Outcome {
    for options in all_plain() {
        let (x, d_y, _) = inputs(device, &options)?;
        let (_, layer) = options.model()?;
        let zero = layer.zero_state(device, BATCH)?;
        let order = [2, 0, 1];
        let shuffle = |tensor: &Tensor| -> Result<Tensor> {
            let (width, all) = (tensor.shape().last(), tensor.download_f64()?);
            let place = |step: usize, row: usize| &all[(step * BATCH + order[row]) * width..][..width];
            let shuffled: Vec<f64> =
                (0..STEPS * BATCH).flat_map(|at| place(at / BATCH, at % BATCH).to_vec()).collect();
            Tensor::from_slice_f64(device, tensor.shape().dimensions(), &shuffled)
        };
        let lengths = Indices::from_slice(device, &[BATCH], &LENGTHS)?;
        let shuffled_lengths = Indices::from_slice(device, &[BATCH], &order.map(|row| LENGTHS[row]))?;
        let one = pass(device, &options, &x, &d_y, &zero, Sequences::ragged(&lengths))?;
        let (x, d_y) = (shuffle(&x)?, shuffle(&d_y)?);
        let two = pass(device, &options, &x, &d_y, &zero, Sequences::ragged(&shuffled_lengths))?;
        let width = options.hidden * options.directions();
        let expected = shuffle(&Tensor::from_slice(device, &[STEPS, BATCH, width], &one.y)?)?;
        expect_same_bits(&format!("{options:?}"), &expected.download()?, &two.y)?;
    }
    Ok(())
}

fn both_directions_are_the_two_side_by_side_on(device: &Device) -> Outcome {
    for cell in CELLS {
        let both = Options { layers: 1, ..Options::plain(cell, Way::Both, 5) };
        let (x, _, _) = inputs(device, &both)?;
        let (model, layer) = both.model()?;
        let parameters = model.initialize(device)?;
        let (y, _) = layer.infer(&parameters, &x, &layer.zero_state(device, BATCH)?)?;
        // Columns of the two directions: [2, T, B, H].
        let y = permute(&y.reshape(&[STEPS, BATCH, 2, 5])?, &[2, 0, 1, 3])?.download()?;
        for (place, way) in [Way::Forward, Way::Reverse].into_iter().enumerate() {
            let single = Options { way, ..both };
            let (model, layer) = single.model()?;
            let mut own = model.initialize(device)?;
            for spec in model.specs() {
                let suffix = if way == Way::Reverse { "_reverse" } else { "" };
                let source = spec.name.trim_end_matches("_reverse").to_owned() + suffix;
                own.set(&spec.name, &parameters.view(&source)?.download()?)?;
            }
            let (alone, _) = layer.infer(&own, &x, &layer.zero_state(device, BATCH)?)?;
            let half = y.len() / 2;
            expect_same_bits(&format!("{cell:?} {way:?}"), &alone.download()?, &y[place * half..][..half])?;
        }
    }
    Ok(())
}

fn a_reset_is_a_fresh_start_on(device: &Device) -> Outcome {
    for cell in CELLS {
        let options = Options::plain(cell, Way::Forward, 5);
        let (x, _, initial) = inputs(device, &options)?;
        let (model, layer) = options.model()?;
        let parameters = model.initialize(device)?;
        let mut mask = vec![0; STEPS * BATCH];
        mask[2 * BATCH..3 * BATCH].fill(1);
        let resets = Indices::from_slice(device, &[STEPS, BATCH], &mask)?;
        let (y, last) =
            layer.infer_sequences(&parameters, &x, &initial, Sequences::whole().resets(&resets))?;
        let tail = x.download_f64()?.split_off(2 * BATCH * INPUTS);
        let tail = Tensor::from_slice_f64(device, &[STEPS - 2, BATCH, INPUTS], &tail)?;
        let (fresh, fresh_last) = layer.infer(&parameters, &tail, &layer.zero_state(device, BATCH)?)?;
        let name = format!("{cell:?}");
        expect_same_bits(&name, &y.download()?.split_off(2 * BATCH * 5), &fresh.download()?)?;
        assert_eq!(state_values(&last)?, state_values(&fresh_last)?, "{name}");
    }
    Ok(())
}

fn truncation_changes_gradients_only_on(device: &Device) -> Outcome {
    for cell in CELLS {
        let options = Options::plain(cell, Way::Forward, 5);
        let (x, d_y, initial) = inputs(device, &options)?;
        let mut runs = Vec::new();
        for chunk in [None, Some(2), Some(STEPS)] {
            let mut model = Model::new(5);
            let stack = Rnn::new(cell, INPUTS, 5).layers(2);
            let layer = model.add("rnn", chunk.map_or(stack.clone(), |steps| stack.truncated(steps)))?;
            let parameters = model.initialize(device)?;
            let mut gradients = parameters.zero_gradients()?;
            let (y, _, trace) = layer.forward(&parameters, &x, &initial)?;
            trace.backward(&d_y, None, &mut gradients)?;
            runs.push((y.download()?, all_gradients(&parameters, &gradients)?));
        }
        let name = format!("{cell:?}");
        expect_same_bits(&name, &runs[0].0, &runs[1].0)?;
        assert_ne!(runs[0].1, runs[1].1, "{name}: a cut every 2 steps must change the gradients");
        expect_close(&name, &runs[0].1, &runs[2].1, 0.0)?;
    }
    Ok(())
}

/// Registers a claim about any device on the CPU and on every adapter.
macro_rules! on_all {
    ($suite:expr, $($claim:ident: $body:ident),+ $(,)?) => {
        $($suite.cpu(concat!("recurrent::", stringify!($claim)), || $body(&Device::cpu()));
        $suite.gpu(concat!("recurrent::", stringify!($claim)), |adapter: &Adapter| $body(&adapter.open()?));)+
    };
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(suite, every_combination_of_options_matches_finite_differences);
    on_all!(
        suite,
        padding_garbage_changes_nothing: padding_garbage_changes_nothing_on,
        a_ragged_batch_equals_its_rows_one_by_one: a_ragged_batch_equals_its_rows_one_by_one_on,
        reverse_is_forward_over_reversed_time: reverse_is_forward_over_reversed_time_on,
        permuting_the_batch_permutes_the_result: permuting_the_batch_permutes_the_result_on,
        both_directions_are_the_two_side_by_side: both_directions_are_the_two_side_by_side_on,
        a_reset_is_a_fresh_start: a_reset_is_a_fresh_start_on,
        truncation_changes_gradients_only: truncation_changes_gradients_only_on,
    );
}
