//! What a model holds and what it costs, before anything is allocated.

use std::fmt;

use super::peak::Held;
use super::{LayerConfig, Model};
use crate::Result;
use crate::shape::Shape;

/// A model's layers as a table; its `Display` is the table itself.
///
/// ```
/// use refrain::nn::{Cell, Embedding, Linear, Model, Rnn};
/// let mut model = Model::new(1);
/// model.add("embedding", Embedding::new(65, 16))?;
/// model.add("rnn", Rnn::new(Cell::Gru, 16, 32))?;
/// model.add("head", Linear::new(32, 65))?;
/// let summary = model.summary();
/// assert_eq!(summary.parameters(), 65 * 16 + 3 * 32 * (16 + 32 + 2) + 33 * 65);
/// println!("{summary}");
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    rows: Vec<SummaryRow>,
}

/// One layer of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SummaryRow {
    /// Its name in the model.
    pub name: String,
    /// What it is, such as `lstm, 2 layers`.
    pub description: String,
    /// The last size of its output \[T, B, features\].
    pub features: usize,
    /// How many numbers it learns.
    pub parameters: usize,
}

impl SummaryRow {
    /// Bytes of its parameters in 32-bit floats.
    pub fn bytes(&self) -> u64 {
        self.parameters as u64 * FLOAT
    }
}

/// Bytes of a number.
pub(super) const FLOAT: u64 = 4;

impl Summary {
    /// The layers, in the order in which they run.
    pub fn rows(&self) -> &[SummaryRow] {
        &self.rows
    }

    /// How many numbers the model learns.
    pub fn parameters(&self) -> usize {
        self.rows.iter().map(|row| row.parameters).sum()
    }

    /// Bytes of its parameters in 32-bit floats. Gradients take as many, and each moment of an optimizer too.
    pub fn bytes(&self) -> u64 {
        self.rows.iter().map(SummaryRow::bytes).sum()
    }
}

/// The digits of `number` in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let place = |(index, digit): (usize, char)| {
        let begins = index > 0 && (digits.len() - index).is_multiple_of(3);
        begins.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(place).collect()
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![["layer", "what it is", "output", "parameters", "bytes"].map(str::to_owned)];
        lines.extend(self.rows.iter().map(|row| {
            let output = format!("[T, B, {}]", row.features);
            let (count, bytes) = (grouped(row.parameters as u64), grouped(row.bytes()));
            [row.name.clone(), row.description.clone(), output, count, bytes]
        }));
        let (count, bytes) = (grouped(self.parameters() as u64), grouped(self.bytes()));
        lines.push(["total".to_owned(), String::new(), String::new(), count, bytes]);
        // Longer texts stand out of their column: a width must fit 16 bits.
        const WIDEST: usize = 200;
        let wide = |line: &[String; 5], column: usize| line[column].chars().count().min(WIDEST);
        let width = |column: usize| lines.iter().map(|line| wide(line, column)).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        for (number, line) in lines.iter().enumerate() {
            let [name, what, output, count, bytes] = line;
            let [a, b, c, d, e] = widths;
            write!(formatter, "{name:a$}  {what:b$}  {output:c$}  {count:>d$}  {bytes:>e$}")?;
            if number + 1 < lines.len() {
                formatter.write_str("\n")?;
            }
        }
        Ok(())
    }
}

/// What one pass of training over a window costs; see [`Model::cost`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// Multiply-adds of all matrix products, forward.
    pub forward: u64,
    /// Those of backward: each weight's gradient, and the gradient at what a layer reads unless that is data; and the
    /// forward pass of all that a [checkpointed](super::Rnn::checkpointed) stack runs again.
    pub backward: u64,
    /// Bytes that a trace keeps on the device until backward, in 32-bit floats: inputs, gates, states and outputs, each
    /// tensor once. Of a checkpointed stack: the most that it keeps at any time of backward.
    pub trace_bytes: u64,
    /// The most bytes that a training step has in use at once on a GPU, in 32-bit floats: weights, gradients, Adam's two
    /// moments, input, targets, traces, and what flows back.
    ///
    /// The step is forward, cross-entropy, [`zero_gradients`](super::Parameters::zero_gradients),
    /// [`backward_from`](super::ModelTrace::backward_from), clipping and Adam, where the logits are dropped as soon as there
    /// is a loss. With C features of the output, a caller that keeps logits, or the gradient at them, adds up to T·B·C numbers
    /// for either.
    ///
    /// For a stack of L layers of H units in one direction, over data of I features and under a [`Linear`](super::Linear)
    /// head of C classes, with P parameters in all, it is
    ///
    /// 4 bytes · (4 P + T·B·(1 + I + L·K·H + M) + 4 L·B·S).
    ///
    /// K·H is what the trace keeps of a step of a row: K is 1 for a vanilla cell of tanh, relu, sigmoid or identity, 5 for a
    /// GRU, 6 for an LSTM. M is what flows back from the top, 2 max(C, H) for those vanilla cells and C + max(C, H) for the
    /// others. S is the size of a state, H or, of an LSTM, 2 H. In segments of Z steps
    /// ([`checkpointed`](super::Rnn::checkpointed)) it is
    ///
    /// 4 bytes · (4 P + T·B·(1 + I + H + C + max(C, H)) + Z·B·L·K·H + (⌈T/Z⌉ + 3) L·B·S).
    ///
    /// For C above H these are too much by P at most, for vanilla cells too little by one state. Other models, directions and
    /// options are counted here by following the way back layer by layer.
    ///
    /// Not counted are: sums of weight gradients in parts, on hardware up to 32 MiB while they are made; what workgroups tell
    /// each other where a layer keeps its weights on chip, up to 16 MiB; rounding up to what
    /// a device gives, up to a sixteenth of a buffer; what overlapping windows and layer normalisation make on the way back;
    /// uploads, and 1 MiB of kernel parameters on an adapter without immediates.
    pub training_bytes: u64,
}

/// Who keeps the tensor that flows from one layer to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Nobody yet: the layer that reads it.
    Fresh,
    /// The trace of the layer that gave it.
    Kept,
}

/// Counts what layers cost, one after the other.
pub(super) struct Counter {
    pub(super) steps: u64,
    pub(super) rows: u64,
    pub(super) cost: Cost,
    pub(super) signal: Signal,
    /// What each layer of the model left of its trace, and `with` those of the layer that is counted.
    pub(super) held: Vec<Held>,
    pub(super) open: Held,
}

impl Counter {
    /// Begins where nothing is kept.
    pub(super) fn new(steps: u64, rows: u64, signal: Signal) -> Self {
        let (cost, open) = (Cost::default(), Held::default());
        Self { steps, rows, cost, signal, held: Vec::new(), open }
    }

    /// A layer of a stack, or a layer that is none, has been counted.
    pub(super) fn mark(&mut self) {
        self.open.with.push(self.cost.trace_bytes);
    }

    /// A product of all T·B rows with `entries` entries of a matrix, forward; and backward, both operands' gradients.
    pub(super) fn product(&mut self, entries: usize) {
        let places = self.steps * self.rows * entries as u64;
        self.cost.forward += places;
        self.cost.backward += 2 * places;
    }

    /// `features` numbers for each step and row.
    pub(super) fn keep(&mut self, features: usize) {
        self.cost.trace_bytes += FLOAT * self.steps * self.rows * features as u64;
    }

    /// `features` numbers for each row.
    pub(super) fn keep_state(&mut self, features: usize) {
        self.cost.trace_bytes += FLOAT * self.rows * features as u64;
    }

    /// The signal of `features` numbers that a layer reads.
    pub(super) fn keep_signal(&mut self, features: usize) {
        if self.signal == Signal::Fresh {
            self.keep(features);
        }
        self.signal = Signal::Kept;
    }
}

impl Model {
    /// Its layers with their outputs, parameters and bytes.
    pub fn summary(&self) -> Summary {
        let ends = self.layers().iter().skip(1).map(|added| added.first).chain([self.specs().len()]);
        let rows = self.layers().iter().zip(ends).map(|(added, end)| SummaryRow {
            name: added.name.to_string(),
            description: added.config.describe(),
            features: added.config.features(),
            parameters: self.specs()[added.first..end].iter().map(|spec| spec.shape.elements()).sum(),
        });
        Summary { rows: rows.collect() }
    }

    /// What a training pass over a window of `steps` steps and `batch` whole rows costs: multiply-adds of all matrix
    /// products, and the memory of the trace. Element-wise work is not counted: it is a small part for all but the
    /// smallest layers.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for no steps or rows, or more than 2³¹ of both together;
    /// [`Error::Config`](crate::Error::Config) where a stack [checkpointed within](super::Rnn::checkpointed_within) a budget
    /// does not fit it.
    ///
    /// ```
    /// use refrain::nn::{Linear, Model};
    /// let mut model = Model::new(1);
    /// model.add("lower", Linear::new(3, 4))?;
    /// model.add("upper", Linear::new(4, 2))?;
    /// let cost = model.cost(10, 5)?;
    /// assert_eq!(cost.forward, 50 * (3 * 4 + 4 * 2));
    /// // The gradient at the first layer's input is not computed.
    /// assert_eq!(cost.backward, 50 * (3 * 4 + 2 * 4 * 2));
    /// assert_eq!(cost.trace_bytes, 50 * (3 + 4) * 4);
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn cost(&self, steps: usize, batch: usize) -> Result<Cost> {
        Shape::named("the window [steps, batch]", &[steps, batch])?;
        let (steps, rows) = (steps as u64, batch as u64);
        let mut counter = Counter::new(steps, rows, Signal::Fresh);
        // Whether a layer reads what others made: backward computes no gradient at data.
        let mut is_computed = false;
        for added in self.layers() {
            counter.open = Held { below: counter.cost.trace_bytes, ..Held::default() };
            match &added.config {
                LayerConfig::Embedding(_) => {
                    // The tokens.
                    counter.keep(1);
                    counter.mark();
                    counter.signal = Signal::Fresh;
                }
                LayerConfig::OneHot(_) => {
                    counter.signal = Signal::Fresh;
                    counter.held.push(counter.open.clone());
                    continue;
                }
                LayerConfig::Rnn(rnn) => {
                    rnn.count(&mut counter)?;
                    if !is_computed {
                        counter.cost.backward -= steps * rows * rnn.input_entries();
                    }
                }
                LayerConfig::Linear(linear) => {
                    counter.product(linear.entries());
                    if !is_computed {
                        counter.cost.backward -= counter.cost.forward;
                    }
                    counter.keep_signal(linear.reads());
                    counter.mark();
                    counter.signal = Signal::Fresh;
                }
            }
            is_computed = true;
            counter.held.push(counter.open.clone());
        }
        counter.cost.training_bytes = self.training_bytes(&counter);
        Ok(counter.cost)
    }
}

impl LayerConfig {
    pub(super) fn features(&self) -> usize {
        match self {
            Self::Embedding(layer) => layer.features(),
            Self::OneHot(layer) => layer.features(),
            Self::Rnn(layer) => layer.outputs(),
            Self::Linear(layer) => layer.gives(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Embedding(layer) => layer.describe(),
            Self::OneHot(_) => "one-hot vectors".to_owned(),
            Self::Rnn(layer) => layer.describe(),
            Self::Linear(layer) => layer.describe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Cell, Embedding, Linear, Rnn};

    #[test]
    fn digits_stand_in_groups_of_three() {
        let all = [0, 12, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "12", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn a_table_has_a_line_for_each_layer_and_aligned_columns() {
        let mut model = Model::new(1);
        model.add("embedding", Embedding::new(100, 8)).unwrap();
        let stack = Rnn::new(Cell::Lstm, 8, 64).layers(2).bidirectional().dropout(0.25);
        model.add("rnn", stack).unwrap();
        model.add("head", Linear::new(128, 100)).unwrap();
        let table = model.summary().to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5, "{table}");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
        for part in ["lstm, 2 layers, both directions, dropout 0.25", "[T, B, 128]", "12,900", "total"] {
            assert!(table.contains(part), "{part} is missing in:\n{table}");
        }
    }

    #[test]
    fn a_description_of_any_length_is_displayed() {
        let description = "x".repeat(65_536);
        let row =
            SummaryRow { name: "rnn".into(), description: description.clone(), features: 1, parameters: 1 };
        assert!(Summary { rows: vec![row] }.to_string().contains(&description));
    }
}
