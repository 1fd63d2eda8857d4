//! Layer normalisation as an operation, and the parameters of LSTMs and GRUs with it. What such layers compute, alone and with
//! other options, is the matter of `oracle` and `pairs`.

use refrain::nn::{Cell, Model, Rnn, Sequences};
use refrain::ops::{self, LAYER_NORM_EPSILON};
use refrain::{Device, GpuOptions, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_devices, on_gpu};
use crate::gradients::check;
use crate::misuse::refuses;
use crate::stacks::{Pass, Stack};
use crate::support::{by_entry, components, dot, expect_close, expect_same_bits, random, values};

const CELLS: [Cell; 2] = [Cell::Lstm, Cell::Gru];

fn reference(dimensions: &[usize], data: &[f64]) -> Result<Tensor> {
    Tensor::from_slice_f64(&Device::reference(), dimensions, data)
}

/// Mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5; then a group of one entry, which equals its mean, and one of
/// three with mean 11/3 and variance 26/9.
fn a_row_is_normalised_as_by_hand() -> Outcome {
    let x = reference(&[1, 4], &[1.0, 2.0, 3.0, 6.0])?;
    let gain = reference(&[4], &[1.0, 2.0, 3.0, -1.0])?;
    let shift = reference(&[4], &[0.5, 0.0, 7.0, 0.0])?;
    let epsilon = f64::from(LAYER_NORM_EPSILON);
    let scale = 1.0 / (3.5 + epsilon).sqrt();
    let expected = [0.5 - 2.0 * scale, -2.0 * scale, 7.0, -3.0 * scale];
    let y = ops::layer_norm(&x, &gain, Some(shift.view()), &[4])?;
    expect_close("a whole row", &expected, &y.download_f64()?, 1e-14)?;
    let scale = 1.0 / (26.0 / 9.0 + epsilon).sqrt();
    let expected = [0.0, 2.0 * (-5.0 / 3.0) * scale, 3.0 * (-2.0 / 3.0) * scale, -7.0 / 3.0 * scale];
    let y = ops::layer_norm(&x, &gain, None, &[1, 3])?;
    expect_close("two groups", &expected, &y.download_f64()?, 1e-14)
}

fn layer_norm_backward_matches_finite_differences() -> Outcome {
    const ROWS: usize = 3;
    for groups in [&[5][..], &[1, 4], &[2, 3]] {
        let point = values(90, ROWS * 5 + 5, 1.0);
        let d_y = values(91, ROWS * 5, 1.0);
        let (x, gain) = point.split_at(ROWS * 5);
        let (d_x, d_gain) = ops::layer_norm_backward(
            &reference(&[ROWS, 5], x)?,
            &reference(&[5], gain)?,
            &reference(&[ROWS, 5], &d_y)?,
            groups,
        )?;
        let analytic = [d_x.download_f64()?, d_gain.download_f64()?].concat();
        check(&format!("{groups:?}"), &point, &analytic, |point| {
            let (x, gain) = point.split_at(ROWS * 5);
            let y = ops::layer_norm(&reference(&[ROWS, 5], x)?, &reference(&[5], gain)?, None, groups)?;
            Ok(dot(&y.download_f64()?, &d_y))
        })?;
    }
    Ok(())
}

/// Sums of K terms and their quotients: K ε of the largest result. Entries between ±3 have variances around 3, so that
/// nothing is enlarged, but for rows of two that may lie close together.
fn the_operation_agrees_with_the_reference(device: &Device) -> Outcome {
    for rows in [1, 3, 70] {
        for groups in [&[1][..], &[3], &[33], &[257], &[700], &[64, 32], &[1, 1, 255]] {
            let columns: usize = groups.iter().sum();
            let mut results = Vec::new();
            for device in [&Device::reference(), device] {
                let random_key =
                    |stream, dimensions: &[usize], scale| random(&Device::cpu(), stream, dimensions, scale);
                let x = random_key(92, &[rows, columns], 3.0)?.to_device(device)?;
                let d_y = random_key(93, &[rows, columns], 1.0)?.to_device(device)?;
                let gain = random_key(94, &[columns], 1.0)?.to_device(device)?;
                let shift = random_key(95, &[columns], 1.0)?.to_device(device)?;
                let y = ops::layer_norm(&x, &gain, Some(shift.view()), groups)?;
                let (d_x, d_gain) = ops::layer_norm_backward(&x, &gain, &d_y, groups)?;
                results.push([y.download_f64()?, d_x.download_f64()?, d_gain.download_f64()?]);
            }
            for (place, what) in ["y", "d_x", "d_gain"].into_iter().enumerate() {
                let expected = &results[0][place];
                let terms = (columns + rows + 16) as f64;
                let allowed = by_entry(terms * f64::from(f32::EPSILON), expected);
                let name = format!("{what} of {rows} rows, {groups:?}");
                expect_close(&name, expected, &results[1][place], allowed)?;
            }
        }
    }
    Ok(())
}

fn what_does_not_fit_is_refused() -> Outcome {
    let (x, gain) = (reference(&[2, 4], &[0.0; 8])?, reference(&[4], &[1.0; 4])?);
    for groups in [&[][..], &[3], &[4, 0], &[usize::MAX, 5]] {
        refuses!(Config, ops::layer_norm(&x, &gain, None, groups), "groups", "4 columns");
        refuses!(Config, ops::layer_norm_backward(&x, &gain, &x, groups), "groups", "4 columns");
    }
    let short = reference(&[3], &[1.0; 3])?;
    refuses!(Shape, ops::layer_norm(&x, &short, None, &[4]), "gain", "[4]", "[3]");
    refuses!(Shape, ops::layer_norm(&x, &gain, Some(short.view()), &[4]), "shift", "[4]", "[3]");
    refuses!(Shape, ops::layer_norm_backward(&x, &gain, &gain, &[4]), "d_y", "[2, 4]", "[4]");

    let mut model = Model::new(1);
    for cell in [Cell::tanh(), Cell::relu()] {
        let stack = Rnn::new(cell, 2, 3).layer_norm();
        refuses!(Config, model.add("rnn", stack), "layer_norm", "Cell::Lstm or Cell::Gru");
    }
    assert!(model.specs().is_empty(), "what was refused was not added");
    Ok(())
}

fn parameters_have_names_sizes_and_first_values() -> Outcome {
    for cell in CELLS {
        let mut model = Model::new(1);
        model
            .add("rnn", Rnn::new(cell.clone(), 2, 3).layers(2).bidirectional().without_bias().layer_norm())?;
        let parameters = model.initialize(&Device::cpu())?;
        let mut names = Vec::new();
        for place in ["l0", "l0_reverse", "l1", "l1_reverse"] {
            let mut of_place = vec!["weight_ih", "weight_hh", "norm_ih", "norm_hh"];
            if cell == Cell::Lstm {
                of_place.push("norm_c");
                let state = parameters.view(&format!("rnn.norm_c_{place}"))?;
                assert_eq!(state.shape().dimensions(), [2, 3]);
                assert_eq!(state.download()?, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
            }
            for name in ["norm_ih", "norm_hh"] {
                let gain = parameters.view(&format!("rnn.{name}_{place}"))?;
                assert_eq!(gain.download()?, vec![1.0; cell.gates() * 3], "{name}_{place}");
            }
            names.extend(of_place.into_iter().map(|name| format!("rnn.{name}_{place}")));
        }
        assert_eq!(parameters.names().collect::<Vec<_>>(), names);
    }
    Ok(())
}

/// With capacity for 960 elements in a binding and two workgroups along an axis, rows and time are cut into pieces: outputs
/// keep their bits, and sums over time the order of no more than their pieces.
fn large_work_is_cut_without_a_trace(adapter: &Adapter) -> Outcome {
    let low = GpuOptions { binding_bytes: Some(4096), workgroups: Some(2), ..GpuOptions::default() };
    let (whole, cut) = (adapter.open()?, adapter.open_with(&low)?);
    let (steps, batch, hidden) = (9, 5, 9);
    for cell in CELLS {
        for is_marked in [false, true] {
            let of = |device: &Device| -> Result<(Pass, u64)> {
                let before = device.counters().dispatches;
                let stack =
                    Stack::new(device, Rnn::new(cell.clone(), 3, hidden).layer_norm().bidirectional())?;
                let lengths = Indices::from_slice(device, &[batch], &[9, 4, 1, 6, 8])?;
                let resets: Vec<u32> = (0..steps * batch).map(|place| u32::from(place % 3 == 1)).collect();
                let resets = Indices::from_slice(device, &[steps, batch], &resets)?;
                let marked = Sequences::ragged(&lengths).resets(&resets);
                let sequences = if is_marked { marked } else { Sequences::whole() };
                let pass = stack.pass(&stack.operands([steps, batch])?, sequences)?;
                Ok((pass, device.counters().dispatches - before))
            };
            let ((expected, once), (found, pieces)) = (of(&whole)?, of(&cut)?);
            assert!(pieces > once, "{pieces} dispatches, {once} without limits: nothing was cut");
            let name = format!("{}, ragged and reset {is_marked}", cell.name());
            expect_same_bits(&name, &expected.y.download()?, &found.y.download()?)?;
            for (one, two) in [(&expected.last, &found.last), (&expected.d_initial, &found.d_initial)] {
                expect_same_bits(&name, &components(one)?.concat(), &components(two)?.concat())?;
            }
            // K terms of at most T·B + 4·H + I a sum, over T steps, divided by the deviations of rows.
            let terms = ((steps * batch + 4 * hidden + 3) * steps) as f64;
            let allowed = |values: &[f64]| by_entry(8.0 * terms * f64::from(f32::EPSILON), values);
            expect_close(&name, &expected.gradients, &found.gradients, allowed(&expected.gradients))?;
            let d_x = expected.d_x.download_f64()?;
            expect_close(&name, &d_x, &found.d_x.download_f64()?, allowed(&d_x))?;
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        a_row_is_normalised_as_by_hand,
        layer_norm_backward_matches_finite_differences,
        what_does_not_fit_is_refused,
        parameters_have_names_sizes_and_first_values,
    );
    on_devices!(suite, the_operation_agrees_with_the_reference);
    on_gpu!(suite, large_work_is_cut_without_a_trace);
}
