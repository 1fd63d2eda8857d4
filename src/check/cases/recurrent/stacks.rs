//! The table of recurrent cases.

use super::{Bias, Directions, FinalGradient, PLAIN, Rows, Stack};
use crate::nn::Cell;
use crate::ops::Activation;

/// T, B, I, H, L: one of each, and all around the edges of tiles.
const SHAPES: [[usize; 5]; 12] = [
    [1, 1, 1, 1, 1],
    [1, 4, 5, 7, 2],
    [9, 1, 5, 31, 1],
    [6, 5, 3, 1, 2],
    [17, 15, 16, 15, 1],
    [5, 16, 17, 16, 2],
    [4, 17, 1, 33, 3],
    [3, 31, 33, 32, 1],
    [2, 33, 31, 63, 2],
    [3, 2, 65, 64, 1],
    [33, 2, 9, 65, 1],
    [70, 1, 2, 33, 3],
];

/// The most steps of a gated cell: its tolerance grows with them, and would soon tell little.
const GATED_STEPS: usize = 33;

/// The cases of each cell under its name.
pub(super) fn by_cell() -> [(&'static str, Vec<Stack>); 3] {
    let mut vanilla = shapes(Cell::tanh());
    vanilla.extend(sequences(Cell::tanh()));
    vanilla.extend(Activation::ALL.map(|activation| {
        let magnitude = if activation == Activation::Tan { 0.3 } else { PLAIN.magnitude };
        Stack { cell: Cell::Vanilla(activation), magnitude, ..PLAIN }
    }));
    // Saturated: every state is at a limit of tanh, every gradient through it zero.
    vanilla.push(Stack { magnitude: 1e4, steps: 3, batch: 2, hidden: 8, ..PLAIN });
    vanilla.push(Stack { magnitude: 1e4, cell: Cell::relu(), ..PLAIN });
    let gated = |cell| {
        let mut stacks: Vec<Stack> = shapes(cell);
        stacks.retain(|stack| stack.steps <= GATED_STEPS);
        stacks.extend(sequences(cell));
        stacks
    };
    [("rnn", vanilla), ("lstm", gated(Cell::Lstm)), ("gru", gated(Cell::Gru))]
}

/// Forward stacks over whole rows.
fn shapes(cell: Cell) -> Vec<Stack> {
    let place = |(place, [steps, batch, inputs, hidden, layers]): (usize, [usize; 5])| {
        let bias = if place % 3 == 1 { Bias::Without } else { Bias::With };
        let final_gradient = if place % 2 == 1 { FinalGradient::None } else { FinalGradient::Given };
        Stack { cell, steps, batch, inputs, hidden, layers, bias, final_gradient, ..PLAIN }
    };
    SHAPES.into_iter().enumerate().map(place).collect()
}

/// Directions, lengths, resets and chunks, alone and together.
fn sequences(cell: Cell) -> Vec<Stack> {
    let plain = Stack { cell, ..PLAIN };
    let wide = Stack { steps: 9, batch: 5, hidden: 33, layers: 2, ..plain };
    let narrow = Stack { steps: 6, batch: 17, inputs: 3, hidden: 1, ..plain };
    let (reverse, both) = (Directions::Reverse, Directions::Both);
    let (ragged, reset) = (Rows::Ragged, Rows::Reset);
    let without = FinalGradient::None;
    vec![
        Stack { directions: reverse, layers: 2, ..plain },
        Stack { directions: reverse, steps: 1, batch: 1, hidden: 16, bias: Bias::Without, ..plain },
        Stack { directions: both, ..wide },
        Stack { directions: both, bias: Bias::Without, final_gradient: without, ..plain },
        Stack { directions: both, ..narrow },
        Stack { rows: ragged, ..wide },
        Stack { rows: ragged, batch: 1, hidden: 15, final_gradient: without, ..plain },
        Stack { rows: ragged, steps: 1, hidden: 16, ..plain },
        Stack { rows: ragged, directions: reverse, batch: 17, bias: Bias::Without, ..plain },
        Stack { rows: ragged, directions: both, ..wide },
        Stack { rows: ragged, directions: both, layers: 2, ..narrow },
        Stack { rows: reset, ..plain },
        Stack { rows: reset, directions: both, final_gradient: without, ..wide },
        Stack { rows: Rows::RaggedAndReset, directions: reverse, ..plain },
        Stack { rows: Rows::RaggedAndReset, directions: both, batch: 16, ..plain },
        Stack { chunk: Some(1), layers: 2, ..plain },
        Stack { chunk: Some(3), ..plain },
        Stack { chunk: Some(7), final_gradient: without, ..plain },
        Stack { chunk: Some(4), directions: reverse, ..plain },
        Stack { chunk: Some(3), rows: ragged, directions: both, ..wide },
        Stack { chunk: Some(2), rows: Rows::RaggedAndReset, directions: both, ..narrow },
    ]
}
