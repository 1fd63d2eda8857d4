//! Softmax, log softmax and cross-entropy: the values that PyTorch's definitions give, written out.

use refrain::loss::CrossEntropy;
use refrain::ops::{self, Reduction};
use refrain::{Device, IGNORED, Indices, Result};

use super::{NANS, Results, as_on_the_cpu, builds, expect_alike, on_builds, ordinary, specials, tensor};
use crate::adapters::{Adapter, Outcome, Suite, on_gpu};

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

/// A row of logits, its softmax and its log softmax.
const ROWS: [([f32; 3], [f32; 3], [f32; 3]); 8] = [
    ([1.0, -INF, 2.0], [0.268_941_4, 0.0, 0.731_058_6], [-1.313_261_7, -INF, -0.313_261_7]),
    ([-1e38, 3e38, 0.0], [0.0, 1.0, 0.0], [-INF, 0.0, -3e38]),
    ([-INF, 5.0, -INF], [0.0, 1.0, 0.0], [-INF, 0.0, -INF]),
    ([-INF; 3], [NAN; 3], [NAN; 3]),
    ([INF, 1.0, 2.0], [NAN; 3], [NAN; 3]),
    ([INF, -INF, 2.0], [NAN; 3], [NAN; 3]),
    ([NAN, 1.0, 2.0], [NAN; 3], [NAN; 3]),
    ([1e-40, -0.0, 0.0], [1.0 / 3.0; 3], [-1.098_612_3; 3]),
];

fn softmax_of_infinite_logits_is_that_of_pytorch(device: &Device) -> Outcome {
    let logits: Vec<f32> = ROWS.iter().flat_map(|row| row.0).collect();
    let x = tensor(device, &[ROWS.len(), 3], &logits)?;
    let (y, log_y) = (ops::softmax(&x)?.download()?, ops::log_softmax(&x)?.download()?);
    for (row, (logits, softmax, log_softmax)) in ROWS.iter().enumerate() {
        let own = 3 * row..3 * row + 3;
        expect_alike(&format!("softmax of {logits:?} on {device}"), softmax, &y[own.clone()])?;
        // In 64-bit floats what is beyond f32 becomes infinite when it is downloaded.
        expect_alike(&format!("log softmax of {logits:?} on {device}"), log_softmax, &log_y[own])?;
    }
    Ok(())
}

/// Logits, label, weights of classes, smoothing; the loss, and the gradient at the logits.
type LossCase = ([f32; 3], u32, Option<[f32; 3]>, f32, f32, [f32; 3]);

/// By PyTorch's definitions: −w_t ln p_t, and with smoothing ε (1 − ε) of it and ε/C · −Σ_j w_j ln p_j, where 0 · ∞ is NaN.
/// Gradients have p_j alone in them, so that most stay finite.
const CASES: [LossCase; 15] = [
    ([1.0, -INF, 2.0], 2, None, 0.0, 0.313_261_66, [0.268_941_43, 0.0, -0.268_941_43]),
    ([1.0, -INF, 2.0], 1, None, 0.0, INF, [0.268_941_43, -1.0, 0.731_058_6]),
    ([-1e38, 3e38, 0.0], 2, None, 0.0, 3e38, [0.0, 1.0, -1.0]),
    // 4e38 is beyond f32.
    ([-1e38, 3e38, 0.0], 0, None, 0.0, INF, [-1.0, 1.0, 0.0]),
    ([-1e38, 3e38, 0.0], 1, None, 0.0, 0.0, [0.0; 3]),
    ([-INF; 3], 2, None, 0.0, NAN, [NAN; 3]),
    ([INF, 1.0, 2.0], 2, None, 0.0, NAN, [NAN; 3]),
    ([INF, 1.0, 2.0], 0, None, 0.0, NAN, [NAN; 3]),
    ([NAN, 1.0, 2.0], 2, None, 0.0, NAN, [NAN; 3]),
    ([1.0, 2.0, NAN], 2, None, 0.1, NAN, [NAN; 3]),
    // Every class has a part in a smoothed loss.
    ([1.0, -INF, 2.0], 2, None, 0.1, INF, [0.235_608_1, -0.033_333_33, -0.202_274_77]),
    ([1.0, -INF, 2.0], 2, Some([2.0, 0.0, 0.5]), 0.0, 0.156_630_83, [0.134_470_72, 0.0, -0.134_470_72]),
    // The label's weight is zero: 0 · ∞.
    ([1.0, -INF, 2.0], 1, Some([2.0, 0.0, 0.5]), 0.0, NAN, [0.0; 3]),
    ([1.0, -INF, 2.0], 2, Some([1.0, 0.0, 1.0]), 0.1, NAN, [0.226_643_38, 0.0, -0.226_643_38]),
    // Whatever the logits of an ignored row are, it has no part in loss and gradient.
    ([NAN, INF, -INF], IGNORED, None, 0.0, 0.0, [0.0; 3]),
];

fn cross_entropy_of_infinite_logits_is_that_of_pytorch(device: &Device) -> Outcome {
    for (logits, label, weights, smoothing, loss, gradient) in CASES {
        let name =
            format!("{logits:?}, label {label}, weights {weights:?}, smoothing {smoothing} on {device}");
        let mut of_rows = CrossEntropy::default().smoothing(smoothing);
        if let Some(weights) = weights {
            of_rows = of_rows.weights(super::vector(device, &weights)?);
        }
        let x = tensor(device, &[1, 3], &logits)?;
        let labels = Indices::from_slice(device, &[1], &[label])?;
        expect_alike(&format!("loss of {name}"), &[loss], &of_rows.rows(&x, &labels)?.download()?)?;
        let (sum, d_x) = of_rows.reduced(&x, &labels, Reduction::Sum)?;
        expect_alike(&format!("sum of {name}"), &[loss], &sum.download()?)?;
        expect_alike(&format!("gradient of {name}"), &gradient, &d_x.download()?)?;
    }
    Ok(())
}

/// One special value in each row but the last, at places of all invocations that share a row.
fn rows_of(columns: usize) -> (usize, Vec<f32>) {
    let specials = specials();
    let rows = specials.len() + 1;
    let mut values = ordinary(30, rows * columns);
    for (row, special) in specials.into_iter().enumerate() {
        values[row * columns + row * 37 % columns] = special;
    }
    (rows, values)
}

fn rows_with_one_extreme_are_as_on_the_cpu(device: &Device) -> Result<Results> {
    let mut results = Results::new();
    for columns in [1, 5, 64, 700] {
        let (rows, values) = rows_of(columns);
        let x = tensor(device, &[rows, columns], &values)?;
        let d_y = tensor(device, &[rows, columns], &ordinary(31, rows * columns))?;
        let (y, log_y) = (ops::softmax(&x)?, ops::log_softmax(&x)?);
        // What flows back to ordinary rows has special values of its own.
        let ordinary_x = tensor(device, &[rows, columns], &ordinary(32, rows * columns))?;
        let (plain_y, plain_log_y) = (ops::softmax(&ordinary_x)?, ops::log_softmax(&ordinary_x)?);
        let labels: Vec<u32> = (0..rows).map(|row| (row * 11 % columns) as u32).collect();
        let labels = Indices::from_slice(device, &[rows], &labels)?;
        let of = |name: &str| format!("{name} of {columns} columns");
        for (name, tensor) in [
            ("softmax", &y),
            ("log softmax", &log_y),
            ("softmax backward", &ops::softmax_backward(&y, &d_y)?),
            ("log softmax backward", &ops::log_softmax_backward(&log_y, &d_y)?),
            ("softmax backward of extremes", &ops::softmax_backward(&plain_y, &x)?),
            ("log softmax backward of extremes", &ops::log_softmax_backward(&plain_log_y, &x)?),
        ] {
            results.push((of(name), tensor.download()?));
        }
        for smoothing in [0.0, 0.2] {
            let loss = CrossEntropy::default().smoothing(smoothing);
            let (_, d_x) = loss.reduced(&x, &labels, Reduction::Mean)?;
            results.push((of("losses"), loss.rows(&x, &labels)?.download()?));
            results.push((of("gradient of the mean loss"), d_x.download()?));
        }
    }
    Ok(results)
}

/// The loss of a batch with one NaN is NaN; the gradients of the other rows are not.
fn a_row_of_nan_makes_the_loss_nan_and_no_other_row(adapter: &Adapter) -> Outcome {
    for device in builds(adapter)? {
        for nan in NANS.map(f32::from_bits) {
            let mut logits = ordinary(33, 4 * 9);
            logits[9 + 4] = nan;
            let labels = Indices::from_slice(&device, &[4], &[0, 1, 8, IGNORED])?;
            let x = tensor(&device, &[4, 9], &logits)?;
            let (loss, d_x) = refrain::loss::cross_entropy(&x, &labels)?;
            assert!(loss.read()?.is_nan());
            for (place, d) in d_x.download()?.into_iter().enumerate() {
                assert_eq!(d.is_nan(), place / 9 == 1, "d_x[{place}] = {d}");
            }
        }
    }
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_builds!(
        suite,
        softmax_of_infinite_logits_is_that_of_pytorch,
        cross_entropy_of_infinite_logits_is_that_of_pytorch,
    );
    as_on_the_cpu!(suite, rows_with_one_extreme_are_as_on_the_cpu);
    on_gpu!(suite, a_row_of_nan_makes_the_loss_nan_and_no_other_row);
}
