//! Estimates the memory of a training run before anything is allocated.

use refrain::{AdapterKind, Device, Error};

use super::arguments::{Arguments, Rule};
use crate::failure::{Failure, Result};
use crate::format::bytes as readable;

/// The sizes of a training run; sums saturate, because the sizes come from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// The number of weights.
    pub(crate) parameters: u64,
    /// Weights, gradients, optimizer moments, and the activations saved for the backward pass, in bytes.
    pub(crate) bytes: u64,
    /// The largest single buffer, in bytes.
    pub(crate) largest_buffer: u64,
}

impl Footprint {
    /// The footprint of a run with these options, vocabulary and batch size.
    pub(crate) fn of(arguments: &Arguments, vocabulary: usize, batch: usize) -> Self {
        let network = &arguments.network;
        let [hidden, layers, gates] =
            [network.hidden, network.layers, network.cell.gates()].map(|size| size as u128);
        let sizes = [vocabulary, batch, arguments.optimization.sequence];
        let [vocabulary, batch, sequence] = sizes.map(|size| size as u128);
        let (table, features) = match network.one_hot {
            true => (0, vocabulary),
            false => (vocabulary * network.embedding as u128, network.embedding as u128),
        };
        let first = gates * hidden * (features + hidden + 2);
        let others = (layers - 1) * gates * hidden * (2 * hidden + 2);
        let parameters = table + first + others + vocabulary * (hidden + 1);
        let places = batch * sequence;
        // Per layer its gates, its output and the other values that an LSTM or GRU saves; for the layer whose backward
        // pass runs, the gradients of its output and input and the states before each step; logits, probabilities and
        // their gradient.
        let stack = layers * (gates + 2) * hidden + 3 * hidden;
        let activations = places * (2 * features + stack + 3 * vocabulary);
        let moments = match arguments.optimization.optimizer {
            Rule::Adam => 2,
            Rule::Sgd => 1,
        };
        let widest = places * features.max(gates * hidden).max(vocabulary);
        let bytes = |numbers: u128| u64::try_from(numbers.saturating_mul(4)).unwrap_or(u64::MAX);
        Self {
            parameters: u64::try_from(parameters).unwrap_or(u64::MAX),
            bytes: bytes((2 + moments) * parameters + activations),
            largest_buffer: bytes(parameters.max(widest)),
        }
    }

    /// Fails if this exceeds the limits or the memory of `device`.
    ///
    /// # Errors
    /// [`Error::ExceedsLimit`] with the required and the available size.
    pub(crate) fn expect_fits(&self, device: &Device) -> Result<()> {
        let name = device.to_string();
        let adapter = match device.is_gpu() {
            true => Device::list().into_iter().find(|adapter| adapter.name == name),
            false => None,
        };
        if let Some(adapter) = &adapter
            && self.largest_buffer > adapter.max_buffer_bytes
        {
            return Err(exceeds(
                format!("the largest buffer of this model on {name} (bytes)"),
                self.largest_buffer,
                adapter.max_buffer_bytes,
            ));
        }
        // Software and integrated adapters share the host's memory; a discrete one does not report its size.
        let shares_host = adapter
            .is_none_or(|adapter| matches!(adapter.kind, AdapterKind::Software | AdapterKind::Integrated));
        // The reference's numbers are twice as wide.
        let needed = if *device == Device::reference() { self.bytes.saturating_mul(2) } else { self.bytes };
        let available = available_bytes();
        if shares_host && needed > available {
            let (needed, available) = (readable(needed), readable(available));
            return Err(Failure::option(
                "--hidden",
                format!(
                    "needs {needed} of memory for weights, gradients, moments and activations, but the \
                     limit is the {available} that are free; use a smaller --hidden, --layers, --batch or --sequence"
                ),
            ));
        }
        Ok(())
    }
}

fn exceeds(what: String, needed: u64, limit: u64) -> crate::failure::Failure {
    Error::ExceedsLimit { what, needed, limit }.into()
}

/// The memory that is still available to this process, from the machine or its control group.
fn available_bytes() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let machine = system.available_memory();
    match system.cgroup_limits() {
        Some(limits) => machine.min(limits.free_memory),
        None => machine,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use refrain::nn::{Cell, Embedding, Linear, Model, Rnn};

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn footprint(options: &str) -> Footprint {
        let arguments = Alone::try_parse_from(options.split(' ')).expect("valid options").arguments;
        Footprint::of(&arguments, 11, 2)
    }

    #[test]
    fn the_estimate_counts_exactly_the_parameters_that_the_model_has() {
        for cell in [Cell::tanh(), Cell::Lstm, Cell::Gru] {
            let mut model = Model::new(0);
            model.add("characters", Embedding::new(11, 5)).unwrap();
            model.add("rnn", Rnn::new(cell, 5, 7).layers(3)).unwrap();
            model.add("head", Linear::new(7, 11)).unwrap();
            let count = model.initialize(&Device::cpu()).unwrap().count();
            let options = format!("train --hidden 7 --embedding 5 --layers 3 --cell {}", cell.name());
            let estimate = footprint(&options);
            assert_eq!(estimate.parameters, count as u64, "{options}");
            assert!(estimate.bytes > 16 * estimate.parameters, "{options}");
        }
    }

    #[test]
    fn sizes_beyond_all_memory_are_refused_and_do_not_overflow() {
        let huge = footprint("train --hidden 16777216 --layers 1024 --sequence 16777216");
        assert!(huge.expect_fits(&Device::cpu()).is_err());
        assert!(footprint("train").expect_fits(&Device::cpu()).is_ok());
    }
}
