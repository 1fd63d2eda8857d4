//! What a model holds, before anything is allocated.

use std::fmt;

use super::{LayerConfig, Model};

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
const FLOAT: u64 = 4;

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
