//! Dropout and the merges of two directions as operations: the same masks everywhere, and gradients by differences.

use refrain::ops::{self, Mask, Merge};
use refrain::random::Stream;
use refrain::{Device, Error, GpuOptions, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu};
use crate::gradients::check;
use crate::support::{dot, expect_same_bits, random, values};

/// The n-th mask: rates, seeds and streams that use all of their bits.
fn mask(number: u64) -> Result<Mask> {
    let stream = Stream::new(0x0123_4567_89ab_cdef_u64.wrapping_mul(number + 1), number << 34 | number);
    Mask::new(stream, [0.5, 0.25, 0.01, 0.9][number as usize % 4])
}

fn ones(device: &Device, dimensions: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(device, dimensions, &vec![1.0; dimensions.iter().product()])
}

/// Which elements dropout over `dimensions` keeps.
fn retained(device: &Device, dimensions: &[usize], mask: Mask) -> Result<Vec<bool>> {
    let y = ops::dropout(&ones(device, dimensions)?, mask)?;
    Ok(y.download()?.into_iter().map(|value| value != 0.0).collect())
}

fn masks_are_the_same_integers_on(device: &Device) -> Outcome {
    const SIZES: [usize; 3] = [37, 11, 13];
    for number in 0..8 {
        let plain = mask(number)?;
        for mask in [plain, plain.repeated(11 * 13)?, plain.repeated(1)?] {
            let expected: Vec<bool> = (0..37 * 11 * 13).map(|index| mask.keeps(index)).collect();
            assert_eq!(retained(device, &SIZES, mask)?, expected, "{mask:?}");
        }
    }
    Ok(())
}

fn masks_are_the_same_integers_on_the_cpu() -> Outcome {
    masks_are_the_same_integers_on(&Device::cpu())?;
    masks_are_the_same_integers_on(&Device::reference())
}

fn masks_are_the_same_integers_on_the_gpu(adapter: &Adapter) -> Outcome {
    masks_are_the_same_integers_on(&adapter.open()?)
}

/// The number kept is binomial: n (1 − p) ± 4 √(n p (1 − p)) holds for all but one stream in 16,000, and these are fixed.
fn the_share_of_kept_elements_is_one_minus_the_rate() -> Outcome {
    const COUNT: usize = 40_000;
    for number in 0..8 {
        let mask = mask(number)?;
        let found = retained(&Device::cpu(), &[COUNT], mask)?.into_iter().filter(|&kept| kept).count() as f64;
        let (count, rate) = (COUNT as f64, f64::from(mask.rate()));
        let (mean, deviation) = (count * (1.0 - rate), (count * rate * (1.0 - rate)).sqrt());
        assert!((found - mean).abs() < 4.0 * deviation, "{mask:?}: {found} of {count}, expected {mean}");
    }
    Ok(())
}

fn a_locked_mask_is_the_same_at_every_step() -> Outcome {
    let mask = mask(1)?;
    let locked = retained(&Device::cpu(), &[6, 5, 7], mask.repeated(35)?)?;
    assert_eq!(locked[..35], retained(&Device::cpu(), &[5, 7], mask)?[..]);
    assert!(locked.chunks(35).all(|step| step == &locked[..35]));
    assert_ne!(locked, retained(&Device::cpu(), &[6, 5, 7], mask)?);
    Ok(())
}

fn streams_and_seeds_yield_different_masks() -> Outcome {
    let of = |seed, stream| retained(&Device::cpu(), &[100], Mask::new(Stream::new(seed, stream), 0.5)?);
    let first = of(1, 1)?;
    for (seed, stream) in [(2, 1), (1, 2), (1 << 32 | 1, 1), (1, 1 << 32 | 1)] {
        assert_ne!(first, of(seed, stream)?, "{seed} {stream}");
    }
    Ok(())
}

fn dropout_at_rate_zero_changes_nothing() -> Outcome {
    let device = Device::cpu();
    let x = random(&device, 301, &[3, 7], 2.0)?;
    let y = ops::dropout(&x, Mask::new(Stream::new(1, 2), 0.0)?)?;
    expect_same_bits("y", &x.download()?, &y.download()?)
}

fn dropped_values_may_be_anything() -> Outcome {
    let mask = mask(0)?;
    let x = Tensor::from_slice(&Device::cpu(), &[50], &[f32::NAN; 50])?;
    let y = ops::dropout(&x, mask)?.download()?;
    assert!(y.iter().enumerate().all(|(index, value)| value.is_nan() == mask.keeps(index)), "{y:?}");
    Ok(())
}

fn rates_and_periods_that_make_no_sense_are_refused() -> Outcome {
    for rate in [1.0, 1.5, -0.1, f32::NAN, f32::INFINITY] {
        match Mask::new(Stream::new(0, 0), rate) {
            Err(error @ Error::Config { .. }) => {
                let message = error.to_string();
                assert!(message.contains("below 1") && message.contains(&rate.to_string()), "{message}");
            }
            other => panic!("a rate of {rate} gives {other:?}"),
        }
    }
    assert!(matches!(mask(0)?.repeated(0), Err(Error::Config { .. })));
    let odd = ops::merge(&ones(&Device::cpu(), &[2, 3])?, Merge::Sum);
    assert!(matches!(odd, Err(Error::Shape { .. })), "{odd:?}");
    let both = ones(&Device::cpu(), &[2, 4])?;
    let wrong = ops::merge_backward(&both, &both, Merge::Mean);
    assert!(matches!(wrong, Err(Error::Shape { .. })), "{wrong:?}");
    Ok(())
}

fn dropout_backward_is_itself_by_finite_differences() -> Outcome {
    let device = Device::reference();
    let (x, d_y) = (values(302, 60, 1.0), random(&device, 303, &[3, 4, 5], 1.0)?);
    for mask in [mask(1)?, mask(1)?.repeated(20)?] {
        let d_x = ops::dropout(&d_y, mask)?.download_f64()?;
        check("dropout", &x, &d_x, |x| {
            let y = ops::dropout(&Tensor::from_slice_f64(&device, &[3, 4, 5], x)?, mask)?;
            Ok(dot(&y.download_f64()?, &d_y.download_f64()?))
        })?;
    }
    Ok(())
}

fn merge_backward_matches_finite_differences() -> Outcome {
    let device = Device::reference();
    let x = values(304, 2 * 3 * 10, 1.0);
    for mode in Merge::ALL {
        let both = Tensor::from_slice_f64(&device, &[2, 3, 10], &x)?;
        let y = ops::merge(&both, mode)?;
        let d_y = random(&device, 305, y.shape().dimensions(), 1.0)?;
        let d_both = ops::merge_backward(&both, &d_y, mode)?.download_f64()?;
        check(&format!("{mode:?}"), &x, &d_both, |x| {
            let y = ops::merge(&Tensor::from_slice_f64(&device, &[2, 3, 10], x)?, mode)?;
            Ok(dot(&y.download_f64()?, &d_y.download_f64()?))
        })?;
    }
    Ok(())
}

fn masks_and_merges_are_cut_without_a_trace(adapter: &Adapter) -> Outcome {
    let low = GpuOptions { binding_bytes: Some(4096), workgroups: Some(2), ..GpuOptions::default() };
    let (whole, cut) = (adapter.open()?, adapter.open_with(&low)?);
    // Many short rows, and rows of which a binding holds no whole one.
    for sizes in [[90, 50], [3, 2600]] {
        let run = |device: &Device| -> Result<(Vec<f32>, u64)> {
            let before = device.counters().dispatches;
            let both = random(device, 306, &sizes, 1.0)?;
            let mut all = ops::dropout(&both, mask(2)?.repeated(1237)?)?.download()?;
            for mode in Merge::ALL {
                let y = ops::merge(&both, mode)?;
                all.extend(y.download()?);
                all.extend(ops::merge_backward(&both, &y, mode)?.download()?);
            }
            Ok((all, device.counters().dispatches - before))
        };
        let ((expected, once), (found, pieces)) = (run(&whole)?, run(&cut)?);
        expect_same_bits("low limits", &expected, &found)?;
        assert!(pieces > 2 * once, "{pieces} dispatches with low limits, {once} without: too little was cut");
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        masks_are_the_same_integers_on_the_cpu,
        the_share_of_kept_elements_is_one_minus_the_rate,
        a_locked_mask_is_the_same_at_every_step,
        streams_and_seeds_yield_different_masks,
        dropout_at_rate_zero_changes_nothing,
        dropped_values_may_be_anything,
        rates_and_periods_that_make_no_sense_are_refused,
        dropout_backward_is_itself_by_finite_differences,
        merge_backward_matches_finite_differences,
    );
    on_gpu!(suite, masks_are_the_same_integers_on_the_gpu, masks_and_merges_are_cut_without_a_trace);
}
