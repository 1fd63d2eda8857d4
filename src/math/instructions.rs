//! Compiles the same code for several instruction sets and runs the best one that the processor supports.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;

/// Columns of a product's tile.
pub(super) const WIDTH: usize = 32;

/// A row of a panel, aligned so that no vector crosses a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Row(pub(super) [f32; WIDTH]);

impl Row {
    pub(super) const ZERO: Self = Self([0.0; WIDTH]);
}

/// The operations that differ between instruction sets.
///
/// Call the functions of an instruction set only from its own [`Work::run`]: the processor may not support them elsewhere.
pub(super) trait Instructions {
    /// Whether a·b + c is one instruction with one rounding. Otherwise the standard library would emulate it in software.
    const FUSED: bool;
    /// Rows of a product's tile: as many as fit the registers; a power of two up to 8.
    const ROWS: usize;
    /// A row of a tile, in registers.
    type Sums: Copy;

    fn load(row: &Row) -> Self::Sums;
    fn store(sums: Self::Sums) -> Row;
    /// a·b + c for each element of b and c.
    fn add_multiple(a: f32, b: Self::Sums, c: Self::Sums) -> Self::Sums;

    /// a·b + c.
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        if Self::FUSED { a.mul_add(b, c) } else { a * b + c }
    }
}

/// The baseline that every processor of the architecture supports.
pub(super) struct Portable;

impl Instructions for Portable {
    const FUSED: bool = cfg!(target_arch = "aarch64");
    const ROWS: usize = 1;
    type Sums = [f32; WIDTH];

    #[inline(always)]
    fn load(row: &Row) -> Self::Sums {
        row.0
    }

    #[inline(always)]
    fn store(sums: Self::Sums) -> Row {
        Row(sums)
    }

    #[inline(always)]
    fn add_multiple(a: f32, b: Self::Sums, mut c: Self::Sums) -> Self::Sums {
        for (c, b) in c.iter_mut().zip(b) {
            *c = Self::multiply_add(a, b, *c);
        }
        c
    }
}

/// 256-bit vectors with fused multiply-add: x86-64 since 2013.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Instructions for Avx2 {
    const FUSED: bool = true;
    const ROWS: usize = 2;
    type Sums = [x86::__m256; 4];

    #[inline(always)]
    fn load(row: &Row) -> Self::Sums {
        // SAFETY: the pointer is valid for 8 numbers; the processor supports the instruction, see `Instructions`.
        std::array::from_fn(|part| unsafe { x86::_mm256_loadu_ps(row.0[part * 8..part * 8 + 8].as_ptr()) })
    }

    #[inline(always)]
    fn store(sums: Self::Sums) -> Row {
        let mut result = Row::ZERO;
        for (result, part) in result.0.chunks_exact_mut(8).zip(sums) {
            // SAFETY: the pointer is valid for writing 8 numbers; the processor supports the instruction, see
            // `Instructions`.
            unsafe { x86::_mm256_storeu_ps(result.as_mut_ptr(), part) };
        }
        result
    }

    #[inline(always)]
    fn add_multiple(a: f32, b: Self::Sums, c: Self::Sums) -> Self::Sums {
        // SAFETY: the processor supports the instructions, see `Instructions`.
        std::array::from_fn(|part| unsafe { x86::_mm256_fmadd_ps(x86::_mm256_set1_ps(a), b[part], c[part]) })
    }
}

/// 512-bit vectors.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Instructions for Avx512 {
    const FUSED: bool = true;
    const ROWS: usize = 8;
    type Sums = [x86::__m512; 2];

    #[inline(always)]
    fn load(row: &Row) -> Self::Sums {
        // SAFETY: the pointer is valid for 16 numbers; the processor supports the instruction, see `Instructions`.
        std::array::from_fn(|part| unsafe { x86::_mm512_loadu_ps(row.0[part * 16..part * 16 + 16].as_ptr()) })
    }

    #[inline(always)]
    fn store(sums: Self::Sums) -> Row {
        let mut result = Row::ZERO;
        for (result, part) in result.0.chunks_exact_mut(16).zip(sums) {
            // SAFETY: the pointer is valid for writing 16 numbers; the processor supports the instruction, see
            // `Instructions`.
            unsafe { x86::_mm512_storeu_ps(result.as_mut_ptr(), part) };
        }
        result
    }

    #[inline(always)]
    fn add_multiple(a: f32, b: Self::Sums, c: Self::Sums) -> Self::Sums {
        // SAFETY: the processor supports the instructions, see `Instructions`.
        std::array::from_fn(|part| unsafe { x86::_mm512_fmadd_ps(x86::_mm512_set1_ps(a), b[part], c[part]) })
    }
}

/// Work whose loops the compiler vectorises.
pub(super) trait Work {
    /// Runs the work. Implementations are `#[inline(always)]`, down to the loops: functions that are not inlined are
    /// compiled for [`Portable`] instructions.
    fn run<I: Instructions>(self);
}

/// Runs `work` with the best instruction set that the processor supports.
pub(super) fn run<W: Work>(work: W) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("fma") {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor supports these instructions, as detected above.
            return unsafe { with_avx512(work) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { with_avx2(work) };
        }
    }
    work.run::<Portable>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,fma")]
fn with_avx512<W: Work>(work: W) {
    work.run::<Avx512>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<W: Work>(work: W) {
    work.run::<Avx2>();
}

/// Runs `work` with each instruction set that the processor supports, for tests.
#[cfg(test)]
pub(super) fn run_with_each<W: Work>(mut work: impl FnMut() -> W) {
    work().run::<Portable>();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("fma") {
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor supports these instructions, as detected above.
            unsafe { with_avx2(work()) };
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: as above.
            unsafe { with_avx512(work()) };
        }
    }
}
