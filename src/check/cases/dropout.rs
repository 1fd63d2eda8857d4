//! Dropout with plain and repeated masks, and the merging of two directions.

use super::{Operation, Output};
use crate::check::sampler::CENTRED;
use crate::ops::{Mask, Merge, dropout, merge, merge_backward};
use crate::random::Stream;

/// T, B and F: around blocks of four numbers and workgroups of 256 invocations, and a single element.
const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [3, 1, 5], [2, 3, 4], [7, 5, 33], [5, 16, 64], [31, 3, 257]];

/// Rates, with seeds and streams that use all of their words.
const MASKS: [(f32, u64, u64); 3] =
    [(0.5, 7, 0), (0.1, u64::MAX - 2, 3 << 33 | 5), (0.99, 1 << 40, u64::MAX)];

/// Roundings of x / (1 − p) and of x · (1 / (1 − p)).
const SCALED: f64 = 3.0;

pub(super) fn operations() -> Vec<Operation> {
    let mut operations = vec![masked("dropout", false), masked("dropout, locked over time", true)];
    operations.extend(Merge::ALL.map(merged));
    operations
}

fn masked(name: &'static str, locked: bool) -> Operation {
    let all = SHAPES.into_iter().flat_map(|shape| MASKS.map(|mask| (shape, mask)));
    let label = |(shape, (rate, seed, stream)): &([usize; 3], (f32, u64, u64))| {
        format!("{shape:?}, rate {rate}, seed {seed}, stream {stream}")
    };
    Operation::over(name, 600, all, label, move |sampler, &(shape, (rate, seed, stream))| {
        let [_, batch, features] = shape;
        let mask = Mask::new(Stream::new(seed, stream), rate)?;
        let mask = if locked { mask.repeated(batch * features)? } else { mask };
        // No element is near zero, so a difference between masks is an error as large as the results.
        let x = sampler.tensor(&shape, 0.5..1.5)?;
        Ok(vec![Output::new("y", dropout(&x, mask)?, SCALED).relative_to(0.5)])
    })
}

fn merged(mode: Merge) -> Operation {
    let name = format!("merge {mode:?}").to_lowercase();
    Operation::over(
        name,
        650,
        SHAPES,
        |shape| format!("{shape:?}"),
        move |sampler, &[steps, batch, hidden]| {
            let both = sampler.tensor(&[steps, batch, 2 * hidden], CENTRED)?;
            let y = merge(&both, mode)?;
            let d_y = sampler.tensor(y.shape().dimensions(), CENTRED)?;
            // One rounding of a sum or product of operands up to one.
            let d_both = Output::new("d_both", merge_backward(&both, &d_y, mode)?, 1.0).relative_to(1.0);
            Ok(vec![Output::new("y", y, 1.0).relative_to(1.0), d_both])
        },
    )
}
