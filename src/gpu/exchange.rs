//! The buffers by which the workgroups of a persistent kernel exchange values: see [`persistent`](super::persistent).

use std::sync::atomic::Ordering;

use super::context::Context;
use super::elementwise::Operand;
use super::kernel::{kernels, parameters};
use super::persistent::STATUS;
use super::pool::{Buffer, Purpose};
use super::span::Span;
use crate::Result;

parameters!(ClearParameters { count: u32, first: u32, zeros: u32 });

kernels! {
    CLEAR: "recurrent/persistent/clear_exchange" {
        uses: ["lib/elements"],
        parameters: ClearParameters,
        bindings: [Write],
    }
}

impl Context {
    /// The status, to which kernels write timeouts and from which they read the spin limit; initially zeros.
    pub(crate) fn waiting_status(&self) -> Result<Span<'_>> {
        const WHAT: &str = "the status of persistent kernels";
        let waiting = self.waiting();
        if let Some(status) = waiting.status() {
            return Ok(status);
        }
        let words = waiting.initial_status();
        let buffer = self.allocate(words.len(), WHAT)?;
        self.recorder().upload(&buffer, bytemuck::bytes_of(&words))?;
        let staging = self.pool().take(Purpose::Download, 4 * STATUS as u64, WHAT)?;
        Ok(waiting.create_status(buffer, staging))
    }

    /// Creates the exchange buffer of a dispatch: `words` words, of which the first `zeros` are zero and the
    /// others EMPTY.
    pub(super) fn empty_exchange(&self, zeros: usize, words: usize) -> Result<Buffer> {
        let exchange = self.allocate(words, "the exchange of a persistent kernel")?;
        let target = Operand::All(self.bind(Span::new(&exchange, 0, words))?);
        self.elementwise(&CLEAR, &[], words, [target], |piece, _| ClearParameters {
            count: piece.len() as u32,
            first: piece.start as u32,
            zeros: zeros as u32,
        })?;
        Ok(exchange)
    }

    /// The exchange buffer of a layer's dispatch, as [`Context::empty_exchange`]. `iterations` is the bound
    /// of its completion: if all completions of the submission could together take too long, the recorded
    /// work is submitted first.
    pub(crate) fn exchange(&self, zeros: usize, words: usize, iterations: usize) -> Result<Buffer> {
        let waiting = self.waiting();
        let before = waiting.iterations.load(Ordering::SeqCst);
        if before > 0 && before + iterations > waiting.iterations_of_a_submission() {
            self.recorder().flush()?;
        }
        waiting.iterations.fetch_add(iterations, Ordering::SeqCst);
        waiting.dispatches.fetch_add(1, Ordering::Relaxed);
        self.empty_exchange(zeros, words)
    }
}
