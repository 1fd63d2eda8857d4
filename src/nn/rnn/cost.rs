//! What a stack is and costs, for summaries.

use super::{Directions, Rnn};
use crate::Result;
use crate::nn::peak::{Ledger, Sizes};
use crate::nn::summary::{Counter, FLOAT, Signal};
use crate::ops::Merge;
use crate::ops::recurrent::Truncation;

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
            let mut pass = Counter::new(steps, rows, Signal::Kept);
            self.count_whole(&mut pass);
            pass
        };
        let earlier = steps.div_ceil(segment) - 1;
        let (whole, again, one) = (over(steps), over(earlier * segment), over(segment));
        counter.cost.forward += whole.cost.forward;
        counter.cost.backward += whole.cost.backward + again.cost.forward;
        counter.keep_state(earlier as usize * self.layers * self.state_features());
        let throughout = counter.cost.trace_bytes;
        counter.open.with = one.open.with.iter().map(|bytes| throughout + bytes).collect();
        counter.open.segment = Some(segment);
        counter.cost.trace_bytes += one.cost.trace_bytes;
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

    /// Features that a layer reads.
    pub(in crate::nn) fn layer_reads(&self, layer: usize) -> usize {
        if layer == 0 { self.inputs } else { self.outputs() }
    }

    /// How many layers there are.
    pub(in crate::nn) fn depth(&self) -> usize {
        self.layers
    }

    /// Features of its input.
    pub(in crate::nn) fn reads(&self) -> usize {
        self.inputs
    }

    /// Whether its layers read masked copies of their inputs.
    pub(in crate::nn) fn masks_inputs(&self) -> bool {
        self.options.input_dropout > 0.0
    }

    /// Bytes of masked copies of W_hh, and of the gradients at them, in all layers and directions.
    pub(in crate::nn) fn masked_bytes(&self) -> u64 {
        let Self { hidden, layers, directions, options, .. } = self;
        let weight = self.equations().gates() * hidden * self.hidden_width();
        let copies = if options.weight_drop > 0.0 { 2 * layers * directions.all().len() } else { 0 };
        FLOAT * (copies * weight) as u64
    }

    /// Numbers of the states of a row in all layers and directions.
    pub(in crate::nn) fn all_state_features(&self) -> usize {
        self.layers * self.directions.all().len() * self.state_features()
    }

    fn count_whole(&self, counter: &mut Counter) {
        let Self { hidden, layers, directions, options, .. } = self;
        let equations = self.equations();
        let directions = directions.all().len();
        // The state that the pass starts from.
        let state = self.state_features();
        counter.keep_state(layers * directions * state);
        for layer in 0..*layers {
            let inputs = self.layer_reads(layer);
            if options.input_dropout > 0.0 {
                counter.signal = Signal::Fresh;
            }
            counter.keep_signal(inputs);
            for _ in 0..directions {
                counter.product(equations.gates() * hidden * (inputs + self.hidden_width()));
                if equations.reads_gates() {
                    counter.keep(equations.gates() * hidden);
                }
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
            let changed = self.changes_outputs(layer) || self.is_residual(layer);
            counter.signal = if changed { Signal::Fresh } else { Signal::Kept };
            counter.mark();
        }
    }

    /// How many directions of a layer a GPU takes at once, where arrays of both fit a binding: see
    /// `ops::recurrent::together`.
    fn directions_together(&self) -> usize {
        let Self { options, directions, .. } = self;
        let alone = self.has_layer_norm()
            || options.projection.is_some()
            || options.equations.zoneout.is_some()
            || matches!(options.truncation, Truncation::SlidingWindows(_));
        if alone { 1 } else { directions.all().len() }
    }

    /// Whether something makes another tensor of what the directions of a layer give, side by side.
    fn changes_outputs(&self, layer: usize) -> bool {
        let options = &self.options;
        (options.dropout > 0.0 && layer + 1 < self.layers) || options.merge != Merge::Concat
    }

    /// Goes back through one layer, whose trace is in the ledger and what came before it is not.
    pub(in crate::nn) fn layer_back(&self, ledger: &mut Ledger, layer: usize, sizes: Sizes) {
        let Sizes { steps, rows, d_given, d_read } = sizes;
        let (options, equations) = (&self.options, self.equations());
        let places = |width: usize| FLOAT * steps * rows * width as u64;
        let exists = |asked: bool, width: usize| if asked { places(width) } else { 0 };
        let is_residual = self.is_residual(layer);
        // The gradient at the directions' outputs, as far as it goes with the last of them.
        let d_output = match self.changes_outputs(layer) {
            true => {
                ledger.make(places(self.width()));
                ledger.free(if is_residual { 0 } else { d_given });
                places(self.width())
            }
            false if is_residual => 0,
            false => d_given,
        };
        let wide = equations.gates() * self.hidden;
        let unkept = exists(!equations.reads_gates(), wide);
        let saved = exists(equations.saves(), self.hidden);
        let outlives_loop =
            equations.last_gate_apart() || equations.resets_before() || equations.peepholes() > 0;
        let previous = places(self.hidden_width());
        let d_hidden = exists(options.projection.is_some(), self.hidden_width());
        let unprojected = exists(options.projection.is_some(), self.hidden);
        let cells = exists(equations.peepholes() > 0, self.hidden);
        let carried = FLOAT * rows * self.state_features() as u64;
        let directions = self.directions.all().len();
        let together = self.directions_together();
        let own = together as u64;
        // W_hh of directions that go together, one behind the other.
        let copied = if own > 1 { own * FLOAT * (wide * self.hidden) as u64 } else { 0 };
        for pass in 0..directions / together {
            let is_last = (pass + 1) * together == directions;
            ledger.make(own * (unkept + cells + d_hidden + carried));
            ledger.pass(copied);
            ledger.free(own * (carried + if outlives_loop { 0 } else { saved }));
            ledger.free(if is_last { d_output } else { 0 });
            ledger.make(own * previous);
            ledger.pass(if options.recurrent_dropout > 0.0 { previous } else { 0 });
            ledger.free(if is_last { places(self.width()) } else { 0 });
            for direction in 0..together {
                ledger.pass(2 * cells);
                ledger.free(previous + cells + d_hidden + unprojected);
                ledger.make(if pass + direction == 0 { d_read } else { 0 });
            }
            ledger.free(own * (places(wide) + if outlives_loop { saved } else { 0 }));
        }
    }
}
