//! What a stack is and costs, for summaries.

use super::{Directions, Rnn};
use crate::Result;
use crate::nn::summary::{Cost, Counter, Signal};
use crate::ops::Merge;

impl Rnn {
    /// Its cell, depth, directions and options in words.
    pub(in crate::nn) fn describe(&self) -> String {
        let Self { layers, directions, options, .. } = self;
        let rate = |name: &str, rate: f32| (rate > 0.0).then(|| format!("{name} {rate}"));
        let parts = [
            Some(self.cell.name().to_owned()),
            (*layers > 1).then(|| format!("{layers} layers")),
            match directions {
                Directions::Forward => None,
                Directions::Reverse => Some("reverse".to_owned()),
                Directions::Both => Some("both directions".to_owned()),
            },
            (options.merge != Merge::Concat).then(|| format!("{:?}", options.merge).to_lowercase()),
            self.describe_truncation(),
            self.describe_checkpoints(),
            rate("dropout", options.dropout),
            rate("input dropout", options.input_dropout),
            rate("weight drop", options.weight_drop),
            rate("recurrent dropout", options.recurrent_dropout),
            options.equations.zoneout.map(|[hidden, cell]| format!("zoneout {hidden} {cell}")),
            self.has_layer_norm().then(|| "layer norm".to_owned()),
            options.residual.then(|| "residual".to_owned()),
            options.learned_initial_state.then(|| "learned initial state".to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Adds what a training pass over whole rows costs.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where a budget of bytes is too small for it.
    pub(in crate::nn) fn count(&self, counter: &mut Counter) -> Result<()> {
        let segment = self.segment_steps(counter.steps as usize, counter.rows as usize)?;
        self.count_segments(counter, segment as u64);
        Ok(())
    }

    /// Adds what a pass costs that runs in segments of `segment` steps: all but the last are run twice, the trace of one
    /// and the states that the segments start from are kept.
    pub(super) fn count_segments(&self, counter: &mut Counter, segment: u64) {
        let Counter { steps, rows, .. } = *counter;
        if segment == steps {
            return self.count_whole(counter);
        }
        counter.keep_signal(self.inputs);
        let over = |steps: u64| {
            let mut pass = Counter { steps, rows, cost: Cost::default(), signal: Signal::Kept };
            self.count_whole(&mut pass);
            pass.cost
        };
        let earlier = steps.div_ceil(segment) - 1;
        let (whole, again, one) = (over(steps), over(earlier * segment), over(segment));
        counter.cost.forward += whole.forward;
        counter.cost.backward += whole.backward + again.forward;
        counter.cost.trace_bytes += one.trace_bytes;
        counter.keep_state(earlier as usize * self.layers * self.state_features());
        // The outputs of segments are copied into one tensor.
        counter.signal = Signal::Fresh;
    }

    /// The entries of the matrices W_ih of the first layer.
    pub(in crate::nn) fn input_entries(&self) -> u64 {
        (self.directions.all().len() * self.equations().gates() * self.hidden * self.inputs) as u64
    }

    /// Numbers of the state of a row in one layer and direction.
    fn state_features(&self) -> usize {
        self.state_widths().map(|(_, width)| width).sum()
    }

    fn count_whole(&self, counter: &mut Counter) {
        let Self { hidden, layers, directions, options, .. } = self;
        let equations = self.equations();
        let directions = directions.all().len();
        // The state that the pass starts from.
        let state = self.state_features();
        counter.keep_state(layers * directions * state);
        for layer in 0..*layers {
            let inputs = if layer == 0 { self.inputs } else { self.outputs() };
            if options.input_dropout > 0.0 {
                counter.signal = Signal::Fresh;
            }
            counter.keep_signal(inputs);
            for _ in 0..directions {
                counter.product(equations.gates() * hidden * (inputs + self.hidden_width()));
                counter.keep(equations.gates() * hidden);
                if self.has_layer_norm() {
                    // Both products as they were before they were normalised, and the cell state before a step.
                    let cell = if equations.has_cell_state() { *hidden } else { 0 };
                    counter.keep(2 * equations.gates() * hidden + cell);
                }
                if equations.saves() {
                    counter.keep(*hidden);
                }
                if let Some(width) = options.projection {
                    counter.product(width * hidden);
                    counter.keep(*hidden);
                }
                counter.keep_state(state);
            }
            counter.keep(self.width());
            let dropped = options.dropout > 0.0 && layer + 1 < *layers;
            let changed = dropped || options.merge != Merge::Concat || self.is_residual(layer);
            counter.signal = if changed { Signal::Fresh } else { Signal::Kept };
        }
    }
}
