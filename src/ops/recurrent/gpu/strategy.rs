//! Selects how the time loop runs on a GPU: `per_step`, `sequence` or `persistent`.
//!
//! - `per_step` dispatches one kernel per time step. A dispatch that depends on the previous one costs
//!   microseconds, whatever it computes.
//! - `sequence` dispatches one kernel for many steps. Each workgroup owns some rows of the batch, so
//!   workgroups need no synchronisation; but each reads all of W_hh at every step and has only its own
//!   invocations to do so. It is fast while W_hh is small.
//! - `persistent` divides a larger W_hh between workgroups that keep their share for many steps and exchange
//!   states (Diamos et al., 2016, "Persistent RNNs"). It requires an adapter on which workgroups may wait for
//!   each other.
//!
//! [`choose`] decides from sizes alone and never from the number of steps, so that a pass over a part of a
//! sequence has the same bits as the pass over the whole.

use super::persistent::division::{Capacity, Division as PersistentDivision, LayerSizes};
use super::split_k::{SplitK, UNITS_TO_FILL};
use crate::Result;
use crate::gpu::{AdapterKind, Context, RecurrentShape, RecurrentStrategy};
use crate::ops::recurrent::{Call, Sizes};

/// Elements of workgroup memory of the kernels: `POOL` in `shaders/recurrent/sequence/workgroup.wgsl`.
const POOL: usize = 4096;
/// The largest W_hh, in elements, that `Auto` lets every workgroup of a GPU read at every step: 256 KiB. A
/// compute unit reads about 64 bytes per clock from the shared cache, so that this takes about as long as a
/// dispatch, 3 to 5 µs.
const WEIGHTS: usize = 1 << 16;
/// As [`UNITS_TO_FILL`], for a software adapter, which runs as many workgroups at a time as there are cores.
const CORES_TO_FILL: usize = 2;
/// The most loop iterations, all loops together, of an invocation in one dispatch. It bounds the time of a
/// dispatch to milliseconds, and stays below the 65,536 iterations, counted over all loops, after which
/// Mesa's software driver ends an invocation's loops.
const ITERATIONS: usize = 1 << 15;

/// The strategy of a time loop, with its division of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// One dispatch per step.
    PerStep,
    /// Many steps per dispatch; each workgroup owns some rows of the batch.
    Sequence(RowDivision),
    /// Many steps per dispatch; workgroups keep W_hh and wait for each other.
    Persistent(PersistentDivision),
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StrategyInputs {
    pub(crate) layer: LayerSizes,
    /// What the device offers to persistent kernels; none where workgroups may not wait for each other.
    pub(crate) capacity: Option<Capacity>,
    pub(crate) kind: AdapterKind,
    /// The strategy that the user requested.
    pub(crate) wanted: RecurrentStrategy,
}

/// How `sequence` divides a dispatch between workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowDivision {
    /// A workgroup owns `2^row_bits` rows.
    row_bits: u32,
    /// A workgroup has `32 · 2^lane_bits` invocations.
    lane_bits: u32,
    columns: Columns,
}

/// How many columns of a product an invocation computes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Columns {
    One,
    Eight,
}

/// Selects the strategy for `calls`: one direction, or both.
pub(crate) fn choose_for(context: &Context, calls: &[Call<'_>], sizes: Sizes) -> Result<Strategy> {
    let call = &calls[0];
    // These need more than one dispatch per step.
    if call.weights.projection.is_some() || call.equations.resets_before() {
        return Ok(Strategy::PerStep);
    }
    let (gates, Sizes { hidden_size, rows, .. }) = (call.equations.gates(), sizes);
    let slice_bits = SplitK::of(context, sizes).slice_bits();
    let layer = LayerSizes { gates, hidden_size, rows, directions: calls.len(), slice_bits };
    let inputs = |wanted, capacity| StrategyInputs { layer, capacity, kind: context.kind(), wanted };
    let choices = context.choices();
    let shape = RecurrentShape { gates, hidden_size, rows };
    let wanted = choices.recurrent(shape);
    // The self-test of persistent kernels runs only where its result can change the choice or be recorded.
    let asks = match wanted {
        RecurrentStrategy::Persistent => true,
        _ => {
            context.waiting().is_trusted() && (choices.notes() || inputs(wanted, None).depends_on_capacity())
        }
    };
    let capacity = if asks { capacity(context)? } else { None };
    let taken = |wanted| choose(&inputs(wanted, capacity));
    // Nothing is recorded where every request leads to the same strategy.
    let others = [RecurrentStrategy::Sequence, RecurrentStrategy::Persistent];
    if choices.notes() && others.into_iter().any(|way| taken(way) != Strategy::PerStep) {
        choices.note_recurrent(shape, taken(wanted).name());
    }
    Ok(taken(wanted))
}

/// What the device offers to persistent kernels; none where workgroups may not wait for each other.
fn capacity(context: &Context) -> Result<Option<Capacity>> {
    let workgroups = context.waiting_workgroups()?;
    let words = context.limits().binding_elements;
    let iterations = context.waiting().completion_iterations();
    Ok((workgroups > 0).then(|| Capacity {
        workgroups,
        words,
        weight_bits: context.waiting().weight_bits(),
        iterations,
    }))
}

/// Returns the requested strategy where it is possible, and `PerStep` where it is not; for `Auto`, the one
/// that is likely to be fastest.
pub(crate) fn choose(inputs: &StrategyInputs) -> Strategy {
    match inputs.wanted {
        RecurrentStrategy::PerStep => Strategy::PerStep,
        RecurrentStrategy::Persistent => persistent(inputs).map_or(Strategy::PerStep, Strategy::Persistent),
        RecurrentStrategy::Auto if inputs.depends_on_capacity() => persistent(inputs)
            .filter(PersistentDivision::is_likely_faster)
            .map_or(Strategy::PerStep, Strategy::Persistent),
        RecurrentStrategy::Auto | RecurrentStrategy::Sequence => {
            division(inputs).map_or(Strategy::PerStep, Strategy::Sequence)
        }
    }
}

fn persistent(inputs: &StrategyInputs) -> Option<PersistentDivision> {
    PersistentDivision::of(inputs.layer, inputs.capacity?)
}

impl Strategy {
    /// The public name of the strategy.
    pub(crate) fn name(&self) -> RecurrentStrategy {
        match self {
            Self::PerStep => RecurrentStrategy::PerStep,
            Self::Sequence(_) => RecurrentStrategy::Sequence,
            Self::Persistent(_) => RecurrentStrategy::Persistent,
        }
    }
}

impl StrategyInputs {
    /// Whether the choice depends on the capacity for persistent kernels.
    pub(crate) fn depends_on_capacity(&self) -> bool {
        let LayerSizes { gates, hidden_size, .. } = self.layer;
        let is_large = self.kind != AdapterKind::Software && gates * hidden_size * hidden_size > WEIGHTS;
        self.wanted == RecurrentStrategy::Persistent || (self.wanted == RecurrentStrategy::Auto && is_large)
    }
}

/// The division with the most rows per workgroup that leaves enough workgroups and fits workgroup memory;
/// none where not even one row fits.
fn division(inputs: &StrategyInputs) -> Option<RowDivision> {
    let LayerSizes { gates, hidden_size, rows, .. } = inputs.layer;
    let software = inputs.kind == AdapterKind::Software;
    let (groups, columns) = match software {
        true => (CORES_TO_FILL, Columns::Eight),
        false => (UNITS_TO_FILL, Columns::One),
    };
    let fits = |bits: u32| ((gates + 1) * hidden_size) << bits <= POOL;
    let fills = |bits: u32| bits == 0 || rows.div_ceil(1 << bits) >= groups;
    // The limit is the invocations of a workgroup on hardware, the registers of a core on a software adapter.
    let most = if software { 3 } else { 2 };
    let row_bits = (0..=most).rev().find(|&bits| fits(bits) && fills(bits))?;
    let widest = (gates * hidden_size).div_ceil(columns.number());
    let lane_bits = (0..3).find(|&bits| 32 << bits >= widest).unwrap_or(3);
    Some(RowDivision { row_bits, lane_bits, columns })
}

impl Columns {
    fn number(self) -> usize {
        match self {
            Self::One => 1,
            Self::Eight => 8,
        }
    }
}

impl RowDivision {
    /// Rows of a workgroup.
    pub(crate) fn rows(self) -> usize {
        1 << self.row_bits
    }

    /// The values of `ROW_BITS`, `LANE_BITS` and `WIDE`.
    pub(crate) fn constants(self) -> [u32; 3] {
        [self.row_bits, self.lane_bits, u32::from(self.columns == Columns::Eight)]
    }

    /// The most steps of one dispatch.
    pub(crate) fn steps(self, gates: usize, hidden_size: usize) -> usize {
        (ITERATIONS / self.iterations(gates, hidden_size)).max(1)
    }

    /// Loop iterations of an invocation per step, rounded up: the larger of forward and backward.
    fn iterations(self, gates: usize, hidden_size: usize) -> usize {
        let lanes = 32 << self.lane_bits;
        let product = |columns: usize, depth: usize| {
            columns.div_ceil(self.columns.number()).div_ceil(lanes) * (depth + 1)
        };
        let forward = product(gates * hidden_size, hidden_size);
        let backward = product(hidden_size, gates * hidden_size);
        // Per unit: loops over its gates, and the rounds of the random number generator.
        let pointwise = (hidden_size << self.row_bits).div_ceil(lanes) * (6 * gates + 24);
        forward.max(backward) + pointwise + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: LayerSizes =
        LayerSizes { gates: 4, hidden_size: 64, rows: 16, directions: 1, slice_bits: 4 };
    const PLAIN: StrategyInputs = StrategyInputs {
        layer: LAYER,
        capacity: None,
        kind: AdapterKind::Discrete,
        wanted: RecurrentStrategy::Auto,
    };

    fn rows_of(inputs: StrategyInputs) -> Option<usize> {
        match choose(&inputs) {
            Strategy::PerStep | Strategy::Persistent(_) => None,
            Strategy::Sequence(division) => Some(division.rows()),
        }
    }

    #[test]
    fn hardware_runs_small_layers_as_sequence_and_large_ones_per_step() {
        let takes = |gates, hidden_size| {
            rows_of(StrategyInputs { layer: LayerSizes { gates, hidden_size, ..LAYER }, ..PLAIN }).is_some()
        };
        assert!(takes(4, 128) && !takes(4, 129));
        assert!(takes(3, 147) && !takes(3, 148));
        assert!(takes(1, 256) && !takes(1, 257));
    }

    #[test]
    fn rows_are_divided_until_the_device_is_filled() {
        let small = LayerSizes { hidden_size: 32, ..LAYER };
        let rows =
            |rows, kind| rows_of(StrategyInputs { layer: LayerSizes { rows, ..small }, kind, ..PLAIN });
        assert_eq!(
            [1, 128, 256, 512, 4096].map(|batch| rows(batch, AdapterKind::Discrete)),
            [1, 1, 2, 4, 4].map(Some)
        );
        assert_eq!(
            [1, 3, 4, 5, 8, 9, 64].map(|batch| rows(batch, AdapterKind::Software)),
            [1, 2, 2, 4, 4, 8, 8].map(Some)
        );
    }

    #[test]
    fn layers_that_exceed_workgroup_memory_run_per_step() {
        let forced = |gates, hidden_size| {
            rows_of(StrategyInputs {
                layer: LayerSizes { gates, hidden_size, ..LAYER },
                wanted: RecurrentStrategy::Sequence,
                kind: AdapterKind::Software,
                ..PLAIN
            })
        };
        // Workgroup memory holds (G + 1) · H values per row.
        assert_eq!(
            [256, 257, 512, 513, 1024, 1025, 2048, 2049].map(|hidden_size| forced(1, hidden_size)),
            [Some(8), Some(4), Some(4), Some(2), Some(2), Some(1), Some(1), None]
        );
        assert_eq!(
            [102, 204, 205, 819, 820].map(|hidden_size| forced(4, hidden_size)),
            [Some(8), Some(4), Some(2), Some(1), None]
        );
    }

    #[test]
    fn large_layers_with_few_rows_are_persistent_within_the_capacity() {
        let capacity =
            Some(Capacity { workgroups: 512, words: 1 << 28, weight_bits: 3, iterations: 1 << 23 });
        let way = |hidden_size, rows, capacity| {
            let slice_bits = if rows > 16 { 2 } else { 4 };
            let layer = LayerSizes { hidden_size, rows, slice_bits, ..LAYER };
            choose(&StrategyInputs { layer, capacity, ..PLAIN }).name()
        };
        assert_eq!(
            [64, 512].map(|hidden_size| way(hidden_size, 16, None)),
            [RecurrentStrategy::Sequence, RecurrentStrategy::PerStep]
        );
        assert_eq!(
            [64, 512].map(|hidden_size| way(hidden_size, 16, capacity)),
            [RecurrentStrategy::Sequence, RecurrentStrategy::Persistent]
        );
        assert_eq!(way(512, 256, capacity), RecurrentStrategy::PerStep);
        let asks = |hidden_size, wanted| {
            let layer = LayerSizes { hidden_size, ..LAYER };
            StrategyInputs { layer, wanted, ..PLAIN }.depends_on_capacity()
        };
        assert!(asks(512, RecurrentStrategy::Auto) && !asks(64, RecurrentStrategy::Auto));
        assert!(!asks(512, RecurrentStrategy::PerStep) && asks(64, RecurrentStrategy::Persistent));
    }

    #[test]
    fn requested_strategies_take_precedence() {
        let large = StrategyInputs { layer: LayerSizes { hidden_size: 200, ..LAYER }, ..PLAIN };
        assert_eq!(rows_of(large), None);
        assert_eq!(rows_of(StrategyInputs { wanted: RecurrentStrategy::Sequence, ..large }), Some(1));
        assert_eq!(rows_of(StrategyInputs { wanted: RecurrentStrategy::PerStep, ..PLAIN }), None);
    }

    #[test]
    fn no_dispatch_exceeds_the_iterations_that_drivers_allow() {
        for kind in [AdapterKind::Software, AdapterKind::Integrated] {
            for gates in 1..=8 {
                for hidden_size in 1..=POOL {
                    for rows in [1, 16, 1024] {
                        let wanted = RecurrentStrategy::Sequence;
                        let layer = LayerSizes { gates, hidden_size, rows, ..LAYER };
                        let inputs = StrategyInputs { layer, kind, wanted, ..PLAIN };
                        let Strategy::Sequence(division) = choose(&inputs) else {
                            assert!(
                                (gates + 1) * hidden_size > POOL,
                                "{gates} gates, {hidden_size} hidden_size"
                            );
                            continue;
                        };
                        let iterations =
                            division.steps(gates, hidden_size) * division.iterations(gates, hidden_size);
                        assert!(
                            iterations <= ITERATIONS,
                            "{gates} gates, {hidden_size} hidden_size, {rows} rows: {iterations} iterations"
                        );
                    }
                }
            }
        }
    }
}
