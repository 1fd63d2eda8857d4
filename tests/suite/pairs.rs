//! Every option of a stack, and every pair of them: accepted or refused by both names, alike on all devices, and never without
//! effect; gradients in training match finite differences. That values and gradients are those of the equations is the matter of
//! `oracle`.

use libtest_mimic::Failed;
use refrain::nn::{Cell, Model, Rnn};
use refrain::{Device, Error, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu_strategies};
use crate::gradients::{check, step};
use crate::support::{Build, Tolerance, by_entry, expect_close};
use crate::variants::{ALL, Choice, NamedResults, Setting, Sizes, TABLE, Variant};

/// As many inputs as units, so that a first layer may be residual.
const SIZES: Sizes = [4, 2, 3, 3];

/// Options that take away what others would show: random numbers, gradients, parameters.
const MUTING: [&str; 4] = ["mode", "without_bias", "clip_gradient", "truncation"];
/// Asks for all cases, where fewer prove the same.
const FULL_VARIABLE: &str = "REFRAIN_TEST_FULL";

/// Those that the library takes.
fn taken() -> impl Iterator<Item = Variant> {
    Variant::pairs(SIZES).into_iter().filter(|variant| variant.refusal().is_none())
}

/// Stacks of many options at once, such that every pair of options that goes together is in one of them, for every cell: a
/// covering array (Cohen et al. 1997, "The AETG system"), filled greedily. All pairs alone where the environment asks for all.
fn covering() -> Vec<Variant> {
    if std::env::var_os(FULL_VARIABLE).is_some() {
        return taken().collect();
    }
    let mut stacks = Vec::new();
    for cell in ALL {
        let mut left: Vec<Variant> = taken().filter(|pair| pair.cell == *cell).collect();
        while let Some(first) = left.first().cloned() {
            let stack = left.iter().fold(first, |stack, pair| both(&stack, pair).unwrap_or(stack));
            left.retain(|pair| !covers(&stack, pair));
            stacks.push(stack);
        }
    }
    stacks
}

fn mute_alike(one: &Variant, other: &Variant) -> bool {
    MUTING.into_iter().all(|option| one.has(option) == other.has(option))
}

/// Whether a stack shows of a pair what the pair alone would: both options, and no other one that takes something away.
fn covers(stack: &Variant, pair: &Variant) -> bool {
    let mut choices = pair.choices.iter();
    choices.all(|choice| stack.value(choice.option) == Some(choice.value)) && mute_alike(stack, pair)
}

/// The options of both, if the library takes them together.
fn both(stack: &Variant, pair: &Variant) -> Option<Variant> {
    let mut merged = stack.clone();
    for &choice in &pair.choices {
        match stack.value(choice.option) {
            None => merged.choices.push(choice),
            Some(value) if value == choice.value => {}
            Some(_) => return None,
        }
    }
    let is_taken = || Model::new(1).add("rnn", merged.stack()).is_ok();
    (mute_alike(stack, pair) && is_taken()).then_some(merged)
}

/// A point clear of all kinks, for 64-bit floats.
fn point(setting: &Setting) -> Result<Vec<f64>> {
    let kinks = ["gate_activations", "clip_gates", "clip_cell"];
    let has_kinks = kinks.into_iter().any(|option| setting.variant.has(option));
    for stream in 460..500 {
        let point = setting.sampled(stream)?;
        if !has_kinks || is_smooth(setting, &point)? {
            return Ok(point);
        }
    }
    let message = "is near a kink wherever it is tried".to_owned();
    Err(Error::Config { what: setting.variant.name(), message })
}

/// Whether no kink lies within a step of finite differences: (f(x + h) + f(x − h)) / 2 − f(x) is then h² f''/2, but at a kink h
/// times half the jump of the derivative.
fn is_smooth(setting: &Setting, point: &[f64]) -> Result<bool> {
    let (mut moved, here) = (point.to_vec(), setting.value(point)?);
    for (place, &x) in point.iter().enumerate() {
        moved[place] = x + step();
        let up = setting.value(&moved)?;
        moved[place] = x - step();
        let down = setting.value(&moved)?;
        moved[place] = x;
        if ((up + down) / 2.0 - here).abs() > 1e3 * step() * step() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn every_pair_of_options_is_taken_or_refused_by_both_names() -> Outcome {
    let mut refused = 0;
    for variant in Variant::pairs(SIZES) {
        let result = Model::new(1).add("rnn", variant.stack()).map(drop);
        match (result, variant.refusal()) {
            (Ok(()), None) => {}
            (Err(Error::Config { what, message }), Some(names)) => {
                let message = format!("{what} {message}");
                assert!(names.iter().all(|name| message.contains(name)), "{message} does not say {names:?}");
                refused += 1;
            }
            (result, expected) => panic!("{}: {result:?}, expected {expected:?}", variant.name()),
        }
    }
    assert!(refused > 0, "no pair was refused");
    Ok(())
}

/// Of a direction, a truncation or a length of segments a stack has one: a second one does not silently take its place.
fn options_that_exclude_each_other_are_refused_by_both_names() -> Outcome {
    let groups: [&[(&str, Build)]; 3] = [
        &[
            ("truncated", |stack| stack.truncated(2)),
            ("windowed", |stack| stack.windowed(1)),
            ("truncated_every", |stack| stack.truncated_every(2, 3)),
        ],
        &[("reverse", Rnn::reverse), ("bidirectional", Rnn::bidirectional)],
        &[
            ("checkpointed", |stack| stack.checkpointed(2)),
            ("checkpointed_within", |stack| stack.checkpointed_within(1 << 20)),
        ],
    ];
    for group in groups {
        for (one, first) in group {
            for (two, second) in group {
                match Model::new(1).add("rnn", second(first(Rnn::new(Cell::Gru, 3, 3)))).map(drop) {
                    Err(Error::Config { what, .. }) if one != two => {
                        assert_eq!(what, format!("rnn: {one} and {two}"));
                    }
                    result => assert!(result.is_ok() && one == two, "{one} and {two} give {result:?}"),
                }
            }
        }
    }
    Ok(())
}

fn options_of_other_cells_are_refused_by_both_names() -> Outcome {
    for choice in &TABLE {
        for cell in ALL.iter().filter(|cell| !choice.cells.contains(cell)) {
            match Model::new(1).add("rnn", Variant::new(cell, &[choice], SIZES).stack()) {
                Err(error @ Error::Config { .. }) => {
                    let message = error.to_string();
                    let names = [choice.option, cell.name()];
                    assert!(
                        names.iter().all(|name| message.contains(name)),
                        "{message} does not say {names:?}"
                    );
                }
                other => panic!("{} on {cell:?} gives {:?}", choice.option, other.map(drop)),
            }
        }
    }
    Ok(())
}

/// With the random numbers of training; without them the gradients are those of the oracle. So are all with layer normalisation,
/// whose third derivatives, of x / σ in 1 / σ³, are too large for differences.
fn every_pair_of_options_in_training_matches_finite_differences() -> Outcome {
    let random = ["dropout", "input_dropout", "recurrent_dropout", "weight_drop", "zoneout"];
    let fits = |variant: &Variant| {
        let is_random = random.into_iter().any(|option| variant.has(option));
        is_random && !variant.bends_gradients() && !variant.has("layer_norm")
    };
    for variant in taken().filter(fits) {
        let setting = Setting::new(&Device::reference(), variant)?;
        let point = point(&setting)?;
        let pass = setting.pass(&point)?;
        let of =
            |name: &str| pass.iter().find(|(other, _)| other == name).map_or(&[][..], |(_, values)| values);
        let parameters = setting.model.specs().iter().map(|spec| of(&format!("d_{}", spec.name)));
        let mut gradients: Vec<&[f64]> = parameters.chain([of("d_x")]).collect();
        if !setting.variant.has("learned_initial_state") {
            gradients.extend([of("d_hidden"), of("d_cell")]);
        }
        check(&setting.variant.name(), &point, &gradients.concat(), |point| setting.value(point))?;
    }
    Ok(())
}

/// What the covering array is for, and that it is one.
fn few_stacks_cover_every_pair_of_options() -> Outcome {
    let (stacks, pairs) = (covering(), taken().collect::<Vec<_>>());
    for pair in &pairs {
        let covered = stacks.iter().any(|stack| stack.cell == pair.cell && covers(stack, pair));
        assert!(covered, "no stack has {}", pair.name());
    }
    let is_full = std::env::var_os(FULL_VARIABLE).is_some();
    assert!(is_full || 5 * stacks.len() < pairs.len(), "{} stacks for {} pairs", stacks.len(), pairs.len());
    Ok(())
}

/// Two orders of the same sums of 64-bit numbers of order one to a hundred, some hundred roundings each.
const SAME: f64 = 1e-11;

/// Windows over the whole sequence cut nothing, whatever numbers are drawn.
fn windows_as_deep_as_the_sequence_change_nothing() -> Outcome {
    const STEPS: usize = SIZES[0];
    let depths: [Build; 2] = [|stack| stack.windowed(STEPS - 1), |stack| stack.truncated_every(STEPS, STEPS)];
    let device = Device::reference();
    let others = ["direction", "layer_norm", "checkpointed"];
    let fits = |variant: &Variant| {
        !variant.bends_gradients() && !others.into_iter().any(|option| variant.has(option))
    };
    for variant in taken().filter(fits) {
        let mut setting = Setting::new(&device, variant)?;
        let point = setting.sampled(460)?;
        let expected = setting.pass(&point)?;
        for build in depths {
            setting.model = Model::new(5);
            setting.layer = setting.model.add("rnn", build(setting.variant.stack()))?;
            expect_same(&setting.variant.name(), &expected, &setting.pass(&point)?, |_| SAME.into())?;
        }
    }
    Ok(())
}

/// Entry by entry. A gradient of one tensor comes from those at all others, whose size its roundings have: `tolerance` is asked
/// of all gradients together.
fn expect_same(
    name: &str,
    expected: &NamedResults,
    found: &NamedResults,
    tolerance: impl Fn(&[f64]) -> Tolerance,
) -> Outcome {
    let gradients = expected.iter().filter(|(what, _)| what.starts_with("d_"));
    let of_all = tolerance(&gradients.flat_map(|(_, values)| values).copied().collect::<Vec<_>>());
    for ((what, expected), (_, found)) in expected.iter().zip(found) {
        let allowed = if what.starts_with("d_") { of_all } else { tolerance(expected) };
        expect_close(&format!("{name}: {what}"), expected, found, allowed)?;
    }
    Ok(())
}

/// Both options of a pair are at work: without either, where the parameters stay the same, results are others.
fn no_option_of_a_pair_is_ignored() -> Outcome {
    let device = Device::reference();
    let mut compared = 0;
    for variant in taken() {
        let with = Setting::new(&device, variant.clone())?;
        let point = with.sampled(460)?;
        let expected = with.pass(&point)?;
        // In evaluation only zoneout is at work, and no bound that is far off ever.
        let random = ["dropout", "input_dropout", "recurrent_dropout", "weight_drop", "mode"];
        let evaluated = with.variant.has("mode") && !with.variant.has("zoneout");
        let idle = |choice: &Choice| {
            let changes_no_bit = choice.value == "far off" || choice.option == "checkpointed";
            changes_no_bit || evaluated && random.contains(&choice.option)
        };
        for left_out in variant.choices.iter().filter(|choice| !idle(choice)) {
            let mut without = variant.clone();
            without.choices.retain(|choice| choice.option != left_out.option);
            let Ok(without) = Setting::new(&device, without) else { continue };
            let same = without.model.specs() == with.model.specs()
                && without.layer.description().outputs() == with.layer.description().outputs();
            if !same || without.numbers()? != point.len() {
                continue;
            }
            let name = format!("{}: {} {}", with.variant.name(), left_out.option, left_out.value);
            assert!(without.pass(&point)? != expected, "{name} changes nothing");
            compared += 1;
        }
    }
    assert!(compared > 500, "only {compared} options were left out");
    Ok(())
}

/// K terms of at most T·B + H + I a sum, over T steps and two layers, in numbers of the size of `values`; eight times as many
/// where layer normalisation divides by the deviation of a row, which of a few entries may be so much smaller.
fn agree_with_the_reference(device: &Device, variants: impl Iterator<Item = Variant>) -> Outcome {
    let [steps, batch, inputs, hidden] = SIZES;
    let terms = (steps * batch + hidden + inputs) * steps * 2;
    for variant in variants {
        let growth = if variant.has("layer_norm") { 8.0 } else { 1.0 };
        let relative = growth * terms as f64 * f64::from(f32::EPSILON);
        let reference = Setting::new(&Device::reference(), variant.clone())?;
        let point = point(&reference)?;
        let expected = reference.pass(&point)?;
        let found = Setting::new(device, variant)?.pass(&point)?;
        expect_same(&reference.variant.name(), &expected, &found, |values| by_entry(relative, values))?;
    }
    Ok(())
}

fn every_pair_of_options_agrees_with_the_reference() -> Outcome {
    agree_with_the_reference(&Device::cpu(), taken())
}

fn every_pair_of_options_agrees_with_the_reference_on_the_gpu(adapter: &Adapter) -> Outcome {
    agree_with_the_reference(&adapter.open()?, covering().into_iter())
}

/// The rows of \[T, B, ..\] in the padding.
fn padding<'v>(variant: &'v Variant, values: &'v mut [f64]) -> impl Iterator<Item = &'v mut [f64]> {
    let rows = values.chunks_mut(values.len() / SIZES[0] / SIZES[1]).enumerate();
    rows.filter(|(place, _)| variant.is_padding(*place)).map(|(_, values)| values)
}

fn values_in_the_padding_change_nothing_on(
    device: &Device,
    variants: impl Iterator<Item = Variant>,
) -> Outcome {
    for variant in variants.filter(|variant| variant.has("lengths")) {
        let setting = Setting::new(device, variant)?;
        let name = setting.variant.name();
        let (parameters, x, initial) = setting.tensors(&setting.sampled(460)?)?;
        let mut passes = Vec::new();
        for garbage in [0.0, f64::NAN, f64::INFINITY] {
            let (mut spoilt, mut d_y) = (x.download_f64()?, setting.d_y());
            for values in [&mut spoilt, &mut d_y] {
                padding(&setting.variant, values).for_each(|values| values.fill(garbage));
            }
            let spoilt = Tensor::from_slice_f64(device, x.shape().dimensions(), &spoilt)?;
            passes.push(setting.pass_over(&parameters, &spoilt, &initial, &d_y)?);
        }
        let is_same = passes.iter().all(|pass| *pass == passes[0]);
        assert!(is_same, "{name}: garbage in the padding changes results");
        for (what, values) in passes[0].iter_mut().filter(|(what, _)| ["y", "d_x"].contains(&what.as_str())) {
            if !padding(&setting.variant, values).all(|values| values.iter().all(|value| *value == 0.0)) {
                return Err(Failed::from(format!("{name}: the padding of {what} is not zero")));
            }
        }
    }
    Ok(())
}

fn values_in_the_padding_change_nothing() -> Outcome {
    values_in_the_padding_change_nothing_on(&Device::cpu(), taken())
}

fn values_in_the_padding_change_nothing_on_the_gpu(adapter: &Adapter) -> Outcome {
    values_in_the_padding_change_nothing_on(&adapter.open()?, covering().into_iter())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        every_pair_of_options_is_taken_or_refused_by_both_names,
        options_that_exclude_each_other_are_refused_by_both_names,
        options_of_other_cells_are_refused_by_both_names,
        few_stacks_cover_every_pair_of_options,
        every_pair_of_options_in_training_matches_finite_differences,
        windows_as_deep_as_the_sequence_change_nothing,
        no_option_of_a_pair_is_ignored,
        every_pair_of_options_agrees_with_the_reference,
        values_in_the_padding_change_nothing,
    );
    on_gpu_strategies!(
        suite,
        every_pair_of_options_agrees_with_the_reference_on_the_gpu,
        values_in_the_padding_change_nothing_on_the_gpu,
    );
}
