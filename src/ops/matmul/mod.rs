//! Matrix products in the four transpose forms.

pub(crate) mod cpu;
pub(crate) mod gpu;
mod kernels;
mod split_k;
mod trial;
mod variants;

use std::ops::Range;

use crate::device::on_device;
pub use crate::gpu::Form;
use crate::math::threads;
use crate::shape::Shape;
use crate::tensor::{Tensor, View, ViewMut, expect_capacity};
use crate::{Error, Result};

pub use trial::ProductTrial;

/// The sizes M, N and K of a product.
#[derive(Clone, Copy)]
pub(crate) struct MatmulSizes {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Stride of the stored rows of A, in elements.
    pub(crate) a_width: usize,
    /// Stride of the rows of C, in elements.
    pub(crate) c_width: usize,
}

/// The value that is added to a product; `B` is a bias in the form that the device needs.
#[derive(Clone, Copy)]
pub(crate) enum Add<B> {
    /// The old values of C.
    Previous,
    /// A bias, or nothing; the old values of C are not read.
    Bias(Option<B>),
}

impl<B> Add<B> {
    fn map<T>(self, convert: impl FnOnce(B) -> T) -> Add<T> {
        match self {
            Self::Previous => Add::Previous,
            Self::Bias(bias) => Add::Bias(bias.map(convert)),
        }
    }
}

impl MatmulSizes {
    /// A [m, k] times B, where the rows of A and C follow each other.
    pub(crate) fn dense([m, n, k]: [usize; 3]) -> Self {
        Self { m, n, k, a_width: k, c_width: n }
    }

    /// The number of values that a product on the CPU allocates besides its result: B packed for the tiles, the offsets of
    /// the rows of A and C, and the block of A that a thread packs.
    fn scratch(&self) -> usize {
        const COLUMNS: usize = 64;
        const BLOCK: usize = 1 << 15;
        self.k * self.n.next_multiple_of(COLUMNS) + 8 * (self.m + self.k + self.n) + BLOCK * threads()
    }
}

/// C = op(A)·op(B) + bias. An operand of more than two dimensions is treated as a matrix whose rows are all leading
/// dimensions; C then has A's leading dimensions, unless A is transposed.
///
/// Shapes: op(A) \[M,K\], op(B) \[K,N\], bias \[N\], C \[M,N\].
///
/// # Errors
/// [`Error::Shape`], which names the operand that does not fit; [`Error::DeviceMismatch`].
///
/// ```
/// use refrain::{Device, Tensor, ops};
/// let device = Device::cpu();
/// let a = Tensor::from_slice(&device, &[1, 2], &[1.0, 2.0])?;
/// let b = Tensor::from_slice(&device, &[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0])?;
/// let c = ops::matmul(&a, &b, ops::Form::RightTransposed, None)?;
/// assert_eq!(c.download()?, [1.0, 2.0, 3.0]);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn matmul<'a>(
    a: impl Into<View<'a>>,
    b: impl Into<View<'a>>,
    form: Form,
    bias: Option<View<'a>>,
) -> Result<Tensor> {
    let (a, b) = (a.into(), b.into());
    let sizes = sizes(a, b, form)?;
    if let Some(bias) = bias {
        a.device().expect_same("bias", bias.device())?;
        bias.shape().expect("bias", &[sizes.n])?;
    }
    let shape = if form.left() { Shape::new(&[sizes.m, sizes.n])? } else { a.shape().with_last(sizes.n)? };
    expect_capacity(a.device(), shape.elements() + sizes.scratch(), "a matrix product")?;
    let mut c = Tensor::unwritten(a.device(), shape.dimensions())?;
    product(c.view_mut()?.matrix()?, [a, b], sizes, form, Add::Bias(bias))?;
    Ok(c)
}

/// As [`matmul`] for matrices, but writes to `c` \[M, N\], whose old values are not read.
pub(crate) fn matmul_to(
    c: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    form: Form,
    bias: Option<View<'_>>,
) -> Result<()> {
    product(c, [a, b], sizes(a, b, form)?, form, Add::Bias(bias))
}

/// C += op(A)·op(B), where C is a section of a flat buffer.
pub(crate) fn matmul_into(c: ViewMut<'_>, a: View<'_>, b: View<'_>, form: Form) -> Result<()> {
    product(c, [a, b], sizes(a, b, form)?, form, Add::Previous)
}

/// C = op(A)·op(B) + bias, or C += op(A)·op(B).
fn product(
    mut c: ViewMut<'_>,
    [a, b]: [View<'_>; 2],
    sizes: MatmulSizes,
    form: Form,
    add: Add<View<'_>>,
) -> Result<()> {
    a.device().expect_same("the product's target", c.device())?;
    c.shape().expect("the product's target", &[sizes.m, sizes.n])?;
    on_device!(a.device(),
        F => {
            expect_capacity(a.device(), sizes.scratch(), "a matrix product")?;
            cpu::matmul(c.array2::<F>(), a.array2(), b.array2(), form, add.map(|bias| bias.array1()));
            Ok(())
        },
        context => {
            let spans = [a.span(), b.span(), c.span()];
            gpu::matmul(context, spans, sizes, form, add.map(|bias| bias.span()))
        },
    )
}

/// C += (columns `columns` of A)ᵀ·B, for A \[K, more\], B \[K, N\], C \[columns, N\]. The sum over K is computed in blocks
/// of `block` terms, the last of which may be shorter; blocks are added to C one by one, from the last to the first.
pub(crate) fn matmul_columns_into(
    mut c: ViewMut<'_>,
    a: View<'_>,
    columns: Range<usize>,
    b: View<'_>,
    block: usize,
) -> Result<()> {
    let form = Form::LeftTransposed;
    let whole = sizes(a, b, form)?;
    let sizes = MatmulSizes { m: columns.len(), ..whole };
    c.shape().expect("the product's target", &[sizes.m, sizes.n])?;
    on_device!(a.device(),
        F => {
            expect_capacity(a.device(), MatmulSizes { k: block.min(sizes.k), ..sizes }.scratch(), "a matrix product")?;
            let a = a.array2::<F>().slice_move(ndarray::s![.., columns]);
            let b = b.array2::<F>();
            for first in (0..sizes.k).step_by(block).rev() {
                let depth = first..sizes.k.min(first + block);
                let a = a.slice(ndarray::s![depth.clone(), ..]);
                cpu::matmul(c.array2::<F>(), a, b.slice(ndarray::s![depth, ..]), form, Add::Previous);
            }
            Ok(())
        },
        context => {
            let from_column = a.span().slice(columns.start..a.span().len());
            let spans = [from_column, b.span(), c.span()];
            gpu::matmul_blocks(context, spans, sizes, form, block)
        },
    )
}

fn sizes(a: View<'_>, b: View<'_>, form: Form) -> Result<MatmulSizes> {
    a.device().expect_same("the right operand", b.device())?;
    let oriented = |view: View<'_>, transposed| {
        let (rows, columns) = (view.shape().rows(), view.shape().last());
        if transposed { (columns, rows) } else { (rows, columns) }
    };
    let (m, k) = oriented(a, form.left());
    let (found, n) = oriented(b, form.right());
    if found != k {
        let expected = format!("an inner size of {k}, as in the left operand {}", a.shape());
        return Err(Error::shape("the right operand of a product", expected, b.shape()));
    }
    Ok(MatmulSizes { m, n, k, a_width: a.shape().last(), c_width: n })
}
