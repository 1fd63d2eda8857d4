//! Measured choices: the file that keeps them, that they are obeyed, and that they change no bit but where a sum is taken
//! otherwise.

use std::fs;

use refrain::io::save_tuning;
use refrain::nn::Cell;
use refrain::ops::{self, Form, ProductTrial};
use refrain::tuning::{
    Journal, MatmulTile, MatmulVariant, ProductShape, Profiling, RecurrentShape, RecurrentStrategy, Tuning,
    TuningSource,
};
use refrain::{Device, Error, GpuOptions, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu};
use crate::misuse::refuses;
use crate::support::{Folder, Run, Setup, card, expect_close, expect_same_bits, random, wide};

/// Training steps of a claim.
const STEPS: usize = 4;

const LAYER: RecurrentShape = RecurrentShape { gates: 4, hidden_size: 64, rows: 16 };

fn table() -> Result<Tuning> {
    let mut tuning = Tuning::new();
    for (form, k, block, parts) in [
        (Form::Plain, 7, None, 1),
        (Form::RightTransposed, 7, None, 1),
        (Form::LeftTransposed, 1000, None, 8),
        (Form::LeftTransposed, 1000, Some(300), 4),
        (Form::BothTransposed, 1000, None, 2),
    ] {
        for (tile, m) in MatmulTile::ALL.into_iter().zip(3..) {
            let shape = ProductShape { form, m, n: 5, k, block };
            tuning.set_product(shape, MatmulVariant { tile, parts })?;
        }
    }
    tuning.set_recurrent(LAYER, RecurrentStrategy::PerStep)?;
    tuning.set_recurrent(RecurrentShape { rows: 17, ..LAYER }, RecurrentStrategy::Sequence)?;
    Ok(tuning)
}

fn a_table_survives_a_round_trip() -> Outcome {
    let folder = Folder::new("tuning")?;
    let path = folder.path().join("not yet there").join("table.json");
    save_tuning(&path, &table()?, &card())?;
    assert_eq!(Tuning::load(&path, &card())?, table()?);
    save_tuning(&path, &Tuning::new(), &card())?;
    assert!(Tuning::load(&path, &card())?.is_empty(), "the later file replaces the earlier one");
    Ok(())
}

fn files_that_are_broken_or_foreign_are_refused_with_what_is_wrong() -> Outcome {
    let folder = Folder::new("tuning")?;
    let path = folder.path().join("table.json");
    save_tuning(&path, &table()?, &card())?;
    let whole = fs::read_to_string(&path)?;
    let entry = r#"{"gates": 4, "hidden_size": 64, "rows": 16, "strategy": "per_step"}"#;
    let twice = whole.replace(r#""recurrent": ["#, &format!(r#""recurrent": [{entry}, "#));
    for (text, part) in [
        (String::new(), "is not JSON"),
        (whole[..whole.len() / 2].to_owned(), "is not JSON"),
        ("{}".to_owned(), "is not a tuning file"),
        (whole.replace("refrain tuning", "a recipe"), "is not a tuning file"),
        (whole.replace(r#""version": 1"#, r#""version": 2"#), "has format version 2"),
        (whole.replace("imaginary 1.0", "imaginary 0.9"), "driver imaginary 0.9), but this is refrain"),
        (whole.replace("Imaginary 9000", "Imaginary 8000"), "was measured by refrain"),
        (whole.replace(env!("CARGO_PKG_VERSION"), "0.0.9"), "was measured by refrain 0.0.9"),
        (whole.replace("narrow", "enormous"), "is damaged: unknown variant `enormous`"),
        (whole.replace(r#""tile""#, r#""title""#), "is damaged"),
        (whole.replace(r#""parts": 1"#, r#""parts": 2"#), "`parts` must be 1, because only sums over rows"),
        (whole.replace(r#""parts": 8"#, r#""parts": 1001"#), "between 1 and 1000"),
        (whole.replace(r#""block": 300"#, r#""block": 0"#), "sizes must be at least 1"),
        (whole.replace(r#""n": 5"#, r#""n": -5"#), "is damaged"),
        (whole.replace("sequence", "auto"), "`auto` is not a choice"),
        (twice, "has two choices for RecurrentShape"),
    ] {
        assert_ne!(text, whole, "{part}: nothing was changed");
        fs::write(&path, text)?;
        let refused = Tuning::load(&path, &card());
        refuses!(Checkpoint, refused, part, "table.json: ", "run `refrain tune` again");
    }
    refuses!(Io, Tuning::load(folder.path(), &card()), "");
    Ok(())
}

fn the_cpu_makes_no_choices() -> Outcome {
    let shape = ProductShape { form: Form::Plain, m: 2, n: 2, k: 2, block: None };
    for device in [Device::cpu(), Device::reference()] {
        assert!(device.tuning().is_none() && device.adapter().is_none());
        assert!(matches!(device.choices(), Err(Error::Unsupported { .. })));
        assert!(matches!(ProductTrial::new(&device, shape), Err(Error::Unsupported { .. })));
    }
    Ok(())
}

fn open(adapter: &Adapter, tuning: TuningSource, options: &GpuOptions) -> Result<Device> {
    adapter.open_with(&GpuOptions { tuning, ..options.clone() })
}

/// A run by heuristics on a device whose choice of a way through time is free, and the choices that it met.
fn by_heuristics(adapter: &Adapter, setup: &Setup) -> Result<(Run, Tuning)> {
    let options = GpuOptions { journal: Journal::Choices, ..GpuOptions::default() };
    let device = open(adapter, TuningSource::Off, &options)?;
    let run = setup.train(&device, STEPS)?;
    Ok((run, device.choices()?))
}

/// With these sizes a gradient of weights is a sum over more than two blocks of time.
const DEEP: Setup = Setup { batch: 40, sequence: 30, ..Setup::SMALL };

fn a_training_step_meets_all_forms_and_what_it_chose_does_the_same_again(adapter: &Adapter) -> Outcome {
    let (plain, choices) = by_heuristics(adapter, &DEEP)?;
    let shapes: Vec<ProductShape> = choices.products().map(|(shape, _)| shape).collect();
    let rows = DEEP.sequence * DEEP.batch;
    let (units, classes) = (DEEP.hidden, DEEP.vocabulary);
    for expected in [
        // The first layer's projection, the head, the gradients at the head's input and of its weights.
        ProductShape { form: Form::RightTransposed, m: rows, n: units, k: DEEP.features, block: None },
        ProductShape { form: Form::RightTransposed, m: rows, n: classes, k: units, block: None },
        ProductShape { form: Form::Plain, m: rows, n: units, k: classes, block: None },
        ProductShape { form: Form::LeftTransposed, m: classes, n: units, k: rows, block: None },
        // 13 steps of 40 rows are the first to have 512.
        ProductShape { form: Form::LeftTransposed, m: units, n: units, k: rows, block: Some(520) },
    ] {
        assert!(shapes.contains(&expected), "{expected:?} is not among {shapes:?}");
    }
    let layers: Vec<RecurrentShape> = choices.recurrent_layers().map(|(shape, _)| shape).collect();
    assert_eq!(layers, [RecurrentShape { gates: 1, hidden_size: units, rows: DEEP.batch }]);
    let tuned = open(adapter, TuningSource::Given(choices.clone()), &GpuOptions::default())?;
    assert_eq!(tuned.tuning(), Some(&choices));
    let again = DEEP.train(&tuned, STEPS)?;
    plain.expect_same(&again)
}

/// Other tiles for every product; split sums where they were sequential, and the other way round.
fn others(choices: &Tuning) -> Result<Tuning> {
    let mut others = Tuning::new();
    for (shape, variant) in choices.products() {
        let other = |found: &MatmulVariant| match shape.block {
            None => found.tile != variant.tile && found.parts == variant.parts,
            Some(_) => {
                found.tile != variant.tile
                    && (found.parts != variant.parts || shape.k <= shape.block.unwrap_or(0))
            }
        };
        let mut variants = shape.variants();
        variants.retain(other);
        let other = variants.last().copied().unwrap_or(MatmulVariant { tile: MatmulTile::Narrow, ..variant });
        others.set_product(shape, other)?;
    }
    Ok(others)
}

/// All tiles add up in the same order, and blocks are blocks however many are summed at once.
fn other_tiles_change_no_bit_of_training(adapter: &Adapter) -> Outcome {
    let (plain, choices) = by_heuristics(adapter, &DEEP)?;
    let others = others(&choices)?;
    let differ =
        choices.products().filter(|&(shape, variant)| others.product(shape) != Some(variant)).count();
    assert_eq!(differ, choices.products().count(), "every product is computed in another way");
    let tuned = DEEP.train(&open(adapter, TuningSource::Given(others), &GpuOptions::default())?, STEPS)?;
    plain.expect_same(&tuned)
}

/// The other way through time and sums in other parts are the same to rounding. A step's gradients are sums of some 1200
/// places, each off by some ε; Adam's few steps of 0.01 make of that less than 1e-4 in a loss near ln 11.
fn sums_taken_otherwise_train_the_same_to_rounding_and_the_same_bits_each_time(adapter: &Adapter) -> Outcome {
    const TOLERANCE: f64 = 1e-4;
    let (plain, choices) = by_heuristics(adapter, &DEEP)?;
    let mut other = Tuning::new();
    for (shape, variant) in choices.products().filter(|(shape, _)| shape.block.is_none()) {
        let variants = shape.variants();
        let parts =
            variants.iter().map(|variant| variant.parts).filter(|&parts| parts != variant.parts).max();
        if let Some(parts) = parts {
            other.set_product(shape, MatmulVariant { parts, ..variant })?;
        }
    }
    for (shape, strategy) in choices.recurrent_layers() {
        let opposite = match strategy {
            RecurrentStrategy::PerStep => RecurrentStrategy::Sequence,
            _ => RecurrentStrategy::PerStep,
        };
        other.set_recurrent(shape, opposite)?;
    }
    assert!(
        other.len() >= 2,
        "the gradient of the head's weights is a sum over rows, and there is a layer: {other:?}"
    );
    let options = GpuOptions { tuning: TuningSource::Given(other), ..GpuOptions::default() };
    let devices = [adapter.open_with(&options)?, adapter.open_anew_with(&options)?];
    let [one, two] = devices.map(|device| DEEP.train(&device, STEPS));
    let (one, two) = (one?, two?);
    one.expect_same(&two)?;
    assert_ne!(one.parameters, plain.parameters, "the choices were obeyed");
    expect_close("losses", &wide(&plain.losses), &wide(&one.losses), TOLERANCE)
}

fn has_timestamps(adapter: &Adapter) -> bool {
    adapter.summary().features.iter().any(|feature| feature == "timestamps")
}

fn the_chosen_tile_is_the_one_that_runs(adapter: &Adapter) -> Outcome {
    let shape = ProductShape { form: Form::Plain, m: 33, n: 40, k: 17, block: None };
    for tile in MatmulTile::ALL {
        let mut tuning = Tuning::new();
        tuning.set_product(shape, MatmulVariant { tile, parts: 1 })?;
        let options = GpuOptions { profiling: Profiling::Kernels, ..GpuOptions::default() };
        let device = open(adapter, TuningSource::Given(tuning), &options)?;
        let (a, b) = (random(&device, 1, &[33, 17], 1.0)?, random(&device, 2, &[17, 40], 1.0)?);
        ops::matmul(&a, &b, Form::Plain, None)?;
        let kernels: Vec<String> = device.profile()?.into_iter().map(|call| call.kernel).collect();
        let expected = format!("matmul/{tile:?}").to_lowercase();
        assert!(kernels.len() == 1 && kernels[0].starts_with(&expected), "{kernels:?}, not {expected}");
    }
    Ok(())
}

fn the_chosen_strategy_runs_whatever_the_number_of_steps(adapter: &Adapter) -> Outcome {
    let layer = RecurrentShape { gates: 3, hidden_size: 20, rows: 5 };
    for strategy in [RecurrentStrategy::PerStep, RecurrentStrategy::Sequence] {
        let mut tuning = Tuning::new();
        tuning.set_recurrent(layer, strategy)?;
        // The way that the choice has to overrule would be `Auto`'s, which depends on the adapter.
        let source = TuningSource::Given(tuning);
        let name = format!("gpu:{}", adapter.summary().index);
        let device = Device::gpu_with(&name, &GpuOptions { tuning: source, ..GpuOptions::default() })?;
        let calls = |steps: usize| -> Result<u64> {
            let mut model = refrain::nn::Model::new(1);
            let rnn = model.add("rnn", refrain::nn::Rnn::new(Cell::Gru, 2, 20))?;
            let parameters = model.initialize(&device)?;
            let before = device.counters().dispatches;
            rnn.infer(&parameters, &Tensor::zeros(&device, &[steps, 5, 2])?, &rnn.zero_state(&device, 5)?)?;
            Ok(device.counters().dispatches - before)
        };
        let (few, many) = (calls(2)?, calls(50)?);
        match strategy {
            RecurrentStrategy::PerStep => assert_eq!(many - few, 48, "a dispatch for each step more"),
            _ => assert_eq!(many, few, "one dispatch for all steps"),
        }
    }
    Ok(())
}

fn a_trial_computes_every_variant_of_the_product(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    for form in Form::ALL {
        let left = matches!(form, Form::LeftTransposed | Form::BothTransposed);
        for block in [None, Some(200)].into_iter().filter(|block| left || block.is_none()) {
            let shape = ProductShape { form, m: 33, n: 20, k: 700, block };
            let mut trial = ProductTrial::new(&device, shape)?;
            let variants = shape.variants();
            let first = trial.product(variants[0])?.download()?;
            assert!(first.iter().any(|&value| value.abs() > 1.0), "products of 700 numbers");
            for &variant in &variants {
                trial.run(variant)?;
                let found = trial.product(variant)?.download()?;
                match block.is_some() || variant.parts == variants[0].parts {
                    true => expect_same_bits(&format!("{shape:?} {variant:?}"), &first, &found)?,
                    // 700 roundings of sums below 100.
                    false => {
                        expect_close(&format!("{shape:?} {variant:?}"), &wide(&first), &wide(&found), 1e-3)?
                    }
                }
            }
            let refused = trial.run(MatmulVariant { tile: MatmulTile::Narrow, parts: 701 });
            assert!(matches!(refused, Err(Error::Config { .. })), "{refused:?}");
        }
    }
    Ok(())
}

fn choices_are_recorded_only_with_a_journal_and_without_forced_choices(adapter: &Adapter) -> Outcome {
    refuses!(Config, adapter.open()?.choices(), "choices", "Journal::Choices");
    let matmul = Some(MatmulVariant { tile: MatmulTile::Narrow, parts: 1 });
    let options = GpuOptions { journal: Journal::Choices, matmul, ..GpuOptions::default() };
    refuses!(Config, adapter.open_with(&options), "leave `matmul`");
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        a_table_survives_a_round_trip,
        files_that_are_broken_or_foreign_are_refused_with_what_is_wrong,
        the_cpu_makes_no_choices,
    );
    on_gpu!(
        suite,
        a_training_step_meets_all_forms_and_what_it_chose_does_the_same_again,
        other_tiles_change_no_bit_of_training,
        sums_taken_otherwise_train_the_same_to_rounding_and_the_same_bits_each_time,
        the_chosen_strategy_runs_whatever_the_number_of_steps,
        a_trial_computes_every_variant_of_the_product,
        choices_are_recorded_only_with_a_journal_and_without_forced_choices,
    );
    suite.gpu_if(
        concat!(module_path!(), "::the_chosen_tile_is_the_one_that_runs"),
        has_timestamps,
        the_chosen_tile_is_the_one_that_runs,
    );
}
