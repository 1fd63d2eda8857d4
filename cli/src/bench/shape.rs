//! The shapes and kinds of work that are timed, with their operations and memory traffic.

use std::fmt;

use clap::ValueEnum;
use refrain::nn::Cell;

use crate::memory::Footprint;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Forward over the stack, without saving activations.
    Infer,
    /// Forward with trace, and backward to all parameters and the input.
    Backward,
    /// A training step: the stack, a linear head, cross-entropy, backward, clipping, Adam.
    Train,
}

impl Work {
    /// All three.
    pub(crate) const ALL: [Self; 3] = [Self::Infer, Self::Backward, Self::Train];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Backward => "backward",
            Self::Train => "train",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A class of devices, which determines the default sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceClass {
    /// A hardware GPU.
    Hardware,
    /// The CPU.
    Cpu,
    /// A software driver.
    Software,
}

/// The sizes of one stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) cell: &'static Cell,
    pub(crate) inputs: usize,
    pub(crate) hidden: usize,
    pub(crate) batch: usize,
    pub(crate) sequence: usize,
    pub(crate) layers: usize,
    pub(crate) classes: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cell, inputs, hidden, batch, sequence, layers, classes } = self;
        let cell = cell.name();
        write!(
            formatter,
            "{cell}, inputs {inputs}, hidden {hidden}, batch {batch}, sequence {sequence}, layers {layers}, \
             classes {classes}"
        )
    }
}

impl Shape {
    /// The numbers of input features of the layers.
    fn layer_inputs(&self) -> impl Iterator<Item = f64> {
        let Self { inputs, hidden, layers, .. } = *self;
        (0..layers).map(move |layer| if layer == 0 { inputs as f64 } else { hidden as f64 })
    }

    /// Floating-point operations of one run, two per multiply-add of a matrix product: 2·T·B·G·H·(I + H) forward in
    /// each layer; twice that backward, in a training step without the gradient of the first layer's input; the head's
    /// 2·T·B·H·C three times in a training step.
    pub(crate) fn flops(&self, work: Work) -> f64 {
        let [units, rows] = [self.hidden as f64, self.rows()];
        let gates = self.gates();
        let products: f64 = self.layer_inputs().map(|inputs| inputs + units).sum();
        let forward = 2.0 * rows * gates * units * products;
        match work {
            Work::Infer => forward,
            Work::Backward => 3.0 * forward,
            Work::Train => {
                let d_x = 2.0 * rows * gates * units * self.inputs as f64;
                3.0 * forward - d_x + 3.0 * 2.0 * rows * units * self.classes as f64
            }
        }
    }

    /// Bytes that one run reads and writes if each step reads W_hh again and everything else is accessed once: a layer's
    /// input, the projected gates written and read, the states, the weights; backward the gates, the gradients of gates
    /// and outputs, and the operands of the products for weights and inputs; in a training step also logits, their
    /// gradient, and seven numbers per parameter for Adam. A device moves fewer if weights stay in a cache or in
    /// workgroup memory.
    pub(crate) fn bytes(&self, work: Work) -> f64 {
        let [units, rows, steps] = [self.hidden as f64, self.rows(), self.sequence as f64];
        let wide = self.gates() * units;
        let layer = |inputs: f64| {
            let forward = rows * (inputs + 2.0 * wide + 2.0 * units) + steps * wide * units + wide * inputs;
            let kept = rows * wide;
            let backward = rows * (5.0 * wide + 3.0 * units + 2.0 * inputs)
                + steps * wide * units
                + wide * (2.0 * inputs + units);
            match work {
                Work::Infer => forward,
                Work::Backward | Work::Train => forward + kept + backward,
            }
        };
        let stack: f64 = self.layer_inputs().map(layer).sum();
        let head = match work {
            Work::Train => {
                rows * (4.0 * self.classes as f64 + 3.0 * units) + 7.0 * self.parameters(work) as f64
            }
            Work::Infer | Work::Backward => 0.0,
        };
        4.0 * (stack + head)
    }

    fn gates(&self) -> f64 {
        self.cell.gates() as f64
    }

    /// T·B.
    pub(crate) fn rows(&self) -> f64 {
        self.sequence as f64 * self.batch as f64
    }

    /// The number of weights.
    pub(crate) fn parameters(&self, work: Work) -> u128 {
        let [inputs, hidden, layers] = [self.inputs, self.hidden, self.layers].map(|size| size as u128);
        let wide = self.cell.gates() as u128 * hidden;
        let stack = wide * (inputs + hidden + 2) + (layers - 1) * wide * (2 * hidden + 2);
        let head = self.classes as u128 * (hidden + 1);
        if work == Work::Train { stack + head } else { stack }
    }

    /// The memory that a run needs, checked before it is allocated: of weights, their gradients and Adam's two moments as
    /// far as it has them, and of activations.
    pub(crate) fn footprint(&self, work: Work) -> Footprint {
        let copies = match work {
            Work::Infer => 1,
            Work::Backward => 2,
            Work::Train => 4,
        };
        self.footprint_of(work, self.parameters(work), copies)
    }

    /// As [`Shape::footprint`], for `parameters` weights with `copies` arrays of their size.
    pub(crate) fn footprint_of(&self, work: Work, parameters: u128, copies: u128) -> Footprint {
        let [inputs, hidden, layers] = [self.inputs, self.hidden, self.layers].map(|size| size as u128);
        let places = self.sequence as u128 * self.batch as u128;
        let wide = self.cell.gates() as u128 * hidden;
        // The input at each step and row; for each layer, or for two if activations are not saved, gates, output and other
        // saved values; backward the gradients at both ends; logits, probabilities and their gradient.
        let backward = 2 * inputs + layers * (wide + 2 * hidden) + wide + 4 * hidden;
        let numbers = match work {
            Work::Infer => inputs + layers.min(2) * (wide + 2 * hidden),
            Work::Backward => backward,
            Work::Train => backward + 3 * self.classes as u128,
        };
        let widest = places * inputs.max(wide).max(self.classes as u128);
        Footprint::new(parameters, copies, places.saturating_mul(numbers), widest)
    }
}

/// Lists of sizes; all combinations are timed.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub(crate) cells: Vec<&'static Cell>,
    pub(crate) hidden: Vec<usize>,
    pub(crate) batch: Vec<usize>,
    pub(crate) sequence: Vec<usize>,
    pub(crate) layers: Vec<usize>,
    /// `None`: the number of hidden units.
    pub(crate) inputs: Option<Vec<usize>>,
    pub(crate) classes: Vec<usize>,
}

impl Grid {
    /// The grid for which results are reported.
    pub(crate) fn standard() -> Self {
        Self {
            cells: vec![const { &Cell::tanh() }, &Cell::Gru, &Cell::Lstm],
            hidden: vec![64, 128, 256, 512, 1024],
            batch: vec![1, 16, 64, 256],
            sequence: vec![64, 512],
            layers: vec![1, 2],
            inputs: None,
            classes: vec![64],
        }
    }

    /// A few sizes that this class of devices times in a minute or two.
    pub(crate) fn of(strategy: DeviceClass) -> Self {
        let (hidden, batch, sequence) = match strategy {
            DeviceClass::Hardware => (vec![64, 256, 1024], vec![16, 64], vec![128]),
            DeviceClass::Cpu => (vec![64, 256], vec![16], vec![64]),
            DeviceClass::Software => (vec![64], vec![16], vec![64]),
        };
        Self { hidden, batch, sequence, layers: vec![1], ..Self::standard() }
    }

    /// All combinations; the first list varies slowest.
    pub(crate) fn shapes(&self) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for &cell in &self.cells {
            for &layers in &self.layers {
                for &hidden in &self.hidden {
                    for &inputs in self.inputs.as_deref().unwrap_or(&[hidden]) {
                        for &batch in &self.batch {
                            for &sequence in &self.sequence {
                                shapes.extend(self.classes.iter().map(|&classes| Shape {
                                    cell,
                                    inputs,
                                    hidden,
                                    batch,
                                    sequence,
                                    layers,
                                    classes,
                                }));
                            }
                        }
                    }
                }
            }
        }
        shapes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { cell: &Cell::Lstm, inputs: 3, hidden: 5, batch: 2, sequence: 7, layers: 2, classes: 11 };

    #[test]
    fn operations_are_those_of_the_products() {
        // T·B = 14, G·H = 20: W_ih x with 3 and then 5 inputs, W_hh h with 5 twice.
        let forward = 2.0 * 14.0 * 20.0 * (3.0 + 5.0 + 5.0 + 5.0);
        assert_eq!(SHAPE.flops(Work::Infer), forward);
        assert_eq!(SHAPE.flops(Work::Backward), 3.0 * forward);
        let head = 2.0 * 14.0 * 5.0 * 11.0;
        assert_eq!(SHAPE.flops(Work::Train), 3.0 * forward - 2.0 * 14.0 * 20.0 * 3.0 + 3.0 * head);
    }

    #[test]
    fn more_work_moves_more_and_takes_more_memory() {
        let bytes = Work::ALL.map(|work| SHAPE.bytes(work));
        assert!(bytes[0] < bytes[1] && bytes[1] < bytes[2], "{bytes:?}");
        let footprints = Work::ALL.map(|work| SHAPE.footprint(work).bytes);
        assert!(footprints[0] < footprints[1] && footprints[1] < footprints[2], "{footprints:?}");
        // At least the weights, read at each of the steps.
        assert!(bytes[0] > 4.0 * 7.0 * 2.0 * 20.0 * 5.0);
    }
}
