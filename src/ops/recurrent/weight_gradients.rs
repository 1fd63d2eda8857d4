//! The gradients of a backward pass over time, and the weight gradients computed from them: each one matrix
//! product or reduction over all steps.

use crate::Result;
use crate::ops::columns::columns;
use crate::ops::elementwise::{Binary, binary};
use crate::ops::recurrent::StateTensors;
use crate::ops::recurrent::time_blocks::{Sums, add_products};
use crate::tensor::{Tensor, View, ViewMut};

/// The gradients that the time loop computes.
pub(crate) struct PassGradients {
    /// The number of gates that have weights.
    pub(crate) gates: usize,
    /// The gradient of W_ih x + b_ih \[T, B, G·H\]; with layer normalisation, of W_ih x.
    pub(crate) d_projected: Tensor,
    /// The gradient of the last gate's recurrent part \[T, B, H\], where it differs; or its sum \[1, 1, H\].
    pub(crate) d_apart: Option<Tensor>,
    /// The hidden state before each step \[T, B, P\].
    pub(crate) previous: Tensor,
    /// The operand of the last gate's product \[T, B, H\], where it is not the previous state.
    pub(crate) modulated: Option<Tensor>,
    /// With peepholes, the cell states before and after each step \[T, B, H\].
    pub(crate) cells: Option<(Tensor, Tensor)>,
    /// With a projection h = W_hr m, the gradient of h \[T, B, P\], and m \[T, B, H\].
    pub(crate) projection: Option<(Tensor, Tensor)>,
    /// With layer normalisation, the gradients of the recurrent part (`product`) and of the input part
    /// (`entry`).
    pub(crate) product: Option<RecurrentNormGradients>,
    pub(crate) entry: Option<InputNormGradients>,
    /// The gradient of the initial state.
    pub(crate) d_initial: StateTensors,
}

/// With layer normalisation, gradients of the recurrent part.
pub(crate) struct RecurrentNormGradients {
    /// The gradient of W_hh h' \[T, B, G·H\].
    pub(crate) d_product: Tensor,
    /// The gradients of norm_hh and, for an LSTM, of norm_c, concatenated.
    pub(crate) d_norms: Tensor,
}

/// With layer normalisation, gradients of the input part.
pub(crate) struct InputNormGradients {
    /// The gradient of bias_ih \[G·H\].
    pub(crate) d_bias: Tensor,
    /// The gradient of norm_ih \[G·H\].
    pub(crate) d_gain: Tensor,
}

impl PassGradients {
    /// dW_ih += Σ_t dgates_tᵀ x_t, for x \[T, B, I\].
    pub(crate) fn accumulate_input_weight(&self, d_weight_ih: ViewMut<'_>, x: View<'_>) -> Result<()> {
        add_products(d_weight_ih, self.d_projected.view(), 0..self.d_projected.shape().last(), x)
    }

    /// dW_hh += Σ_t d(W_hh h')_tᵀ h'_t.
    pub(crate) fn accumulate_weight(&self, mut d_weight_hh: ViewMut<'_>) -> Result<()> {
        let (previous, all) = (self.previous.view(), self.d_projected.view());
        let rows = d_weight_hh.shape().dimensions()[0];
        if let Some(RecurrentNormGradients { d_product, .. }) = &self.product {
            return add_products(d_weight_hh, d_product.view(), 0..rows, previous);
        }
        let source = self.modulated.as_ref().map_or(previous, Tensor::view);
        if self.d_apart.is_none() && self.modulated.is_none() {
            return add_products(d_weight_hh, all, 0..rows, previous);
        }
        // All gates except the last share their gradient with the input part, and their operand is the state.
        let split = self.split();
        add_products(d_weight_hh.outer(0..split)?, all, 0..split, previous)?;
        let d_last_gate = d_weight_hh.outer(split..rows)?;
        match &self.d_apart {
            Some(apart) => add_products(d_last_gate, apart.view(), 0..rows - split, source),
            None => add_products(d_last_gate, all, split..rows, source),
        }
    }

    /// The rows of all gates except the last.
    fn split(&self) -> usize {
        let all = self.d_projected.shape().last();
        all - all / self.gates
    }

    /// The sums from which both bias gradients are computed.
    pub(crate) fn sums(&self) -> Result<Sums> {
        match &self.entry {
            Some(InputNormGradients { d_bias, .. }) => {
                Sums::of(d_bias.view().reshaped(&[1, 1, d_bias.shape().elements()])?)
            }
            None => Sums::of(self.d_projected.view()),
        }
    }

    /// The gradients of norm_ih, norm_hh and norm_c, as far as the layer has them, in the order of the
    /// parameters.
    pub(crate) fn norms(&self) -> Result<Vec<View<'_>>> {
        let (Some(entry), Some(product)) = (&self.entry, &self.product) else { return Ok(Vec::new()) };
        let (rows, all) = (entry.d_gain.shape().elements(), product.d_norms.shape().elements());
        let mut result = vec![entry.d_gain.view(), product.d_norms.view().outer(0..rows)?];
        if self.d_initial.cell.is_some() {
            result.push(product.d_norms.view().outer(rows..all)?);
        }
        Ok(result)
    }

    /// db_hh += Σ_t d(b_hh)_t, where `sums` are the sums of the gradient of b_ih.
    pub(crate) fn accumulate_bias(&self, mut d_bias_hh: ViewMut<'_>, sums: &Sums) -> Result<()> {
        let Some(apart) = &self.d_apart else { return sums.add_into(d_bias_hh) };
        let split = self.split();
        let rows = d_bias_hh.shape().elements();
        sums.add_columns_into(d_bias_hh.outer(0..split)?, 0..split)?;
        Sums::of(apart.view())?.add_into(d_bias_hh.outer(split..rows)?)
    }

    /// dp_i += Σ_t d(a_i)_t c'_t, dp_f += Σ_t d(a_f)_t c'_t, dp_o += Σ_t d(a_o)_t c_t.
    pub(crate) fn accumulate_peepholes(&self, mut d_peepholes: ViewMut<'_>) -> Result<()> {
        let Some((previous, current)) = &self.cells else { return Ok(()) };
        let units = current.shape().last();
        let [count, _] = d_peepholes.shape().exactly("weight_ch", "[gates, hidden]")?;
        for row in 0..count {
            let is_output = row == count - 1;
            let gate = if is_output { self.gates - 1 } else { row };
            let d_gate = columns(self.d_projected.view(), gate * units..(gate + 1) * units)?;
            let cell: View<'_> = if is_output { current.view() } else { previous.view() };
            let products = binary(&d_gate, cell, Binary::Mul)?;
            Sums::of(products.view())?.add_into(d_peepholes.outer(row..row + 1)?)?;
        }
        Ok(())
    }

    /// dW_hr += Σ_t dh_tᵀ m_t, where h = W_hr m.
    pub(crate) fn accumulate_projection(&self, d_projection: ViewMut<'_>) -> Result<()> {
        let Some((d_hidden, unprojected)) = &self.projection else { return Ok(()) };
        add_products(d_projection, d_hidden.view(), 0..d_hidden.shape().last(), unprojected.view())
    }
}
