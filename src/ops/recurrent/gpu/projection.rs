//! The projection of an LSTM on the GPU, h = W_hr m (Sak et al., 2014, arXiv:1402.1128), for each step.
//! Dispatches `shaders/recurrent/states/hidden_gradient.wgsl`. CPU reference:
//! `src/ops/recurrent/cpu/time_loop.rs`.

use crate::Result;
use crate::gpu::{Bound, Context, Operand, Span, kernels, parameters};
use crate::ops::matmul::MatmulSizes;
use crate::ops::matmul::gpu::{Add, matmul};
use crate::ops::recurrent::{Call, Sizes};
use crate::ops::{Form, dropout};
use crate::tensor::{Tensor, View};

parameters!(GatherParameters {
    count: u32,
    /// Index of the first element of this dispatch.
    first: u32,
    projection_size: u32,
    width: u32,
    product_base: u32,
    d_output_base: u32,
    step_flags_base: u32,
    next_step_flags_base: u32,
    carry_base: u32,
    carry_out_base: u32,
    d_hidden_base: u32,
    /// 1 for the last step, which has no following one.
    ends: u32,
    /// 0 where d_output is not added.
    takes_outputs: u32,
    /// The bound of the clipped gradient of the state.
    bound: f32,
});

kernels! {
    GATHER: "recurrent/states/hidden_gradient" {
        uses: ["lib/elements", "lib/math", "recurrent/common/step_flag_bits"],
        parameters: GatherParameters,
        constants: [("HAS_STEP_FLAGS", 2), ("CLIPS_GRADIENT", 2)],
        bindings: [Read, Read, Read, Write, Write],
    }
}

/// Computes h = W_hr m for m [rows, H] into rows of `width` elements.
pub(crate) fn project(
    context: &Context,
    projection: View<'_>,
    unprojected: Span<'_>,
    output: Span<'_>,
    width: usize,
) -> Result<()> {
    let (state, units) = (projection.shape().rows(), projection.shape().last());
    let rows = unprojected.len() / units;
    let sizes = MatmulSizes { m: rows, n: state, k: units, a_width: units, c_width: width };
    let spans = [unprojected, projection.span(), output];
    matmul(context, spans, sizes, Form::RightTransposed, Add::Bias(None))
}

/// Scratch buffers of a backward step through a projection, for `rows` rows.
pub(crate) struct Projection<'a> {
    call: &'a Call<'a>,
    projection: View<'a>,
    sizes: Sizes,
    /// The following step's gate gradients times W_hh [rows, P].
    product: Tensor,
    /// The gradient of m [rows, H].
    pub(crate) d_unprojected: Tensor,
}

/// The operands and results of a backward step through a projection.
pub(crate) struct ProjectionStep<'a> {
    pub(crate) rows: usize,
    /// The gate gradients of the following step [rows, G·H]; none for the last step.
    pub(crate) next_gates: Option<Span<'a>>,
    pub(crate) d_output: Bound<'a>,
    pub(crate) d_output_base: u32,
    /// Elements per row of d_output; none where d_output is not added.
    pub(crate) width: Option<usize>,
    /// The step flags, with the offsets of this step's and of the following step's.
    pub(crate) step_flags: Option<(Bound<'a>, [u32; 2])>,
    pub(crate) carry: Bound<'a>,
    pub(crate) carry_bases: [u32; 2],
    /// The gradient of h [rows, P].
    pub(crate) d_hidden: Span<'a>,
}

impl<'a> Projection<'a> {
    pub(crate) fn new(call: &'a Call<'a>, sizes: Sizes, rows: usize) -> Result<Option<Self>> {
        let Some(projection) = call.weights.projection else { return Ok(None) };
        let device = projection.device();
        Ok(Some(Self {
            call,
            projection,
            sizes,
            product: Tensor::unwritten(device, &[rows, sizes.projection_size])?,
            d_unprojected: Tensor::unwritten(device, &[rows, sizes.hidden_size])?,
        }))
    }

    /// Computes the gradients of h and of m for one step.
    pub(crate) fn step_back(&self, context: &Context, place: &ProjectionStep<'_>) -> Result<()> {
        let Sizes { hidden_size, projection_size, .. } = self.sizes;
        let rows = place.rows;
        let product = self.product.view().span().slice(0..rows * projection_size);
        if let Some(gates) = place.next_gates {
            let width = gates.len() / rows;
            let sizes = MatmulSizes::dense([rows, projection_size, width]);
            let spans = [gates, self.call.weights.weight_hh.span(), product];
            matmul(context, spans, sizes, Form::Plain, Add::Bias(None))?;
        }
        match self.call.state_mask {
            Some(mask) => {
                let seen = dropout(self.product.view().outer(0..rows)?, mask)?;
                self.gather(context, place, seen.view().span())?;
            }
            None => self.gather(context, place, product)?,
        }
        let d_unprojected = self.d_unprojected.view();
        let sizes = MatmulSizes::dense([rows, hidden_size, projection_size]);
        let spans =
            [place.d_hidden, self.projection.span(), d_unprojected.span().slice(0..rows * hidden_size)];
        matmul(context, spans, sizes, Form::Plain, Add::Bias(None))
    }

    fn gather(&self, context: &Context, place: &ProjectionStep<'_>, product: Span<'_>) -> Result<()> {
        let product = context.bind(product)?;
        let d_hidden = context.bind(place.d_hidden)?;
        let bound = self.call.equations.options.clip_gradient;
        let (step_flags, bases) = place.step_flags.unwrap_or((product, [0; 2]));
        let constants = [place.step_flags.is_some().into(), bound.is_some().into()];
        let count = place.rows * self.sizes.projection_size;
        let operands = [product, place.d_output, step_flags, place.carry, d_hidden].map(Operand::All);
        context.elementwise(&GATHER, &constants, count, operands, |piece, _| GatherParameters {
            count: piece.len() as u32,
            first: piece.start as u32,
            projection_size: self.sizes.projection_size as u32,
            width: place.width.unwrap_or(0) as u32,
            product_base: product.base,
            d_output_base: place.d_output_base,
            step_flags_base: bases[0],
            next_step_flags_base: bases[1],
            carry_base: place.carry_bases[0],
            carry_out_base: place.carry_bases[1],
            d_hidden_base: d_hidden.base,
            ends: place.next_gates.is_none().into(),
            takes_outputs: place.width.is_some().into(),
            bound: bound.unwrap_or(0.0),
        })
    }
}
