//! Many steps in one dispatch whose workgroups keep W_hh on chip and wait for each other:
//! `shaders/recurrent_on_chip_{forward,backward}.wgsl`.

pub(crate) mod division;

use division::Division;

use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel, Span};

/// One of the two kernels of a layer, ready to be called.
pub(crate) struct PersistentKernel {
    pub(crate) kernel: &'static Kernel,
    /// The values of its constants; that of COMPLETES is set at each dispatch.
    pub(crate) constants: Vec<u32>,
    pub(crate) division: Division,
    /// Words of the history of a row at a step.
    pub(crate) width: usize,
}

impl PersistentKernel {
    /// How many steps a dispatch may take.
    pub(crate) fn steps(&self) -> usize {
        self.division.steps(self.width)
    }

    /// Takes `steps` steps, and then whatever of them is missing.
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

/// The place of COMPLETES among the constants: behind those of every cell.
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
