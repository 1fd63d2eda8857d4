//! The options of a stack: masks, merges, residual connections, learned initial states. Every pair of them against
//! finite differences and between devices, what each does, and what it leaves alone.
//!
//! Long, because all claims share one description of a stack and its batch.

use refrain::nn::{Cell, Draw, Layer, Merge, Model, Parameters, Rnn, Sequences, State};
use refrain::ops::{self, Activation, Binary, Form};
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu};
use crate::gradients::check;
use crate::support::{all_gradients, expect_close, expect_same_bits, largest, random, values};

const STEPS: usize = 4;
const BATCH: usize = 3;
/// As many as units, so that the first layer is residual too.
const INPUTS: usize = 3;
const HIDDEN: usize = 3;
const LENGTHS: [u32; BATCH] = [2, 4, 1];
const CELLS: [Cell; 3] = [Cell::tanh(), Cell::Lstm, Cell::Gru];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Forward,
    Reverse,
    Both,
}

/// One option, switched on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Choice {
    Dropout,
    InputDropout,
    WeightDrop,
    RecurrentDropout,
    Zoneout,
    Merge(Merge),
    Residual,
    LearnedInitialState,
    WithoutBias,
}

const CHOICES: [Choice; 11] = [
    Choice::Dropout,
    Choice::InputDropout,
    Choice::WeightDrop,
    Choice::RecurrentDropout,
    Choice::Zoneout,
    Choice::Merge(Merge::Sum),
    Choice::Merge(Merge::Mean),
    Choice::Merge(Merge::Product),
    Choice::Residual,
    Choice::LearnedInitialState,
    Choice::WithoutBias,
];

impl Choice {
    fn of(self, stack: Rnn) -> Rnn {
        match self {
            Self::Dropout => stack.dropout(0.4),
            Self::InputDropout => stack.input_dropout(0.3),
            Self::WeightDrop => stack.weight_drop(0.5),
            Self::RecurrentDropout => stack.recurrent_dropout(0.4),
            Self::Zoneout => {
                let second = if stack.cell().has_cell_state() { 0.5 } else { 0.0 };
                stack.zoneout(0.3, second)
            }
            Self::Merge(merge) => stack.merge(merge),
            Self::Residual => stack.residual(),
            Self::LearnedInitialState => stack.learned_initial_state(),
            Self::WithoutBias => stack.without_bias(),
        }
    }

    /// Whether it does something in training alone.
    fn is_dropout(self) -> bool {
        matches!(self, Self::Dropout | Self::InputDropout | Self::WeightDrop | Self::RecurrentDropout)
    }
}

/// A stack of two layers with two options, which may be the same one, and how it is run.
#[derive(Clone, Copy, Debug)]
struct Variant {
    cell: Cell,
    way: Way,
    choices: [Choice; 2],
    ragged: bool,
    reset: bool,
    training: bool,
}

impl Variant {
    /// Every pair of options in every direction with every cell, by turns ragged or whole, with resets or without, in
    /// training or evaluation.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (place, &one) in CHOICES.iter().enumerate() {
            for &two in &CHOICES[place..] {
                for way in [Way::Forward, Way::Reverse, Way::Both] {
                    let choices = [one, two];
                    let merges = choices.iter().filter(|choice| matches!(choice, Choice::Merge(_))).count();
                    // A stack has one way of merging, and one direction has nothing to merge.
                    if (merges > 0 && way != Way::Both) || (merges == 2 && one != two) {
                        continue;
                    }
                    for cell in CELLS {
                        let number = all.len();
                        let (ragged, reset) = (number % 2 == 1, number % 7 < 3);
                        all.push(Self { cell, way, choices, ragged, reset, training: number % 5 != 0 });
                    }
                }
            }
        }
        all
    }

    fn has(&self, choice: Choice) -> bool {
        self.choices.contains(&choice)
    }

    fn without_choices(&self) -> Rnn {
        let stack = Rnn::new(self.cell, INPUTS, HIDDEN).layers(2);
        match self.way {
            Way::Forward => stack,
            Way::Reverse => stack.reverse(),
            Way::Both => stack.bidirectional(),
        }
    }

    fn stack(&self) -> Rnn {
        self.choices.into_iter().fold(self.without_choices(), |stack, choice| choice.of(stack))
    }

    fn draw(&self) -> Draw {
        Draw::new(17, 5)
    }

    fn sequences<'a>(&self, marks: &'a Marks) -> Sequences<'a> {
        let sequences = if self.ragged { Sequences::ragged(&marks.lengths) } else { Sequences::whole() };
        let sequences = if self.reset { sequences.resets(&marks.resets) } else { sequences };
        if self.training { sequences.training(self.draw()) } else { sequences.evaluation() }
    }
}

/// Lengths and resets on a device.
struct Marks {
    lengths: Indices,
    resets: Indices,
}

/// A stack on one device with all that it reads.
struct Setting {
    variant: Variant,
    device: Device,
    model: Model,
    layer: Layer<Rnn>,
    marks: Marks,
}

/// What a pass yields.
struct Pass {
    y: Vec<f64>,
    gradients: Vec<f64>,
    d_x: Vec<f64>,
    d_initial: Vec<f64>,
}

impl Setting {
    fn new(device: &Device, variant: Variant) -> Result<Self> {
        let mut model = Model::new(5);
        let layer = model.add("rnn", variant.stack())?;
        // Resets inside rows, and at the first step of one.
        let resets: Vec<u32> =
            (0..STEPS * BATCH).map(|place| u32::from([1, 4, 8].contains(&place))).collect();
        let marks = Marks {
            lengths: Indices::from_slice(device, &[BATCH], &LENGTHS)?,
            resets: Indices::from_slice(device, &[STEPS, BATCH], &resets)?,
        };
        Ok(Self { variant, device: device.clone(), model, layer, marks })
    }

    fn weights(&self) -> usize {
        self.model.specs().iter().map(|spec| spec.shape.elements()).sum()
    }

    /// The sizes of the parts of a state.
    fn state_sizes(&self) -> Result<Vec<Vec<usize>>> {
        let zero = self.layer.zero_state(&self.device, BATCH)?;
        let parts = [Some(zero.hidden()), zero.cell()].into_iter().flatten();
        Ok(parts.map(|part| part.shape().dimensions().to_vec()).collect())
    }

    /// Weights, x and, unless it is learned, the initial state as one vector.
    fn point(&self) -> Result<Vec<f64>> {
        let states: usize = self.state_sizes()?.iter().map(|sizes| sizes.iter().product::<usize>()).sum();
        let states = if self.variant.has(Choice::LearnedInitialState) { 0 } else { states };
        Ok(values(60, self.weights() + STEPS * BATCH * INPUTS + states, 1.0))
    }

    fn tensors(&self, point: &[f64]) -> Result<(Parameters, Tensor, State)> {
        let mut parameters = self.model.initialize(&self.device)?;
        let mut rest = point;
        let mut take = |count: usize| {
            let (section, after) = rest.split_at(count);
            rest = after;
            section
        };
        let named: Vec<(&str, &[f64])> =
            self.model.specs().iter().map(|spec| (spec.name.as_str(), take(spec.shape.elements()))).collect();
        parameters.set_all(named)?;
        let x = Tensor::from_slice_f64(&self.device, &[STEPS, BATCH, INPUTS], take(STEPS * BATCH * INPUTS))?;
        if self.variant.has(Choice::LearnedInitialState) {
            let state = self.layer.initial_state(&parameters, BATCH)?;
            return Ok((parameters, x, state));
        }
        let mut parts = Vec::new();
        for sizes in self.state_sizes()? {
            parts.push(Tensor::from_slice_f64(&self.device, &sizes, take(sizes.iter().product()))?);
        }
        let state = match parts.as_slice() {
            [hidden, cell] => State::from_hidden_and_cell(hidden, cell)?,
            _ => State::from_hidden(&parts[0])?,
        };
        Ok((parameters, x, state))
    }

    fn d_y(&self) -> Vec<f64> {
        values(61, STEPS * BATCH * self.layer.description().outputs(), 1.0)
    }

    fn value(&self, point: &[f64]) -> Result<f64> {
        let (parameters, x, initial) = self.tensors(point)?;
        let sequences = self.variant.sequences(&self.marks);
        let (y, _) = self.layer.infer_sequences(&parameters, &x, &initial, sequences)?;
        Ok(y.download_f64()?.iter().zip(self.d_y()).map(|(y, d_y)| y * d_y).sum())
    }

    fn pass(&self, point: &[f64]) -> Result<Pass> {
        let (parameters, x, initial) = self.tensors(point)?;
        let sequences = self.variant.sequences(&self.marks);
        let (y, _, trace) = self.layer.forward_sequences(&parameters, &x, &initial, sequences)?;
        let d_y = Tensor::from_slice_f64(&self.device, y.shape().dimensions(), &self.d_y())?;
        let mut gradients = parameters.zero_gradients()?;
        let (d_x, d_initial) = trace.backward(&d_y, None, &mut gradients)?;
        let mut d_state = d_initial.hidden().download_f64()?;
        d_state.extend(d_initial.cell().map(|cell| cell.download_f64()).transpose()?.unwrap_or_default());
        Ok(Pass {
            y: y.download_f64()?,
            gradients: all_gradients(&parameters, &gradients)?,
            d_x: d_x.download_f64()?,
            d_initial: d_state,
        })
    }
}

fn every_pair_of_options_matches_finite_differences() -> Outcome {
    for variant in Variant::all() {
        let setting = Setting::new(&Device::reference(), variant)?;
        let point = setting.point()?;
        let Pass { mut gradients, d_x, d_initial, .. } = setting.pass(&point)?;
        gradients.extend(d_x);
        if !variant.has(Choice::LearnedInitialState) {
            gradients.extend(d_initial);
        }
        check(&format!("{variant:?}"), &point, &gradients, |point| setting.value(point))?;
    }
    Ok(())
}

/// K terms of at most T·B + H + I a sum, over T steps and two layers, in numbers of the size of `values`.
fn rounding(values: &[f64]) -> f64 {
    let terms = (STEPS * BATCH + HIDDEN + INPUTS) * STEPS * 2;
    terms as f64 * f64::from(f32::EPSILON) * largest(values).max(1.0)
}

fn every_pair_of_options_agrees_with_the_reference_on(device: &Device) -> Outcome {
    for variant in Variant::all() {
        let reference = Setting::new(&Device::reference(), variant)?;
        // Numbers that both devices hold exactly.
        let point: Vec<f64> = reference.point()?.iter().map(|&value| f64::from(value as f32)).collect();
        let expected = reference.pass(&point)?;
        let found = Setting::new(device, variant)?.pass(&point)?;
        let name = format!("{variant:?}");
        for (what, expected, found) in [
            ("y", &expected.y, &found.y),
            ("gradients", &expected.gradients, &found.gradients),
            ("d_x", &expected.d_x, &found.d_x),
            ("d_initial", &expected.d_initial, &found.d_initial),
        ] {
            expect_close(&format!("{name}: {what}"), expected, found, rounding(expected))?;
        }
    }
    Ok(())
}

fn every_pair_of_options_agrees_with_the_reference() -> Outcome {
    every_pair_of_options_agrees_with_the_reference_on(&Device::cpu())
}

fn every_pair_of_options_agrees_with_the_reference_on_the_gpu(adapter: &Adapter) -> Outcome {
    every_pair_of_options_agrees_with_the_reference_on(&adapter.open()?)
}

fn evaluation_equals_the_stack_without_the_option() -> Outcome {
    let device = Device::cpu();
    for way in [Way::Forward, Way::Reverse, Way::Both] {
        for choice in CHOICES.into_iter().filter(|choice| choice.is_dropout()) {
            for cell in CELLS {
                let choices = [choice; 2];
                let variant = Variant { cell, way, choices, ragged: true, reset: false, training: false };
                let with = Setting::new(&device, variant)?;
                let mut model = Model::new(5);
                let without = model.add("rnn", variant.without_choices())?;
                let parameters = model.initialize(&device)?;
                let x = random(&device, 70, &[STEPS, BATCH, INPUTS], 1.0)?;
                let zero = without.zero_state(&device, BATCH)?;
                let ragged = Sequences::ragged(&with.marks.lengths);
                let (expected, _, trace) = without.forward_sequences(&parameters, &x, &zero, ragged)?;
                let mut plain = parameters.zero_gradients()?;
                trace.backward(&expected, None, &mut plain)?;
                let plain = all_gradients(&parameters, &plain)?;

                let parameters = with.model.initialize(&device)?;
                let name = format!("{variant:?}");
                let (silent, _) = with.layer.infer_sequences(&parameters, &x, &zero, ragged)?;
                expect_same_bits(&name, &expected.download()?, &silent.download()?)?;
                let (y, _, trace) =
                    with.layer.forward_sequences(&parameters, &x, &zero, ragged.evaluation())?;
                expect_same_bits(&name, &expected.download()?, &y.download()?)?;
                let mut gradients = parameters.zero_gradients()?;
                trace.backward(&expected, None, &mut gradients)?;
                assert_eq!(plain, all_gradients(&parameters, &gradients)?, "{name}");

                let training = ragged.training(variant.draw());
                let (y, _) = with.layer.infer_sequences(&parameters, &x, &zero, training)?;
                assert_ne!(expected.download()?, y.download()?, "{name}: training drops nothing");
            }
        }
    }
    Ok(())
}

/// A stack of linear cells, their weights set so that a layer gives what it reads: W_ih = 1, W_hh = `recurrent`.
fn linear(stack: impl Fn(Rnn) -> Rnn, layers: usize, recurrent: f64) -> Result<(Layer<Rnn>, Parameters)> {
    let mut model = Model::new(1);
    let base = Rnn::new(Cell::Vanilla(Activation::Identity), INPUTS, HIDDEN).layers(layers).without_bias();
    let layer = model.add("rnn", stack(base))?;
    let mut parameters = model.initialize(&Device::reference())?;
    let unit: Vec<f64> = (0..9).map(|place| if place % (HIDDEN + 1) == 0 { 1.0 } else { 0.0 }).collect();
    for number in 0..layers {
        let (input, state) = (format!("rnn.weight_ih_l{number}"), format!("rnn.weight_hh_l{number}"));
        parameters.set_all([(input.as_str(), &unit[..]), (state.as_str(), &[recurrent; 9][..])])?;
    }
    Ok((layer, parameters))
}

/// What a stack of [`linear`] cells makes of ones \[T, B, I\] in step `step` of training.
fn of_ones(layer: &Layer<Rnn>, parameters: &Parameters, step: u64) -> Result<Vec<f64>> {
    let device = Device::reference();
    let x = Tensor::from_slice_f64(&device, &[STEPS, BATCH, INPUTS], &[1.0; STEPS * BATCH * INPUTS])?;
    let training = Sequences::whole().training(Draw::new(3, step));
    let (y, _) = layer.infer_sequences(parameters, &x, &layer.zero_state(&device, BATCH)?, training)?;
    y.download_f64()
}

fn dropout_falls_between_layers_anew_at_each_step() -> Outcome {
    let (layer, parameters) = linear(|stack| stack.dropout(0.5), 3, 0.0)?;
    let mut seen = Vec::new();
    for step in 0..20 {
        let y = of_ones(&layer, &parameters, step)?;
        // Two gaps between three layers, each drops half and doubles the rest.
        assert!(y.iter().all(|value| [0.0, 4.0].contains(value)), "{y:?}");
        assert_eq!(y, of_ones(&layer, &parameters, step)?, "the same draw, the same masks");
        assert!(!seen.contains(&y), "step {step} repeats a mask");
        let first_step = &y[..BATCH * HIDDEN];
        seen.push(y.clone());
        if step == 0 {
            assert!(y.chunks(BATCH * HIDDEN).any(|later| later != first_step), "locked over time");
        }
    }
    let all = seen.concat();
    let kept = all.iter().filter(|value| **value > 0.0).count() as f64;
    let (count, rate) = (all.len() as f64, 0.25f64);
    assert!((kept - count * rate).abs() < 4.0 * (count * rate * (1.0 - rate)).sqrt(), "{kept} of {count}");
    Ok(())
}

fn input_dropout_is_locked_over_time_and_different_in_each_layer() -> Outcome {
    let (layer, parameters) = linear(|stack| stack.input_dropout(0.5), 1, 0.0)?;
    let (deeper, deep_parameters) = linear(|stack| stack.input_dropout(0.5), 2, 0.0)?;
    let (mut masks, mut differ) = (Vec::new(), false);
    for step in 0..20 {
        let y = of_ones(&layer, &parameters, step)?;
        assert!(y.iter().all(|value| [0.0, 2.0].contains(value)), "{y:?}");
        let first = y[..BATCH * HIDDEN].to_vec();
        assert!(y.chunks(BATCH * HIDDEN).all(|later| later == first), "{y:?} is not locked");
        let deep = of_ones(&deeper, &deep_parameters, step)?;
        // The first layer's mask is the same; the second's is another.
        assert!(y.iter().zip(&deep).all(|(one, two)| *one > 0.0 || *two == 0.0));
        differ |= y.iter().zip(&deep).any(|(one, two)| *one > 0.0 && *two == 0.0);
        masks.push(first);
    }
    assert!(differ, "both layers drop the same");
    masks.dedup();
    assert!(masks.len() > 15, "masks repeat from step to step");
    Ok(())
}

fn weight_drop_masks_w_hh_for_the_whole_window() -> Outcome {
    let device = Device::reference();
    let (layer, parameters) = linear(|stack| stack.weight_drop(0.5), 1, 1.0)?;
    // Rows of the batch are unit vectors: after one step they are the columns of the masked W_hh.
    let unit: Vec<f64> = (0..9).map(|place| if place % 4 == 0 { 1.0 } else { 0.0 }).collect();
    let state = State::from_hidden(&Tensor::from_slice_f64(&device, &[1, 3, 3], &unit)?)?;
    let x = Tensor::zeros(&device, &[STEPS, 3, 3])?;
    let mut masks = Vec::new();
    for step in 0..10 {
        let training = Sequences::whole().training(Draw::new(3, step));
        let (y, _) = layer.infer_sequences(&parameters, &x, &state, training)?;
        let y = y.download_f64()?;
        let columns = &y[..9];
        assert!(columns.iter().all(|value| [0.0, 2.0].contains(value)), "{columns:?}");
        let masked = Tensor::from_slice_f64(&device, &[3, 3], columns)?;
        let mut power = masked.clone();
        for later in y[9..].chunks(9) {
            power = ops::matmul(&power, &masked, Form::Plain, None)?;
            assert_eq!(power.download_f64()?, later, "another mask at a later step");
        }
        masks.push(columns.to_vec());
    }
    masks.dedup();
    assert!(masks.len() > 5, "masks repeat from step to step");
    Ok(())
}

/// The parameters of `source` under the names that `rename` gives for those of `model`.
fn copied(model: &Model, source: &Parameters, rename: impl Fn(&str) -> String) -> Result<Parameters> {
    let mut parameters = model.initialize(source.device())?;
    for spec in model.specs() {
        parameters.set(&spec.name, &source.view(&rename(&spec.name))?.download()?)?;
    }
    Ok(parameters)
}

fn merges_and_residual_connections_are_layers_threaded_by_hand() -> Outcome {
    let device = Device::cpu();
    for merge in Merge::ALL {
        for cell in CELLS {
            let mut model = Model::new(9);
            let stack = Rnn::new(cell, INPUTS, HIDDEN).layers(2).bidirectional().merge(merge).residual();
            let width = stack.outputs();
            assert_eq!(width, if merge == Merge::Concat { 2 * HIDDEN } else { HIDDEN });
            let whole = model.add("rnn", stack)?;
            let parameters = model.initialize(&device)?;
            let x = random(&device, 71, &[STEPS, BATCH, INPUTS], 1.0)?;
            let (y, _) = whole.infer(&parameters, &x, &whole.zero_state(&device, BATCH)?)?;

            let mut by_hand = x;
            for number in 0..2 {
                let inputs = by_hand.shape().last();
                let mut model = Model::new(0);
                let layer = model.add("rnn", Rnn::new(cell, inputs, HIDDEN).bidirectional())?;
                let from = |name: &str| name.replace("_l0", &format!("_l{number}"));
                let own = copied(&model, &parameters, from)?;
                let zero = layer.zero_state(&device, BATCH)?;
                let merged = ops::merge(&layer.infer(&own, &by_hand, &zero)?.0, merge)?;
                // With both directions side by side the first layer is wider than its input.
                by_hand = if inputs == width { ops::binary(&merged, &by_hand, Binary::Add)? } else { merged };
            }
            expect_same_bits(&format!("{merge:?} {cell:?}"), &y.download()?, &by_hand.download()?)?;
        }
    }
    Ok(())
}

fn garbage_in_the_padding_changes_nothing_on(device: &Device) -> Outcome {
    for variant in Variant::all().into_iter().filter(|variant| variant.ragged) {
        let setting = Setting::new(device, variant)?;
        let (parameters, x, initial) = setting.tensors(&setting.point()?)?;
        let mut results = Vec::new();
        for garbage in [0.0, f64::NAN] {
            let spoil = |values: Vec<f64>, width: usize| -> Result<Tensor> {
                let mut values = values;
                for (place, value) in values.iter_mut().enumerate() {
                    let (step, row) = (place / width / BATCH, place / width % BATCH);
                    if step >= LENGTHS[row] as usize {
                        *value = garbage;
                    }
                }
                Tensor::from_slice_f64(device, &[STEPS, BATCH, width], &values)
            };
            let sequences = variant.sequences(&setting.marks);
            let x = spoil(x.download_f64()?, INPUTS)?;
            let (y, _, trace) = setting.layer.forward_sequences(&parameters, &x, &initial, sequences)?;
            let mut gradients = parameters.zero_gradients()?;
            let d_y = spoil(setting.d_y(), y.shape().last())?;
            let (d_x, _) = trace.backward(&d_y, None, &mut gradients)?;
            let all = [y.download_f64()?, d_x.download_f64()?, all_gradients(&parameters, &gradients)?];
            for (values, width) in [(&all[0], y.shape().last()), (&all[1], INPUTS)] {
                for (place, value) in values.iter().enumerate() {
                    let (step, row) = (place / width / BATCH, place / width % BATCH);
                    assert!(
                        step < LENGTHS[row] as usize || *value == 0.0,
                        "{variant:?}: {value} in the padding"
                    );
                }
            }
            results.push(all.concat());
        }
        assert_eq!(results[0], results[1], "{variant:?}");
    }
    Ok(())
}

fn garbage_in_the_padding_changes_nothing() -> Outcome {
    garbage_in_the_padding_changes_nothing_on(&Device::cpu())
}

fn garbage_in_the_padding_changes_nothing_on_the_gpu(adapter: &Adapter) -> Outcome {
    garbage_in_the_padding_changes_nothing_on(&adapter.open()?)
}

/// With weights and inputs of one and a relu every result is a sum of positive terms: it rounds relative to itself, and
/// a mask that differs in one place changes a result beside it by one part in a few hundred.
fn masks_agree_between_devices(adapter: &Adapter) -> Outcome {
    let gpu = adapter.open()?;
    for choice in CHOICES.into_iter().filter(|choice| choice.is_dropout()) {
        let mut results: Vec<Vec<f32>> = Vec::new();
        for device in [&gpu, &Device::cpu()] {
            let mut model = Model::new(1);
            let base = Rnn::new(Cell::relu(), 8, 8).layers(2).bidirectional();
            let layer = model.add("rnn", choice.of(base).without_bias())?;
            let mut parameters = model.initialize(device)?;
            for spec in model.specs() {
                parameters.set(&spec.name, &vec![1.0; spec.shape.elements()])?;
            }
            let x = Tensor::from_slice(device, &[3, 5, 8], &[1.0; 120])?;
            let zero = layer.zero_state(device, 5)?;
            let training = Sequences::whole().training(Draw::new(1 << 40, 9));
            let (y, _) = layer.infer_sequences(&parameters, &x, &zero, training)?;
            results.push(y.download()?);
        }
        for (found, expected) in results[0].iter().zip(&results[1]) {
            assert!((found - expected).abs() <= 1e-5 * expected, "{choice:?}: {found} and {expected}");
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        every_pair_of_options_matches_finite_differences,
        every_pair_of_options_agrees_with_the_reference,
        evaluation_equals_the_stack_without_the_option,
        dropout_falls_between_layers_anew_at_each_step,
        input_dropout_is_locked_over_time_and_different_in_each_layer,
        weight_drop_masks_w_hh_for_the_whole_window,
        merges_and_residual_connections_are_layers_threaded_by_hand,
        garbage_in_the_padding_changes_nothing,
    );
    on_gpu!(
        suite,
        every_pair_of_options_agrees_with_the_reference_on_the_gpu,
        garbage_in_the_padding_changes_nothing_on_the_gpu,
        masks_agree_between_devices,
    );
}
