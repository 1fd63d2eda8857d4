//! Chooses the variant of a product from its shape and the kind of device, never from measured time: the same product always
//! has the same bits.

use super::Form;
use crate::gpu::{AdapterKind, MatmulTile, MatmulVariant};

/// The number of workgroups that keep a GPU busy. wgpu does not report how many workgroups a device runs at once; this is
/// the number of processors of a large GPU, and two or three times that of a small one.
const BUSY: usize = 128;
/// The number of 64 by 64 workgroups from which this tile is chosen; with fewer, the smaller tiles fetch operands faster.
const BUSY_MEDIUM: usize = 64;
/// The smallest depth of a split-K slice: below it the second pass costs as much as the split saves.
const LEAST_PART: usize = 256;

/// The number of tiles that cover `m` by `n` outputs.
fn tiles(tile: MatmulTile, [m, n]: [usize; 2]) -> usize {
    m.div_ceil(tile.side()) * n.div_ceil(tile.side())
}

/// The variant for op(A) \[M,K\] times op(B) \[K,N\].
///
/// Split-K is used only for products with A transposed, which in training are sums over all steps of all rows: in all other
/// products a row of the result has the same bits for every M.
pub(super) fn choose(form: Form, [m, n, k]: [usize; 3], kind: AdapterKind) -> MatmulVariant {
    if kind == AdapterKind::Software {
        return MatmulVariant { tile: software([m, n, k]), parts: 1 };
    }
    let deepest = if form.left() { (k / LEAST_PART).max(1) } else { 1 };
    let tile = hardware([m, n], deepest);
    let tiles = tiles(tile, [m, n]);
    // Enough slices that the last workgroups leave little of the GPU idle.
    let parts = if tiles < BUSY { (2 * BUSY).div_ceil(tiles).min(deepest) } else { 1 };
    MatmulVariant { tile, parts }
}

/// The variant for \[M,N\] outputs of a sum that is computed in blocks of depth `block`. It has one part if computing block
/// after block is faster than all blocks at once.
pub(super) fn choose_blocks([m, n, block]: [usize; 3], blocks: usize, kind: AdapterKind) -> MatmulVariant {
    if kind == AdapterKind::Software {
        return MatmulVariant { tile: software([m, n, block]), parts: 1 };
    }
    let tile = hardware([m, n], blocks);
    let parts = if tiles(tile, [m, n]) < BUSY { blocks } else { 1 };
    MatmulVariant { tile, parts }
}

/// The largest tile that gives enough workgroups if the sum may be split into up to `parts` slices.
fn hardware([m, n]: [usize; 2], parts: usize) -> MatmulTile {
    let least = m.min(n);
    let enough = |tile, busy| tiles(tile, [m, n]) * parts >= busy;
    if least > MatmulTile::Medium.side() && enough(MatmulTile::Large, BUSY) {
        MatmulTile::Large
    } else if least > MatmulTile::Narrow.side() && enough(MatmulTile::Medium, BUSY_MEDIUM) {
        MatmulTile::Medium
    } else {
        MatmulTile::Narrow
    }
}

/// The tile that costs a software driver the least work.
fn software([m, n, k]: [usize; 3]) -> MatmulTile {
    // The cost of a tile, in units of the cost of one step along K of a direct tile, as measured with lavapipe; see
    // benches/NOTES.md. A narrow tile skips rows beyond the last one.
    let work = |tile: MatmulTile| {
        let (start, depth) = match tile {
            MatmulTile::Narrow => (130, k * (m.min(tile.side()) + 1) / 24),
            MatmulTile::Direct => (20, k),
            MatmulTile::Medium => (130, 5 * k),
            MatmulTile::Large => (300, 13 * k),
        };
        tiles(tile, [m, n]) * (start + depth)
    };
    // With fewer large tiles the driver's threads finish at different times, and at a small depth they gain little. The
    // rule also makes them rare on SwiftShader, where they take twice as long.
    let suits = |tile: &MatmulTile| *tile != MatmulTile::Large || (tiles(*tile, [m, n]) >= 16 && k >= 256);
    MatmulTile::ALL.into_iter().filter(suits).min_by_key(|&tile| work(tile)).unwrap_or(MatmulTile::Direct)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::matmul::split_k::SCRATCH;

    fn on_hardware(form: Form, sizes: [usize; 3]) -> (MatmulTile, usize) {
        let MatmulVariant { tile, parts } = choose(form, sizes, AdapterKind::Discrete);
        (tile, parts)
    }

    #[test]
    fn the_tile_grows_with_the_outputs() {
        for form in [Form::Plain, Form::RightTransposed] {
            assert_eq!(on_hardware(form, [1, 1024, 1024]), (MatmulTile::Narrow, 1));
            assert_eq!(on_hardware(form, [16, 4096, 1024]), (MatmulTile::Narrow, 1));
            assert_eq!(on_hardware(form, [4096, 16, 1024]), (MatmulTile::Narrow, 1));
            assert_eq!(on_hardware(form, [64, 1024, 1024]), (MatmulTile::Narrow, 1));
            assert_eq!(on_hardware(form, [64, 65_536, 1024]), (MatmulTile::Medium, 1));
            assert_eq!(on_hardware(form, [1024, 1024, 1024]), (MatmulTile::Medium, 1));
            assert_eq!(on_hardware(form, [2048, 1024, 128]), (MatmulTile::Large, 1));
            assert_eq!(on_hardware(form, [4096, 4096, 4096]), (MatmulTile::Large, 1));
        }
    }

    #[test]
    fn only_sums_over_rows_are_taken_in_parts_and_only_while_outputs_are_few() {
        assert_eq!(on_hardware(Form::LeftTransposed, [1024, 256, 8192]), (MatmulTile::Large, 16));
        assert_eq!(on_hardware(Form::LeftTransposed, [128, 128, 2048]), (MatmulTile::Narrow, 4));
        assert_eq!(on_hardware(Form::LeftTransposed, [47, 256, 100_000]), (MatmulTile::Medium, 64));
        assert_eq!(on_hardware(Form::BothTransposed, [10, 10, 1 << 20]), (MatmulTile::Narrow, 256));
        assert_eq!(on_hardware(Form::LeftTransposed, [2048, 2048, 8192]), (MatmulTile::Large, 1));
        assert_eq!(on_hardware(Form::LeftTransposed, [256, 256, 2 * LEAST_PART - 1]).1, 1);
        for form in [Form::Plain, Form::RightTransposed] {
            for m in [1, 16, 17, 100, 1000, 100_000] {
                for kind in [AdapterKind::Integrated, AdapterKind::Software] {
                    assert_eq!(choose(form, [m, 256, 1 << 20], kind).parts, 1);
                }
            }
        }
    }

    #[test]
    fn parts_never_have_less_than_their_least_depth_and_all_of_them_fit_memory() {
        for m in [1, 40, 64, 200, 1024, 3000] {
            for n in [1, 33, 128, 500, 2048] {
                for k in [1, 255, 512, 2048, 1 << 16] {
                    let (tile, parts) = on_hardware(Form::LeftTransposed, [m, n, k]);
                    assert!(parts == 1 || k / parts >= LEAST_PART, "{m} {n} {k}: {parts}");
                    let outputs = tiles(tile, [m, n]) * tile.side().pow(2);
                    assert!(parts == 1 || parts * outputs <= SCRATCH, "{m} {n} {k}: {parts}");
                }
            }
        }
    }

    #[test]
    fn blocks_are_summed_at_once_where_one_does_not_keep_a_device_busy() {
        let parts = |outputs, blocks| choose_blocks(outputs, blocks, AdapterKind::Virtual).parts;
        assert_eq!(parts([256, 128, 512], 16), 16);
        assert_eq!(parts([256, 128, 512], 1), 1);
        assert_eq!(parts([4096, 1024, 512], 16), 1);
        assert_eq!(choose_blocks([256, 128, 512], 16, AdapterKind::Software).parts, 1);
    }

    #[test]
    fn a_software_driver_gets_the_tile_that_wastes_little() {
        let narrow = [[1, 1024, 1024], [2, 64, 1024]];
        let direct = [
            [1, 64, 64],
            [10, 16, 4],
            [64, 1024, 100],
            [2048, 64, 64],
            [2048, 1024, 128],
            [256, 64, 512],
            [200, 200, 4000],
        ];
        let large = [[512, 512, 512], [2048, 1024, 256], [2048, 128, 512]];
        assert_eq!(narrow.map(software), [MatmulTile::Narrow; 2]);
        assert_eq!(direct.map(software), [MatmulTile::Direct; 7]);
        assert_eq!(large.map(software), [MatmulTile::Large; 3]);
    }
}
