//! Operations on tensors. Each has a folder with its public function (`mod.rs`), its `ndarray` CPU reference (`cpu.rs`) and
//! the dispatch of its shaders (`gpu.rs`).
//!
//! Every function checks its arguments before it submits any work. All arguments of a call must be on the same device, which
//! runs the operation.

pub(crate) mod columns;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod layer_norm;
pub(crate) mod matmul;
pub(crate) mod merge;
pub(crate) mod optimizer;
pub(crate) mod padding;
pub(crate) mod permute;
pub(crate) mod recurrent;
pub(crate) mod reduce;
pub(crate) mod softmax;

pub use cross_entropy::Reduction;
pub use dropout::{Mask, dropout};
pub use elementwise::{Activation, Binary, binary, scale, unary, unary_backward};
pub use embedding::{embedding, embedding_backward, one_hot};
pub use layer_norm::{LAYER_NORM_EPSILON, layer_norm, layer_norm_backward};
pub use matmul::{Form, ProductTrial, matmul};
pub use merge::{Merge, merge, merge_backward};
pub use padding::zero_padding;
pub use permute::permute;
pub use reduce::{Norm, norm, squared_norm, sum, sum_rows};
pub use softmax::{log_softmax, log_softmax_backward, softmax, softmax_backward};

/// Every kernel of the crate, for tests that inspect all of them.
#[cfg(test)]
pub(crate) fn kernels() -> Vec<&'static crate::gpu::Kernel> {
    let folders = [
        columns::gpu::KERNELS,
        cross_entropy::gpu::KERNELS,
        dropout::gpu::KERNELS,
        elementwise::gpu::KERNELS,
        embedding::gpu::KERNELS,
        layer_norm::gpu::KERNELS,
        matmul::gpu::KERNELS,
        merge::gpu::KERNELS,
        optimizer::gpu::KERNELS,
        padding::gpu::KERNELS,
        permute::gpu::KERNELS,
        crate::gpu::exchange::KERNELS,
        crate::gpu::self_test::KERNELS,
        recurrent::gpu::layer_norm::KERNELS,
        recurrent::gpu::projection::KERNELS,
        recurrent::gpu::real_options::KERNELS,
        recurrent::gpu::split_k::KERNELS,
        recurrent::gpu::boundary_states::KERNELS,
        recurrent::gpu::step_flags::KERNELS,
        reduce::gpu::KERNELS,
        softmax::gpu::KERNELS,
    ];
    folders.into_iter().flatten().copied().chain(recurrent::gpu::kernels::all()).collect()
}
