//! Matrix products in panels that fit the caches (Goto & van de Geijn 2008, "Anatomy of high-performance matrix
//! multiplication") and tiles that fit the registers.
//!
//! Each element of a product is one chain of multiply-adds per [`DEPTH`] terms of the inner dimension. So its bits
//! depend only on its row of A and its column of B, not on the tile that contains it or on the number of rows or
//! threads.

use std::ops::Range;

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, Axis};

use super::instructions::{Instructions, Row, WIDTH, Work, run};
use super::packed::Packed;
use super::threads::{in_parts, part_rows};

/// Terms of the inner dimension that are summed at a time; this part of a panel stays in the L1 cache.
const DEPTH: usize = 256;
/// The rows of a thread are a multiple of this number, the height of the highest tile.
pub(crate) const TILE_ROWS: usize = 8;
/// Rows that are multiplied by one panel at a time; this part of A stays in the L2 cache.
const ROWS: usize = 128;

/// What the product is added to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Onto {
    /// The old values.
    Previous,
    /// Nothing; the old values are not read.
    Nothing,
}

/// C = A·B + bias, or C += A·B + bias, for A \[M, K\] and C \[M, N\] with contiguous rows.
pub(crate) fn product(a: ArrayView2<'_, f32>, b: &Packed, mut c: ArrayViewMut2<'_, f32>, onto: Onto) {
    debug_assert_eq!((a.dim(), c.ncols()), ((c.nrows(), b.depth), b.columns));
    let Some(lines) = Lines::of(&a) else {
        return product(a.as_standard_layout().view(), b, c, onto);
    };
    let mut c: Vec<&mut [f32]> = c.axis_iter_mut(Axis(0)).map(contiguous).collect();
    run(Product { a: lines, b, c: &mut c, onto });
}

/// As [`product()`] for a B that is used once; large products run on several threads.
pub(crate) fn product_in_parts(
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    bias: Option<ArrayView1<'_, f32>>,
    c: ArrayViewMut2<'_, f32>,
    onto: Onto,
) {
    let part = part_rows(a.nrows(), a.len() * b.ncols(), TILE_ROWS);
    let b = Packed::new(b, bias);
    let mut rest = (a, c);
    let mut parts = Vec::new();
    while rest.0.nrows() > part {
        let (a, more) = rest.0.split_at(Axis(0), part);
        let (c, below) = rest.1.split_at(Axis(0), part);
        parts.push((a, c));
        rest = (more, below);
    }
    parts.push(rest);
    in_parts(parts, |(a, c)| product(a, &b, c, onto));
}

fn contiguous<'a>(row: ndarray::ArrayViewMut1<'a, f32>) -> &'a mut [f32] {
    match row.into_slice() {
        Some(row) => row,
        None => unreachable!("rows of a product are contiguous"),
    }
}

/// The left operand A \[M, K\] as contiguous lines.
enum Lines<'a> {
    /// M rows.
    Rows(Vec<&'a [f32]>),
    /// K columns: A is stored transposed.
    Columns(Vec<&'a [f32]>),
}

impl<'a> Lines<'a> {
    fn of(a: &'a ArrayView2<'_, f32>) -> Option<Self> {
        let lines = |axis| a.axis_iter(axis).map(|line| line.to_slice()).collect::<Option<Vec<_>>>();
        lines(Axis(0)).map(Self::Rows).or_else(|| lines(Axis(1)).map(Self::Columns))
    }
}

struct Product<'a, 'c> {
    a: Lines<'a>,
    b: &'a Packed,
    c: &'a mut [&'c mut [f32]],
    onto: Onto,
}

impl Work for Product<'_, '_> {
    #[inline(always)]
    fn run<I: Instructions>(self) {
        let Self { a, b, c, onto } = self;
        let mut packed = match a {
            Lines::Rows(_) => Vec::new(),
            Lines::Columns(_) => vec![0.0; ROWS * DEPTH.min(b.depth)],
        };
        for first in (0..b.depth).step_by(DEPTH) {
            let depth = first..b.depth.min(first + DEPTH);
            for (block, c) in c.chunks_mut(ROWS).enumerate() {
                let rows = block * ROWS..block * ROWS + c.len();
                if let Lines::Columns(columns) = &a {
                    pack_left::<I>(&mut packed, &columns[depth.clone()], rows.clone());
                }
                for (number, (panel, bias)) in b.panels.chunks_exact(b.depth).zip(&b.bias).enumerate() {
                    let place = number * WIDTH;
                    let panel = Panel {
                        values: &panel[depth.clone()],
                        bias: (first == 0).then_some(bias),
                        onto: if first == 0 { onto } else { Onto::Previous },
                        columns: place..b.columns.min(place + WIDTH),
                    };
                    match &a {
                        Lines::Rows(all) => panel.pass_rows::<I>(&all[rows.clone()], depth.clone(), c),
                        Lines::Columns(_) => panel.pass_packed::<I>(&packed, c),
                    }
                }
            }
        }
    }
}

/// The heights of the tiles that cover `rows` rows: the largest possible, then halves.
#[inline(always)]
fn height<I: Instructions>(rows: usize) -> usize {
    let mut height = I::ROWS;
    while height > rows {
        height /= 2;
    }
    height
}

/// Packs the rows `rows` of A, which is stored as columns, tile by tile; each tile is [K, height].
#[inline(always)]
fn pack_left<I: Instructions>(packed: &mut [f32], columns: &[&[f32]], rows: Range<usize>) {
    let mut done = 0;
    while done < rows.len() {
        let height = height::<I>(rows.len() - done);
        let tile = &mut packed[done * columns.len()..][..height * columns.len()];
        let first = rows.start + done;
        match height {
            8 => pack_tile::<8>(tile, columns, first),
            4 => pack_tile::<4>(tile, columns, first),
            2 => pack_tile::<2>(tile, columns, first),
            _ => pack_tile::<1>(tile, columns, first),
        }
        done += height;
    }
}

#[inline(always)]
fn pack_tile<const M: usize>(tile: &mut [f32], columns: &[&[f32]], first: usize) {
    for (target, column) in tile.chunks_exact_mut(M).zip(columns) {
        target.copy_from_slice(&column[first..first + M]);
    }
}

/// A section of a panel along the inner dimension.
struct Panel<'a> {
    values: &'a [Row],
    bias: Option<&'a Row>,
    onto: Onto,
    columns: Range<usize>,
}

impl Panel<'_> {
    /// Multiplies rows of A, at the terms `depth`, by this section and adds to `c`.
    #[inline(always)]
    fn pass_rows<I: Instructions>(&self, rows: &[&[f32]], depth: Range<usize>, c: &mut [&mut [f32]]) {
        let mut done = 0;
        while done < rows.len() {
            let height = height::<I>(rows.len() - done);
            let (rows, c) = (&rows[done..], &mut c[done..]);
            match height {
                8 => self.tile_of_rows::<I, 8>(rows, &depth, c),
                4 => self.tile_of_rows::<I, 4>(rows, &depth, c),
                2 => self.tile_of_rows::<I, 2>(rows, &depth, c),
                _ => self.tile_of_rows::<I, 1>(rows, &depth, c),
            }
            done += height;
        }
    }

    /// As [`Self::pass_rows`], for rows packed by [`pack_left`].
    #[inline(always)]
    fn pass_packed<I: Instructions>(&self, packed: &[f32], c: &mut [&mut [f32]]) {
        let depth = self.values.len();
        let (mut done, rows) = (0, c.len());
        while done < rows {
            let height = height::<I>(rows - done);
            let (tile, c) = (&packed[done * depth..][..height * depth], &mut c[done..]);
            match height {
                8 => self.tile_of_packed::<I, 8>(tile, c),
                4 => self.tile_of_packed::<I, 4>(tile, c),
                2 => self.tile_of_packed::<I, 2>(tile, c),
                _ => self.tile_of_packed::<I, 1>(tile, c),
            }
            done += height;
        }
    }

    #[inline(always)]
    fn tile_of_rows<I: Instructions, const M: usize>(
        &self,
        rows: &[&[f32]],
        depth: &Range<usize>,
        c: &mut [&mut [f32]],
    ) {
        let rows: [&[f32]; M] = std::array::from_fn(|row| &rows[row][depth.start..][..self.values.len()]);
        let mut sums = self.start::<I, M>();
        // Four terms per iteration, so that the loop itself costs no time.
        let rows = rows.map(|row| row.as_chunks::<4>());
        let (fours, rest) = self.values.as_chunks::<4>();
        for (number, b) in fours.iter().enumerate() {
            let a: [[f32; 4]; M] = std::array::from_fn(|row| rows[row].0[number]);
            for place in 0..4 {
                add::<I, M>(&mut sums, std::array::from_fn(|row| a[row][place]), &b[place]);
            }
        }
        for (place, b) in rest.iter().enumerate() {
            add::<I, M>(&mut sums, std::array::from_fn(|row| rows[row].1[place]), b);
        }
        self.finish::<I, M>(sums, c);
    }

    #[inline(always)]
    fn tile_of_packed<I: Instructions, const M: usize>(&self, tile: &[f32], c: &mut [&mut [f32]]) {
        let mut sums = self.start::<I, M>();
        for (a, b) in tile.chunks_exact(M).zip(self.values) {
            add::<I, M>(&mut sums, std::array::from_fn(|row| a[row]), b);
        }
        self.finish::<I, M>(sums, c);
    }

    #[inline(always)]
    fn start<I: Instructions, const M: usize>(&self) -> [I::Sums; M] {
        [I::load(self.bias.unwrap_or(&Row::ZERO)); M]
    }

    #[inline(always)]
    fn finish<I: Instructions, const M: usize>(&self, sums: [I::Sums; M], c: &mut [&mut [f32]]) {
        for (sums, c) in sums.into_iter().zip(c) {
            let c = &mut c[self.columns.clone()];
            let sums = I::store(sums).0;
            match (self.onto, <&mut [f32; WIDTH]>::try_from(&mut *c)) {
                // A full row has a constant length.
                (Onto::Nothing, Ok(c)) => *c = sums,
                (Onto::Previous, Ok(c)) => c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum),
                (Onto::Nothing, Err(_)) => c.iter_mut().zip(sums).for_each(|(c, sum)| *c = sum),
                (Onto::Previous, Err(_)) => c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum),
            }
        }
    }
}

/// sums += a bᵀ; `sums` stays in registers.
#[inline(always)]
fn add<I: Instructions, const M: usize>(sums: &mut [I::Sums; M], a: [f32; M], b: &Row) {
    let b = I::load(b);
    for (sums, a) in sums.iter_mut().zip(a) {
        *sums = I::add_multiple(a, b, *sums);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, s};

    use super::super::instructions::run_with_each;
    use super::*;

    fn numbers(rows: usize, columns: usize, seed: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(row, column)| {
            ((row * columns + column) as f32 * 0.613 + seed).sin()
        })
    }

    /// The largest error of a chain of K multiply-adds of numbers up to 1, with one addition per block.
    fn allowed(depth: usize) -> f64 {
        (depth + 2) as f64 * f64::from(f32::EPSILON) * depth as f64 / 2.0
    }

    fn truth(a: &Array2<f32>, b: &Array2<f32>) -> Array2<f64> {
        a.mapv(f64::from).dot(&b.mapv(f64::from))
    }

    #[test]
    fn products_of_all_forms_and_instructions_are_those_of_the_definition() {
        for [m, k, n] in [[1, 1, 1], [3, 5, 7], [17, 33, 31], [130, 257, 65], [8, 300, 32], [129, 2, 33]] {
            let (a, b, bias) = (numbers(m, k, 0.0), numbers(k, n, 1.0), Array1::linspace(-1.0, 1.0, n));
            let (a_stored, b_stored) = (a.t().to_owned(), b.t().to_owned());
            let a_stored = a_stored.as_standard_layout();
            let expected = truth(&a, &b);
            for (a, b) in [
                (a.view(), b.view()),
                (a_stored.t(), b.view()),
                (a.view(), b_stored.t()),
                (a_stored.t(), b_stored.t()),
            ] {
                let b = Packed::new(b, Some(bias.view()));
                for onto in [Onto::Previous, Onto::Nothing] {
                    run_with_each(|| Checked { a, b: &b, bias: bias.view(), expected: &expected, onto });
                }
            }
        }
    }

    struct Checked<'a> {
        a: ArrayView2<'a, f32>,
        b: &'a Packed,
        bias: ArrayView1<'a, f32>,
        expected: &'a Array2<f64>,
        onto: Onto,
    }

    impl Work for Checked<'_> {
        fn run<I: Instructions>(self) {
            let mut result = Array2::from_elem(self.expected.raw_dim(), 0.25);
            let mut c: Vec<&mut [f32]> = result.axis_iter_mut(Axis(0)).map(contiguous).collect();
            let Some(a) = Lines::of(&self.a) else { panic!("no contiguous lines") };
            Product { a, b: self.b, c: &mut c, onto: self.onto }.run::<I>();
            for ((row, column), &found) in result.indexed_iter() {
                let previous = if self.onto == Onto::Previous { 0.25 } else { 0.0 };
                let expected = self.expected[[row, column]] + f64::from(self.bias[column]) + previous;
                let off = (f64::from(found) - expected).abs();
                assert!(off <= allowed(self.b.depth + 2), "{row}, {column}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn arrays_that_skip_elements_are_read_and_written_as_they_lie() {
        let (a, b) = (numbers(20, 24, 0.0), numbers(24, 40, 1.0));
        let (a, b) = (a.slice(s![..;2, ..;3]), b.slice(s![..;3, ..;2]));
        let mut whole = Array2::zeros((10, 60));
        product(a, &Packed::new(b, None), whole.slice_mut(s![.., 20..40]), Onto::Previous);
        let expected = truth(&a.to_owned(), &b.to_owned());
        for ((row, column), &found) in whole.indexed_iter() {
            let expected = if (20..40).contains(&column) { expected[[row, column - 20]] } else { 0.0 };
            assert!((f64::from(found) - expected).abs() <= allowed(8), "{row}, {column}");
        }
    }

    #[test]
    fn a_row_has_the_same_bits_among_any_number_of_rows() {
        let (a, b) = (numbers(77, 300, 0.0), numbers(300, 50, 1.0));
        let packed = Packed::new(b.view(), None);
        let mut whole = Array2::zeros((77, 50));
        product_in_parts(a.view(), b.view(), None, whole.view_mut(), Onto::Nothing);
        for rows in [0..1, 3..10, 20..77, 5..72] {
            let mut part = Array2::zeros((rows.len(), 50));
            product(a.slice(s![rows.clone(), ..]), &packed, part.view_mut(), Onto::Nothing);
            assert_eq!(part, whole.slice(s![rows.clone(), ..]));
            let stored = a.slice(s![rows.clone(), ..]).t().as_standard_layout().into_owned();
            let mut part = Array2::zeros((rows.len(), 50));
            product(stored.t(), &packed, part.view_mut(), Onto::Nothing);
            assert_eq!(part, whole.slice(s![rows, ..]));
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (a, b) = (numbers(1000, 300, 0.0), numbers(300, 100, 1.0));
        let (mut one, mut many) = (Array2::zeros((1000, 100)), Array2::zeros((1000, 100)));
        product(a.view(), &Packed::new(b.view(), None), one.view_mut(), Onto::Nothing);
        product_in_parts(a.view(), b.view(), None, many.view_mut(), Onto::Nothing);
        assert_eq!(one, many);
    }
}
