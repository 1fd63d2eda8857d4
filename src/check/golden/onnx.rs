//! ONNX's nodes RNN, GRU and LSTM: X, W, R, B, initial_h, initial_c, sequence_lens → Y, Y_h, Y_c.

use super::case::{GoldenCase, Outcome, Trouble, parse, unsigned};
use super::replay::Replay;
use crate::check::tolerance::Recurrence;
use crate::device::Device;
use crate::io::{HostArray, OnnxAttributes, OnnxLayer, OnnxLayout, OnnxNode, OnnxTensors};
use crate::nn::{Model, Sequences, State};
use crate::ops::permute;
use crate::shape::product;
use crate::tensor::{Indices, Tensor};

/// T, B, I, H and D of a node.
#[derive(Clone, Copy)]
struct NodeSizes {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    directions: usize,
}

/// The inputs of a node other than its weights, time-major.
struct NodeInputs {
    x: Tensor,
    /// \[D, B, H\] each.
    initial_h: Vec<f32>,
    initial_c: Vec<f32>,
    lengths: Option<Indices>,
}

/// The outputs of a node, time-major: Y \[D, T, B, H\], Y_h and Y_c \[D, B, H\].
#[derive(Default)]
struct Outputs {
    y: Vec<f64>,
    y_h: Vec<f64>,
    y_c: Vec<f64>,
    roundings: f64,
}

/// Swaps the first two dimensions, \[A, B, …\] → \[B, A, …\], of elements of `size` values.
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

/// The initial state `name` of all directions \[D, B, H\]; zeros if the node has none.
fn initial(case: &GoldenCase, name: &str, sizes: NodeSizes, layout: OnnxLayout) -> Outcome<Vec<f32>> {
    let NodeSizes { batch, hidden, directions, .. } = sizes;
    if !case.has(name) {
        return Ok(vec![0.0; product(name, &[directions, batch, hidden])?]);
    }
    let expected = match layout {
        OnnxLayout::TimeMajor => [directions, batch, hidden],
        OnnxLayout::BatchMajor => [batch, directions, hidden],
    };
    case.expect_shape(name, &expected)?;
    let (_, values) = case.floats::<3>(name)?;
    Ok(match layout {
        OnnxLayout::TimeMajor => values.to_vec(),
        OnnxLayout::BatchMajor => swapped(values, [batch, directions], hidden),
    })
}

/// The node's `sequence_lens`; the attribute `lengths` repeats it.
fn lengths(case: &GoldenCase, device: &Device) -> Outcome<Option<Indices>> {
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

/// Fails for unsupported attributes, and marks those as read that repeat the node's own attributes.
fn expect_plain(case: &GoldenCase, op: &str) -> Outcome {
    let plain = [("kind", op.to_lowercase()), ("layers", "1".into()), ("truncation", String::new())];
    plain.iter().try_for_each(|(key, value)| case.expect(key, value))?;
    case.expect("dropout", "0")?;
    for key in
        ["bias", "bidirectional", "direction", "layout", "linear_before_reset", "nonlinearity", "onnx_layout"]
    {
        case.text(key);
    }
    Ok(())
}

/// The node described by the case's `op` and `attributes`.
fn node(case: &GoldenCase) -> Outcome<OnnxNode> {
    let text = case.required("attributes")?;
    // Parsed as any JSON first, so that invalid JSON is an error but an unknown attribute is not.
    let all: serde_json::Map<String, serde_json::Value> = parse("attributes", text)?;
    if let Some(name) = all.keys().find(|name| !OnnxAttributes::NAMES.contains(&name.as_str())) {
        return Err(Trouble::unsupported(format!("the attribute `{name}` of the node is not supported")));
    }
    Ok(OnnxNode::new(case.required("op")?, OnnxAttributes::from_json(text)?)?)
}

/// An array of the case in the type of the import.
fn host<'c>(case: &'c GoldenCase, name: &str) -> Outcome<HostArray<'c>> {
    let array = case.array(name)?;
    Ok(HostArray::new(array.shape, array.floats(name)?))
}

fn tensors(case: &GoldenCase) -> Outcome<OnnxTensors<'_>> {
    let mut tensors = OnnxTensors::new(host(case, "W")?, host(case, "R")?);
    if case.has("B") {
        tensors = tensors.bias(host(case, "B")?);
    }
    if case.has("P") {
        tensors = tensors.peepholes(host(case, "P")?);
    }
    Ok(tensors)
}

/// The initial state of a layer's directions, selected from all directions.
fn state(layer: &OnnxLayer, inputs: &NodeInputs, sizes: NodeSizes) -> Outcome<State> {
    let NodeSizes { batch, hidden, .. } = sizes;
    let directions = layer.directions();
    let size = batch * hidden;
    let part = |all: &[f32]| {
        let own = &all[directions.start * size..directions.end * size];
        Tensor::from_slice(inputs.x.device(), &[directions.len(), batch, hidden], own)
    };
    let has_cell_state = layer.description().cell().has_cell_state();
    let cell = has_cell_state.then(|| part(&inputs.initial_c)).transpose()?;
    Ok(State::from_parts(&part(&inputs.initial_h)?, cell.as_ref())?)
}

/// Sets `last` to zero in rows without steps, as ONNX Runtime writes Y_h and Y_c for any initial state. The layer itself
/// returns the initial state there.
fn without_empty_rows(last: &State, lengths: &Indices) -> Outcome<State> {
    let is_empty: Vec<u32> = lengths.values().iter().map(|&length| u32::from(length == 0)).collect();
    Ok(last.reset(&Indices::from_slice(lengths.device(), &[is_empty.len()], &is_empty)?)?)
}

/// Runs a layer of the node and appends its outputs to those of the layers before it.
fn run_layer(onnx: &OnnxLayer, sizes: NodeSizes, inputs: &NodeInputs, outputs: &mut Outputs) -> Outcome {
    let mut model = Model::new(0);
    let layer = model.add("rnn", onnx.description().clone())?;
    let mut parameters = model.initialize(inputs.x.device())?;
    onnx.load("rnn", &mut parameters)?;
    let state = state(onnx, inputs, sizes)?;
    let sequences = inputs.lengths.as_ref().map_or_else(Sequences::whole, Sequences::ragged);
    let (y, last) = layer.infer_sequences(&parameters, &inputs.x, &state, sequences)?;
    let last = match &inputs.lengths {
        Some(lengths) => without_empty_rows(&last, lengths)?,
        None => last,
    };

    let NodeSizes { steps, batch, inputs, hidden, .. } = sizes;
    // [T·B, D, H] → [D, T·B, H].
    outputs.y.extend(swapped(&y.download_f64()?, [steps * batch, onnx.directions().len()], hidden));
    outputs.y_h.extend(last.hidden().download_f64()?);
    if let Some(cell) = last.cell() {
        outputs.y_c.extend(cell.download_f64()?);
    }
    let cell = onnx.description().cell().clone();
    let recurrence = Recurrence { cell, steps, batch, layers: 1, terms: inputs + hidden };
    outputs.roundings = outputs.roundings.max(recurrence.forward());
    Ok(())
}

/// The shape of the node's output `name`.
fn output_shape(name: &str, sizes: NodeSizes, layout: OnnxLayout) -> Outcome<Vec<usize>> {
    let NodeSizes { steps, batch, hidden, directions, .. } = sizes;
    Ok(match (name, layout) {
        ("Y", OnnxLayout::TimeMajor) => vec![steps, directions, batch, hidden],
        ("Y", OnnxLayout::BatchMajor) => vec![batch, steps, directions, hidden],
        ("Y_h" | "Y_c", OnnxLayout::TimeMajor) => vec![directions, batch, hidden],
        ("Y_h" | "Y_c", OnnxLayout::BatchMajor) => vec![batch, directions, hidden],
        (other, _) => return Err(Trouble::unsupported(format!("the output {other} is not supported"))),
    })
}

impl Outputs {
    fn check(&self, replay: &mut Replay<'_>, sizes: NodeSizes, layout: OnnxLayout, name: &str) -> Outcome {
        let NodeSizes { steps, batch, hidden, directions, .. } = sizes;
        let states = match name {
            "Y_h" => &self.y_h,
            "Y_c" if self.y_c.is_empty() => {
                return Err(Trouble::unsupported("the output Y_c is that of an LSTM"));
            }
            "Y_c" => &self.y_c,
            // Y.
            _ => &self.y,
        };
        let values = match (name, layout) {
            // [D, T, B·H] → [T, D, B·H].
            ("Y", OnnxLayout::TimeMajor) => swapped(states, [directions, steps], batch * hidden),
            // [D, T·B, H] → [T·B, D, H] → [B, T, D·H].
            ("Y", OnnxLayout::BatchMajor) => {
                let by_step = swapped(states, [directions, steps * batch], hidden);
                swapped(&by_step, [steps, batch], directions * hidden)
            }
            (_, OnnxLayout::TimeMajor) => states.clone(),
            (_, OnnxLayout::BatchMajor) => swapped(states, [directions, batch], hidden),
        };
        replay.check_values(name, &output_shape(name, sizes, layout)?, &values, self.roundings)
    }
}

pub(super) fn run(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    let node = node(case)?;
    let layout = node.layout();
    expect_plain(case, case.required("op")?)?;

    let layers = node.layers(&tensors(case)?)?;
    let x = case.tensor("X", device)?;
    let x = if layout == OnnxLayout::BatchMajor { permute(&x, &[1, 0, 2])? } else { x };
    let [steps, batch, inputs] = x.shape().exactly("X", "three dimensions")?;
    let sizes = NodeSizes { steps, batch, inputs, hidden: node.hidden(), directions: node.directions() };
    let names = parse::<Vec<String>>("outputs", case.required("outputs")?)?;
    // Before any computation.
    for name in &names {
        case.expect_shape(name, &output_shape(name, sizes, layout)?)?;
    }
    let has_cell_state = layers.iter().any(|layer| layer.description().cell().has_cell_state());
    let inputs = NodeInputs {
        x,
        initial_h: initial(case, "initial_h", sizes, layout)?,
        initial_c: match has_cell_state {
            true => initial(case, "initial_c", sizes, layout)?,
            false => Vec::new(),
        },
        lengths: lengths(case, device)?,
    };
    let mut outputs = Outputs::default();
    for layer in &layers {
        run_layer(layer, sizes, &inputs, &mut outputs)?;
    }
    for name in &names {
        outputs.check(replay, sizes, layout, name)?;
    }
    Ok(())
}
