//! ONNX's recurrent weights under the names and in the gate order of this crate, which are PyTorch's.
//!
//! ONNX holds W \[D, G·H, I\], R \[D, G·H, H\] and B \[D, 2·G·H\], the bias of the input before that of the recurrence;
//! gate rows of a GRU are z, r, h and those of an LSTM i, o, f, c.

use super::super::case::{Case, Outcome, Trouble};
use super::attributes::Way;
use crate::nn::Cell;

/// For each gate of `cell`, in this crate's order, its place in ONNX's.
fn gate_places(cell: Cell) -> &'static [usize] {
    match cell {
        Cell::Vanilla(_) => &[0],
        // r, z, n from z, r, h.
        Cell::Gru => &[1, 0, 2],
        // i, f, g, o from i, o, f, c.
        Cell::Lstm => &[0, 2, 3, 1],
    }
}

/// The row blocks of one array \[G·H, width\], a block for each gate, in this crate's order.
fn reordered(cell: Cell, rows: &[f32]) -> Vec<f32> {
    let block = rows.len() / cell.gates();
    let places = gate_places(cell).iter();
    places.flat_map(|&place| &rows[place * block..(place + 1) * block]).copied().collect()
}

/// What a layer `rnn` of one layer calls the parameter `stem` in one direction.
fn name(stem: &str, way: Way) -> String {
    let suffix = match way {
        Way::Forward => "",
        Way::Reverse => "_reverse",
    };
    format!("rnn.{stem}_l0{suffix}")
}

/// The arrays of a node, checked against each other.
pub(super) struct OnnxWeights<'c> {
    input: &'c [f32],
    recurrent: &'c [f32],
    bias: Option<&'c [f32]>,
    directions: usize,
}

impl<'c> OnnxWeights<'c> {
    /// # Errors
    /// Where an array does not have the shape that D, I and H and the cell's G gates give it.
    pub(super) fn from_case(
        case: &'c Case,
        cell: Cell,
        directions: usize,
        inputs: usize,
        hidden: usize,
    ) -> Outcome<Self> {
        let rows = cell.gates() * hidden;
        let floats = |name: &str, expected: &[usize]| {
            let array = case.array(name)?;
            if array.shape != expected {
                let found = &array.shape;
                return Err(Trouble::malformed(format!("`{name}` must be {expected:?}, but is {found:?}")));
            }
            array.floats(name)
        };
        Ok(Self {
            input: floats("W", &[directions, rows, inputs])?,
            recurrent: floats("R", &[directions, rows, hidden])?,
            bias: if case.has("B") { Some(floats("B", &[directions, 2 * rows])?) } else { None },
            directions,
        })
    }

    pub(super) fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Name and values of the parameters at `place` among the node's directions, which runs the way `way`.
    pub(super) fn parameters(&self, cell: Cell, place: usize, way: Way) -> Vec<(String, Vec<f32>)> {
        let own = |all: &'c [f32]| {
            let size = all.len() / self.directions;
            &all[place * size..(place + 1) * size]
        };
        let mut parameters = vec![
            (name("weight_ih", way), reordered(cell, own(self.input))),
            (name("weight_hh", way), reordered(cell, own(self.recurrent))),
        ];
        if let Some(bias) = self.bias {
            let (input, recurrent) = own(bias).split_at(own(bias).len() / 2);
            parameters.push((name("bias_ih", way), reordered(cell, input)));
            parameters.push((name("bias_hh", way), reordered(cell, recurrent)));
        }
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_put_in_this_crates_order() {
        // Blocks of two rows, numbered by their ONNX letter: i 0, o 1, f 2, c 3.
        let lstm = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
        assert_eq!(reordered(Cell::Lstm, &lstm), [0.0, 0.5, 2.0, 2.5, 3.0, 3.5, 1.0, 1.5]);
        // z 0, r 1, h 2.
        assert_eq!(reordered(Cell::Gru, &[0.0, 1.0, 2.0]), [1.0, 0.0, 2.0]);
        assert_eq!(reordered(Cell::tanh(), &[4.0, 5.0]), [4.0, 5.0]);
    }
}
