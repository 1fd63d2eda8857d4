//! One matrix product, computed with any variant; `refrain tune` measures it.

use super::gpu::{MatmulCall, matmul_blocks_by, matmul_by};
use super::{Add, MatmulSizes};
use crate::device::{Backend, Device};
use crate::gpu::{Context, MatmulVariant, ProductShape, Tuning};
use crate::random::Stream;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A matrix product with its own operands on a GPU, to be computed repeatedly with different variants.
///
/// ```no_run
/// use refrain::ops::{Form, ProductTrial};
/// use refrain::Device;
/// use refrain::tuning::{MatmulTile, MatmulVariant, ProductShape};
/// let device = Device::gpu("gpu")?;
/// let shape = ProductShape { form: Form::Plain, m: 512, n: 512, k: 512, block: None };
/// let mut trial = ProductTrial::new(&device, shape)?;
/// trial.run(MatmulVariant { tile: MatmulTile::Large, parts: 1 })?;
/// device.synchronize()?;
/// # Ok::<(), refrain::Error>(())
/// ```
pub struct ProductTrial {
    shape: ProductShape,
    a: Tensor,
    b: Tensor,
    c: Tensor,
}

impl ProductTrial {
    /// Allocates the operands and fills them with numbers between −1 and 1.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on the CPU; [`Error::Shape`] for sizes of zero; out of memory.
    pub fn new(device: &Device, shape: ProductShape) -> Result<Self> {
        let ProductShape { form, m, n, k, .. } = shape;
        if !device.is_gpu() {
            return Err(Error::Unsupported {
                what: "a trial of a matrix product".into(),
                message: "only GPUs have variants of the matrix product; the CPU has one implementation"
                    .into(),
            });
        }
        let a = random(device, if form.left() { [k, m] } else { [m, k] }, 1)?;
        let b = random(device, if form.right() { [n, k] } else { [k, n] }, 2)?;
        Ok(Self { shape, a, b, c: Tensor::zeros(device, &[m, n])? })
    }

    /// Records the product once, without waiting for it.
    ///
    /// # Errors
    /// [`Error::Config`] for a variant that [`Tuning::set_product`] refuses; errors reported by the device.
    pub fn run(&mut self, variant: MatmulVariant) -> Result<()> {
        let Self { shape, a, b, c } = self;
        record(*shape, [a, b, c], variant)
    }

    /// Returns C, computed with this variant.
    ///
    /// # Errors
    /// As [`ProductTrial::run`].
    pub fn product(&self, variant: MatmulVariant) -> Result<Tensor> {
        // Products in blocks add to the old values of the target.
        let c = Tensor::zeros(self.c.device(), self.c.shape().dimensions())?;
        record(self.shape, [&self.a, &self.b, &c], variant)?;
        Ok(c)
    }
}

fn random(device: &Device, dimensions: [usize; 2], stream: u64) -> Result<Tensor> {
    let stream = Stream::new(5, stream);
    let count = dimensions.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..count).map(|index| stream.uniform_between(index, -1.0, 1.0) as f32).collect();
    Tensor::from_slice(device, &dimensions, &values)
}

fn record(shape: ProductShape, [a, b, c]: [&Tensor; 3], variant: MatmulVariant) -> Result<()> {
    // Only variants that a tuning file may store can be tried.
    Tuning::new().set_product(shape, variant)?;
    let context: &Context = match c.device().backend() {
        Backend::Gpu(context) => context,
        Backend::Cpu(_) => unreachable!("`new` has refused the CPU"),
    };
    let ProductShape { form, m, n, k, block } = shape;
    let sizes = MatmulSizes { m, n, k, a_width: a.shape().last(), c_width: n };
    let spans = [a, b, c].map(|tensor| tensor.view().span());
    let product = |add| MatmulCall::new(spans, sizes, form, add);
    match block {
        None => matmul_by(context, variant, product(Add::Bias(None))),
        Some(block) => matmul_blocks_by(context, variant, product(Add::Previous), block),
    }
}
