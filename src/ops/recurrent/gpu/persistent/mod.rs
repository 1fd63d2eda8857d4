//! Strategy `persistent`: many steps in one dispatch whose workgroups keep W_hh in workgroup memory and wait
//! for each other (Diamos et al., 2016, "Persistent RNNs"). Dispatches
//! `shaders/recurrent/persistent/{forward,backward}.wgsl`.

pub(crate) mod division;

use division::Division;

use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel, Span};

/// The forward or backward persistent kernel of a layer.
pub(crate) struct PersistentKernel<'k> {
    pub(crate) kernel: &'k Kernel,
    /// The values of its constants; each dispatch sets that of COMPLETES.
    pub(crate) constants: Vec<u32>,
    pub(crate) division: Division,
    /// Words of the history per row and step.
    pub(crate) width: usize,
}

impl PersistentKernel<'_> {
    /// The most steps of one dispatch.
    pub(crate) fn steps(&self) -> usize {
        self.division.steps(self.width)
    }

    /// Computes `steps` steps; a second dispatch, without waiting, computes those that timed out in the
    /// first.
    pub(crate) fn dispatch<P: bytemuck::Pod>(
        &self,
        context: &Context,
        steps: usize,
        bindings: &[Bound<'_>],
        parameters: P,
    ) -> Result<()> {
        let [head, words] = self.division.exchange(self.width, steps);
        let exchange = context.exchange(head, words, steps * self.division.iterations())?;
        let status = context.bind(context.waiting_status()?)?;
        let exchange = context.bind(Span::new(&exchange, 0, words))?;
        let bindings = [bindings, &[exchange, status]].concat();
        for (completes, workgroups) in [(0, self.division.workgroups()), (1, self.division.completing())] {
            let mut constants = self.constants.clone();
            constants[COMPLETES] = completes;
            context.dispatch(Dispatch {
                kernel: self.kernel,
                constants: &constants,
                parameters,
                bindings: &bindings,
                grid: [workgroups, 1, 1],
            })?;
        }
        Ok(())
    }
}

/// The index of COMPLETES among the constants, after those of every cell.
pub(crate) const COMPLETES: usize = 9;

#[cfg(test)]
mod tests {
    use super::super::kernels::all;
    use super::*;

    #[test]
    fn completes_is_where_dispatches_set_it() {
        let persistent = |kernel: &&Kernel| kernel.name.starts_with("recurrent/persistent");
        for kernel in all().filter(persistent) {
            assert_eq!(kernel.constants[COMPLETES].0, "COMPLETES", "{}", kernel.name);
        }
    }
}
