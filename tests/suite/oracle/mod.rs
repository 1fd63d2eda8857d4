//! Both CPU backends, in 32-bit and in 64-bit floats, against an oracle that shares no code with either: [`layer`] is the
//! textbook's loop over the steps of one row, and [`number`] differentiates it. Every cell with every option, every pair of
//! options, over small batches: outputs, final states, and the gradients at x, at all parameters and at the initial state.

pub(crate) mod layer;
pub(crate) mod number;

use std::collections::BTreeMap;
use std::ops::Range;

use libtest_mimic::Failed;
use refrain::nn::{Cell, Merge, Model, Rnn, Sequences};
use refrain::ops::Activation;
use refrain::{Device, Error, Result};

use self::layer::{Masks, Options, Row, Time};
use crate::adapters::{Outcome, Suite, on_cpu};
use crate::support::{by_entry, diagonal, expect_close, linear_outputs, root_mean_square};
use crate::variants::{
    ALL, BOUND, EVALUATION, FINAL_GRADIENT, KINKED, LAYERS, LENGTHS, NamedResults, RATE, RESETS, SMOOTH,
    Setting, Sizes, TABLE, Variant,
};

/// The most roundings on the way to any result: 5 steps of 2 layers with 4 gates, each a sum of up to 5 products with x and 5
/// with h, a bias, a peephole and the evaluation of a function (as 8), and the same once more backwards.
const ROUNDINGS: f64 = 2.0 * 5.0 * 2.0 * 4.0 * (5.0 + 5.0 + 1.0 + 1.0 + 8.0);
/// √[`ROUNDINGS`] roundings of one sign, which is what errors of random sign add up to, times 6 for the confidence
/// (Higham & Mary 2019), and times 4 for functions steeper than one: relative to an entry and its tensor.
fn tolerance(unit: f64) -> f64 {
    4.0 * 6.0 * ROUNDINGS.sqrt() * unit
}
/// Layer normalisation divides by the deviation of a row, which of a few entries may be this much smaller than they are.
fn growth(variant: &Variant) -> f64 {
    if variant.has("layer_norm") { 32.0 } else { 1.0 }
}
/// How far from any kink all numbers are: farther than an f32 of order one errs on the way to it.
const MARGIN: f64 = 1e-4;
/// The typical size of a tensor's entries: below, what they are computed from has cancelled; above, it has grown through
/// functions without bound, and no distance from a kink is far.
const RESULTS: Range<f64> = 1e-4..1e3;

const SIZES: [Sizes; 6] =
    [[1, 1, 1, 1], [2, 3, 2, 1], [3, 2, 3, 5], [4, 2, 5, 3], [5, 3, 4, 4], [3, 2, 4, 2]];

/// The masks of a first layer in training, as linear units show them: of inputs and outputs that are ones, of states that are
/// ones, and of a W_hh of ones of which unit vectors as rows of a batch show one column each.
fn masks(setting: &Setting) -> Result<Masks> {
    let variant = &setting.variant;
    let Some(random_key) = variant.random_key() else { return Ok(Masks::default()) };
    let training = Sequences::whole().training(random_key);
    let [steps, batch, inputs, hidden] = variant.sizes;
    let (states, outputs) = (setting.state_sizes()?[0] / batch, setting.layer.description().outputs());
    let mut masks = Masks::default();
    if variant.has("input_dropout") {
        let (zeros, state) = (vec![0.0; inputs * inputs], vec![0.0; batch * inputs]);
        let build = |stack: Rnn| stack.input_dropout(RATE);
        masks.inputs = linear_outputs(build, [1, batch, inputs], &zeros, 1.0, &state, training)?;
    }
    if variant.has("recurrent_dropout") {
        let (one, state) = (diagonal(states, 1.0), vec![1.0; batch * states]);
        let build = |stack: Rnn| stack.recurrent_dropout(RATE);
        masks.states = linear_outputs(build, [1, batch, states], &one, 0.0, &state, training)?;
    }
    if variant.has("weight_drop") {
        // A square matrix of at least as many elements.
        let width = ((variant.cell.gates() * hidden * hidden) as f64).sqrt().ceil() as usize;
        let (ones, state) = (vec![1.0; width * width], diagonal(width, 1.0));
        let build = |stack: Rnn| stack.weight_drop(RATE);
        let columns = linear_outputs(build, [1, width, width], &ones, 0.0, &state, training)?;
        let transposed = |place: usize| columns[place % width * width + place / width];
        masks.weights = (0..width * width).map(transposed).collect();
    }
    if variant.has("dropout") {
        let (zeros, state) = (vec![0.0; outputs * outputs], vec![0.0; 2 * batch * outputs]);
        let build = |stack: Rnn| stack.layers(2).dropout(RATE);
        masks.outputs = linear_outputs(build, [steps, batch, outputs], &zeros, 1.0, &state, training)?;
    }
    Ok(masks)
}

fn options(setting: &Setting) -> Result<Options> {
    let variant = &setting.variant;
    let usual = [Activation::Sigmoid, Activation::Tanh, Activation::Tanh];
    Ok(Options {
        cell: variant.cell.clone(),
        hidden: variant.sizes[3],
        layers: if variant.has("layers") { 2 } else { 1 },
        directions: match variant.value("direction") {
            None => &[Time::Forward],
            Some("reverse") => &[Time::Reverse],
            Some(_) => &[Time::Forward, Time::Reverse],
        },
        merge: match variant.value("merge") {
            None => Merge::Concat,
            Some("sum") => Merge::Sum,
            Some("mean") => Merge::Mean,
            Some(_) => Merge::Product,
        },
        residual: variant.has("residual"),
        functions: match variant.value("gate_activations") {
            None => variant.functions.unwrap_or(usual),
            Some("smooth") => SMOOTH,
            Some(_) => KINKED,
        },
        coupled: variant.has("coupled"),
        reset_before: variant.has("reset_before"),
        clip_gates: if variant.has("clip_gates") { f64::from(0.7f32) } else { f64::INFINITY },
        clip_cell: if variant.has("clip_cell") { f64::from(0.4f32) } else { f64::INFINITY },
        clip_gradient: match variant.value("clip_gradient") {
            Some("binds") => BOUND.into(),
            _ => f64::INFINITY,
        },
        zoneout: match variant.value("zoneout") {
            None => [0.0; 2],
            Some("hidden") => [RATE.into(), 0.0],
            Some(_) => [0.25, RATE.into()],
        },
        truncated: (variant.value("truncation") == Some("truncated")).then_some(2),
        windows: match variant.value("truncation") {
            None | Some("truncated") => None,
            Some("windowed") => Some([1, 2]),
            Some("windowed 0") => Some([1, 1]),
            Some("truncated_every 2 3") => Some([2, 3]),
            Some(_) => Some([3, 3]),
        },
        masks: masks(setting)?,
    })
}

/// In evaluation where the oracle does not know the random numbers: zoneout's, and the masks of all layers and directions but
/// the first.
fn covered(variant: Variant) -> Variant {
    let has = |options: &[&str]| options.iter().any(|option| variant.has(option));
    let of_first = has(&["input_dropout", "recurrent_dropout", "weight_drop"]);
    let is_unknown = has(&["zoneout"]) || of_first && has(&["layers", "direction"]);
    if is_unknown { variant.with(EVALUATION) } else { variant }
}

/// A row of \[outer, B, width\].
fn rows_of(values: &[f64], [outer, batch, row]: [usize; 3]) -> Vec<Vec<f64>> {
    let width = values.len() / outer / batch;
    (0..outer).map(|place| values[(place * batch + row) * width..][..width].to_vec()).collect()
}

/// Writes a row of \[outer, B, width\].
fn put(values: &mut [f64], [outer, batch, row]: [usize; 3], own: &[Vec<f64>]) {
    let width = values.len() / outer / batch;
    for (place, own) in own.iter().enumerate() {
        values[(place * batch + row) * width..][..width].copy_from_slice(own);
    }
}

/// The oracle's results in the order of the library's; none at a point near a kink, or where a result cancels or explodes.
fn expected(setting: &Setting, options: &Options, point: &[f64]) -> Result<Option<NamedResults>> {
    let variant = &setting.variant;
    let [steps, batch, ..] = variant.sizes;
    let [mut weights, x, state] = setting.split(point);
    let mut parameters = BTreeMap::new();
    for spec in setting.model.specs() {
        let (own, rest) = weights.split_at(spec.shape.elements());
        parameters.insert(spec.name.clone(), own.to_vec());
        weights = rest;
    }
    let places = options.layers * options.directions.len();
    let learned_name = |place: usize, part: usize| {
        let (layer, direction) = (place / options.directions.len(), place % options.directions.len());
        let suffix = if options.directions[direction] == Time::Reverse { "_reverse" } else { "" };
        format!("rnn.initial_{}_l{layer}{suffix}", ["hidden", "cell"][part])
    };
    let learned = |part: usize| {
        let of_place = |place| parameters.get(&learned_name(place, part)).cloned().unwrap_or_default();
        (0..places).map(of_place).collect::<Vec<_>>()
    };
    let sizes = setting.state_sizes()?;
    let (d_y, d_last) = (setting.d_y(), setting.d_last()?.unwrap_or_else(|| vec![0.0; sizes.iter().sum()]));
    let (mut y, mut d_x) = (vec![0.0; d_y.len()], vec![0.0; x.len()]);
    let [mut last, mut d_initial] = [sizes; 2].map(|sizes| sizes.map(|size| vec![0.0; size]));
    let zeros = |(name, values): (&String, &Vec<f64>)| (name.clone(), vec![0.0; values.len()]);
    let mut gradients: BTreeMap<_, _> = parameters.iter().map(zeros).collect();
    for (row, length) in variant.lengths().into_iter().enumerate() {
        let (of_steps, of_places) = ([steps, batch, row], [places, batch, row]);
        let parts = |values: &[f64]| {
            let (hidden, cell) = values.split_at(sizes[0]);
            [hidden, cell].map(|part| rows_of(part, of_places))
        };
        let is_learned = variant.has("learned_initial_state");
        let own = Row {
            number: row,
            steps,
            batch,
            x: rows_of(x, of_steps)[..length].to_vec(),
            resets: (0..length).map(|step| variant.is_reset(step, row)).collect(),
            d_y: rows_of(&d_y, of_steps)[..length].to_vec(),
            initial: if is_learned { [0, 1].map(learned) } else { parts(state) },
            d_last: parts(&d_last),
        };
        let own = options.pass(&parameters, &own, &mut gradients);
        put(&mut y, of_steps, &own.y);
        put(&mut d_x, of_steps, &own.d_x);
        for part in 0..2 {
            put(&mut last[part], of_places, &own.last[part]);
            put(&mut d_initial[part], of_places, &own.d_initial[part]);
            for (place, own) in own.d_initial[part].iter().enumerate() {
                if let Some(total) = gradients.get_mut(&learned_name(place, part)) {
                    total.iter_mut().zip(own).for_each(|(total, own)| *total += own);
                }
            }
        }
    }
    let ([hidden, cell], [d_hidden, d_cell]) = (last, d_initial);
    let mut results: NamedResults = vec![("y".to_owned(), y)];
    results.extend([("hidden".to_owned(), hidden), ("cell".to_owned(), cell), ("d_x".to_owned(), d_x)]);
    results.extend([("d_hidden".to_owned(), d_hidden), ("d_cell".to_owned(), d_cell)]);
    let names = setting.model.specs().iter().map(|spec| &spec.name);
    results.extend(names.map(|name| (format!("d_{name}"), gradients[name].clone())));
    results.retain(|(_, values)| !values.is_empty());
    let is_telling = |values: &[f64]| {
        values.iter().all(|value| *value == 0.0) || RESULTS.contains(&root_mean_square(values))
    };
    let is_clear = number::take_margin() >= MARGIN;
    Ok((is_clear && results.iter().all(|(_, values)| is_telling(values))).then_some(results))
}

/// Compares both CPU backends with the oracle; `false` where the library refuses the stack.
fn agrees(variant: Variant) -> Result<bool, Failed> {
    let variant = covered(variant);
    match Model::new(5).add("rnn", variant.stack()) {
        Err(Error::Config { .. }) => return Ok(false),
        added => added.map(drop)?,
    }
    let name = variant.name();
    let growth = growth(&variant);
    let setting = Setting::new(&Device::reference(), variant.clone())?;
    let options = options(&setting)?;
    for seed in 5000..6000 {
        let point = setting.sampled(seed)?;
        let Some(expected) = expected(&setting, &options, &point)? else { continue };
        for (device, epsilon) in
            [(Device::cpu(), f64::from(f32::EPSILON)), (Device::reference(), f64::EPSILON)]
        {
            let found = Setting::new(&device, variant.clone())?.pass(&point)?;
            assert_eq!(expected.len(), found.len(), "{name}");
            for ((what, expected), (same, found)) in expected.iter().zip(&found) {
                assert_eq!(what, same, "{name}");
                let what = format!("{name}, seed {seed}: by the oracle and on {device}, {what}");
                expect_close(&what, expected, found, by_entry(growth * tolerance(epsilon / 2.0), expected))?;
            }
        }
        return Ok(true);
    }
    Err(format!("{name}: no point is clear of kinks and cancellation").into())
}

/// The variant with some of the options that describe a batch, by the bits of a number.
fn with_batch(variant: Variant, bits: usize) -> Variant {
    let options = [LENGTHS, RESETS, FINAL_GRADIENT].into_iter().enumerate();
    options
        .filter(|(place, _)| bits >> place & 1 == 1)
        .fold(variant, |variant, (_, option)| variant.with(option))
}

/// Each alone over every size, and without any; every activation as a cell.
fn every_cell_and_option_has_the_values_of_the_textbook() -> Outcome {
    let mut compared = 0;
    for cell in Activation::ALL.into_iter().map(Cell::Vanilla).chain([Cell::Lstm, Cell::Gru]) {
        let is_other = !ALL.contains(&cell);
        let like = if is_other { &ALL[0] } else { &cell };
        let single = TABLE.iter().filter(|choice| choice.cells.contains(like)).map(|choice| vec![choice]);
        for choices in single.chain([Vec::new()]) {
            let mut covered = 0;
            for (number, sizes) in SIZES.into_iter().enumerate() {
                // Of vanilla cells that differ in one function each option has each size once.
                for bits in (0..8).filter(|bits| !is_other || *bits == (number + compared) % 8) {
                    let variant = with_batch(Variant::new(&cell, &choices, sizes), bits);
                    covered += usize::from(agrees(variant)?);
                }
            }
            assert!(covered > 0, "{} was never compared", Variant::new(&cell, &choices, SIZES[0]).name());
            compared += covered;
        }
    }
    assert!(compared > 5000, "only {compared} cases");
    Ok(())
}

/// Over sizes that are large enough for every option, in turns.
fn every_pair_of_options_has_the_values_of_the_textbook() -> Outcome {
    let mut compared = 0;
    for variant in Variant::pairs(SIZES[3]) {
        let variant = Variant { sizes: SIZES[2 + compared % 3], ..variant };
        compared += usize::from(agrees(with_batch(variant, compared))?);
    }
    assert!(compared > 800, "only {compared} pairs");
    Ok(())
}

/// Cells, directions, depths and biases over all kinds of batches.
fn every_combination_of_plain_options_has_the_values_of_the_textbook() -> Outcome {
    for cell in ALL {
        for direction in [None, Some("reverse"), Some("bidirectional")] {
            for bits in 0..32 {
                let plain = with_batch(Variant::new(cell, &[], SIZES[4]), bits);
                let also = [LAYERS, ["without_bias", ""]].into_iter().enumerate();
                let also = also.filter(|(place, _)| bits >> (3 + place) & 1 == 1).map(|(_, option)| option);
                let also = also.chain(direction.map(|direction| ["direction", direction]));
                assert!(agrees(also.fold(plain, Variant::with))?);
            }
        }
    }
    Ok(())
}

/// Every function in every place of a gated cell.
fn every_function_of_a_gate_has_the_values_of_the_textbook() -> Outcome {
    let all = Activation::ALL;
    for place in 0..all.len() {
        let functions = Some([0, 1, 2].map(|later| all[(place + later) % all.len()]));
        for cell in [Cell::Lstm, Cell::Gru] {
            for (number, sizes) in SIZES.into_iter().enumerate() {
                let variant = Variant { functions, ..Variant::new(&cell, &[], sizes) };
                let name = variant.name();
                assert!(agrees(with_batch(variant, number + 4))?, "{name} is refused");
            }
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        every_cell_and_option_has_the_values_of_the_textbook,
        every_pair_of_options_has_the_values_of_the_textbook,
        every_combination_of_plain_options_has_the_values_of_the_textbook,
        every_function_of_a_gate_has_the_values_of_the_textbook,
    );
}
