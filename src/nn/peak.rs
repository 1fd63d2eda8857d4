//! The most memory that a training step has in use at once, counted without running it.
//!
//! A step holds most in one of two moments: when the loss is made, or in the time loop of a layer on the way back. Here the
//! way back is followed layer by layer, with what each one lets go of and what it makes, in the order of
//! [`RnnTrace`](super::RnnTrace).

use super::summary::{Counter, FLOAT, Signal};
use super::{LayerConfig, Model, Rnn};

/// Bytes in use, and the most that ever were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    now: u64,
    most: u64,
}

impl Ledger {
    /// Something is made.
    pub(super) fn make(&mut self, bytes: u64) {
        self.now += bytes;
        self.most = self.most.max(self.now);
    }

    /// Something is let go.
    pub(super) fn free(&mut self, bytes: u64) {
        self.now -= bytes;
    }

    /// What is in use is what it was; the most stays.
    pub(super) fn rewind(&mut self, to: Self) {
        self.now = to.now;
    }

    /// Something is made that is gone before anything else happens.
    pub(super) fn pass(&mut self, bytes: u64) {
        self.make(bytes);
        self.free(bytes);
    }
}

/// The sizes of one layer of a stack on the way back.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) steps: u64,
    pub(super) rows: u64,
    /// Bytes of the gradient at what the layer gave, as far as nobody else holds it.
    pub(super) d_given: u64,
    /// Bytes of the gradient at what it reads.
    pub(super) d_read: u64,
}

/// What the trace of one layer of a model holds, in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// The traces of the layers below it.
    pub(super) below: u64,
    /// Those and its own; of a stack with each of its layers, one more at a time.
    pub(super) with: Vec<u64>,
    /// The steps that are traced at once, where they are not all: those of a segment.
    pub(super) segment: Option<u64>,
}

impl Held {
    fn all(&self) -> u64 {
        self.with.last().copied().unwrap_or(self.below)
    }
}

impl Model {
    /// Bytes of a training step, whose traces `counter` has counted.
    pub(super) fn training_bytes(&self, counter: &Counter) -> u64 {
        let places = FLOAT * counter.steps * counter.rows;
        let Some(last) = self.layers().last() else { return 0 };
        let parameters: usize = self.specs().iter().map(|spec| spec.shape.elements()).sum();
        let parameters = FLOAT * parameters as u64;
        let d_output = places * last.config.features() as u64;
        let mut ledger = Ledger::default();
        // Weights, two moments, targets; the trace, and what it does not hold of input and final states.
        ledger.make(3 * parameters + places + counter.cost.trace_bytes + self.beside_trace(counter));
        ledger.make(d_output);
        // The outputs, unless a trace has them, and the losses of all rows.
        let output = if counter.signal == Signal::Kept { 0 } else { d_output };
        ledger.pass(output + places);
        ledger.make(parameters);
        let mut d_y = d_output;
        for (index, (added, held)) in self.layers().iter().zip(&counter.held).enumerate().rev() {
            let reads = match &added.config {
                LayerConfig::Linear(linear) => linear.reads(),
                LayerConfig::Rnn(rnn) => rnn.reads(),
                LayerConfig::Embedding(_) | LayerConfig::OneHot(_) => break,
            };
            let is_data =
                self.layers()[..index].iter().all(|below| matches!(below.config, LayerConfig::OneHot(_)));
            let d_x = if is_data { 0 } else { places * reads as u64 };
            match &added.config {
                LayerConfig::Rnn(rnn) => rnn.go_back(&mut ledger, counter, held, [d_y, d_x]),
                _ => ledger.pass(d_x),
            }
            ledger.free(held.all() - held.below + d_y);
            ledger.make(d_x);
            d_y = d_x;
        }
        ledger.most
    }

    /// What a caller holds that no trace does: tokens, an input of which the first layer keeps a masked copy, final states
    /// and the gradients at initial ones.
    fn beside_trace(&self, counter: &Counter) -> u64 {
        let Counter { steps, rows, .. } = *counter;
        let of = |config: &LayerConfig, is_first: bool| match config {
            LayerConfig::OneHot(_) => steps * rows,
            LayerConfig::Rnn(rnn) => {
                let masked =
                    if is_first && rnn.masks_inputs() { steps * rows * rnn.reads() as u64 } else { 0 };
                masked + 2 * rows * rnn.all_state_features() as u64
            }
            LayerConfig::Embedding(_) | LayerConfig::Linear(_) => 0,
        };
        let layers = self.layers().iter().enumerate();
        FLOAT * layers.map(|(index, added)| of(&added.config, index == 0)).sum::<u64>()
    }
}

impl Rnn {
    /// Goes back through a stack whose trace is in the ledger, with the gradient at its outputs and without that at its
    /// inputs; leaves the ledger as it was.
    fn go_back(&self, ledger: &mut Ledger, counter: &Counter, held: &Held, [d_y, d_x]: [u64; 2]) {
        let start = *ledger;
        ledger.make(self.masked_bytes());
        let (steps, d_y) = match held.segment {
            None => (counter.steps, d_y),
            Some(segment) => {
                // The gradients at all outputs and all inputs stand beside each segment.
                ledger.make(d_x);
                (segment, 0)
            }
        };
        let mut d_given = d_y;
        for layer in (0..self.depth()).rev() {
            let below = if layer == 0 { held.below } else { held.with[layer - 1] };
            let reads = if layer == 0 && d_x == 0 { 0 } else { self.layer_reads(layer) };
            let d_read = FLOAT * steps * counter.rows * reads as u64;
            let bytes = Sizes { steps, rows: counter.rows, d_given, d_read };
            let before = *ledger;
            self.layer_back(ledger, layer, bytes);
            ledger.rewind(before);
            ledger.free(held.with[layer] - below + d_given);
            ledger.make(d_read);
            d_given = d_read;
        }
        ledger.rewind(start);
    }
}
