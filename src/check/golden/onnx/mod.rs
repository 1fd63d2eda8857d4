//! ONNX's nodes RNN, GRU and LSTM: X, W, R, B, initial_h, initial_c, sequence_lens → Y, Y_h, Y_c.

mod attributes;
mod weights;

use self::attributes::{Attributes, Layout, Way};
use self::weights::OnnxWeights;
use super::case::{Case, Outcome, Trouble, parse, unsigned};
use super::replay::Replay;
use crate::check::tolerance::Recurrence;
use crate::device::Device;
use crate::nn::{Cell, Model, Rnn, Sequences, State};
use crate::ops::permute;
use crate::tensor::{Indices, Tensor};

/// T, B, I, H and D of a node.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    directions: usize,
}

/// Neighbouring directions that one recurrent layer runs: all of them where they have the same cell, which a layer
/// has but one of, else each on its own.
struct Run<'w> {
    cell: Cell,
    /// The place of its first direction among the node's.
    first: usize,
    ways: &'w [Way],
}

/// What a node reads beside its weights, time-major.
struct Inputs {
    x: Tensor,
    /// \[D, B, H\] each.
    initial_h: Vec<f32>,
    initial_c: Vec<f32>,
    lengths: Option<Indices>,
}

/// What a node yields, time-major: Y \[D, T, B, H\], Y_h and Y_c \[D, B, H\].
#[derive(Default)]
struct Outputs {
    y: Vec<f64>,
    y_h: Vec<f64>,
    y_c: Vec<f64>,
    roundings: f64,
}

fn runs<'w>(cells: &[Cell], ways: &'w [Way]) -> Vec<Run<'w>> {
    if cells.iter().all(|&cell| cell == cells[0]) {
        return vec![Run { cell: cells[0], first: 0, ways }];
    }
    let each = cells.iter().zip(ways.chunks(1)).enumerate();
    each.map(|(first, (&cell, ways))| Run { cell, first, ways }).collect()
}

/// \[A, B, …\] → \[B, A, …\], elements of `size` values.
fn swapped<T: Copy>(values: &[T], [outer, inner]: [usize; 2], size: usize) -> Vec<T> {
    let place = |inner_index: usize, outer_index: usize| (outer_index * inner + inner_index) * size;
    let mut swapped = Vec::with_capacity(values.len());
    for inner_index in 0..inner {
        for outer_index in 0..outer {
            let start = place(inner_index, outer_index);
            swapped.extend_from_slice(&values[start..start + size]);
        }
    }
    swapped
}

/// The state `name` of all directions \[D, B, H\]; zeros where the node has none.
fn initial(case: &Case, name: &str, sizes: Sizes, layout: Layout) -> Outcome<Vec<f32>> {
    let Sizes { batch, hidden, directions, .. } = sizes;
    if !case.has(name) {
        return Ok(vec![0.0; directions * batch * hidden]);
    }
    let (shape, values) = case.floats::<3>(name)?;
    let expected = match layout {
        Layout::TimeMajor => [directions, batch, hidden],
        Layout::BatchMajor => [batch, directions, hidden],
    };
    if shape != expected {
        return Err(Trouble::malformed(format!("`{name}` must be {expected:?}, but is {shape:?}")));
    }
    Ok(match layout {
        Layout::TimeMajor => values.to_vec(),
        Layout::BatchMajor => swapped(values, [batch, directions], hidden),
    })
}

/// The node's `sequence_lens`, which the attribute `lengths` repeats.
fn lengths(case: &Case, device: &Device) -> Outcome<Option<Indices>> {
    if !case.has("sequence_lens") {
        return match case.text("lengths").unwrap_or_default() {
            "" => Ok(None),
            text => Err(Trouble::malformed(format!("lengths = {text}, but has no `sequence_lens`"))),
        };
    }
    let (shape, values) = case.integers("sequence_lens")?;
    case.text("lengths");
    Ok(Some(Indices::from_slice(device, shape, &unsigned("sequence_lens", values)?)?))
}

/// Fails for what no node here has, and passes over what repeats the node's own attributes.
fn expect_plain(case: &Case, op: &str) -> Outcome {
    let plain = [("kind", op.to_lowercase()), ("layers", "1".into()), ("truncation", String::new())];
    plain.iter().try_for_each(|(key, value)| case.expect(key, value))?;
    case.expect("dropout", "0")?;
    if case.has("P") {
        return Err(Trouble::unsupported("`P`: the LSTM here has no peepholes from its cell state"));
    }
    for key in
        ["bias", "bidirectional", "direction", "layout", "linear_before_reset", "nonlinearity", "onnx_layout"]
    {
        case.text(key);
    }
    Ok(())
}

impl Run<'_> {
    fn description(&self, sizes: Sizes, weights: &OnnxWeights<'_>) -> Rnn {
        let description = Rnn::new(self.cell, sizes.inputs, sizes.hidden);
        let description = match self.ways {
            [Way::Forward] => description,
            [Way::Reverse] => description.reverse(),
            _ => description.bidirectional(),
        };
        if weights.has_bias() { description } else { description.without_bias() }
    }

    /// The state of its directions, from those of all.
    fn state(&self, inputs: &Inputs, sizes: Sizes) -> Outcome<State> {
        let Sizes { batch, hidden, .. } = sizes;
        let shape = [self.ways.len(), batch, hidden];
        let part = |all: &[f32]| {
            let own = &all[self.first * batch * hidden..][..self.ways.len() * batch * hidden];
            Tensor::from_slice(inputs.x.device(), &shape, own)
        };
        Ok(match self.cell.has_cell_state() {
            true => State::from_hidden_and_cell(&part(&inputs.initial_h)?, &part(&inputs.initial_c)?)?,
            false => State::from_hidden(&part(&inputs.initial_h)?)?,
        })
    }

    /// Runs its directions and appends to what those before it yielded.
    fn run(
        &self,
        sizes: Sizes,
        weights: &OnnxWeights<'_>,
        inputs: &Inputs,
        outputs: &mut Outputs,
    ) -> Outcome {
        let mut model = Model::new(0);
        let layer = model.add("rnn", self.description(sizes, weights))?;
        let mut parameters = model.initialize(inputs.x.device())?;
        for (place, &way) in self.ways.iter().enumerate() {
            for (name, values) in weights.parameters(self.cell, self.first + place, way) {
                parameters.set(&name, &values)?;
            }
        }
        let state = self.state(inputs, sizes)?;
        let sequences = inputs.lengths.as_ref().map_or_else(Sequences::whole, Sequences::ragged);
        let (y, last) = layer.infer_sequences(&parameters, &inputs.x, &state, sequences)?;

        let Sizes { steps, batch, inputs, hidden, .. } = sizes;
        // [T·B, D, H] → [D, T·B, H].
        outputs.y.extend(swapped(&y.download_f64()?, [steps * batch, self.ways.len()], hidden));
        outputs.y_h.extend(last.hidden().download_f64()?);
        if let Some(cell) = last.cell() {
            outputs.y_c.extend(cell.download_f64()?);
        }
        let recurrence = Recurrence { cell: self.cell, steps, batch, layers: 1, terms: inputs + hidden };
        outputs.roundings = outputs.roundings.max(recurrence.forward());
        Ok(())
    }
}

impl Outputs {
    fn check(&self, replay: &mut Replay<'_>, sizes: Sizes, layout: Layout, name: &str) -> Outcome {
        let Sizes { steps, batch, hidden, directions, .. } = sizes;
        let states = match name {
            "Y" => {
                let (shape, values) = match layout {
                    // [D, T, B·H] → [T, D, B·H].
                    Layout::TimeMajor => (
                        [steps, directions, batch, hidden],
                        swapped(&self.y, [directions, steps], batch * hidden),
                    ),
                    // [D, T·B, H] → [T·B, D, H] → [B, T, D·H].
                    Layout::BatchMajor => {
                        let by_step = swapped(&self.y, [directions, steps * batch], hidden);
                        let values = swapped(&by_step, [steps, batch], directions * hidden);
                        ([batch, steps, directions, hidden], values)
                    }
                };
                return replay.check_values(name, &shape, &values, self.roundings);
            }
            "Y_h" => &self.y_h,
            "Y_c" if !self.y_c.is_empty() => &self.y_c,
            other => return Err(Trouble::unsupported(format!("the output {other} is not known"))),
        };
        let (shape, values) = match layout {
            Layout::TimeMajor => ([directions, batch, hidden], states.clone()),
            Layout::BatchMajor => ([batch, directions, hidden], swapped(states, [directions, batch], hidden)),
        };
        replay.check_values(name, &shape, &values, self.roundings)
    }
}

pub(super) fn run(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    let op = case.required("op")?;
    let attributes = Attributes::from_case(case)?;
    let (layout, ways) = (attributes.layout()?, attributes.ways()?);
    let cells = attributes.cells(op)?;
    expect_plain(case, op)?;

    let x = case.tensor("X", device)?;
    let x = if layout == Layout::BatchMajor { permute(&x, &[1, 0, 2])? } else { x };
    let [steps, batch, inputs] = x.shape().exactly("X", "three dimensions")?;
    let sizes = Sizes { steps, batch, inputs, hidden: attributes.hidden_size, directions: ways.len() };
    let weights = OnnxWeights::from_case(case, cells[0], ways.len(), inputs, sizes.hidden)?;
    let inputs = Inputs {
        x,
        initial_h: initial(case, "initial_h", sizes, layout)?,
        initial_c: match cells[0].has_cell_state() {
            true => initial(case, "initial_c", sizes, layout)?,
            false => Vec::new(),
        },
        lengths: lengths(case, device)?,
    };
    let mut outputs = Outputs::default();
    for run in runs(&cells, ways) {
        run.run(sizes, &weights, &inputs, &mut outputs)?;
    }
    for output in parse::<Vec<String>>("outputs", case.required("outputs")?)? {
        outputs.check(replay, sizes, layout, &output)?;
    }
    Ok(())
}
