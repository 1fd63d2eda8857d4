//! Layer normalisation over whole rows and over groups of columns, and stacks of layer-normalised cells.

use super::{Operation, Output, gradient_outputs};
use crate::Result;
use crate::check::sampler::{CENTRED, LEANING, POSITIVE, Sampler};
use crate::check::tolerance::{EVALUATION, Recurrence, sum};
use crate::nn::{Cell, Model, Rnn, Sequences};
use crate::ops::{LAYER_NORM_EPSILON, layer_norm, layer_norm_backward};
use crate::tensor::Indices;

/// Rows, and the widths of their groups of columns: around a workgroup's 256 columns, and those of gates.
const SHAPES: [(usize, &[usize]); 8] = [
    (1, &[1]),
    (5, &[1, 3]),
    (3, &[33]),
    (70, &[64, 32]),
    (2, &[255, 1]),
    (9, &[256]),
    (1, &[257, 129]),
    (4, &[5000]),
];

/// T, B, H: around tiles, and one of each. With fewer units the deviation of a row may by chance be far below the mean
/// deviation, which amplifies earlier roundings.
const STACKS: [[usize; 3]; 6] = [[1, 2, 8], [6, 5, 17], [3, 16, 33], [9, 1, 5], [2, 3, 64], [4, 2, 300]];
const LAYERS: usize = 2;
/// By how much the variance of an error may grow per step, beyond what [`Recurrence`] counts. A normalised product
/// passes on errors of h relative to the size of h, about 0.3, and gates and c attenuate them to at most 0.8, 0.25 and 0.5:
/// [δc², δh²] becomes [δc²/4 + 1.4 δh², δc²/7 + 0.9 δh²], whose larger eigenvalue is 1.13.
const GROWTH: f64 = 1.13;

pub(super) fn operations() -> Vec<Operation> {
    vec![operation(), stacks()]
}

fn stacks() -> Operation {
    let all = [Cell::Lstm, Cell::Gru].into_iter().flat_map(|cell| STACKS.map(|sizes| (cell.clone(), sizes)));
    let label = |(cell, [steps, batch, hidden]): &(Cell, [usize; 3])| {
        format!("{} T {steps}, B {batch}, H {hidden}", cell.name())
    };
    Operation::over("stack, layer norm", 2400, all, label, |sampler, &(ref cell, [steps, batch, hidden])| {
        let recurrence = Recurrence { cell: cell.clone(), steps, batch, layers: LAYERS, terms: 2 * hidden };
        run_stack(sampler, &recurrence, hidden)
    })
}

/// Both directions over ragged rows with resets and truncation.
fn run_stack(sampler: &Sampler, recurrence: &Recurrence, hidden: usize) -> Result<Vec<Output>> {
    let &Recurrence { ref cell, steps, batch, .. } = recurrence;
    let mut model = Model::new(0);
    let stack =
        Rnn::new(cell.clone(), hidden, hidden).layers(LAYERS).bidirectional().truncated(3).layer_norm();
    let layer = model.add("rnn", stack)?;
    let bound = 1.0 / (hidden as f64).sqrt();
    let range = |name: &str| if name.contains("norm_") { POSITIVE } else { -bound..bound };
    let parameters = sampler.parameters(&model, range)?;
    let lengths = sampler.lengths(batch, steps)?;
    let resets: Vec<u32> =
        sampler.integers(steps * batch, 5).into_iter().map(|n| u32::from(n == 0)).collect();
    let resets = Indices::from_slice(sampler.device(), &[steps, batch], &resets)?;
    let x = sampler.tensor(&[steps, batch, hidden], CENTRED)?;
    let d_y = sampler.tensor(&[steps, batch, 2 * hidden], CENTRED)?;
    let zero = layer.zero_state(sampler.device(), batch)?;
    let sequences = Sequences::ragged(&lengths).resets(&resets);
    let (y, _, trace) = layer.forward_sequences(&parameters, &x, &zero, sequences)?;
    let mut gradients = parameters.zero_gradients()?;
    let (d_x, _) = trace.backward(&d_y, None, &mut gradients)?;
    let growth = GROWTH.powi(steps as i32);
    let backward = growth * recurrence.backward();
    let mut results =
        vec![Output::new("y", y, growth * recurrence.forward()), Output::new("d_x", d_x, backward)];
    results.extend(gradient_outputs(&model, &gradients, backward)?);
    Ok(results)
}

fn operation() -> Operation {
    let label = |(rows, groups): &(usize, &[usize])| format!("{rows} rows of {groups:?}");
    Operation::over("layer_norm", 2300, SHAPES, label, |sampler, &(rows, groups)| run(sampler, rows, groups))
}

/// Mean and variance are sums over a group, followed by a root and two quotients. The roundings of dx are relative to the
/// gradient at the normalised values divided by the deviation, which cancels in a group with few entries.
fn run(sampler: &Sampler, rows: usize, groups: &'static [usize]) -> Result<Vec<Output>> {
    let columns: usize = groups.iter().sum();
    let x = sampler.tensor(&[rows, columns], CENTRED)?;
    let gain = sampler.tensor(&[columns], LEANING)?;
    let shift = sampler.tensor(&[columns], CENTRED)?;
    let d_y = sampler.tensor(&[rows, columns], CENTRED)?;
    let y = layer_norm(&x, &gain, Some(shift.view()), groups)?;
    let (d_x, d_gain) = layer_norm_backward(&x, &gain, &d_y, groups)?;
    let standard = 2.0 * sum(columns) + 3.0 * EVALUATION;
    let scale = 1.5 / least_deviation(&x.download_f64()?, groups);
    Ok(vec![
        Output::new("y", y, standard),
        Output::new("d_x", d_x, 2.0 * standard).relative_to(scale),
        Output::new("d_gain", d_gain, standard + sum(rows)).relative_to(1.0),
    ])
}

/// The smallest √(σ² + ε) of all groups with more than one entry; dx is zero for a single entry.
fn least_deviation(x: &[f64], groups: &[usize]) -> f64 {
    let mut least = 1.0f64;
    for row in x.chunks(groups.iter().sum()) {
        let mut rest = row;
        for &width in groups {
            let (own, after) = rest.split_at(width);
            rest = after;
            let mean = own.iter().sum::<f64>() / width as f64;
            let variance = own.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width as f64;
            if width > 1 {
                least = least.min((variance + f64::from(LAYER_NORM_EPSILON)).sqrt());
            }
        }
    }
    least
}
