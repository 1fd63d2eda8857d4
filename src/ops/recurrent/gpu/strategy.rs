//! How a time loop is run on a GPU: step by step, or many steps in one dispatch.
//!
//! A time step on its own is a dispatch, and a dispatch that waits for the one before costs microseconds whatever it does. A
//! workgroup that owns some rows of the batch needs to wait for nobody, and can take all steps of its rows in one
//! dispatch; but it reads all of W_hh at every step, which other workgroups do as well, and has no more than its own
//! invocations to do so. So: many steps at a time as long as W_hh is small.
//!
//! A larger W_hh may still be shared out among workgroups that keep their part of it for many steps, where the adapter lets
//! them wait for each other: `on_chip`.
//!
//! The choice is [`choose`], from numbers alone and never from the number of steps: a pass over a part of a sequence does
//! what a pass over the whole does, bit by bit.

use super::persistent::division::{Capacity, Division as PersistentDivision, Layer};
use super::split_k::SplitK;
use crate::Result;
use crate::gpu::{AdapterKind, Context, RecurrentStrategy};
use crate::ops::recurrent::{Call, Sizes};
use crate::tuning::RecurrentShape;

/// Elements of workgroup memory of the kernels: `POOL` in `shaders/recurrent/sequence/workgroup.wgsl`.
const POOL: usize = 4096;
/// The most elements of W_hh that hardware reads at every step: 256 KiB. A compute unit gets some 64 bytes per clock from
/// the cache that all share, so that they take about as long as a dispatch, 3 to 5 µs.
const WEIGHTS: usize = 1 << 16;
/// Workgroups that hardware should have before any of them takes more rows: about as many as there are compute hidden_size.
pub(crate) const UNITS_TO_FILL: usize = 128;
/// Workgroups that a software adapter should have before any of them takes more rows: it runs as many at a time as there are
/// cores.
const CORES_TO_FILL: usize = 2;
/// Turns of all loops together that an invocation may take in one dispatch. It bounds the time of a dispatch to
/// milliseconds, and keeps clear of the 65,536 turns after which Mesa's software driver ends an invocation's loops: it
/// counts those of all loops together.
const ITERATIONS: usize = 1 << 15;

/// How the loop over time is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// A dispatch for each step.
    PerStep,
    /// Many steps in a dispatch.
    Sequence(RowDivision),
    /// Many steps in a dispatch whose workgroups wait for each other.
    Persistent(PersistentDivision),
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StrategyInputs {
    /// G, the gates of the cell.
    pub(crate) gates: usize,
    /// H, its hidden_size.
    pub(crate) hidden_size: usize,
    /// B, the rows of the batch.
    pub(crate) rows: usize,
    /// How many directions share a dispatch.
    pub(crate) directions: usize,
    /// 2 to this power are the slices of a sum in a step's own dispatch.
    pub(crate) slice_bits: u32,
    /// What there is for workgroups that wait for each other, where they may.
    pub(crate) capacity: Option<Capacity>,
    pub(crate) kind: AdapterKind,
    /// What the user asked for.
    pub(crate) wanted: RecurrentStrategy,
}

/// How the work of a dispatch is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowDivision {
    /// 2 to this power are the rows of a workgroup.
    row_bits: u32,
    /// 32 times 2 to this power are its invocations.
    lane_bits: u32,
    columns: Columns,
}

/// How many columns of a product an invocation computes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Columns {
    One,
    Eight,
}

/// How the steps of `calls`, one direction or both, are taken.
///
/// # Errors
/// Those of [`Context::waiting_workgroups`].
pub(crate) fn choose_for(context: &Context, calls: &[Call<'_>], sizes: Sizes) -> Result<Strategy> {
    let call = &calls[0];
    // A step of theirs is more than a dispatch.
    if call.weights.projection.is_some() || call.equations.resets_before() {
        return Ok(Strategy::PerStep);
    }
    let (gates, Sizes { hidden_size, rows, .. }) = (call.equations.gates(), sizes);
    let inputs = |wanted, capacity| StrategyInputs {
        gates,
        hidden_size,
        rows,
        directions: calls.len(),
        slice_bits: SplitK::of(context, sizes).slice_bits(),
        capacity,
        kind: context.kind(),
        wanted,
    };
    let choices = context.choices();
    let shape = RecurrentShape { gates, hidden_size, rows };
    let wanted = choices.recurrent(shape);
    // Nobody makes the self-test who would not wait; who compares all ways does.
    let asks = match wanted {
        RecurrentStrategy::Persistent => true,
        _ => context.trusts_waiting() && (choices.notes() || inputs(wanted, None).depends_on_capacity()),
    };
    let capacity = if asks { capacity(context)? } else { None };
    let taken = |wanted| choose(&inputs(wanted, capacity));
    // There is nothing to note where all wishes lead to the same.
    let others = [RecurrentStrategy::Sequence, RecurrentStrategy::Persistent];
    if choices.notes() && others.into_iter().any(|way| taken(way) != Strategy::PerStep) {
        choices.note_recurrent(shape, taken(wanted).name());
    }
    Ok(taken(wanted))
}

/// What there is for workgroups that wait for each other, where they may.
fn capacity(context: &Context) -> Result<Option<Capacity>> {
    let workgroups = context.waiting_workgroups()?;
    let words = context.limits().binding_elements;
    let iterations = context.completion_iterations();
    Ok((workgroups > 0).then(|| Capacity {
        workgroups,
        words,
        weight_bits: context.weight_bits(),
        iterations,
    }))
}

/// Many steps at a time where that is possible and asked for or, if the choice is free, likely to be faster.
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
    let &StrategyInputs { gates, hidden_size, rows, directions, slice_bits, capacity, .. } = inputs;
    PersistentDivision::of(Layer { gates, hidden_size, rows, directions, slice_bits }, capacity?)
}

impl Strategy {
    /// What it is called where it is asked for.
    pub(crate) fn name(&self) -> RecurrentStrategy {
        match self {
            Self::PerStep => RecurrentStrategy::PerStep,
            Self::Sequence(_) => RecurrentStrategy::Sequence,
            Self::Persistent(_) => RecurrentStrategy::Persistent,
        }
    }
}

impl StrategyInputs {
    /// Whether the choice depends on the room that there is on chip.
    pub(crate) fn depends_on_capacity(&self) -> bool {
        let is_large =
            self.kind != AdapterKind::Software && self.gates * self.hidden_size * self.hidden_size > WEIGHTS;
        self.wanted == RecurrentStrategy::Persistent || (self.wanted == RecurrentStrategy::Auto && is_large)
    }
}

/// As many rows for each workgroup as leave enough workgroups, and fit its memory; none where not even one does.
fn division(inputs: &StrategyInputs) -> Option<RowDivision> {
    let &StrategyInputs { gates, hidden_size, rows, kind, .. } = inputs;
    let software = kind == AdapterKind::Software;
    let (groups, columns) = match software {
        true => (CORES_TO_FILL, Columns::Eight),
        false => (UNITS_TO_FILL, Columns::One),
    };
    let fits = |bits: u32| ((gates + 1) * hidden_size) << bits <= POOL;
    let fills = |bits: u32| bits == 0 || rows.div_ceil(1 << bits) >= groups;
    // Hardware has its invocations, a software adapter the registers of a processor.
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

    /// How many steps one dispatch may take.
    pub(crate) fn steps(self, gates: usize, hidden_size: usize) -> usize {
        (ITERATIONS / self.iterations(gates, hidden_size)).max(1)
    }

    /// Turns of loops that an invocation takes in a step, in the direction that takes more, rounded up.
    fn iterations(self, gates: usize, hidden_size: usize) -> usize {
        let lanes = 32 << self.lane_bits;
        let product = |columns: usize, depth: usize| {
            columns.div_ceil(self.columns.number()).div_ceil(lanes) * (depth + 1)
        };
        let forward = product(gates * hidden_size, hidden_size);
        let backward = product(hidden_size, gates * hidden_size);
        // Of a unit: loops over its gates, and the rounds of its random numbers.
        let pointwise = (hidden_size << self.row_bits).div_ceil(lanes) * (6 * gates + 24);
        forward.max(backward) + pointwise + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: StrategyInputs = StrategyInputs {
        gates: 4,
        hidden_size: 64,
        rows: 16,
        directions: 1,
        slice_bits: 4,
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
    fn hardware_takes_small_layers_in_one_dispatch_and_large_ones_step_by_step() {
        let takes = |gates, hidden_size| rows_of(StrategyInputs { gates, hidden_size, ..PLAIN }).is_some();
        assert!(takes(4, 128) && !takes(4, 129));
        assert!(takes(3, 147) && !takes(3, 148));
        assert!(takes(1, 256) && !takes(1, 257));
    }

    #[test]
    fn rows_are_shared_out_until_the_device_is_filled() {
        let small = StrategyInputs { hidden_size: 32, ..PLAIN };
        let rows = |rows, kind| rows_of(StrategyInputs { rows, kind, ..small });
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
    fn what_does_not_fit_workgroup_memory_is_left_to_steps() {
        let forced = |gates, hidden_size| {
            rows_of(StrategyInputs {
                gates,
                hidden_size,
                wanted: RecurrentStrategy::Sequence,
                kind: AdapterKind::Software,
                ..PLAIN
            })
        };
        // (G + 1) H rows are held.
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
    fn large_layers_stay_on_chip_where_there_is_room_and_their_rows_are_few() {
        let capacity =
            Some(Capacity { workgroups: 512, words: 1 << 28, weight_bits: 3, iterations: 1 << 23 });
        let way = |hidden_size, rows, capacity| {
            choose(&StrategyInputs {
                hidden_size,
                rows,
                capacity,
                slice_bits: if rows > 16 { 2 } else { 4 },
                ..PLAIN
            })
            .name()
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
        let asks =
            |hidden_size, wanted| StrategyInputs { hidden_size, wanted, ..PLAIN }.depends_on_capacity();
        assert!(asks(512, RecurrentStrategy::Auto) && !asks(64, RecurrentStrategy::Auto));
        assert!(!asks(512, RecurrentStrategy::PerStep) && asks(64, RecurrentStrategy::Persistent));
    }

    #[test]
    fn what_the_user_asks_for_comes_first() {
        let large = StrategyInputs { hidden_size: 200, ..PLAIN };
        assert_eq!(rows_of(large), None);
        assert_eq!(rows_of(StrategyInputs { wanted: RecurrentStrategy::Sequence, ..large }), Some(1));
        assert_eq!(rows_of(StrategyInputs { wanted: RecurrentStrategy::PerStep, ..PLAIN }), None);
    }

    #[test]
    fn no_dispatch_takes_more_turns_than_any_driver_allows() {
        for kind in [AdapterKind::Software, AdapterKind::Integrated] {
            for gates in 1..=8 {
                for hidden_size in 1..=POOL {
                    for rows in [1, 16, 1024] {
                        let wanted = RecurrentStrategy::Sequence;
                        let inputs = StrategyInputs { gates, hidden_size, rows, kind, wanted, ..PLAIN };
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
