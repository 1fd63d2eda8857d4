//! Work shared out among threads.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

/// Multiplications that are worth a thread: they take several times as long as starting one.
const WORK: usize = 1 << 22;

/// The threads that work is shared out among: as many as the processor runs at once.
pub(crate) fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// How many of `rows` rows each part gets, where all of them take `work` multiplications: whole multiples of `unit`, but
/// for the last part.
pub(crate) fn part_rows(rows: usize, work: usize, unit: usize) -> usize {
    let parts = threads().min(work / WORK).max(1);
    rows.div_ceil(parts).next_multiple_of(unit)
}

/// Bytes of address space that a thread takes: its stack, and what the standard library and the allocator map for it, of which
/// glibc's 64 MiB are the most.
const THREAD: usize = 80 << 20;

/// How many of `wanted` threads there is memory for: one that starts without ends the program.
fn affordable(wanted: usize) -> usize {
    let mut room: Vec<u8> = Vec::new();
    if room.try_reserve_exact(wanted * THREAD).is_err() {
        return 0;
    }
    // Without this the compiler leaves the allocation out.
    std::hint::black_box(room.as_ptr());
    wanted
}

/// Does `work` on all `parts`, on a thread each. Where the system has no room for more threads, there are fewer.
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
