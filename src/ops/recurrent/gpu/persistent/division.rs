//! How a persistent kernel divides a layer between workgroups: each tile is a range of units times a range of
//! rows.

/// Invocations of a workgroup.
const GROUP: usize = 256;
/// Groups of four rows of the operand that a workgroup loads at a time: `POOL` in
/// `shaders/recurrent/persistent/workgroup.wgsl`.
const POOL: usize = 512;
/// The largest tile, as powers of two: units, and groups of four rows.
const UNIT_BITS: u32 = 4;
const QUAD_BITS: u32 = 4;
/// The largest history of a dispatch, in words: 16 MiB. It also bounds the time of a dispatch.
const HISTORY: usize = 1 << 22;
/// The most steps of a dispatch.
const STEPS: usize = 256;
/// The most operand chunks per backward step for which the persistent kernel is likely to be faster than a
/// dispatch per step: each chunk costs two barriers and a round trip to the second-level cache.
const CHUNKS: usize = 32;

/// What a device offers to persistent kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// How many workgroups may wait for each other.
    pub(crate) workgroups: usize,
    /// The largest exchange buffer of a dispatch, in words.
    pub(crate) words: usize,
    /// A workgroup holds at most `1024 · 2^weight_bits` weights.
    pub(crate) weight_bits: u32,
    /// The most loop iterations, all loops together, of an invocation of a completing workgroup in one
    /// dispatch.
    pub(crate) iterations: usize,
}

/// The sizes of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerSizes {
    pub(crate) gates: usize,
    pub(crate) hidden_size: usize,
    pub(crate) rows: usize,
    pub(crate) directions: usize,
    /// Each sum is computed in `2^slice_bits` slices.
    pub(crate) slice_bits: u32,
}

/// The division of a layer between workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    layer: LayerSizes,
    words: usize,
    allowed_iterations: usize,
    unit_bits: u32,
    quad_bits: u32,
    weight_bits: u32,
}

impl Division {
    /// Of the divisions that fit the device, returns the one whose workgroups load their operand in the
    /// fewest chunks and, among these, compute the least. None where no division fits.
    pub(crate) fn of(layer: LayerSizes, capacity: Capacity) -> Option<Self> {
        let fits = |&(unit_bits, quad_bits): &(u32, u32)| {
            let work = 1usize << (unit_bits + quad_bits + layer.slice_bits);
            let held = (layer.gates * layer.hidden_size) << unit_bits <= 1024 << capacity.weight_bits;
            work <= GROUP && held
        };
        let division = |(unit_bits, quad_bits): (u32, u32)| {
            let weights = (layer.gates * layer.hidden_size) << unit_bits;
            let weight_bits = weights.div_ceil(1024).next_power_of_two().ilog2();
            Self {
                layer,
                words: capacity.words,
                allowed_iterations: capacity.iterations,
                unit_bits,
                quad_bits,
                weight_bits,
            }
        };
        let all = (0..=UNIT_BITS).flat_map(|units| (0..=QUAD_BITS).map(move |quads| (units, quads)));
        let has_capacity = |division: &Self| {
            let [_, words] = division.exchange(layer.gates * layer.hidden_size, 1);
            division.workgroups() <= capacity.workgroups
                && words <= capacity.words
                && division.iterations() <= capacity.iterations
        };
        let possible = all.filter(fits).map(division).filter(has_capacity);
        possible.min_by_key(|division| {
            (division.chunks(), division.unit_bits + division.quad_bits, division.quad_bits)
        })
    }

    fn row_blocks(&self) -> usize {
        self.layer.rows.div_ceil(4 << self.quad_bits)
    }

    fn unit_blocks(&self) -> usize {
        self.layer.hidden_size.div_ceil(1 << self.unit_bits)
    }

    /// How many workgroups wait for each other.
    pub(crate) fn workgroups(&self) -> usize {
        self.completing() * self.unit_blocks()
    }

    /// How many workgroups complete the steps that timed out.
    pub(crate) fn completing(&self) -> usize {
        self.row_blocks() * self.layer.directions
    }

    /// Chunks in which a workgroup loads its operand in a backward step.
    fn chunks(&self) -> usize {
        (self.layer.gates * self.layer.hidden_size).div_ceil(POOL >> self.quad_bits)
    }

    /// The most steps of one dispatch whose history has `width` words per row.
    pub(crate) fn steps(&self, width: usize) -> usize {
        let LayerSizes { rows, directions, .. } = self.layer;
        let words = HISTORY.min(self.words - self.exchange(width, 0)[1]);
        STEPS.min(words / (directions * rows * width)).min(self.allowed_iterations / self.iterations()).max(1)
    }

    /// Loop iterations per step, all loops together, of an invocation of a completing workgroup. That
    /// workgroup computes all units, and loads the weights of each again.
    pub(crate) fn iterations(&self) -> usize {
        let LayerSizes { gates, hidden_size, slice_bits, .. } = self.layer;
        let weights = ((gates * hidden_size) << self.unit_bits).div_ceil(GROUP);
        let terms = self.chunks() * (2 * 2 * 4 + 2) + ((gates * hidden_size) >> slice_bits) + gates;
        self.unit_blocks() * (weights + terms + gates * (1 << slice_bits) + 8 * gates + 32)
    }

    /// Whether `Auto` selects this division.
    pub(crate) fn is_likely_faster(&self) -> bool {
        self.chunks() <= CHUNKS
    }

    /// Words of the exchange buffer up to the history, which must be zero before the dispatch; and words of
    /// the whole buffer.
    pub(crate) fn exchange(&self, width: usize, steps: usize) -> [usize; 2] {
        let head = 1 + self.workgroups();
        [head, head + self.layer.directions * steps * self.layer.rows * width]
    }

    /// The values of SLICE_BITS, UNIT_BITS, QUAD_BITS and WEIGHT_BITS.
    pub(crate) fn constants(&self) -> [u32; 4] {
        [self.layer.slice_bits, self.unit_bits, self.quad_bits, self.weight_bits]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: LayerSizes =
        LayerSizes { gates: 4, hidden_size: 512, rows: 16, directions: 1, slice_bits: 4 };
    /// An H100 has 132 compute units; four workgroups each.
    const CAPACITY: Capacity =
        Capacity { workgroups: 512, words: 1 << 28, weight_bits: 3, iterations: 1 << 23 };

    #[test]
    fn all_weights_are_held_by_workgroups_that_run_at_once() {
        for gates in [1, 3, 4, 8] {
            for hidden_size in [1, 5, 64, 256, 512, 1000, 1024, 2048] {
                for (rows, slice_bits) in [(1, 4), (4, 4), (5, 3), (16, 2), (64, 2), (65, 2), (1000, 2)] {
                    for directions in [1, 2] {
                        let layer = LayerSizes { gates, hidden_size, rows, directions, slice_bits };
                        let Some(division) = Division::of(layer, CAPACITY) else { continue };
                        assert!(division.workgroups() <= CAPACITY.workgroups, "{division:?}");
                        assert!(division.unit_blocks() << division.unit_bits >= hidden_size, "{division:?}");
                        assert!(division.row_blocks() * (4 << division.quad_bits) >= rows, "{division:?}");
                        let held = (gates * hidden_size) << division.unit_bits;
                        assert!(
                            held <= 1024 << division.weight_bits && division.weight_bits <= 3,
                            "{division:?}"
                        );
                        assert!(
                            1 << (division.unit_bits + division.quad_bits + slice_bits) <= GROUP,
                            "{division:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn layers_that_exceed_the_capacity_have_no_division() {
        assert!(Division::of(LAYER, CAPACITY).is_some());
        assert_eq!(Division::of(LayerSizes { hidden_size: 4096, ..LAYER }, CAPACITY), None);
        assert_eq!(Division::of(LAYER, Capacity { workgroups: 2, ..CAPACITY }), None);
        assert_eq!(Division::of(LAYER, Capacity { workgroups: 0, ..CAPACITY }), None);
        assert_eq!(Division::of(LAYER, Capacity { weight_bits: 0, ..CAPACITY }), None);
        assert_eq!(Division::of(LAYER, Capacity { words: 16 * 4 * 512, ..CAPACITY }), None);
        // The iterations do not suffice to complete even one step.
        assert_eq!(Division::of(LAYER, Capacity { iterations: 1000, ..CAPACITY }), None);
    }

    #[test]
    fn common_layers_have_many_steps_per_dispatch() {
        let steps = |hidden_size, rows| {
            let division =
                Division::of(LayerSizes { hidden_size, rows, ..LAYER }, CAPACITY).expect("there is capacity");
            division.steps(4 * hidden_size)
        };
        assert_eq!(steps(256, 16), STEPS);
        for (hidden_size, rows) in [(512, 1), (512, 16), (1024, 16)] {
            assert!(
                steps(hidden_size, rows) >= 16,
                "{hidden_size} units, {rows} rows: {}",
                steps(hidden_size, rows)
            );
        }
    }

    #[test]
    fn histories_stay_within_their_limit() {
        for hidden_size in [64, 512] {
            for rows in [1, 64] {
                let layer = LayerSizes { hidden_size, rows, slice_bits: 2, ..LAYER };
                for iterations in [1 << 14, 1 << 17, 1 << 23] {
                    let Some(division) = Division::of(layer, Capacity { iterations, ..CAPACITY }) else {
                        continue;
                    };
                    let steps = division.steps(4 * hidden_size);
                    assert!(steps * division.iterations() <= iterations, "{division:?}: {steps}");
                    let [head, all] = division.exchange(4 * hidden_size, steps);
                    assert!((1..=STEPS).contains(&steps) && all - head <= HISTORY, "{division:?}: {steps}");
                }
            }
        }
    }
}
