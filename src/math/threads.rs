//! Distributes work to threads.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

/// The number of multiplications for which starting a thread pays: they take several times as long as the start.
const WORK: usize = 1 << 22;

/// The number of threads: as many as the processor runs at once.
pub(crate) fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// The number of rows per part when `rows` rows cost `work` multiplications in total: a multiple of `unit`; the last
/// part may have fewer.
pub(crate) fn part_rows(rows: usize, work: usize, unit: usize) -> usize {
    let parts = threads().min(work / WORK).max(1);
    rows.div_ceil(parts).next_multiple_of(unit)
}

/// The address space of a thread in bytes: its stack, and the mappings of the standard library and the allocator, mainly
/// glibc's 64 MiB.
const THREAD: usize = 80 << 20;

/// How many of `wanted` threads memory suffices for: the program aborts if a thread starts without it.
fn affordable(wanted: usize) -> usize {
    let mut room: Vec<u8> = Vec::new();
    if room.try_reserve_exact(wanted * THREAD).is_err() {
        return 0;
    }
    // Keeps the compiler from removing the allocation.
    std::hint::black_box(room.as_ptr());
    wanted
}

/// Runs `work` on all `parts`, one thread each; on fewer threads if memory does not suffice.
pub(crate) fn in_parts<P: Send>(parts: Vec<P>, work: impl Fn(P) + Sync) {
    let others = match parts.len() {
        0 | 1 => 0,
        count => affordable(count - 1),
    };
    let parts = Mutex::new(parts.into_iter());
    let worker = || {
        loop {
            let part = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            match part {
                Some(part) => work(part),
                None => return,
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..others {
            if thread::Builder::new().name("refrain".to_owned()).spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_worked_on_once() {
        let mut values = vec![0; 100];
        in_parts(values.chunks_mut(7).collect(), |part: &mut [i32]| {
            for value in part {
                *value += 1;
            }
        });
        assert_eq!(values, vec![1; 100]);
        in_parts(Vec::<i32>::new(), |_| unreachable!("there are no parts"));
    }

    #[test]
    fn parts_cover_all_rows_in_whole_units() {
        assert_eq!(part_rows(100, WORK - 1, 8), 104);
        for rows in [1, 15, 16, 17, 8192] {
            let part = part_rows(rows, usize::MAX, 8);
            assert!(part.is_multiple_of(8) && part * threads() >= rows, "{rows} rows in parts of {part}");
        }
    }
}
