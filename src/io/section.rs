//! Arrays of other packages, and the parameters of a layer built from them.

use crate::nn::Parameters;
use crate::shape::Shape;
use crate::{Error, Result};

/// An array of another package in host memory: its shape, and its values in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct HostArray<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl<'a> HostArray<'a> {
    /// `values` in the shape `shape`. Their number is checked, and reported with the array's name, where the array is used.
    pub fn new(shape: &'a [usize], values: &'a [f32]) -> Self {
        Self { shape, values }
    }

    /// The shape.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The values.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// Checks shape and number of values, and returns the values.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape than `expected`, a shape that no tensor can have, or a number of values that
    /// does not match the shape.
    pub(super) fn expect(&self, name: &str, expected: &[usize]) -> Result<&'a [f32]> {
        if self.shape != expected {
            return Err(Error::shape(name, format!("{expected:?}"), format!("{:?}", self.shape)));
        }
        let count = Shape::named(name, expected)?.elements();
        if self.values.len() != count {
            let found = format!("{} values", self.values.len());
            return Err(Error::shape(name, format!("{count} values for {expected:?}"), found));
        }
        Ok(self.values)
    }

    /// Returns the sizes of an array of rank `N`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another rank; `wanted` describes the expected sizes.
    pub(super) fn sizes<const N: usize>(&self, name: &str, wanted: &str) -> Result<[usize; N]> {
        self.shape.try_into().map_err(|_| Error::shape(name, wanted, format!("{:?}", self.shape)))
    }
}

/// Transposes \[rows, columns\] to \[columns, rows\].
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// Reorders the blocks of `values`, one per gate: block i of the result is block `order[i]`. Blocks may be left out.
pub(super) fn reordered(values: &[f32], gates: usize, order: &[usize]) -> Vec<f32> {
    let block = values.len() / gates;
    order.iter().flat_map(|&place| &values[place * block..(place + 1) * block]).copied().collect()
}

/// A parameter of a layer; `name` lacks the layer's name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Named {
    pub(super) fn new(name: impl Into<String>, shape: &[usize], values: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self { name: name.into(), shape: shape.to_vec(), values }
    }
}

/// Returns the full names of all parameters of `layer`.
pub(super) fn names_of<'p>(parameters: &'p Parameters, layer: &str) -> Result<Vec<&'p str>> {
    let of_layer = |name: &&str| {
        let rest = name.strip_prefix(layer).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|rest| !rest.contains('.'))
    };
    let names: Vec<&str> = parameters.names().filter(of_layer).collect();
    if names.is_empty() {
        let all: Vec<&str> = parameters.names().collect();
        let message = format!("no layer `{layer}` has parameters; the parameters are {}", all.join(", "));
        return Err(Error::config("layer", message));
    }
    Ok(names)
}

/// Replaces all parameters of `layer`. On error nothing changes.
///
/// # Errors
/// [`Error::Config`] if the layer's parameters are not those of `section`; [`Error::Shape`] for one of another shape.
pub(super) fn set_layer(parameters: &mut Parameters, layer: &str, section: &[Named]) -> Result<()> {
    let full = |named: &Named| format!("{layer}.{}", named.name);
    let own = names_of(parameters, layer)?;
    if let Some(name) = own.iter().find(|name| !section.iter().any(|named| full(named) == **name)) {
        let given: Vec<&str> = section.iter().map(|named| named.name.as_str()).collect();
        let message = format!("is not among the weights that were passed: {}", given.join(", "));
        return Err(Error::config(*name, message));
    }
    let mut values = Vec::with_capacity(section.len());
    for named in section {
        let name = full(named);
        values.push((name, &named.shape, named.values.iter().copied().map(f64::from).collect::<Vec<f64>>()));
    }
    let all = values.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice()));
    parameters.set_all(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_sides_are_exchanged() {
        assert_eq!(reordered(&[0.0, 0.5, 1.0, 1.5, 2.0, 2.5], 3, &[2, 0]), [2.0, 2.5, 0.0, 0.5]);
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
