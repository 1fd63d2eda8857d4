//! The table of measured choices, [`Tuning`], and its file. `src/tuning.rs` says which choices it may contain.

mod file;
mod stored;
mod variants;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub use stored::TUNING_VARIABLE;
pub use variants::{Form, MatmulTile, MatmulVariant, RecurrentStrategy};

/// The shape of a matrix product op(A) \[M,K\] times op(B) \[K,N\], as far as choices depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductShape {
    /// Which operands are stored transposed.
    pub form: Form,
    /// M, the rows of the result.
    pub m: usize,
    /// N, the columns of the result.
    pub n: usize,
    /// K, the number of terms of each sum.
    pub k: usize,
    /// The depth of the blocks that are added one after the other, in gradients that are sums over time; the last may be
    /// shorter. Their bits do not depend on the choice.
    pub block: Option<usize>,
}

/// The shape of a recurrent layer in one direction, as far as choices depend on it.
///
/// Two strategies may add in different orders: if choices differ between batch sizes, the last bits of a row may differ
/// too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrentShape {
    /// G, the number of gates of the cell.
    pub gates: usize,
    /// H, the hidden size.
    pub hidden_size: usize,
    /// B, the batch size.
    pub rows: usize,
}

/// A table of choices for the shapes that were measured, created and stored by `refrain tune` or by a program.
///
/// ```
/// use refrain::ops::Form;
/// use refrain::tuning::{MatmulTile, MatmulVariant, ProductShape, Tuning};
/// let mut tuning = Tuning::new();
/// let shape = ProductShape { form: Form::RightTransposed, m: 1024, n: 256, k: 64, block: None };
/// tuning.set_product(shape, MatmulVariant { tile: MatmulTile::Large, parts: 1 })?;
/// assert!(tuning.set_product(shape, MatmulVariant { tile: MatmulTile::Large, parts: 2 }).is_err());
/// assert_eq!(tuning.len(), 1);
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    products: BTreeMap<ProductShape, MatmulVariant>,
    recurrent: BTreeMap<RecurrentShape, RecurrentStrategy>,
}

impl ProductShape {
    /// The largest number of parts, other than one, that a table may contain for this shape.
    fn most_parts(&self) -> usize {
        match self.block {
            _ if !self.form.left() => 1,
            Some(block) => self.k.div_ceil(block),
            None => self.k,
        }
    }

    /// The variants that are worth measuring: each tile; for sums over rows also powers of two of parts, and blocks all
    /// at once.
    pub fn variants(&self) -> Vec<MatmulVariant> {
        /// The smallest depth of a slice, and the most slices.
        const LEAST: usize = 128;
        const MOST: usize = 256;
        let most = self.most_parts();
        let parts: Vec<usize> = match self.block {
            Some(_) if most > 1 => vec![1, most],
            Some(_) => vec![1],
            None => (0..)
                .map(|power| 1 << power)
                .take_while(|&parts| parts == 1 || (parts <= most.min(MOST) && self.k / parts >= LEAST))
                .collect(),
        };
        let tiles = MatmulTile::ALL.into_iter();
        tiles.flat_map(|tile| parts.iter().map(move |&parts| MatmulVariant { tile, parts })).collect()
    }

    /// Fails unless a table may contain `variant` for this shape.
    fn expect_allowed(&self, variant: MatmulVariant) -> Result<()> {
        let refused = |message: String| Err(Error::config(format!("the choice for {self:?}"), message));
        let Self { form, m, n, k, block } = *self;
        if [m, n, k].contains(&0) || block == Some(0) {
            return refused("sizes must be at least 1".to_owned());
        }
        if block.is_some() && !form.left() {
            return refused("only sums over rows, with A transposed, are computed in blocks".to_owned());
        }
        let (parts, most) = (variant.parts, self.most_parts());
        let expected = match block {
            _ if parts == 1 || (parts == most && most > 0) => return Ok(()),
            _ if !form.left() => {
                "1, because only sums over rows, with A transposed, are split: in all other products a row's bits must \
                 not depend on the number of rows"
                    .to_owned()
            }
            Some(_) => format!("1, for one block after the other, or {most}, for all blocks at once"),
            None if (1..=most).contains(&parts) => return Ok(()),
            None => format!("between 1 and {most}, the depth of the sum"),
        };
        refused(format!("`parts` must be {expected}; it is {parts}"))
    }
}

impl RecurrentShape {
    /// Fails unless a table may contain `strategy` for this shape.
    fn expect_allowed(&self, strategy: RecurrentStrategy) -> Result<()> {
        let refused = |message: &str| Err(Error::config(format!("the choice for {self:?}"), message));
        let Self { gates, hidden_size, rows } = *self;
        match strategy {
            _ if [gates, hidden_size, rows].contains(&0) => refused("sizes must be at least 1"),
            RecurrentStrategy::Auto => refused(
                "must be `per_step`, `sequence` or `persistent`: `auto` is not a choice, leave the shape out instead",
            ),
            RecurrentStrategy::PerStep | RecurrentStrategy::Sequence | RecurrentStrategy::Persistent => {
                Ok(())
            }
        }
    }
}

impl Tuning {
    /// An empty table: only heuristics are used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the variant of products of this shape.
    ///
    /// # Errors
    /// [`Error::Config`] for a size of 0, for blocks if A is not transposed, and for a number of parts that is not
    /// allowed: one is always allowed; with A transposed also any number up to K or, in blocks, the number of all
    /// blocks.
    pub fn set_product(&mut self, shape: ProductShape, variant: MatmulVariant) -> Result<()> {
        shape.expect_allowed(variant)?;
        self.note_product(shape, variant);
        Ok(())
    }

    /// Sets the strategy of recurrent layers of this shape. A layer that does not support a strategy with many steps per
    /// dispatch runs step by step nevertheless.
    ///
    /// # Errors
    /// [`Error::Config`] for a size of 0 and for [`RecurrentStrategy::Auto`], which is not a choice.
    pub fn set_recurrent(&mut self, shape: RecurrentShape, strategy: RecurrentStrategy) -> Result<()> {
        shape.expect_allowed(strategy)?;
        self.note_recurrent(shape, strategy);
        Ok(())
    }

    /// Records a choice that a device made, which is always allowed.
    pub(crate) fn note_product(&mut self, shape: ProductShape, variant: MatmulVariant) {
        self.products.insert(shape, variant);
    }

    /// As [`Tuning::note_product`].
    pub(crate) fn note_recurrent(&mut self, shape: RecurrentShape, strategy: RecurrentStrategy) {
        self.recurrent.insert(shape, strategy);
    }

    /// Removes the choice for products of this shape, so that heuristics apply again.
    pub fn forget_product(&mut self, shape: ProductShape) {
        self.products.remove(&shape);
    }

    /// Removes the choice for recurrent layers of this shape, so that heuristics apply again.
    pub fn forget_recurrent(&mut self, shape: RecurrentShape) {
        self.recurrent.remove(&shape);
    }

    /// The variant chosen for products of this shape.
    pub fn product(&self, shape: ProductShape) -> Option<MatmulVariant> {
        self.products.get(&shape).copied()
    }

    /// The strategy chosen for recurrent layers of this shape.
    pub fn recurrent(&self, shape: RecurrentShape) -> Option<RecurrentStrategy> {
        self.recurrent.get(&shape).copied()
    }

    /// All choices for products, ordered by shape.
    pub fn products(&self) -> impl Iterator<Item = (ProductShape, MatmulVariant)> + '_ {
        self.products.iter().map(|(&shape, &variant)| (shape, variant))
    }

    /// All choices for recurrent layers, ordered by shape.
    pub fn recurrent_layers(&self) -> impl Iterator<Item = (RecurrentShape, RecurrentStrategy)> + '_ {
        self.recurrent.iter().map(|(&shape, &strategy)| (shape, strategy))
    }

    /// The number of choices.
    pub fn len(&self) -> usize {
        self.products.len() + self.recurrent.len()
    }

    /// Whether there are no choices.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(form: Form, k: usize, block: Option<usize>) -> ProductShape {
        ProductShape { form, m: 3, n: 5, k, block }
    }

    #[test]
    fn all_that_is_worth_measuring_may_be_chosen() {
        let mut tuning = Tuning::new();
        for form in Form::ALL {
            for k in [1, 127, 255, 256, 4096, 1 << 20] {
                for block in
                    [None, Some(1), Some(512)].into_iter().filter(|block| block.is_none() || form.left())
                {
                    let shape = shape(form, k, block);
                    let variants = shape.variants();
                    assert!(
                        variants.len() >= MatmulTile::ALL.len()
                            && variants.len() <= 9 * MatmulTile::ALL.len()
                    );
                    for variant in variants {
                        tuning.set_product(shape, variant).expect("worth measuring");
                        assert_eq!(tuning.product(shape), Some(variant));
                    }
                }
            }
        }
    }

    #[test]
    fn parts_that_would_break_a_row_from_its_bits_are_refused() {
        let tile = MatmulTile::Narrow;
        let refused = |shape, parts| {
            let variant = MatmulVariant { tile, parts };
            Tuning::new().set_product(shape, variant).expect_err("not allowed").to_string()
        };
        for form in [Form::Plain, Form::RightTransposed] {
            let message = refused(shape(form, 1000, None), 2);
            assert!(message.contains("`parts` must be 1, because only sums over rows"), "{message}");
            assert!(refused(shape(form, 1000, Some(500)), 1).contains("computed in blocks"));
            assert_eq!(shape(form, 1 << 20, None).variants().len(), MatmulTile::ALL.len());
        }
        let left = |block| shape(Form::LeftTransposed, 1000, block);
        for (shape, parts, part) in [
            (left(None), 0, "between 1 and 1000"),
            (left(None), 1001, "between 1 and 1000"),
            (left(Some(300)), 2, "or 4, for all blocks at once"),
            (left(Some(0)), 1, "at least 1"),
            (shape(Form::LeftTransposed, 0, None), 1, "at least 1"),
        ] {
            let message = refused(shape, parts);
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn a_choice_of_nothing_is_refused_and_forgetting_leaves_none() {
        let mut tuning = Tuning::new();
        let layer = RecurrentShape { gates: 4, hidden_size: 64, rows: 16 };
        let refused =
            tuning.set_recurrent(layer, RecurrentStrategy::Auto).expect_err("no choice").to_string();
        assert!(refused.contains("leave the shape out"), "{refused}");
        let none = RecurrentShape { rows: 0, ..layer };
        assert!(tuning.set_recurrent(none, RecurrentStrategy::PerStep).is_err());
        tuning.set_recurrent(layer, RecurrentStrategy::PerStep).expect("a choice");
        let product = shape(Form::Plain, 7, None);
        let variant = MatmulVariant { tile: MatmulTile::Large, parts: 1 };
        tuning.set_product(product, variant).expect("a choice");
        assert_eq!((tuning.len(), tuning.recurrent(layer)), (2, Some(RecurrentStrategy::PerStep)));
        tuning.forget_recurrent(layer);
        tuning.forget_product(product);
        assert!(tuning.is_empty());
    }
}
