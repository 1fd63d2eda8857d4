//! Work larger than a binding or a grid is cut into pieces: with limits set artificially low every operation
//! computes what it computes with the adapter's own.
//!
//! Where cutting does not change the order of any sum the bits are equal. Where it does, each of the K roundings
//! of a sum is off by at most ε/2 of the partial sum, and they add up like a random walk: √K ε times the largest
//! partial sum, eight times that for the tails.
//!
//! Here stand the limits and the comparison; the rooms say what is cut.

mod operations;
mod refusals;
mod training;

use refrain::{Device, GpuOptions, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite};
use crate::support::{by_entry, expect_close, expect_same_bits, wide};

/// The ceiling of a binding: at least 960 elements are left of it after alignment.
const BINDING_BYTES: u64 = 4096;
/// Elements that no binding under [`BINDING_BYTES`] can hold.
const TOO_WIDE: usize = 1100;
/// The ceiling of workgroups along an axis.
const WORKGROUPS: u32 = 2;

fn low_limits(adapter: &Adapter) -> Result<Device> {
    adapter.open_with(&GpuOptions {
        binding_bytes: Some(BINDING_BYTES),
        workgroups: Some(WORKGROUPS),
        ..GpuOptions::default()
    })
}

/// How the results with low limits may differ from those without.
#[derive(Clone, Copy)]
enum Order {
    /// Every sum keeps its order.
    Kept,
    /// A sum of this many terms is taken in another order.
    Changed { terms: usize },
}

type Body = Box<dyn Fn(&Device) -> Result<Vec<f32>>>;

struct Case {
    name: String,
    order: Order,
    body: Body,
}

fn case(name: impl Into<String>, order: Order, body: impl Fn(&Device) -> Result<Vec<f32>> + 'static) -> Case {
    Case { name: name.into(), order, body: Box::new(body) }
}

fn downloads(tensors: &[&Tensor]) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for tensor in tensors {
        all.extend(tensor.download()?);
    }
    Ok(all)
}

/// Runs `body` on both devices; the low limits must have cut it.
fn on_both<T>(name: &str, devices: [&Device; 2], body: impl Fn(&Device) -> Result<T>) -> Result<[T; 2]> {
    let run = |device: &Device| -> Result<(T, u64)> {
        let before = device.counters().dispatches;
        let values = body(device)?;
        Ok((values, device.counters().dispatches - before))
    };
    let ((expected, once), (found, pieces)) = (run(devices[0])?, run(devices[1])?);
    assert!(pieces > once, "{name}: {pieces} dispatches with low limits, {once} without: nothing was cut");
    Ok([expected, found])
}

fn expect_agreement(name: &str, order: Order, expected: &[f32], found: &[f32]) -> Outcome {
    match order {
        Order::Kept => expect_same_bits(name, expected, found),
        Order::Changed { terms } => {
            let (expected, found) = (wide(expected), wide(found));
            let epsilon = f64::from(f32::EPSILON);
            let allowed = by_entry(8.0 * (terms as f64).sqrt() * epsilon, &expected);
            expect_close(name, &expected, &found, allowed)
        }
    }
}

fn compare_all(adapter: &Adapter, cases: Vec<Case>) -> Outcome {
    let (whole, cut) = (adapter.open()?, low_limits(adapter)?);
    cases.iter().try_for_each(|Case { name, order, body }| {
        let [expected, found] = on_both(name, [&whole, &cut], body)?;
        expect_agreement(name, *order, &expected, &found)
    })
}

pub(crate) fn register(suite: &mut Suite) {
    operations::register(suite);
    training::register(suite);
    refusals::register(suite);
}
