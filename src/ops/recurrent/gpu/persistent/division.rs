//! How the work of a layer that stays on chip is divided between workgroups.

/// Invocations of a workgroup.
const GROUP: usize = 256;
/// Fours of rows of the operand that a workgroup takes in at a time: `POOL` in `shaders/recurrent/persistent/workgroup.wgsl`.
const POOL: usize = 512;
/// The most units, and fours of rows, of a workgroup, as powers of two.
const UNIT_BITS: u32 = 4;
const QUAD_BITS: u32 = 4;
/// The most words of the history of a dispatch: 16 MiB. It bounds the time of a dispatch too.
const HISTORY: usize = 1 << 22;
/// The most steps of a dispatch.
const STEPS: usize = 256;
/// The most chunks of a step back that are likely to take less time than a step's own dispatch: each has two barriers and a
/// way to the second-level cache.
const CHUNKS: usize = 32;

/// What a device has for layers that stay on chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// How many workgroups may wait for each other.
    pub(crate) workgroups: usize,
    /// Words that the exchange of a dispatch may have.
    pub(crate) words: usize,
    /// A workgroup holds at most 1024 weights times 2 to this power.
    pub(crate) weight_bits: u32,
    /// Turns of all loops together that an invocation of the workgroup that completes may take in one dispatch.
    pub(crate) iterations: usize,
}

/// The layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) gates: usize,
    pub(crate) hidden_size: usize,
    pub(crate) rows: usize,
    pub(crate) directions: usize,
    /// 2 to this power are the slices of a sum.
    pub(crate) slice_bits: u32,
}

/// How the work of a dispatch is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    layer: Layer,
    words: usize,
    allowed_iterations: usize,
    unit_bits: u32,
    quad_bits: u32,
    weight_bits: u32,
}

impl Division {
    /// Of the divisions whose weights and workgroups the device has room for, the one whose workgroups take in their operand
    /// in the fewest chunks and, of these, compute least. None where there is no room.
    pub(crate) fn of(layer: Layer, capacity: Capacity) -> Option<Self> {
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

    /// How many workgroups look for what is missing.
    pub(crate) fn completing(&self) -> usize {
        self.row_blocks() * self.layer.directions
    }

    /// Chunks of the operand that a workgroup takes in at a step back.
    fn chunks(&self) -> usize {
        (self.layer.gates * self.layer.hidden_size).div_ceil(POOL >> self.quad_bits)
    }

    /// How many steps one dispatch may take whose history has `width` words a row.
    pub(crate) fn steps(&self, width: usize) -> usize {
        let Layer { rows, directions, .. } = self.layer;
        let words = HISTORY.min(self.words - self.exchange(width, 0)[1]);
        STEPS.min(words / (directions * rows * width)).min(self.allowed_iterations / self.iterations()).max(1)
    }

    /// Turns of all loops together that an invocation of the workgroup that completes takes for a step: those of all units,
    /// and the weights of each anew.
    pub(crate) fn iterations(&self) -> usize {
        let Layer { gates, hidden_size, slice_bits, .. } = self.layer;
        let weights = ((gates * hidden_size) << self.unit_bits).div_ceil(GROUP);
        let terms = self.chunks() * (2 * 2 * 4 + 2) + ((gates * hidden_size) >> slice_bits) + gates;
        self.unit_blocks() * (weights + terms + gates * (1 << slice_bits) + 8 * gates + 32)
    }

    /// Whether a device chooses this by itself.
    pub(crate) fn is_likely_faster(&self) -> bool {
        self.chunks() <= CHUNKS
    }

    /// Words of the exchange of a dispatch, and how many of them are zero before it.
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

    const LAYER: Layer = Layer { gates: 4, hidden_size: 512, rows: 16, directions: 1, slice_bits: 4 };
    /// 132 units of an H100, four workgroups each.
    const CAPACITY: Capacity =
        Capacity { workgroups: 512, words: 1 << 28, weight_bits: 3, iterations: 1 << 23 };

    #[test]
    fn all_weights_are_held_by_workgroups_that_run_at_once() {
        for gates in [1, 3, 4, 8] {
            for hidden_size in [1, 5, 64, 256, 512, 1000, 1024, 2048] {
                for (rows, slice_bits) in [(1, 4), (4, 4), (5, 3), (16, 2), (64, 2), (65, 2), (1000, 2)] {
                    for directions in [1, 2] {
                        let layer = Layer { gates, hidden_size, rows, directions, slice_bits };
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
    fn what_fits_no_chip_is_refused() {
        assert!(Division::of(LAYER, CAPACITY).is_some());
        assert_eq!(Division::of(Layer { hidden_size: 4096, ..LAYER }, CAPACITY), None);
        assert_eq!(Division::of(LAYER, Capacity { workgroups: 2, ..CAPACITY }), None);
        assert_eq!(Division::of(LAYER, Capacity { workgroups: 0, ..CAPACITY }), None);
        assert_eq!(Division::of(LAYER, Capacity { weight_bits: 0, ..CAPACITY }), None);
        assert_eq!(Division::of(LAYER, Capacity { words: 16 * 4 * 512, ..CAPACITY }), None);
        // Not even one step could be completed in time.
        assert_eq!(Division::of(LAYER, Capacity { iterations: 1000, ..CAPACITY }), None);
    }

    #[test]
    fn layers_of_common_sizes_take_many_steps_in_a_dispatch() {
        let steps = |hidden_size, rows| {
            let division =
                Division::of(Layer { hidden_size, rows, ..LAYER }, CAPACITY).expect("there is capacity");
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
    fn no_history_is_larger_than_it_may_be() {
        for hidden_size in [64, 512] {
            for rows in [1, 64] {
                let layer = Layer { hidden_size, rows, slice_bits: 2, ..LAYER };
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
