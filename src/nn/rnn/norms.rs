//! Layer normalisation of a stack: the option, its parameters, and the options that exclude it.

use super::options::Checkpoints;
use super::options::Options;
use super::{Init, Rnn};
use crate::nn::{Cell, Gradients, Layer, Parameters};
use crate::ops::elementwise::add_into;
use crate::ops::recurrent::{self, Norms, Reset, Truncation};
use crate::tensor::View;
use crate::{Error, Result};

impl Rnn {
    /// Enables layer normalisation in an LSTM or a GRU (Ba, Kiros & Hinton 2016, "Layer normalization",
    /// supplementary material), with LN as in [`layer_norm`](crate::ops::layer_norm):
    ///
    /// - LSTM: a = LN(W_ih x) + b_ih + LN(W_hh h') + b_hh over all gates together; c = f c' + i g; h = o
    ///   tanh(LN(c)).
    /// - GRU: r and z as usual from LN(W_ih x) + b_ih and LN(W_hh h') + b_hh over both gates together; n =
    ///   tanh(LN(W_in x) + b_in + r (LN(W_hn h') + b_hn)).
    ///
    /// Additional parameters: the gains `norm_ih_l{l}` and `norm_hh_l{l}` \[G·H\], initialized to one; for an
    /// LSTM `norm_c_l{l}` \[2, H\], gain and shift of the cell state, initialized to one and zero.
    ///
    /// Cannot be combined with peepholes, coupled, reset_before, gate_activations, clip_gates, clip_cell,
    /// clip_gradient, zoneout, projection, recurrent_dropout, checkpoints or overlapping windows.
    ///
    /// ```
    /// use refrain::nn::{Cell, Model, Rnn};
    /// let mut model = Model::new(1);
    /// model.add("rnn", Rnn::new(Cell::Lstm, 3, 8).layer_norm())?;
    /// assert!(model.specs().iter().any(|spec| spec.name == "rnn.norm_c_l0"));
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn layer_norm(self) -> Self {
        self.equations_with(|options| options.layer_norm = true)
    }

    pub(super) fn has_layer_norm(&self) -> bool {
        self.options.equations.layer_norm
    }

    /// Name, shape and initialization of the parameters of one layer in one direction.
    pub(super) fn norms(&self) -> Vec<(&'static str, Vec<usize>, Init)> {
        if !self.has_layer_norm() {
            return Vec::new();
        }
        let rows = self.cell.gates() * self.hidden;
        let gain = |name| (name, vec![rows], Init::Ones { count: rows });
        let mut all = vec![gain("norm_ih"), gain("norm_hh")];
        if self.cell.has_cell_state() {
            all.push(("norm_c", vec![2, self.hidden], Init::Ones { count: self.hidden }));
        }
        all
    }

    /// Checks that the cell and the other options can be combined with layer normalisation.
    pub(super) fn validate_norms(&self, name: &str) -> Result<()> {
        if !self.has_layer_norm() {
            return Ok(());
        }
        if !matches!(self.cell, Cell::Lstm | Cell::Gru) {
            let message =
                format!("is an option of Cell::Lstm or Cell::Gru, but the cell is {}", self.cell.name());
            return Err(Error::config(format!("{name}: layer_norm"), message));
        }
        let Options { projection, recurrent_dropout, truncation, equations, checkpoints, .. } = self.options;
        let clashes = [
            ("peepholes", equations.peepholes),
            ("coupled", equations.coupled),
            ("reset_before", equations.reset == Reset::BeforeProduct),
            ("gate_activations", equations.activations.is_some()),
            ("clip_gates", equations.clip_gates.is_some()),
            ("clip_cell", equations.clip_cell.is_some()),
            ("clip_gradient", equations.clip_gradient.is_some()),
            ("zoneout", equations.zoneout.is_some()),
            ("projection", projection.is_some()),
            ("recurrent_dropout", recurrent_dropout > 0.0),
            ("checkpointed", checkpoints != Checkpoints::None),
            ("windowed or truncated_every", matches!(truncation, Truncation::SlidingWindows(_))),
        ];
        match clashes.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => Err(Error::config(
                format!("{name}: layer_norm and {option}"),
                "are not implemented together: choose one of the two",
            )),
        }
    }
}

impl Layer<Rnn> {
    /// The index of the first parameter of [`Rnn::norms`] at `place`.
    fn norms_of(&self, place: usize) -> usize {
        let rnn = &self.description;
        self.first_of(place) + rnn.weights_per_direction() - rnn.norms().len()
    }

    /// The gains at `place`, and the bias that is added after the normalisation of the input.
    pub(super) fn norms_at<'p>(
        &self,
        parameters: &'p Parameters,
        place: usize,
        bias_ih: Option<View<'p>>,
    ) -> Option<Norms<'p>> {
        let first = self.norms_of(place);
        self.description.has_layer_norm().then(|| Norms {
            input: parameters.section(first),
            bias_ih,
            recurrent: parameters.section(first + 1),
            cell: self.description.cell.has_cell_state().then(|| parameters.section(first + 2)),
        })
    }

    /// Adds to the gradients of the parameters of [`Rnn::norms`] at `place`.
    pub(super) fn accumulate_norms(
        &self,
        place: usize,
        gradients: &mut Gradients,
        done: &recurrent::PassGradients,
    ) -> Result<()> {
        let first = self.norms_of(place);
        for (index, d_norm) in done.norms()?.into_iter().enumerate() {
            add_into(gradients.section_mut(first + index), d_norm)?;
        }
        Ok(())
    }
}
