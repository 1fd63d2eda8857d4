//! Dispatch of element-wise kernels over any number of elements.

use super::{Context, Dispatch, ELEMENTWISE_GROUP, Kernel, Span, pieces};
use crate::Result;

impl Context {
    /// Dispatches `kernel` once for each piece of `spans`, which must have the same length; `parameters`
    /// receives the number of elements of the piece and the base of each binding.
    pub(crate) fn elementwise<P: bytemuck::Pod, const N: usize>(
        &self,
        kernel: &Kernel,
        constants: &[u32],
        spans: [Span<'_>; N],
        parameters: impl Fn(u32, [u32; N]) -> P,
    ) -> Result<()> {
        self.elementwise_with_gaps(kernel, constants, spans[0].len(), spans.map(Some), parameters)
    }

    /// As [`Context::elementwise`] over `count` elements, where some spans may be absent: a dummy binding
    /// replaces them, which the kernel does not access.
    pub(crate) fn elementwise_with_gaps<P: bytemuck::Pod, const N: usize>(
        &self,
        kernel: &Kernel,
        constants: &[u32],
        count: usize,
        spans: [Option<Span<'_>>; N],
        parameters: impl Fn(u32, [u32; N]) -> P,
    ) -> Result<()> {
        let scrap = match spans.iter().any(Option::is_none) {
            true => Some(self.allocate(1, "a dummy binding for an optional buffer")?),
            false => None,
        };
        for piece in pieces(count, self.limits().elements(ELEMENTWISE_GROUP)) {
            let mut bindings = Vec::with_capacity(N);
            for span in spans {
                let stand_in = || scrap.as_ref().map(|scrap| Span::new(scrap, 0, 1));
                bindings.extend(
                    span.map(|span| span.slice(piece.clone())).or_else(stand_in).map(|span| self.bind(span)),
                );
            }
            let bindings = bindings.into_iter().collect::<Result<Vec<_>>>()?;
            let mut bases = [0; N];
            for (base, binding) in bases.iter_mut().zip(&bindings) {
                *base = binding.base;
            }
            self.dispatch(Dispatch {
                kernel,
                constants,
                parameters: parameters(piece.len() as u32, bases),
                bindings: &bindings,
                grid: [piece.len().div_ceil(ELEMENTWISE_GROUP), 1, 1],
            })?;
        }
        Ok(())
    }
}
