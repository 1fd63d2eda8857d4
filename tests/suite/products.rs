//! Every variant of a matrix product, whichever the shape would select: each agrees with the reference; those
//! that add a sum in the same order give the same bits, and so do both builds of the shaders. With several
//! adapters, they share the forms of a product alternately.
//!
//! A sum of K products of numbers between −1 and 1 has K roundings, each of at most ε/2 of a partial sum,
//! which stays within 4 √K; they add up like a random walk, to 2 K ε, with a factor of two for the tails.

use refrain::nn::{Cell, Model, Rnn};
use refrain::ops::{self, Form};
use refrain::testing::ShaderBuild;
use refrain::tuning::{MatmulTile, MatmulVariant};
use refrain::{Device, GpuOptions, Result, Tensor, View};

use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::support::{expect_close, expect_same_bits, random, wide};

/// M, N and K at the edges of tiles, of fours, and of parts.
const SHAPES: [[usize; 3]; 16] = [
    [1, 1, 1],
    [1, 68, 132],
    [2, 31, 129],
    [5, 32, 127],
    [9, 16, 128],
    [16, 17, 33],
    [17, 15, 31],
    [31, 63, 32],
    [33, 65, 63],
    [64, 64, 65],
    [65, 33, 64],
    [63, 68, 36],
    [127, 129, 17],
    [128, 128, 16],
    [129, 127, 15],
    [132, 136, 20],
];

/// More parts than there are fours in most sums.
const MANY: usize = 40;

fn variants() -> impl Iterator<Item = MatmulVariant> {
    MatmulTile::ALL.into_iter().flat_map(|tile| [1, 3].map(|parts| MatmulVariant { tile, parts }))
}

fn device_with(adapter: &Adapter, variant: MatmulVariant, build: ShaderBuild) -> Result<Device> {
    adapter.open_with(&GpuOptions { matmul: Some(variant), build, ..GpuOptions::default() })
}

/// The forms that are this adapter's.
fn forms(adapter: &Adapter) -> impl Iterator<Item = Form> {
    let numbered = Form::ALL.into_iter().enumerate();
    numbered.filter(|(number, _)| adapter.takes(*number)).map(|(_, form)| form)
}

fn product(device: &Device, form: Form, [m, n, k]: [usize; 3]) -> Result<Tensor> {
    let left = matches!(form, Form::LeftTransposed | Form::BothTransposed);
    let right = matches!(form, Form::RightTransposed | Form::BothTransposed);
    let a = random(device, 1, &if left { [k, m] } else { [m, k] }, 1.0)?;
    let b = random(device, 2, &if right { [n, k] } else { [k, n] }, 1.0)?;
    let bias = random(device, 3, &[n], 1.0)?;
    ops::matmul(&a, &b, form, Some(View::from(&bias)))
}

/// See the top of this file.
fn tolerance([_, _, k]: [usize; 3]) -> f64 {
    2.0 * k as f64 * f64::from(f32::EPSILON)
}

fn every_variant_gives_what_the_reference_gives(adapter: &Adapter) -> Outcome {
    let devices = variants()
        .map(|variant| Ok((variant, device_with(adapter, variant, ShaderBuild::Trusted)?)))
        .collect::<Result<Vec<_>>>()?;
    let reference = Device::reference();
    for form in forms(adapter) {
        for shape in SHAPES {
            let expected = product(&reference, form, shape)?.download_f64()?;
            for (variant, device) in &devices {
                let found = product(device, form, shape)?.download_f64()?;
                let what = format!("{form:?} {shape:?} {variant:?}");
                expect_close(&what, &expected, &found, tolerance(shape))?;
            }
        }
    }
    Ok(())
}

/// The tiles differ in speed, not in bits, and a run-time check changes nothing.
fn sums_taken_at_once_have_the_same_bits_in_every_tile_and_build(adapter: &Adapter) -> Outcome {
    let mut devices = Vec::new();
    for tile in MatmulTile::ALL {
        for build in [ShaderBuild::Checked, ShaderBuild::Trusted] {
            devices.push(device_with(adapter, MatmulVariant { tile, parts: 1 }, build)?);
        }
    }
    for form in forms(adapter) {
        for shape in SHAPES {
            let first = product(&devices[0], form, shape)?.download()?;
            for device in &devices[1..] {
                let found = product(device, form, shape)?.download()?;
                expect_same_bits(&format!("{form:?} {shape:?}"), &first, &found)?;
            }
        }
    }
    Ok(())
}

fn split_k_sums_have_the_same_bits_in_every_tile_and_build(adapter: &Adapter) -> Outcome {
    let mut devices = Vec::new();
    for tile in MatmulTile::ALL {
        for build in [ShaderBuild::Checked, ShaderBuild::Trusted] {
            devices.push(device_with(adapter, MatmulVariant { tile, parts: MANY }, build)?);
        }
    }
    let whole = MatmulVariant { tile: MatmulTile::Narrow, parts: 1 };
    let whole = device_with(adapter, whole, ShaderBuild::Trusted)?;
    let mut differs = false;
    for form in forms(adapter) {
        for shape in [[5, 68, 132], [33, 65, 63], [68, 64, 260], [129, 127, 100]] {
            let what = format!("{form:?} {shape:?}");
            let first = product(&devices[0], form, shape)?.download()?;
            let expected = product(&Device::reference(), form, shape)?.download_f64()?;
            expect_close(&what, &expected, &wide(&first), tolerance(shape))?;
            for device in &devices[1..] {
                expect_same_bits(&what, &first, &product(device, form, shape)?.download()?)?;
            }
            differs |= product(&whole, form, shape)?.download()? != first;
        }
    }
    assert!(differs, "no sum was taken in parts");
    Ok(())
}

/// Checkpoints and windows rest on this: a layer's input is projected in pieces of any number of rows.
fn a_row_has_the_same_bits_whatever_the_other_rows(adapter: &Adapter) -> Outcome {
    const ROWS: usize = 300;
    let device = adapter.open()?;
    for [n, k] in [[40, 300], [1, 1025], [129, 64], [20, 2100]] {
        for form in [Form::Plain, Form::RightTransposed] {
            let b = random(&device, 5, &if form == Form::Plain { [k, n] } else { [n, k] }, 1.0)?;
            let a = random(&device, 4, &[ROWS, k], 1.0)?.download()?;
            let of_rows = |rows: usize| -> Result<Vec<f32>> {
                let a = Tensor::from_slice(&device, &[rows, k], &a[..rows * k])?;
                ops::matmul(&a, &b, form, None)?.download()
            };
            let all = of_rows(ROWS)?;
            for rows in [1, 3, 8, 17, 64, 129] {
                let what = format!("{form:?}, {rows} rows of N {n}, K {k}");
                expect_same_bits(&what, &all[..rows * n], &of_rows(rows)?)?;
            }
        }
    }
    Ok(())
}

/// Some drivers silently end a loop after 65,536 iterations. Ones add up exactly.
fn no_sum_is_too_deep_for_a_loop(adapter: &Adapter) -> Outcome {
    // More than one dispatch takes.
    const DEPTH: usize = (1 << 17) + 5;
    for tile in MatmulTile::ALL {
        let device = device_with(adapter, MatmulVariant { tile, parts: 1 }, ShaderBuild::Trusted)?;
        let a = Tensor::from_slice(&device, &[2, DEPTH], &[1.0; 2 * DEPTH])?;
        let b = Tensor::from_slice(&device, &[DEPTH, 1], &[1.0; DEPTH])?;
        let found = ops::matmul(&a, &b, Form::Plain, None)?.download()?;
        assert_eq!(found, [DEPTH as f32; 2], "{tile:?}");
    }
    Ok(())
}

/// Gradients of weights are sums in blocks of at least 512 rows: of these there are two, and a part of one. All other sums
/// are of four products, which is one part whatever is asked for.
fn gradients_have_the_same_bits_whether_blocks_are_summed_at_once_or_in_turn(adapter: &Adapter) -> Outcome {
    const STEPS: usize = 35;
    const BATCH: usize = 37;
    const FEATURES: usize = 4;
    let gradients = |device: &Device| -> Result<(Vec<f32>, u64)> {
        let mut model = Model::new(4);
        let rnn = model.add("rnn", Rnn::new(Cell::Gru, FEATURES, FEATURES))?;
        let parameters = model.initialize(device)?;
        let x = random(device, 6, &[STEPS, BATCH, FEATURES], 1.0)?;
        let d_y = random(device, 7, &[STEPS, BATCH, FEATURES], 1.0)?;
        let before = device.counters().dispatches;
        let (_, _, trace) = rnn.forward(&parameters, &x, &rnn.zero_state(device, BATCH)?)?;
        let mut gradients = parameters.zero_gradients()?;
        trace.backward(&d_y, None, &mut gradients)?;
        let dispatches = device.counters().dispatches - before;
        let mut values = gradients.view("rnn.weight_ih_l0")?.download()?;
        values.extend(gradients.view("rnn.weight_hh_l0")?.download()?);
        Ok((values, dispatches))
    };
    let device = |tile, parts| device_with(adapter, MatmulVariant { tile, parts }, ShaderBuild::Trusted);
    let (expected, in_turn) = gradients(&device(MatmulTile::Medium, 1)?)?;
    assert!(wide(&expected).iter().any(|value| *value != 0.0), "nothing was learned");
    for tile in MatmulTile::ALL {
        for parts in [1, 2] {
            let (found, dispatches) = gradients(&device(tile, parts)?)?;
            expect_same_bits(&format!("{tile:?}, {parts} parts"), &expected, &found)?;
            assert_eq!(dispatches < in_turn, parts > 1, "{tile:?}, {parts} parts: {dispatches}, {in_turn}");
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu!(
        suite,
        every_variant_gives_what_the_reference_gives,
        sums_taken_at_once_have_the_same_bits_in_every_tile_and_build,
        split_k_sums_have_the_same_bits_in_every_tile_and_build,
        a_row_has_the_same_bits_whatever_the_other_rows,
        no_sum_is_too_deep_for_a_loop,
        gradients_have_the_same_bits_whether_blocks_are_summed_at_once_or_in_turn,
    );
}
