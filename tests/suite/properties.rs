//! What holds of a recurrent layer whatever its numbers are, for every cell and every way of its equations, on every
//! device: rows do not know each other, time may be cut, turned and run in both directions, padding is not there.
//!
//! Long, because all properties share one description of a layer and its batch.

use refrain::nn::{Cell, Layer, Model, Parameters, Rnn, Sequences, State};
use refrain::ops::{Activation, permute};
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite};
use crate::steps::parts;
use crate::support::{
    Tolerance, all_gradients, by_entry, expect_close, expect_same_bits, largest, random, wide,
};

const STEPS: usize = 4;
const BATCH: usize = 3;
const INPUTS: usize = 2;
const HIDDEN: usize = 5;
/// Any order, length 1 and the full length included.
const LENGTHS: [u32; BATCH] = [2, 4, 1];
const ORDER: [usize; BATCH] = [2, 0, 1];

/// A change of a description.
type Build = fn(Rnn) -> Rnn;

/// A cell with its equations.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    cell: &'static Cell,
    build: Build,
    /// Whether its gradients are clipped in the backward pass.
    clips_gradients: bool,
}

const KINDS: [Kind; 8] = [
    plain("rnn", const { &Cell::tanh() }, |stack| stack),
    plain("lstm", &Cell::Lstm, |stack| stack),
    plain("gru", &Cell::Gru, |stack| stack),
    plain("gru with the reset before", &Cell::Gru, Rnn::reset_before),
    plain("lstm with projection", &Cell::Lstm, |stack| stack.projection(3)),
    plain("coupled lstm with peepholes", &Cell::Lstm, |stack| stack.coupled().peepholes()),
    clipped("clipped rnn", const { &Cell::tanh() }, |stack| stack.clip_gates(0.5).clip_gradient(0.1)),
    clipped("lstm with all", &Cell::Lstm, all_of_an_lstm),
];

const fn plain(name: &'static str, cell: &'static Cell, build: Build) -> Kind {
    Kind { name, cell, build, clips_gradients: false }
}

const fn clipped(name: &'static str, cell: &'static Cell, build: Build) -> Kind {
    Kind { name, cell, build, clips_gradients: true }
}

fn all_of_an_lstm(stack: Rnn) -> Rnn {
    let hard = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };
    let stack =
        stack.peepholes().projection(4).gate_activations(hard, Activation::Softsign, Activation::Tanh);
    stack.clip_gates(0.5).clip_cell(0.25).clip_gradient(0.1)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Forward,
    Reverse,
    Both,
}

const WAYS: [Way; 3] = [Way::Forward, Way::Reverse, Way::Both];

/// A stack on a device.
struct Setting {
    name: String,
    device: Device,
    model: Model,
    layer: Layer<Rnn>,
    parameters: Parameters,
}

/// What goes into a pass.
struct Given {
    x: Tensor,
    d_y: Tensor,
    initial: State,
}

/// What comes out: outputs, final state, gradients of the weights, of x and of the initial state.
struct Pass {
    y: Vec<f32>,
    last: Vec<f64>,
    weights: Vec<f64>,
    d_x: Vec<f32>,
    d_initial: Vec<f64>,
}

impl Setting {
    fn new(device: &Device, kind: Kind, way: Way, layers: usize) -> Result<Self> {
        Self::described(device, kind, way, layers, |stack| stack)
    }

    fn described(
        device: &Device,
        kind: Kind,
        way: Way,
        layers: usize,
        also: impl Fn(Rnn) -> Rnn,
    ) -> Result<Self> {
        let mut model = Model::new(5);
        let stack = (kind.build)(Rnn::new(kind.cell.clone(), INPUTS, HIDDEN).layers(layers));
        let stack = match way {
            Way::Forward => stack,
            Way::Reverse => stack.reverse(),
            Way::Both => stack.bidirectional(),
        };
        let layer = model.add("rnn", also(stack))?;
        let parameters = model.initialize(device)?;
        let name = format!("{}, {way:?}, {layers} layers", kind.name);
        Ok(Self { name, device: device.clone(), model, layer, parameters })
    }

    fn width(&self) -> usize {
        self.layer.description().outputs()
    }

    fn zero(&self, batch: usize) -> Result<State> {
        self.layer.zero_state(&self.device, batch)
    }

    fn given(&self) -> Result<Given> {
        let zero = self.zero(BATCH)?;
        let part = |stream, like: Tensor| random(&self.device, stream, like.shape().dimensions(), 1.0);
        let hidden = part(73, zero.hidden())?;
        let initial = match zero.cell() {
            Some(cell) => State::from_hidden_and_cell(&hidden, &part(74, cell)?)?,
            None => State::from_hidden(&hidden)?,
        };
        Ok(Given {
            x: random(&self.device, 71, &[STEPS, BATCH, INPUTS], 1.0)?,
            d_y: random(&self.device, 72, &[STEPS, BATCH, self.width()], 1.0)?,
            initial,
        })
    }

    fn pass(&self, given: &Given, sequences: Sequences<'_>) -> Result<Pass> {
        let Given { x, d_y, initial } = given;
        let mut gradients = self.parameters.zero_gradients()?;
        let (y, last, trace) = self.layer.forward_sequences(&self.parameters, x, initial, sequences)?;
        let (d_x, d_initial) = trace.backward(d_y, None, &mut gradients)?;
        Ok(Pass {
            y: y.download()?,
            last: parts(&last)?.concat(),
            weights: all_gradients(&self.parameters, &gradients)?,
            d_x: d_x.download()?,
            d_initial: parts(&d_initial)?.concat(),
        })
    }
}

/// Two layers of every kind in every direction.
fn all(device: &Device) -> impl Iterator<Item = Result<Setting>> {
    let kinds = KINDS.into_iter().flat_map(|kind| WAYS.map(|way| (kind, way)));
    kinds.map(|(kind, way)| Setting::new(device, kind, way, 2))
}

/// The rounding that two orders of the same sums may show, for numbers of the size of `values`: K terms of at most
/// T·B + H + I a sum, over T steps.
fn rounding(values: &[f64]) -> Tolerance {
    let terms = (STEPS * BATCH + HIDDEN + INPUTS) * STEPS;
    by_entry(terms as f64 * f64::from(f32::EPSILON), values)
}

/// The rows of \[T, B, F\] at these steps and rows, in this order.
fn picked(tensor: &Tensor, steps: &[usize], rows: &[usize]) -> Result<Tensor> {
    let (width, all) = (tensor.shape().last(), tensor.download_f64()?);
    let row = |step: usize, row: usize| all[(step * BATCH + row) * width..][..width].to_vec();
    let own: Vec<f64> = steps.iter().flat_map(|&at| rows.iter().flat_map(move |&of| row(at, of))).collect();
    Tensor::from_slice_f64(tensor.device(), &[steps.len(), rows.len(), width], &own)
}

fn padding_changes_nothing_on(device: &Device) -> Outcome {
    let lengths = Indices::from_slice(device, &[BATCH], &LENGTHS)?;
    let spoiled = |tensor: &Tensor| -> Result<Tensor> {
        let (mut values, width) = (tensor.download()?, tensor.shape().last());
        for (place, value) in values.iter_mut().enumerate() {
            if place / width / BATCH >= LENGTHS[place / width % BATCH] as usize {
                *value = f32::NAN;
            }
        }
        Tensor::from_slice(device, tensor.shape().dimensions(), &values)
    };
    for setting in all(device) {
        let setting = setting?;
        let given = setting.given()?;
        let clean = setting.pass(&given, Sequences::ragged(&lengths))?;
        let with_garbage = Given { x: spoiled(&given.x)?, d_y: spoiled(&given.d_y)?, initial: given.initial };
        let pass = setting.pass(&with_garbage, Sequences::ragged(&lengths))?;
        let name = &setting.name;
        expect_same_bits(name, &clean.y, &pass.y)?;
        expect_same_bits(name, &clean.d_x, &pass.d_x)?;
        assert_eq!(clean.weights, pass.weights, "{name}");
        assert_eq!(clean.last, pass.last, "{name}");
        assert_eq!(clean.d_initial, pass.d_initial, "{name}");
        for (values, width) in [(&clean.y, setting.width()), (&clean.d_x, INPUTS)] {
            for (place, value) in values.iter().enumerate() {
                let (step, row) = (place / width / BATCH, place / width % BATCH);
                assert!(step < LENGTHS[row] as usize || *value == 0.0, "{name}: {value} in the padding");
            }
        }
    }
    Ok(())
}

fn a_ragged_batch_equals_its_rows_one_by_one_on(device: &Device) -> Outcome {
    let lengths = Indices::from_slice(device, &[BATCH], &LENGTHS)?;
    for setting in all(device) {
        let setting = setting?;
        let Given { x, d_y, .. } = setting.given()?;
        let given = Given { x, d_y, initial: setting.zero(BATCH)? };
        let whole = setting.pass(&given, Sequences::ragged(&lengths))?;
        let mut weights = vec![0.0; whole.weights.len()];
        for (row, &length) in LENGTHS.iter().enumerate() {
            let steps: Vec<usize> = (0..length as usize).collect();
            let own = |tensor: &Tensor| picked(tensor, &steps, &[row]);
            let alone = Given { x: own(&given.x)?, d_y: own(&given.d_y)?, initial: setting.zero(1)? };
            let alone = setting.pass(&alone, Sequences::whole())?;
            let of_row = |values: &[f32], width: usize| -> Result<Vec<f64>> {
                own(&Tensor::from_slice(device, &[STEPS, BATCH, width], values)?)?.download_f64()
            };
            let (name, width) = (format!("{}, row {row}", setting.name), setting.width());
            let (y, d_x) = (wide(&alone.y), wide(&alone.d_x));
            expect_close(&name, &of_row(&whole.y, width)?, &y, rounding(&y))?;
            expect_close(&name, &of_row(&whole.d_x, INPUTS)?, &d_x, rounding(&d_x))?;
            weights.iter_mut().zip(&alone.weights).for_each(|(total, own)| *total += own);
        }
        expect_close(&setting.name, &whole.weights, &weights, rounding(&weights))?;
    }
    Ok(())
}

fn reverse_is_forward_over_reversed_time_on(device: &Device) -> Outcome {
    let backwards: Vec<usize> = (0..STEPS).rev().collect();
    let turned = |tensor: &Tensor| picked(tensor, &backwards, &[0, 1, 2]);
    let turn = |values: &[f32]| -> Vec<f32> {
        values.chunks(values.len() / STEPS).rev().flatten().copied().collect()
    };
    for kind in KINDS {
        let [forward, reverse] = [Way::Forward, Way::Reverse].map(|way| Setting::new(device, kind, way, 2));
        let (forward, reverse) = (forward?, reverse?);
        let given = forward.given()?;
        let one = forward.pass(&given, Sequences::whole())?;
        let given = Given { x: turned(&given.x)?, d_y: turned(&given.d_y)?, initial: given.initial };
        let two = reverse.pass(&given, Sequences::whole())?;
        expect_same_bits(kind.name, &one.y, &turn(&two.y))?;
        expect_same_bits(kind.name, &one.d_x, &turn(&two.d_x))?;
        assert_eq!(one.last, two.last, "{}", kind.name);
        assert_eq!(one.d_initial, two.d_initial, "{}", kind.name);
        // The sums over time run the other way round.
        expect_close(kind.name, &one.weights, &two.weights, rounding(&one.weights))?;
    }
    Ok(())
}

fn permuting_the_batch_permutes_the_result_on(device: &Device) -> Outcome {
    let steps: Vec<usize> = (0..STEPS).collect();
    let shuffled = |tensor: &Tensor| picked(tensor, &steps, &ORDER);
    let lengths = Indices::from_slice(device, &[BATCH], &LENGTHS)?;
    let shuffled_lengths = Indices::from_slice(device, &[BATCH], &ORDER.map(|row| LENGTHS[row]))?;
    for setting in all(device) {
        let setting = setting?;
        let Given { x, d_y, .. } = setting.given()?;
        let given = Given { x, d_y, initial: setting.zero(BATCH)? };
        let one = setting.pass(&given, Sequences::ragged(&lengths))?;
        let given = Given { x: shuffled(&given.x)?, d_y: shuffled(&given.d_y)?, ..given };
        let two = setting.pass(&given, Sequences::ragged(&shuffled_lengths))?;
        for (values, found, width) in [(&one.y, &two.y, setting.width()), (&one.d_x, &two.d_x, INPUTS)] {
            let expected = shuffled(&Tensor::from_slice(device, &[STEPS, BATCH, width], values)?)?;
            expect_same_bits(&setting.name, &expected.download()?, found)?;
        }
        // The sums over rows run in another order.
        expect_close(&setting.name, &one.weights, &two.weights, rounding(&one.weights))?;
    }
    Ok(())
}

fn both_directions_are_the_two_concatenated_on(device: &Device) -> Outcome {
    for kind in KINDS {
        let both = Setting::new(device, kind, Way::Both, 1)?;
        let Given { x, d_y, .. } = both.given()?;
        let given = Given { x, d_y, initial: both.zero(BATCH)? };
        let whole = both.pass(&given, Sequences::whole())?;
        let width = both.width() / 2;
        // Columns of the two directions: [2, T, B, H].
        let apart = |tensor: &Tensor| -> Result<Vec<f32>> {
            permute(&tensor.reshape(&[STEPS, BATCH, 2, width])?, &[2, 0, 1, 3])?.download()
        };
        let sizes = [STEPS, BATCH, 2 * width];
        let (y, d_y) = (apart(&Tensor::from_slice(device, &sizes, &whole.y)?)?, apart(&given.d_y)?);
        let mut d_x = vec![0.0; whole.d_x.len()];
        for (place, way) in [Way::Forward, Way::Reverse].into_iter().enumerate() {
            let mut single = Setting::new(device, kind, way, 1)?;
            let names: Vec<String> = single.model.specs().iter().map(|spec| spec.name.clone()).collect();
            for name in &names {
                let view = both.parameters.view(name)?;
                single.parameters.set(name, view.shape().dimensions(), &view.download()?)?;
            }
            let half = y.len() / 2;
            let own = |values: &[f32]| values[place * half..][..half].to_vec();
            let d_own = Tensor::from_slice(device, &[STEPS, BATCH, width], &own(&d_y))?;
            let alone = Given { x: given.x.clone(), d_y: d_own, initial: single.zero(BATCH)? };
            let alone = single.pass(&alone, Sequences::whole())?;
            let name = format!("{} {way:?}", kind.name);
            expect_same_bits(&name, &alone.y, &own(&y))?;
            d_x.iter_mut().zip(wide(&alone.d_x)).for_each(|(total, own)| *total += own);
            let half = whole.weights.len() / 2;
            let weights = &whole.weights[place * half..][..half];
            expect_close(&name, weights, &alone.weights, rounding(&alone.weights))?;
        }
        expect_close(kind.name, &wide(&whole.d_x), &d_x, rounding(&d_x))?;
    }
    Ok(())
}

/// One window after another, each from the state that the last one left, is the whole; and back again, each with the
/// gradient at the state that the next one started from, where the clip of the gradient holds at both.
fn windows_with_carried_state_are_the_whole_on(device: &Device) -> Outcome {
    for kind in KINDS {
        let setting = Setting::new(device, kind, Way::Forward, 2)?;
        let given = setting.given()?;
        let whole = setting.pass(&given, Sequences::whole())?;
        let mut state = given.initial.clone();
        let (mut traces, mut y) = (Vec::new(), Vec::new());
        let windows: [&[usize]; 3] = [&[0], &[1, 2], &[3]];
        for steps in windows {
            let x = picked(&given.x, steps, &[0, 1, 2])?;
            let (output, next, trace) = setting.layer.forward(&setting.parameters, &x, &state)?;
            y.extend(output.download()?);
            traces.push((picked(&given.d_y, steps, &[0, 1, 2])?, trace));
            state = next;
        }
        let name = &setting.name;
        expect_same_bits(name, &whole.y, &y)?;
        assert_eq!(whole.last, parts(&state)?.concat(), "{name}");
        let mut gradients = setting.parameters.zero_gradients()?;
        let (mut d_state, mut d_x) = (None, Vec::new());
        for (d_y, trace) in traces.into_iter().rev() {
            let (d_own, d_before) = trace.backward(&d_y, d_state.as_ref(), &mut gradients)?;
            d_x.splice(0..0, d_own.download_f64()?);
            d_state = Some(d_before);
        }
        expect_close(name, &wide(&whole.d_x), &d_x, rounding(&d_x))?;
        let weights = all_gradients(&setting.parameters, &gradients)?;
        expect_close(name, &whole.weights, &weights, rounding(&weights))?;
        let d_initial = d_state.map(|state| parts(&state)).transpose()?.unwrap_or_default().concat();
        expect_close(name, &whole.d_initial, &d_initial, rounding(&d_initial))?;
    }
    Ok(())
}

fn a_reset_is_a_fresh_start_on(device: &Device) -> Outcome {
    for kind in KINDS {
        let setting = Setting::new(device, kind, Way::Forward, 2)?;
        let given = setting.given()?;
        let mut mask = vec![0; STEPS * BATCH];
        mask[2 * BATCH..3 * BATCH].fill(1);
        let resets = Indices::from_slice(device, &[STEPS, BATCH], &mask)?;
        let pass = setting.pass(&given, Sequences::whole().resets(&resets))?;
        let tail = |tensor: &Tensor| picked(tensor, &[2, 3], &[0, 1, 2]);
        let fresh = Given { x: tail(&given.x)?, d_y: tail(&given.d_y)?, initial: setting.zero(BATCH)? };
        let fresh = setting.pass(&fresh, Sequences::whole())?;
        expect_same_bits(kind.name, &pass.y[2 * BATCH * setting.width()..], &fresh.y)?;
        expect_same_bits(kind.name, &pass.d_x[2 * BATCH * INPUTS..], &fresh.d_x)?;
        assert_eq!(pass.last, fresh.last, "{}", kind.name);
    }
    Ok(())
}

/// Chunks, sliding windows and overlapping ones: outputs stay the same, gradients only where nothing is cut.
fn truncation_changes_gradients_only_on(device: &Device) -> Outcome {
    let cut: [Build; 4] = [
        |stack| stack.truncated(2),
        |stack| stack.windowed(1),
        |stack| stack.truncated_every(2, 3),
        |stack| stack.windowed(0),
    ];
    let whole: [Build; 2] = [|stack| stack.truncated(STEPS), |stack| stack.truncated_every(STEPS, 2 * STEPS)];
    let far: [Build; 2] = [|stack| stack.windowed(STEPS - 1), |stack| stack.windowed(10 * STEPS)];
    for kind in KINDS {
        // What is clipped in each window apart is not what is clipped once.
        let whole = if kind.clips_gradients { whole.to_vec() } else { [whole, far].concat() };
        let plain = Setting::new(device, kind, Way::Forward, 2)?;
        let given = plain.given()?;
        let expected = plain.pass(&given, Sequences::whole())?;
        for (builds, cuts) in [(&cut[..], true), (&whole[..], false)] {
            for build in builds {
                let setting = Setting::described(device, kind, Way::Forward, 2, build)?;
                let pass = setting.pass(&given, Sequences::whole())?;
                expect_same_bits(kind.name, &expected.y, &pass.y)?;
                let differ = largest_difference(&expected.weights, &pass.weights) > 1e-3;
                assert!(differ || !cuts, "{}: a cut must change the gradients", kind.name);
                if !cuts {
                    let allowed = rounding(&expected.weights);
                    expect_close(kind.name, &expected.weights, &pass.weights, allowed)?;
                    expect_close(
                        kind.name,
                        &expected.d_initial,
                        &pass.d_initial,
                        rounding(&expected.d_initial),
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn largest_difference(one: &[f64], two: &[f64]) -> f64 {
    largest(&one.iter().zip(two).map(|(a, b)| a - b).collect::<Vec<_>>())
}

/// Every n steps through n is a cut after every n steps, where n divides T; every step through k + 1 is a window of k
/// lags.
fn truncations_that_are_the_same_by_two_names_are_the_same_on(device: &Device) -> Outcome {
    let same: [[Build; 2]; 2] = [
        [|stack| stack.truncated(2), |stack| stack.truncated_every(2, 2)],
        [|stack| stack.windowed(2), |stack| stack.truncated_every(1, 3)],
    ];
    let lengths = Indices::from_slice(device, &[BATCH], &LENGTHS)?;
    for kind in KINDS {
        for builds in same {
            let [one, two] = builds.map(|build| -> Result<Pass> {
                let setting = Setting::described(device, kind, Way::Forward, 2, build)?;
                setting.pass(&setting.given()?, Sequences::ragged(&lengths))
            });
            let (one, two) = (one?, two?);
            expect_close(kind.name, &one.weights, &two.weights, rounding(&one.weights))?;
            expect_close(kind.name, &wide(&one.d_x), &wide(&two.d_x), rounding(&wide(&one.d_x)))?;
            expect_close(kind.name, &one.d_initial, &two.d_initial, rounding(&one.d_initial))?;
        }
    }
    Ok(())
}

/// Registers a claim about any device on the CPU and on every adapter.
macro_rules! on_all {
    ($suite:expr, $($claim:ident: $body:ident),+ $(,)?) => {
        $($suite.cpu(concat!("properties::", stringify!($claim)), || $body(&Device::cpu()));
        $suite.gpu_strategies(concat!("properties::", stringify!($claim)), |adapter: &Adapter| $body(&adapter.open()?));)+
    };
}

pub(crate) fn register(suite: &mut Suite) {
    on_all!(
        suite,
        padding_garbage_changes_nothing: padding_changes_nothing_on,
        a_ragged_batch_equals_its_rows_one_by_one: a_ragged_batch_equals_its_rows_one_by_one_on,
        reverse_is_forward_over_reversed_time: reverse_is_forward_over_reversed_time_on,
        permuting_the_batch_permutes_the_result: permuting_the_batch_permutes_the_result_on,
        both_directions_are_the_two_side_by_side: both_directions_are_the_two_concatenated_on,
        windows_with_carried_state_are_the_whole: windows_with_carried_state_are_the_whole_on,
        a_reset_is_a_fresh_start: a_reset_is_a_fresh_start_on,
        truncation_changes_gradients_only: truncation_changes_gradients_only_on,
        truncations_that_are_the_same_by_two_names_are_the_same:
            truncations_that_are_the_same_by_two_names_are_the_same_on,
    );
}
