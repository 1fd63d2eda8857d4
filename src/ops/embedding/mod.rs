//! Embedding lookup, its gradient, and one-hot vectors.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::device::on_device;
use crate::shape::Shape;
use crate::tensor::{Indices, Tensor, View, ViewMut, expect_capacity};
use crate::{Error, Result};

/// y_i = table_{token_i}. tokens \[...\], table \[V, F\] → y \[..., F\].
///
/// # Errors
/// [`Error::Index`] for a token of V or more; [`Error::Shape`] for tokens of the highest rank or a table that is not a
/// matrix; [`Error::DeviceMismatch`].
///
/// ```
/// use refrain::{Device, Indices, Tensor, ops};
/// let device = Device::cpu();
/// let table = Tensor::from_slice(&device, &[2, 2], &[1.0, 2.0, 3.0, 4.0])?;
/// let tokens = Indices::from_slice(&device, &[3], &[1, 0, 1])?;
/// assert_eq!(ops::embedding(&tokens, &table)?.download()?, [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn embedding<'a>(tokens: &Indices, table: impl Into<View<'a>>) -> Result<Tensor> {
    let table = table.into();
    let [vocabulary, features] = table.shape().exactly("table", "[vocabulary, features]")?;
    table.device().expect_same("tokens", tokens.device())?;
    tokens.expect_below("tokens", vocabulary)?;
    let shape = appended(tokens, features)?;
    expect_capacity(table.device(), shape.elements(), "embedded tokens")?;
    on_device!(table.device(),
        F, host => {
            let y = cpu::gather(host, tokens.values(), table.array2::<F>())?;
            Tensor::from_array(table.device(), y)?.reshape(shape.dimensions())
        },
        context => {
            let y = Tensor::uninitialized(context, table.device(), shape)?;
            gpu::gather(context, tokens.span(), table, y.view().span())?;
            Ok(y)
        },
    )
}

/// d_table_v = Σ_{i: token_i = v} dy_i. tokens \[...\], dy \[..., F\] → \[`vocabulary`, F\]. Each sum is computed in the
/// order of the tokens, so equal inputs give equal bits.
///
/// # Errors
/// As [`embedding`].
pub fn embedding_backward<'a>(
    tokens: &Indices,
    d_y: impl Into<View<'a>>,
    vocabulary: usize,
) -> Result<Tensor> {
    let d_y = d_y.into();
    let mut d_table = Tensor::zeros(d_y.device(), &[vocabulary, d_y.shape().last()])?;
    embedding_backward_into(d_table.view_mut()?, tokens, d_y)?;
    Ok(d_table)
}

/// Adds the result of [`embedding_backward`] to a section of a flat buffer.
pub(crate) fn embedding_backward_into(
    mut d_table: ViewMut<'_>,
    tokens: &Indices,
    d_y: View<'_>,
) -> Result<()> {
    let [vocabulary, features] = d_table.shape().exactly("the table's gradient", "[vocabulary, features]")?;
    d_y.device().expect_same("tokens", tokens.device())?;
    d_y.device().expect_same("the table's gradient", d_table.device())?;
    tokens.expect_below("tokens", vocabulary)?;
    d_y.shape().expect("d_y", appended(tokens, features)?.dimensions())?;
    on_device!(d_y.device(),
        F => {
            cpu::scatter(d_table.array2::<F>(), tokens.values(), d_y.array2());
            Ok(())
        },
        context => gpu::scatter(context, d_table.span(), vocabulary, tokens, d_y),
    )
}

/// y_iv = 1 where v = token_i, else 0. tokens \[...\] → y \[..., `vocabulary`\].
///
/// # Errors
/// As [`embedding`].
pub fn one_hot(tokens: &Indices, vocabulary: usize) -> Result<Tensor> {
    tokens.expect_below("tokens", vocabulary)?;
    let shape = appended(tokens, vocabulary)?;
    let device = tokens.device();
    expect_capacity(device, shape.elements(), "one-hot vectors")?;
    on_device!(device,
        F => Tensor::from_array(device, cpu::one_hot::<F>(tokens.values(), vocabulary))?
            .reshape(shape.dimensions()),
        context => {
            let y = Tensor::uninitialized(context, device, shape)?;
            gpu::one_hot(context, tokens.span(), vocabulary, y.view().span())?;
            Ok(y)
        },
    )
}

fn appended(tokens: &Indices, features: usize) -> Result<Shape> {
    let mut dimensions = tokens.shape().dimensions().to_vec();
    dimensions.push(features);
    Shape::new(&dimensions)
        .map_err(|_| Error::shape("tokens", "fewer dimensions or features", tokens.shape()))
}
