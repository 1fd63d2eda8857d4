//! Computes both directions of a layer in the same dispatches.
//!
//! In each iteration of the loop the forward direction computes step t and the reverse direction step T − 1 −
//! t; neither depends on the other, so one dispatch computes both. The reverse direction has the workgroups
//! with z = 1, or in persistent kernels the second half of the tiles. Weights, biases and states of the two
//! directions are concatenated, arrays over time are allocated as [2, T, ..], and outputs are stored side by
//! side [T, B, 2·P]. Every sum has the order of terms that it has in a dispatch of one direction, so the
//! results have the same bits.

use super::operands::joined;
use super::real_options::RealOptions;
use crate::Result;
use crate::device::{Device, on_device};
use crate::gpu::Span;
use crate::ops::matmul::{Form, matmul, matmul_to};
use crate::ops::recurrent::{Call, Direction, Sizes};
use crate::tensor::{Tensor, View};

/// How many of a layer's directions [`forward`](super::forward) computes at once: 2, or 1 for one after the
/// other.
///
/// Directions are computed one after the other on the CPU; with layer normalisation, a projection or sliding
/// windows, whose loops use other dispatches; with random zoneout, since each direction has a stream of its
/// own; and where the arrays of both do not fit a binding or two workgroups do not fit a grid.
pub(crate) fn together(device: &Device, calls: &[Call<'_>], [steps, rows]: [usize; 2]) -> usize {
    let [one, other] = calls else { return 1 };
    on_device!(device,
        _F => 1,
        context => {
            let plain = |call: &Call<'_>| {
                let is_random = call.equations.options.zoneout.is_some() && call.equations.noise.is_some();
                let weights = &call.weights;
                !is_random
                    && weights.norms.is_none()
                    && weights.projection.is_none()
                    && call.traversal.windows().is_none()
            };
            let directions = [one.traversal.direction, other.traversal.direction];
            let limits = context.limits();
            let fits = limits.workgroups >= 2 && largest(one, steps, rows) <= limits.binding_elements;
            let both = directions == [Direction::Forward, Direction::Reverse];
            if both && fits && plain(one) && plain(other) { 2 } else { 1 }
        },
    )
}

/// W_ih x + b_ih for x \[T, B, I\]: \[T, B, G·H\] for one direction, \[2, T, B, G·H\] for both.
pub(crate) fn project(x: &Tensor, weights: &[(View<'_>, Option<View<'_>>)]) -> Result<Tensor> {
    let form = Form::RightTransposed;
    if let [(weight, bias)] = *weights {
        return matmul(x.view(), weight, form, bias);
    }
    let [steps, rows, _] = x.shape().exactly("x", "[time, batch, inputs]")?;
    let wide = weights[0].0.shape().rows();
    let mut projected = Tensor::unwritten(x.device(), &[weights.len(), steps, rows, wide])?;
    for (index, &(weight, bias)) in weights.iter().enumerate() {
        let own = projected.view_mut()?.entry(index)?.matrix()?;
        matmul_to(own, x.view().matrix()?, weight, form, bias)?;
    }
    Ok(projected)
}

/// Elements of the largest array that is bound for two directions like this one.
fn largest(call: &Call<'_>, steps: usize, rows: usize) -> usize {
    let weights = call.weights.weight_hh.shape();
    let wide = weights.dimensions()[0];
    let units = wide / call.equations.gates();
    let over_time = steps * rows * wide.max(units);
    // Initial states, their mask, peepholes, and the real-valued options.
    let operands = 3 * rows * units + wide + RealOptions::COUNT;
    2 * over_time.max(weights.elements()).max(operands)
}

/// An operand of the time loop: a view for one direction, a concatenated copy for both.
pub(crate) enum DirectionOperand<'a> {
    One(View<'a>),
    Both(Tensor),
}

impl<'a> DirectionOperand<'a> {
    pub(crate) fn of(views: &[View<'a>]) -> Result<Self> {
        match views {
            [one] => Ok(Self::One(*one)),
            _ => joined(views).map(Self::Both),
        }
    }

    pub(crate) fn weights(calls: &[Call<'a>]) -> Result<Self> {
        Self::of(&calls.iter().map(|call| call.weights.weight_hh).collect::<Vec<_>>())
    }

    /// None where the layer has no biases.
    pub(crate) fn biases(calls: &[Call<'a>]) -> Result<Option<Self>> {
        let biases: Option<Vec<_>> = calls.iter().map(|call| call.weights.bias_hh).collect();
        biases.map(|biases| Self::of(&biases)).transpose()
    }

    pub(crate) fn span(&self) -> Span<'_> {
        match self {
            Self::One(view) => view.span(),
            Self::Both(tensor) => tensor.view().span(),
        }
    }
}

/// The part of direction `index` of an array over time of `count` directions.
pub(crate) fn part_of(array: &Tensor, index: usize, count: usize) -> Tensor {
    if count == 1 { array.clone() } else { array.entry(index) }
}

/// The offsets in steps, modulo 2^32, from the first direction's step `t` to the second direction's step: in
/// arrays [2, T, ..] and in arrays [T, ..]. Zeros for one direction.
pub(crate) fn second(directions: usize, t: usize, sizes: Sizes) -> [u32; 2] {
    if directions == 1 {
        return [0; 2];
    }
    let beside = (sizes.steps - 1 - t).wrapping_sub(t) as u32;
    [beside.wrapping_add(sizes.steps as u32), beside]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_direction_starts_at_the_end() {
        let sizes = Sizes { steps: 5, rows: 2, hidden_size: 3, projection_size: 3 };
        assert_eq!(second(1, 2, sizes), [0, 0]);
        for t in 0..5 {
            let [behind, beside] = second(2, t, sizes);
            assert_eq!((t as u32).wrapping_add(beside), 4 - t as u32, "step {t}");
            assert_eq!((t as u32).wrapping_add(behind), 9 - t as u32, "step {t}");
        }
    }
}
