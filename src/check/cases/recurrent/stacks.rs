//! The table of recurrent cases.

use std::sync::LazyLock;

use super::choices::{overlapping, sliding};
use super::{Bias, CaseDirections, CaseRows, CellChoices, FinalGradient, PLAIN, Stack, Truncation};
use crate::nn::Cell;
use crate::ops::Activation;

/// T, B, I, H, L: one of each, and sizes around the edges of tiles and workgroups.
const SHAPES: [[usize; 5]; 16] = [
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
    [65, 3, 2, 31, 1],
    [2, 17, 3, 128, 1],
    [2, 3, 5, 257, 1],
    [1, 17, 2, 257, 1],
    [70, 1, 2, 33, 3],
];

/// The most steps of a gated cell: its tolerance grows with the number of steps, until it detects little.
const GATED_STEPS: usize = 33;

/// The vanilla cell with each activation.
static VANILLA: LazyLock<[Cell; Activation::ALL.len()]> =
    LazyLock::new(|| Activation::ALL.map(Cell::Vanilla));

/// The cases of each cell, with the cell's name.
pub(super) fn by_cell() -> Vec<(&'static str, Vec<Stack>)> {
    let mut vanilla = shapes(PLAIN.cell);
    vanilla.extend(sequences(PLAIN.cell));
    vanilla.extend(VANILLA.iter().zip(Activation::ALL).map(|(cell, activation)| {
        let magnitude = if activation == Activation::Tan { 0.3 } else { PLAIN.magnitude };
        Stack { cell, magnitude, ..PLAIN }
    }));
    // Saturated: every state is at a limit of tanh, and every gradient through it is zero.
    vanilla.push(Stack { magnitude: 1e4, steps: 3, batch: 2, hidden: 8, ..PLAIN });
    vanilla.push(Stack { magnitude: 1e4, cell: &Cell::Vanilla(Activation::Relu), ..PLAIN });
    let gated = |cell| {
        let mut stacks: Vec<Stack> = shapes(cell);
        stacks.retain(|stack| stack.steps <= GATED_STEPS);
        stacks.extend(sequences(cell));
        stacks
    };
    let mut all = vec![("rnn", vanilla), ("lstm", gated(&Cell::Lstm)), ("gru", gated(&Cell::Gru))];
    all.extend(with_choices());
    all.extend(with_windows());
    all
}

const NONE: CellChoices = CellChoices::NONE;
/// Bounds that clip some units of these cases and not others: the standard deviation of the pre-activations is about 0.4,
/// that of states and their gradients below 1.
const GATES: Option<f32> = Some(0.3);
const CELL: Option<f32> = Some(0.2);
const GRADIENT: Option<f32> = Some(0.05);

/// The options of the equations with the cells that have them, by name.
fn with_choices() -> Vec<(&'static str, Vec<Stack>)> {
    let peepholes = CellChoices { peepholes: true, ..NONE };
    let coupled = CellChoices { coupled: true, ..NONE };
    let both = CellChoices { peepholes: true, coupled: true, ..NONE };
    let reset_before = CellChoices { reset_before: true, ..NONE };
    let gates = CellChoices { clip_gates: GATES, ..NONE };
    let gradient = CellChoices { clip_gradient: GRADIENT, ..NONE };
    let clips = CellChoices { clip_gates: GATES, clip_cell: CELL, clip_gradient: GRADIENT, ..NONE };
    let every = |lists: &[(&'static Cell, CellChoices)]| -> Vec<Stack> {
        lists.iter().flat_map(|&(cell, choices)| beside(cell, choices)).collect()
    };
    let (tanh, lstm, gru) = (PLAIN.cell, &Cell::Lstm, &Cell::Gru);
    vec![
        ("lstm peepholes", every(&[(lstm, peepholes)])),
        ("lstm coupled", every(&[(lstm, coupled), (lstm, both)])),
        ("gru reset before", every(&[(gru, reset_before)])),
        ("rnn clips", every(&[(tanh, gates), (tanh, gradient)])),
        (
            "lstm clips",
            every(&[
                (lstm, gates),
                (lstm, CellChoices { clip_cell: CELL, ..NONE }),
                (lstm, gradient),
                (lstm, clips),
                (lstm, CellChoices { peepholes: true, ..clips }),
                (lstm, CellChoices { coupled: true, ..clips }),
            ]),
        ),
        (
            "gru clips",
            every(&[
                (gru, gates),
                (gru, gradient),
                (gru, CellChoices { reset_before: true, ..CellChoices { clip_cell: None, ..clips } }),
            ]),
        ),
        ("lstm activations", activations(lstm, NONE)),
        ("gru activations", activations(gru, NONE)),
        ("lstm projection", projections()),
    ]
}

/// One set of options over awkward sizes, ragged rows, directions and layers.
fn beside(cell: &'static Cell, choices: CellChoices) -> Vec<Stack> {
    let plain = Stack { cell, choices, steps: 5, ..PLAIN };
    let mixed = Stack { rows: CaseRows::RaggedAndReset, ..plain };
    let without = FinalGradient::None;
    let mut stacks = vec![
        plain,
        Stack { hidden: 33, batch: 17, bias: Bias::Without, final_gradient: without, ..plain },
        Stack { directions: CaseDirections::Both, layers: 2, ..mixed },
        Stack {
            directions: CaseDirections::Reverse,
            hidden: 33,
            batch: 17,
            final_gradient: without,
            ..mixed
        },
        Stack { truncation: Truncation::Chunks(2), batch: 1, ..mixed },
        Stack { steps: 1, batch: 1, hidden: 33, ..plain },
    ];
    if choices.projection.is_none() {
        stacks.push(Stack { hidden: 1, batch: 17, ..plain });
        stacks.push(Stack { hidden: 1, batch: 1, steps: 1, final_gradient: without, ..plain });
    }
    stacks
}

/// Each function in each role, and the combinations used by other packages.
fn activations(cell: &'static Cell, choices: CellChoices) -> Vec<Stack> {
    use Activation::{HardSigmoid, HardTanh, Relu, ScaledTanh, Sigmoid, Softsign, Tanh, ThresholdedRelu};
    let hard = HardSigmoid { alpha: 0.2, beta: 0.5 };
    // Moves the kinks into the range of the pre-activations.
    let functions = Activation::ALL.map(|function| match function {
        ThresholdedRelu { .. } => ThresholdedRelu { alpha: 0.1 },
        HardTanh { .. } => HardTanh { low: -0.3, high: 0.2 },
        other => other,
    });
    // A third of the list apart, so that each function is once in each role.
    let role = |place: usize, role: usize| functions[(place + role * functions.len() / 3) % functions.len()];
    let rotated = (0..functions.len()).map(|place| {
        let functions =
            [role(place, 0), role(place, 1), if *cell == Cell::Lstm { role(place, 2) } else { Tanh }];
        // Stays below half way to the first pole: see `kinks.rs`.
        let magnitude = if functions.contains(&Activation::Tan) { 0.3 } else { PLAIN.magnitude };
        let choices = CellChoices { activations: Some(functions), ..choices };
        Stack { cell, choices, steps: 3, magnitude, ..PLAIN }
    });
    let mut stacks: Vec<Stack> = rotated.collect();
    let scaled = ScaledTanh { alpha: 1.7159, beta: 2.0 / 3.0 };
    for functions in [
        [hard, Tanh, Tanh],
        [Sigmoid, Relu, Relu],
        [hard, Softsign, HardTanh { low: -0.5, high: 0.25 }],
        [Sigmoid, scaled, Softsign],
    ] {
        let choices = CellChoices { activations: Some(functions), ..choices };
        stacks.extend(beside(cell, choices));
        stacks.push(Stack { cell, steps: 5, choices: CellChoices { clip_gates: GATES, ..choices }, ..PLAIN });
    }
    stacks
}

/// Projections of several sizes, alone and with all other options of an LSTM.
fn projections() -> Vec<Stack> {
    let lstm = |choices| beside(&Cell::Lstm, choices);
    let plain = Stack { cell: &Cell::Lstm, steps: 5, ..PLAIN };
    let mut stacks = lstm(CellChoices { projection: Some(5), ..NONE });
    stacks.extend(lstm(CellChoices { projection: Some(16), clip_gradient: GRADIENT, ..NONE }));
    let all = CellChoices { peepholes: true, coupled: true, clip_gates: GATES, clip_cell: CELL, ..NONE };
    // Many bounds at once attenuate gradients strongly.
    stacks.extend(lstm(CellChoices { projection: Some(3), clip_gradient: Some(0.005), ..all }));
    for (hidden, width) in [(2, 1), (17, 1), (33, 32), (33, 17), (65, 33)] {
        let choices = CellChoices { projection: Some(width), ..NONE };
        let stack = Stack { hidden, choices, ..plain };
        stacks.push(Stack { directions: CaseDirections::Both, layers: 2, ..stack });
        stacks.push(Stack {
            rows: CaseRows::Ragged,
            batch: 17,
            layers: 2,
            final_gradient: FinalGradient::None,
            ..stack
        });
    }
    stacks
}

/// Sliding and overlapping windows, for each cell and for those options that the backward pass of a step uses.
fn with_windows() -> Vec<(&'static str, Vec<Stack>)> {
    let projected = CellChoices { projection: Some(5), ..NONE };
    let seeing = CellChoices { peepholes: true, coupled: true, ..NONE };
    let clipped = CellChoices { clip_gradient: GRADIENT, ..NONE };
    let every = |lists: &[(&'static Cell, CellChoices)]| -> Vec<Stack> {
        lists.iter().flat_map(|&(cell, choices)| windows(cell, choices)).collect()
    };
    let (tanh, lstm, gru) = (PLAIN.cell, &Cell::Lstm, &Cell::Gru);
    let reset = CellChoices { reset_before: true, ..NONE };
    vec![
        ("rnn windows", every(&[(tanh, NONE), (tanh, clipped)])),
        (
            "lstm windows",
            every(&[
                (lstm, NONE),
                (lstm, seeing),
                (lstm, projected),
                (lstm, CellChoices { clip_gradient: GRADIENT, ..projected }),
            ]),
        ),
        (
            "gru windows",
            every(&[(gru, NONE), (gru, reset), (gru, CellChoices { clip_gradient: GRADIENT, ..reset })]),
        ),
    ]
}

fn windows(cell: &'static Cell, choices: CellChoices) -> Vec<Stack> {
    let plain = Stack { cell, choices, steps: 7, ..PLAIN };
    let mixed = Stack { rows: CaseRows::RaggedAndReset, ..plain };
    let without = FinalGradient::None;
    let mut stacks = Vec::new();
    for truncation in [sliding(0), sliding(1), sliding(3), overlapping(2, 5), overlapping(3, 3)] {
        stacks.push(Stack { truncation, layers: 2, ..plain });
        stacks.push(Stack { truncation, batch: 17, hidden: 33, final_gradient: without, ..mixed });
        stacks.push(Stack { truncation, steps: 1, batch: 1, bias: Bias::Without, ..plain });
    }
    let window = sliding(2);
    stacks.push(Stack { truncation: window, rows: CaseRows::Ragged, batch: 1, ..plain });
    // The window is longer than the sequence, so nothing is truncated.
    stacks.push(Stack { truncation: sliding(20), steps: 4, rows: CaseRows::Ragged, ..plain });
    stacks.push(Stack { truncation: overlapping(4, 9), steps: 6, batch: 5, ..mixed });
    if choices.projection.is_none() {
        stacks.push(Stack { truncation: window, hidden: 1, batch: 17, ..mixed });
    }
    stacks
}

/// Forward stacks over rows of full length.
fn shapes(cell: &'static Cell) -> Vec<Stack> {
    let place = |(place, [steps, batch, inputs, hidden, layers]): (usize, [usize; 5])| {
        let bias = if place % 3 == 1 { Bias::Without } else { Bias::With };
        let final_gradient = if place % 2 == 1 { FinalGradient::None } else { FinalGradient::Given };
        Stack { cell, steps, batch, inputs, hidden, layers, bias, final_gradient, ..PLAIN }
    };
    SHAPES.into_iter().enumerate().map(place).collect()
}

/// Directions, lengths, resets and chunks, alone and together.
fn sequences(cell: &'static Cell) -> Vec<Stack> {
    let plain = Stack { cell, ..PLAIN };
    let wide = Stack { steps: 9, batch: 5, hidden: 33, layers: 2, ..plain };
    let narrow = Stack { steps: 6, batch: 17, inputs: 3, hidden: 1, ..plain };
    let (reverse, both) = (CaseDirections::Reverse, CaseDirections::Both);
    let (ragged, reset) = (CaseRows::Ragged, CaseRows::Reset);
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
        Stack { rows: CaseRows::RaggedAndReset, directions: reverse, ..plain },
        Stack { rows: CaseRows::RaggedAndReset, directions: both, batch: 16, ..plain },
        Stack { truncation: Truncation::Chunks(1), layers: 2, ..plain },
        Stack { truncation: Truncation::Chunks(3), ..plain },
        Stack { truncation: Truncation::Chunks(7), final_gradient: without, ..plain },
        Stack { truncation: Truncation::Chunks(4), directions: reverse, ..plain },
        Stack { truncation: Truncation::Chunks(3), rows: ragged, directions: both, ..wide },
        Stack {
            truncation: Truncation::Chunks(2),
            rows: CaseRows::RaggedAndReset,
            directions: both,
            ..narrow
        },
    ]
}
