//! Selects the kernels of a layer and the values of their pipeline constants. The shaders
//! `shaders/recurrent/{step,sequence,persistent}/{forward,backward}.wgsl` are the time loops of the three
//! strategies; each is assembled with a cell of `shaders/recurrent/cells/`.

mod custom;
mod declared;

#[cfg(test)]
pub(crate) use custom::examples as custom_examples;
pub(crate) use custom::kernels as custom_kernels;
#[cfg(test)]
pub(crate) use declared::all;

use declared::{Kernels, gru, gru_reset_before, lstm, lstm_coupled, vanilla};

use super::per_step::StepKernel;
use super::persistent::PersistentKernel;
use super::real_options::RealOptions;
use super::sequence::{KernelKind, SequenceKernel};
use super::split_k::SplitK;
use super::strategy::Strategy;
use crate::Result;
use crate::gpu::Context;
use crate::ops::Activation;
use crate::ops::recurrent::{Call, Cell, Pass, Reset, Sizes};

/// The number of activations.
const FUNCTIONS: u32 = Activation::ALL.len() as u32;

/// The kernels of a layer, and the values of their constants.
pub(crate) struct CellKernels<'k> {
    kernels: Kernels<'k>,
    /// Constants that every cell has, except PHASE.
    shared: [u32; 8],
    pass: Pass,
    /// Constants that only the kernels of this pass have.
    of_pass: Vec<u32>,
    /// Constants of this cell.
    own: Vec<u32>,
    /// The phases of a step: one, or two for a cell whose last gate needs a product of its own.
    phases: &'static [u32],
    /// How many directions share a dispatch.
    directions: usize,
    /// How workgroups split the product of a step.
    split: SplitK,
}

/// Values of PHASE.
const WHOLE: [u32; 1] = [0];
const IN_TWO: [u32; 2] = [1, 2];

impl<'k> CellKernels<'k> {
    /// The kernels of a pass, of one direction or of both.
    pub(crate) fn of(
        context: &Context,
        calls: &[Call<'k>],
        sizes: Sizes,
        has_step_flags: bool,
        pass: Pass,
    ) -> Result<Self> {
        let call = &calls[0];
        let equations = &call.equations;
        let options = equations.options;
        let gated = equations.activations().map(Activation::code);
        let phases: &'static [u32] = if equations.resets_before() { &IN_TWO } else { &WHOLE };
        let (kernels, own) = match (equations.cell, options.reset) {
            (Cell::Vanilla(activation), _) => (vanilla::KERNELS, vec![activation.code()]),
            (Cell::Lstm, _) => {
                let kernels = if options.coupled { lstm_coupled::KERNELS } else { lstm::KERNELS };
                (kernels, [&gated[..], &[u32::from(options.peepholes)]].concat())
            }
            (Cell::Gru, Reset::AfterProduct) => (gru::KERNELS, gated.to_vec()),
            (Cell::Gru, Reset::BeforeProduct) => (gru_reset_before::KERNELS, gated.to_vec()),
            (Cell::Custom(cell), _) => (custom_kernels(cell)?, Vec::new()),
        };
        let zoneout = match (options.zoneout, call.equations.noise) {
            (None, _) => 0,
            (Some(_), Some(_)) => 1,
            (Some(_), None) => 2,
        };
        let shared = [
            u32::from(has_step_flags),
            u32::from(calls.len() == 2),
            u32::from(call.weights.projection.is_some()),
            u32::from(call.state_mask.is_some()),
            zoneout,
            u32::from(options.clip_gates.is_some()),
            u32::from(options.clip_cell.is_some()),
            u32::from(RealOptions::has_alpha(equations)),
        ];
        let of_pass = match pass {
            Pass::Forward => Vec::new(),
            Pass::Backward => vec![options.clip_gradient.is_some().into()],
        };
        let split = SplitK::of(context, sizes);
        Ok(Self { kernels, shared, pass, of_pass, own, phases, directions: calls.len(), split })
    }

    /// All constants of one dispatch; `kernel` are those of this kernel besides the shared ones.
    fn constants(&self, phase: u32, kernel: &[u32]) -> Vec<u32> {
        [&self.shared[..], &[phase], kernel, &self.own].concat()
    }

    /// The kernel that computes a step.
    pub(crate) fn step(&self) -> StepKernel<'k> {
        let constants = [&[self.split.constant()], &self.of_pass[..]].concat();
        let dispatches = self.phases.iter().map(|&phase| self.constants(phase, &constants)).collect();
        let kernel = self.kernels.step[self.pass as usize];
        StepKernel { kernel, dispatches, directions: self.directions, split: self.split }
    }

    /// The kernel of `strategy` that computes many steps per dispatch; none for `PerStep`, or where a step
    /// needs more than one dispatch.
    pub(crate) fn many(&self, call: &Call<'_>, strategy: Strategy) -> Option<SequenceKernel<'k>> {
        let (pass, weights) = (self.pass as usize, call.weights.weight_hh.shape());
        // How many words per row and step the workgroups of a persistent kernel exchange.
        let width = if self.pass == Pass::Forward { weights.last() } else { weights.rows() };
        let all = |division: &[u32]| self.constants(WHOLE[0], &[division, &self.of_pass[..]].concat());
        let kind = match strategy {
            Strategy::PerStep => return None,
            Strategy::Sequence(division) => KernelKind::Rows {
                kernel: self.kernels.sequence?[pass],
                constants: all(&division.constants()),
                division,
            },
            Strategy::Persistent(division) => KernelKind::Persistent(PersistentKernel {
                kernel: self.kernels.persistent?[pass],
                constants: all(&[&[0], &division.constants()[..]].concat()),
                division,
                width,
            }),
        };
        Some(SequenceKernel { kind, directions: self.directions })
    }
}
