//! Converts ONNX's recurrent weights to the names and gate order of this crate, which are PyTorch's.

use super::attributes::Operator;
use crate::io::section::{HostArray, Named, reordered};
use crate::shape::product;
use crate::{Error, Result};

/// The weights of a recurrent node: its inputs W \[D, G·H, I\], R \[D, G·H, H\], B \[D, 2·G·H\] and, for an LSTM, P
/// \[D, 3·H\]. The gate order is z, r, h for a GRU, i, o, f, c for an LSTM, and i, o, f in P. B contains the input biases,
/// then the recurrent biases.
#[derive(Clone, Copy, Debug)]
pub struct OnnxTensors<'a> {
    input: HostArray<'a>,
    recurrent: HostArray<'a>,
    bias: Option<HostArray<'a>>,
    peepholes: Option<HostArray<'a>>,
}

/// The direction of one of a node's recurrences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ActivationOrder {
    Forward,
    Reverse,
}

/// For each gate in this crate's order, its index in ONNX's order.
fn gate_order(operator: Operator, coupled: bool) -> &'static [usize] {
    match (operator, coupled) {
        (Operator::Rnn, _) => &[0],
        // r, z, n from z, r, h.
        (Operator::Gru, _) => &[1, 0, 2],
        // i, f, g, o from i, o, f, c.
        (Operator::Lstm, false) => &[0, 2, 3, 1],
        // i, g, o: a coupled forget gate has no weights.
        (Operator::Lstm, true) => &[0, 3, 1],
    }
}

/// The same for peepholes, whose order is i, f, o here and i, o, f in ONNX.
fn peephole_order(coupled: bool) -> &'static [usize] {
    if coupled { &[0, 1] } else { &[0, 2, 1] }
}

impl<'a> OnnxTensors<'a> {
    /// W and R, without a bias or peepholes.
    pub fn new(input: HostArray<'a>, recurrent: HostArray<'a>) -> Self {
        Self { input, recurrent, bias: None, peepholes: None }
    }

    /// Adds B.
    pub fn bias(self, bias: HostArray<'a>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Adds P.
    pub fn peepholes(self, peepholes: HostArray<'a>) -> Self {
        Self { peepholes: Some(peepholes), ..self }
    }

    pub(super) fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    pub(super) fn has_peepholes(&self) -> bool {
        self.peepholes.is_some()
    }

    /// Checks the shapes and returns I.
    ///
    /// # Errors
    /// [`Error::Shape`] for a tensor whose shape does not follow from D, H and the operator's G gates; [`Error::Config`]
    /// for P at an operator without a cell state.
    pub(super) fn validate(&self, operator: Operator, directions: usize, hidden: usize) -> Result<usize> {
        let rows = product("hidden_size", &[operator.gates(), hidden])?;
        let wanted = format!("[{directions}, {rows}, inputs]");
        let [_, _, inputs] = self.input.sizes("W", &wanted)?;
        self.input.expect("W", &[directions, rows, inputs])?;
        self.recurrent.expect("R", &[directions, rows, hidden])?;
        if let Some(bias) = self.bias {
            bias.expect("B", &[directions, product("B", &[2, rows])?])?;
        }
        if let Some(peepholes) = self.peepholes {
            if operator != Operator::Lstm {
                return Err(Error::config(
                    "P",
                    "peepholes read the cell state of an LSTM; this node has no cell state",
                ));
            }
            peepholes.expect("P", &[directions, product("P", &[3, hidden])?])?;
        }
        Ok(inputs)
    }

    /// The parameters of direction `place` of a validated node, which runs in the direction `way`.
    pub(super) fn parameters(
        &self,
        operator: Operator,
        coupled: bool,
        place: usize,
        way: ActivationOrder,
    ) -> Vec<Named> {
        let suffix = if way == ActivationOrder::Reverse { "_reverse" } else { "" };
        let name = |stem: &str| format!("{stem}_l0{suffix}");
        let own = |array: HostArray<'a>| {
            let size = array.values().len() / array.shape()[0];
            &array.values()[place * size..(place + 1) * size]
        };
        let order = gate_order(operator, coupled);
        let gates = operator.gates();
        let matrix = |stem: &str, array: HostArray<'a>| {
            let width = array.shape()[2];
            let values = reordered(own(array), gates, order);
            Named::new(name(stem), &[values.len() / width.max(1), width], values)
        };
        let mut parameters = vec![matrix("weight_ih", self.input), matrix("weight_hh", self.recurrent)];
        if let Some(bias) = self.bias {
            let (input, recurrent) = own(bias).split_at(own(bias).len() / 2);
            for (stem, values) in [("bias_ih", input), ("bias_hh", recurrent)] {
                let values = reordered(values, gates, order);
                parameters.push(Named::new(name(stem), &[values.len()], values));
            }
        }
        if let Some(peepholes) = self.peepholes {
            let order = peephole_order(coupled);
            let values = reordered(own(peepholes), 3, order);
            parameters.push(Named::new(
                name("weight_ch"),
                &[order.len(), values.len() / order.len()],
                values,
            ));
        }
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row holds its gate's index in ONNX, for D = 2, H = 1, I = 1.
    #[test]
    fn gates_are_put_in_this_crates_order() {
        let (w, b) = ([0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0], [0.0; 16]);
        let p = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0];
        let tensors = OnnxTensors::new(HostArray::new(&[2, 4, 1], &w), HostArray::new(&[2, 4, 1], &w))
            .bias(HostArray::new(&[2, 8], &b))
            .peepholes(HostArray::new(&[2, 3], &p));
        assert_eq!(tensors.validate(Operator::Lstm, 2, 1).unwrap(), 1);
        // i, f, g, o from i, o, f, c.
        let found = tensors.parameters(Operator::Lstm, false, 1, ActivationOrder::Reverse);
        assert_eq!(found[0], Named::new("weight_ih_l0_reverse", &[4, 1], vec![10.0, 12.0, 13.0, 11.0]));
        assert_eq!(found[4], Named::new("weight_ch_l0_reverse", &[3, 1], vec![10.0, 12.0, 11.0]));
        let coupled = tensors.parameters(Operator::Lstm, true, 0, ActivationOrder::Forward);
        assert_eq!(coupled[1], Named::new("weight_hh_l0", &[3, 1], vec![0.0, 3.0, 1.0]));
        assert_eq!(coupled[2].shape, [3]);
        assert_eq!(coupled[4], Named::new("weight_ch_l0", &[2, 1], vec![0.0, 1.0]));
        // r, z, n from z, r, h.
        let gru = OnnxTensors::new(HostArray::new(&[1, 3, 1], &w[..3]), HostArray::new(&[1, 3, 1], &w[..3]));
        assert_eq!(
            gru.parameters(Operator::Gru, false, 0, ActivationOrder::Forward)[0].values,
            [1.0, 0.0, 2.0]
        );
    }
}
