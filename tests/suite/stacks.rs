//! A stack of recurrent layers on a device, and passes over random operands.

use refrain::nn::{Gradients, Layer, Model, Parameters, Rnn, Sequences, State};
use refrain::{Device, Result, Tensor};

use crate::adapters::Outcome;
use crate::support::{all_gradients, components, expect_same_bits, random, random_state};

/// A stack with its parameters.
pub(crate) struct Stack {
    pub(crate) device: Device,
    pub(crate) model: Model,
    pub(crate) layer: Layer<Rnn>,
    pub(crate) parameters: Parameters,
}

/// The operands of a pass: x and the gradient at the outputs \[T, B, ..\], the initial state and the gradient at the final one.
#[derive(Clone)]
pub(crate) struct Operands {
    pub(crate) x: Tensor,
    pub(crate) d_y: Tensor,
    pub(crate) initial: State,
    pub(crate) d_last: State,
}

/// The results of a pass, with the gradients of all parameters one after the other.
pub(crate) struct Pass {
    pub(crate) y: Tensor,
    pub(crate) last: State,
    pub(crate) d_x: Tensor,
    pub(crate) d_initial: State,
    pub(crate) gradients: Vec<f64>,
}

impl Stack {
    pub(crate) fn new(device: &Device, stack: Rnn) -> Result<Self> {
        let mut model = Model::new(5);
        let layer = model.add("rnn", stack)?;
        let parameters = model.initialize(device)?;
        Ok(Self { device: device.clone(), model, layer, parameters })
    }

    pub(crate) fn inputs(&self) -> usize {
        self.model.specs()[0].shape.last()
    }

    pub(crate) fn outputs(&self) -> usize {
        self.layer.description().outputs()
    }

    pub(crate) fn zero_state(&self, batch: usize) -> Result<State> {
        self.layer.zero_state(&self.device, batch)
    }

    /// Random operands of these steps and rows.
    pub(crate) fn operands(&self, [steps, batch]: [usize; 2]) -> Result<Operands> {
        let zero = self.zero_state(batch)?;
        Ok(Operands {
            x: random(&self.device, 81, &[steps, batch, self.inputs()], 1.0)?,
            d_y: random(&self.device, 82, &[steps, batch, self.outputs()], 1.0)?,
            initial: random_state(&zero, 83, 1.0)?,
            d_last: random_state(&zero, 85, 1.0)?,
        })
    }

    pub(crate) fn pass(&self, operands: &Operands, sequences: Sequences<'_>) -> Result<Pass> {
        Ok(self.counted_pass(operands, sequences)?.0)
    }

    /// Also returns the dispatches of the forward and of the backward pass.
    pub(crate) fn counted_pass(
        &self,
        operands: &Operands,
        sequences: Sequences<'_>,
    ) -> Result<(Pass, [u64; 2])> {
        self.adding_pass(operands, sequences, &mut self.parameters.zero_gradients()?)
    }

    /// As [`Stack::counted_pass`]; the pass adds to `gradients`, and returns the sums.
    pub(crate) fn adding_pass(
        &self,
        operands: &Operands,
        sequences: Sequences<'_>,
        gradients: &mut Gradients,
    ) -> Result<(Pass, [u64; 2])> {
        let (layer, parameters) = (&self.layer, &self.parameters);
        let Operands { x, d_y, initial, d_last } = operands;
        let dispatches = || self.device.counters().dispatches;
        let before = dispatches();
        let (y, last, trace) = layer.forward_sequences(parameters, x, initial, sequences)?;
        let between = dispatches();
        let (d_x, d_initial) = trace.backward(d_y, Some(d_last), gradients)?;
        let after = dispatches();
        let gradients = all_gradients(parameters, gradients)?;
        Ok((Pass { y, last, d_x, d_initial, gradients }, [between - before, after - between]))
    }
}

impl Pass {
    /// All results by name.
    pub(crate) fn values(&self) -> Result<[(&'static str, Vec<f64>); 5]> {
        Ok([
            ("y", self.y.download_f64()?),
            ("the final state", components(&self.last)?.concat()),
            ("d_x", self.d_x.download_f64()?),
            ("d_initial", components(&self.d_initial)?.concat()),
            ("the gradients", self.gradients.clone()),
        ])
    }

    /// Fails unless all results but the gradients of the parameters, which are sums over the batch, have the same bits.
    pub(crate) fn expect_same_rows(&self, what: &str, other: &Self) -> Outcome {
        let (one, two) = (self.values()?, other.values()?);
        one[..4]
            .iter()
            .zip(&two)
            .try_for_each(|((name, one), (_, two))| expect_same_bits(&format!("{what}: {name}"), one, two))
    }
}
