//! Times one layer of each kind, forward and backward, to compare the costs of cells, options and ragged batches.

use refrain::nn::{Cell, Gradients, Layer, Model, Parameters, RandomKey, Rnn, Sequences, State};
use refrain::{Device, Indices, Result, Tensor};

use crate::{BATCH, Bench, STEPS, expect_finite, random, verify};

/// The layers that are timed. Windows and segments refer to the timed number of steps.
const KINDS: [Kind; 14] = [
    Kind::of("tanh", const { &Cell::tanh() }, |stack| stack),
    Kind::of("lstm", &Cell::Lstm, |stack| stack),
    Kind { is_ragged: true, ..Kind::of("lstm, rows of 1 to 64 steps", &Cell::Lstm, |stack| stack) },
    Kind::of("lstm, both directions", &Cell::Lstm, Rnn::bidirectional),
    Kind::of("lstm, peepholes", &Cell::Lstm, Rnn::peepholes),
    Kind::of("lstm, coupled", &Cell::Lstm, Rnn::coupled),
    Kind::of("lstm, projection 8", &Cell::Lstm, |stack| stack.projection(8)),
    Kind::of("lstm, recurrent dropout", &Cell::Lstm, |stack| stack.recurrent_dropout(0.2)),
    Kind::of("lstm, zoneout", &Cell::Lstm, |stack| stack.zoneout(0.1, 0.1)),
    Kind::of("lstm, checkpointed 16", &Cell::Lstm, |stack| stack.checkpointed(16)),
    Kind::of("lstm, truncated 8", &Cell::Lstm, |stack| stack.truncated(8)),
    Kind::of("lstm, windowed 3", &Cell::Lstm, |stack| stack.windowed(3)),
    Kind::of("gru", &Cell::Gru, |stack| stack),
    Kind::of("gru, reset before", &Cell::Gru, Rnn::reset_before),
];

#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    cell: &'static Cell,
    option: fn(Rnn) -> Rnn,
    is_ragged: bool,
}

impl Kind {
    const fn of(name: &'static str, cell: &'static Cell, option: fn(Rnn) -> Rnn) -> Self {
        Self { name, cell, option, is_ragged: false }
    }
}

/// A layer with its operands.
struct Setting {
    layer: Layer<Rnn>,
    parameters: Parameters,
    x: Tensor,
    d_y: Tensor,
    state: State,
    lengths: Option<Indices>,
}

impl Setting {
    fn new(device: &Device, kind: Kind, [steps, batch, hidden]: [usize; 3]) -> Result<Self> {
        let mut model = Model::new(3);
        let layer = model.add("rnn", (kind.option)(Rnn::new(kind.cell.clone(), hidden, hidden)))?;
        let lengths: Vec<u32> = (0..batch).map(|row| (1 + row * (steps - 1) / (batch - 1)) as u32).collect();
        Ok(Self {
            parameters: model.initialize(device)?,
            x: random(device, &[steps, batch, hidden], 2)?,
            d_y: random(device, &[steps, batch, layer.description().outputs()], 3)?,
            state: layer.zero_state(device, batch)?,
            lengths: if kind.is_ragged {
                Some(Indices::from_slice(device, &[batch], &lengths)?)
            } else {
                None
            },
            layer,
        })
    }

    /// Returns the outputs and the gradient with respect to x.
    fn pass(&self, gradients: &mut Gradients) -> Result<[Tensor; 2]> {
        let sequences = self.lengths.as_ref().map_or_else(Sequences::whole, Sequences::ragged);
        let sequences = sequences.training(RandomKey::new(5, 1));
        let (y, _, trace) =
            self.layer.forward_sequences(&self.parameters, &self.x, &self.state, sequences)?;
        let (d_x, _) = trace.backward(&self.d_y, None, gradients)?;
        Ok([y, d_x])
    }
}

pub(crate) fn stacks(bench: &mut Bench) -> Result<()> {
    for kind in KINDS {
        verify(kind.name, &bench.device, |device| {
            let setting = Setting::new(device, kind, [7, 5, 19])?;
            let mut gradients = setting.parameters.zero_gradients()?;
            let [y, d_x] = setting.pass(&mut gradients)?;
            let mut values = y.download_f64()?;
            values.extend(d_x.download_f64()?);
            values.extend(gradients.view("rnn.weight_hh_l0")?.download_f64()?);
            Ok(values)
        })?;
        let setting = Setting::new(&bench.device, kind, [STEPS, BATCH, 128])?;
        let mut gradients = setting.parameters.zero_gradients()?;
        for result in setting.pass(&mut gradients)? {
            expect_finite(kind.name, &result)?;
        }
        bench.time("layer forward and backward", kind.name, STEPS * BATCH, || {
            setting.pass(&mut gradients).map(drop)
        })?;
    }
    Ok(())
}
