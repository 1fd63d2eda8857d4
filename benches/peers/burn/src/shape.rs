//! What is measured: cells, shapes, work and their floating-point operations, as in `../../peer.py`.

use clap::ValueEnum;

/// The cell of every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cell {
    /// h = tanh(W x + U h + b).
    Tanh,
    /// With the reset after the product.
    Gru,
    /// Without peepholes.
    Lstm,
}

impl Cell {
    /// Its name in flags and results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Gru => "gru",
            Self::Lstm => "lstm",
        }
    }
}

/// What one run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Forward, nothing kept.
    Infer,
    /// Forward, and the gradient of the outputs' mean to parameters and inputs.
    Backward,
    /// A training step with head, loss, clipping and Adam.
    Train,
}

impl Work {
    /// Its name in flags and results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Backward => "backward",
            Self::Train => "train",
        }
    }
}

/// A stack of layers in one direction, and the batch that it is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The cell of every layer.
    pub(crate) cell: Cell,
    /// Features of the input, I.
    pub(crate) inputs: usize,
    /// Units of a layer, H.
    pub(crate) hidden: usize,
    /// Rows of the batch, B.
    pub(crate) batch: usize,
    /// Time steps, T.
    pub(crate) sequence: usize,
    /// Layers, L.
    pub(crate) layers: usize,
    /// Classes of the head, C.
    pub(crate) classes: usize,
}

impl Shape {
    /// Blocks of H rows in a weight matrix.
    pub(crate) fn gates(&self) -> usize {
        match self.cell {
            Cell::Tanh => 1,
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }

    /// T·B.
    pub(crate) fn tokens(&self) -> usize {
        self.sequence * self.batch
    }

    /// Features that a layer reads: I for the first, H for the others.
    pub(crate) fn features(&self, layer: usize) -> usize {
        if layer == 0 { self.inputs } else { self.hidden }
    }

    /// Floating-point operations of one run: products of matrices, a multiply-add counted as two.
    pub(crate) fn operations(&self, work: Work) -> f64 {
        let per_token = 2 * self.gates() * self.hidden;
        let forward: usize =
            (0..self.layers).map(|layer| per_token * (self.features(layer) + self.hidden)).sum();
        let each = match work {
            Work::Infer => forward,
            Work::Backward => 3 * forward,
            Work::Train => 3 * forward - per_token * self.inputs + 3 * 2 * self.hidden * self.classes,
        };
        self.tokens() as f64 * each as f64
    }

    /// The standard grid with a number of classes: 240 shapes, with as many inputs as hidden units.
    pub(crate) fn grid(classes: usize) -> Vec<Self> {
        let mut shapes = Vec::new();
        for cell in [Cell::Tanh, Cell::Gru, Cell::Lstm] {
            for hidden in [64, 128, 256, 512, 1024] {
                for batch in [1, 16, 64, 256] {
                    for sequence in [64, 512] {
                        for layers in [1, 2] {
                            shapes.push(Self {
                                cell,
                                inputs: hidden,
                                hidden,
                                batch,
                                sequence,
                                layers,
                                classes,
                            });
                        }
                    }
                }
            }
        }
        shapes
    }
}
