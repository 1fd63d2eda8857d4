//! The sums of a step on the GPU, which a workgroup shares out: into 16 slices for up to four rows of the batch on a software
//! adapter, 8 for up to eight, else 4. Rows and units here lie around the edges of all of these.

use refrain::nn::{Cell, Model, RandomKey, Rnn, Sequences};
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::support::{
    all_gradients, by_entry, components, expect_close, expect_same_bits, random, random_state, step_by_step,
};

const INPUTS: usize = 3;
const STEPS: usize = 5;
const ROWS: [usize; 8] = [1, 3, 4, 5, 8, 9, 16, 17];
const UNITS: [usize; 6] = [1, 15, 16, 17, 31, 33];

/// A layer with [`INPUTS`] inputs and what it runs over.
#[derive(Clone, Debug)]
struct SlicedLayer {
    stack: Rnn,
    rows: usize,
}

/// Outputs, then the gradients at x, at the initial state and of the weights.
type WindowResults = [Vec<f64>; 4];

impl SlicedLayer {
    /// Windows of these steps one after the other, each from the state that the last one left, and back again, each with
    /// the gradient at the state that the next one started from.
    fn run(&self, device: &Device, windows: &[usize]) -> Result<WindowResults> {
        let mut model = Model::new(4);
        let rnn = model.add("rnn", self.stack.clone())?;
        let parameters = model.initialize(device)?;
        let of_window = |stream, width: usize, window: usize| {
            let all = random(device, stream, &[STEPS, self.rows, width], 1.0)?.download_f64()?;
            let step = self.rows * width;
            let first: usize = windows[..window].iter().sum();
            let own = &all[first * step..(first + windows[window]) * step];
            Tensor::from_slice_f64(device, &[windows[window], self.rows, width], own)
        };
        let width = rnn.description().outputs();
        let resets: Vec<u32> = (0..STEPS * self.rows).map(|place| u32::from(place % 7 == 5)).collect();
        let zero = rnn.zero_state(device, self.rows)?;
        let mut state = random_state(&zero, 51, 0.5)?;
        let (mut y, mut traces) = (Vec::new(), Vec::new());
        let mut first = 0;
        for (window, &steps) in windows.iter().enumerate() {
            let own = &resets[first * self.rows..(first + steps) * self.rows];
            let resets = Indices::from_slice(device, &[steps, self.rows], own)?;
            let sequences = Sequences::whole().resets(&resets).training(RandomKey::new(3, 8));
            let x = of_window(53, INPUTS, window)?;
            let (own, next, trace) = rnn.forward_sequences(&parameters, &x, &state, sequences)?;
            y.extend(own.download_f64()?);
            traces.push(trace);
            state = next;
            first += steps;
        }
        let mut d_state = random_state(&zero, 54, 0.5)?;
        let mut gradients = parameters.zero_gradients()?;
        let mut d_x = Vec::new();
        for (window, trace) in traces.into_iter().enumerate().rev() {
            let d_y = of_window(56, width, window)?;
            let (d_own, d_before) = trace.backward(&d_y, Some(&d_state), &mut gradients)?;
            d_x.splice(0..0, d_own.download_f64()?);
            d_state = d_before;
        }
        Ok([y, d_x, components(&d_state)?.concat(), all_gradients(&parameters, &gradients)?])
    }
}

/// A sum of n terms of either sign has an error of about √n ε of their size; a step's own is amplified over the steps that
/// follow, for which a factor of ten is allowed.
fn relative(rows: usize, units: usize) -> f64 {
    let terms = (STEPS * rows + 4 * units) as f64;
    10.0 * terms.sqrt() * f64::from(f32::EPSILON)
}

/// A layer of a number of units.
type OfUnits = fn(usize) -> Rnn;

fn sums_of_a_step_agree_with_the_reference_for_all_rows_and_units(adapter: &Adapter) -> Outcome {
    let (device, reference) = (step_by_step(adapter)?, Device::reference());
    // Layer normalisation divides by the deviation of a row, which of a few units may be much smaller than they are.
    const DEVIATION: f64 = 16.0;
    let builds: [(f64, OfUnits); 7] = [
        (1.0, |units| Rnn::new(Cell::tanh(), INPUTS, units).bidirectional()),
        (1.0, |units| Rnn::new(Cell::Lstm, INPUTS, units).peepholes().recurrent_dropout(0.3)),
        (1.0, |units| Rnn::new(Cell::Gru, INPUTS, units)),
        (1.0, |units| Rnn::new(Cell::Gru, INPUTS, units).reset_before()),
        (1.0, |units| Rnn::new(Cell::Lstm, INPUTS, units + 1).projection(units)),
        (DEVIATION, |units| Rnn::new(Cell::Lstm, INPUTS, units).layer_norm().bidirectional()),
        (DEVIATION, |units| Rnn::new(Cell::Gru, INPUTS, units).layer_norm().reverse().truncated(2)),
    ];
    for (growth, build) in builds {
        // Every number of rows, and every number of units in each number of slices.
        let rows = ROWS.map(|rows| (rows, 17)).into_iter();
        let units = UNITS.into_iter().flat_map(|units| [1, 5, 9].map(|rows| (rows, units)));
        for (rows, units) in rows.chain(units) {
            let layer = SlicedLayer { stack: build(units), rows };
            let (found, expected) = (layer.run(&device, &[STEPS])?, layer.run(&reference, &[STEPS])?);
            for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let allowed = by_entry(growth * relative(rows, units), expected);
                expect_close(&format!("part {part} of {layer:?}"), expected, found, allowed)?;
            }
        }
    }
    Ok(())
}

/// Rows of several steps go together in a dispatch, shared out as rows of the batch alone would be.
fn windows_that_overlap_agree_with_the_reference_for_all_rows(adapter: &Adapter) -> Outcome {
    let (device, reference) = (step_by_step(adapter)?, Device::reference());
    for rows in [1, 5, 17] {
        for stack in [
            Rnn::new(Cell::Lstm, INPUTS, 17).windowed(2),
            Rnn::new(Cell::Gru, INPUTS, 17).truncated_every(2, 3).reset_before(),
        ] {
            let layer = SlicedLayer { stack, rows };
            let (found, expected) = (layer.run(&device, &[STEPS])?, layer.run(&reference, &[STEPS])?);
            for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // The steps of all windows add up.
                let allowed = by_entry(3.0 * relative(rows, 17), expected);
                expect_close(&format!("part {part} of {layer:?}"), expected, found, allowed)?;
            }
        }
    }
    Ok(())
}

/// Inside a window the gradient at a state is a step's, where it ends that of a kernel of its own: the same sums, bit by bit.
/// Windows of one step, too, which read the weights as they are.
fn a_cut_between_steps_changes_no_bit(adapter: &Adapter) -> Outcome {
    let device = step_by_step(adapter)?;
    let of = |cell| Rnn::new(cell, INPUTS, 33);
    let layers = [
        of(Cell::tanh()),
        of(Cell::Lstm).peepholes().clip_gradient(0.02),
        of(Cell::Lstm).coupled().recurrent_dropout(0.3),
        of(Cell::Gru).recurrent_dropout(0.3).clip_gradient(0.02),
        of(Cell::Gru).reset_before(),
        of(Cell::Gru).reset_before().recurrent_dropout(0.3),
        of(Cell::Lstm).projection(9),
    ];
    for stack in layers {
        for rows in [3, 5, 17] {
            let layer = SlicedLayer { stack: stack.clone(), rows };
            let whole = layer.run(&device, &[STEPS])?;
            for windows in [&[2, 3][..], &[1, 3, 1]] {
                let cut = layer.run(&device, windows)?;
                for (name, part) in [("y", 0), ("d_x", 1), ("d_initial", 2)] {
                    let what = format!("{name}, windows {windows:?} of {layer:?}");
                    expect_same_bits(&what, &whole[part], &cut[part])?;
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu!(
        suite,
        sums_of_a_step_agree_with_the_reference_for_all_rows_and_units,
        windows_that_overlap_agree_with_the_reference_for_all_rows,
        a_cut_between_steps_changes_no_bit,
    );
}
