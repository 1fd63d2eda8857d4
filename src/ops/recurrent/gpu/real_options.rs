//! The real-valued options of a layer on the GPU: zoneout rates, clipping bounds, parameters of activations.
//! As constants of a kernel, each value would compile a pipeline of its own, and the parameters of a dispatch
//! have no space left; so they are stored before the initial state, which every kernel reads. Dispatches
//! `shaders/recurrent/common/write_options.wgsl`.

use crate::Result;
use crate::gpu::{Context, Dispatch, Span, kernels, parameters};
use crate::ops::Activation;
use crate::ops::recurrent::{Cell, Equations};

parameters!(OptionsParameters {
    y_base: u32,
    zoneout_hidden: f32,
    zoneout_cell: f32,
    clip_gates: f32,
    clip_cell: f32,
    clip_gradient: f32,
    gate_alpha: f32,
    gate_beta: f32,
    candidate_alpha: f32,
    candidate_beta: f32,
    output_alpha: f32,
    output_beta: f32,
});

kernels! {
    PUT_OPTIONS: "recurrent/common/write_options" {
        uses: ["recurrent/common/option_places"],
        parameters: OptionsParameters,
        bindings: [Write],
    }
}

/// The real-valued options of a layer. An absent bound or rate is zero and not read.
pub(crate) struct RealOptions(OptionsParameters);

impl RealOptions {
    /// How many values they are.
    pub(crate) const COUNT: usize = size_of::<OptionsParameters>() / 4 - 1;

    /// None where no kernel reads any.
    pub(crate) fn of(equations: &Equations) -> Option<Self> {
        let options = &equations.options;
        let bounds = [options.clip_gates, options.clip_cell, options.clip_gradient];
        let has_bounds = bounds.iter().any(Option::is_some);
        if options.zoneout.is_none() && !has_bounds && !Self::has_alpha(equations) {
            return None;
        }
        let [zoneout_hidden, zoneout_cell] = options.zoneout.unwrap_or_default();
        let [clip_gates, clip_cell, clip_gradient] = bounds.map(Option::unwrap_or_default);
        let [gate, candidate, output] = functions(equations).map(Activation::constants);
        Some(Self(OptionsParameters {
            y_base: 0,
            zoneout_hidden,
            zoneout_cell,
            clip_gates,
            clip_cell,
            clip_gradient,
            gate_alpha: gate.0,
            gate_beta: gate.1,
            candidate_alpha: candidate.0,
            candidate_beta: candidate.1,
            output_alpha: output.0,
            output_beta: output.1,
        }))
    }

    /// Whether an activation of the cell has parameters.
    pub(crate) fn has_alpha(equations: &Equations) -> bool {
        functions(equations).into_iter().any(Activation::has_constants)
    }

    /// Writes the options to `target`.
    pub(crate) fn put(&self, context: &Context, target: Span<'_>) -> Result<()> {
        let target = context.bind(target)?;
        context.dispatch(Dispatch {
            kernel: &PUT_OPTIONS,
            constants: &[],
            parameters: OptionsParameters { y_base: target.base, ..self.0 },
            bindings: &[target],
            grid: [1, 1, 1],
        })
    }
}

/// The activations of gates, candidate and output. A vanilla cell has only the first, a custom cell none.
fn functions(equations: &Equations) -> [Activation; 3] {
    match equations.cell {
        Cell::Vanilla(activation) => [*activation, Activation::Identity, Activation::Identity],
        Cell::Custom(_) => [Activation::Identity; 3],
        Cell::Lstm | Cell::Gru => equations.activations(),
    }
}
