//! Measures kernels with timestamp queries, on a device that was opened for profiling.
//!
//! Each dispatch has two queries in the query set of its submission. Where the adapter supports it, both are
//! written inside the pass, before and after the dispatch; otherwise each dispatch has a pass of its own, and
//! the queries are written at its beginning and end. At the end of the submission its timestamps are copied
//! to a buffer that the host reads in `Recorder::profile`.

use std::borrow::Cow;

use super::kernel::Kernel;
use crate::{Error, Result};

/// The most dispatches of a query set.
const DISPATCHES_IN_SET: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;
/// Bytes of one timestamp.
const TIMESTAMP_BYTES: u64 = wgpu::QUERY_SIZE as u64;

/// Whether a GPU records when each kernel ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profiling {
    /// No, without any cost.
    Off,
    /// Yes, for [`Device::profile`](crate::Device::profile). Kernels that could overlap may then run one
    /// after the other.
    Kernels,
    /// As [`Profiling::Kernels`], with a pass for each kernel, which is what that does on adapters that can
    /// only measure whole passes. Each time then includes the beginning of a pass.
    Passes,
}

/// One dispatch of a kernel, as [`Device::profile`](crate::Device::profile) reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelCall {
    /// The name of the kernel: the stem of its file under `shaders/`.
    pub kernel: String,
    /// The start time in nanoseconds since the first reported dispatch of the device.
    pub start_nanoseconds: f64,
    /// The duration in nanoseconds.
    pub nanoseconds: f64,
}

/// Where timestamps can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueryPlace {
    InsidePasses,
    AroundPasses,
}

/// The clock of a profiled device.
pub(super) struct Profiler {
    place: QueryPlace,
    /// Nanoseconds per tick.
    pub(super) period: f64,
}

impl Profiler {
    /// The features that profiling requests of those that the adapter `name` supports.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has no timestamps.
    pub(super) fn features(
        name: &str,
        present: wgpu::Features,
        profiling: Profiling,
    ) -> Result<wgpu::Features> {
        let wanted = match profiling {
            Profiling::Off => return Ok(wgpu::Features::empty()),
            Profiling::Passes => wgpu::Features::TIMESTAMP_QUERY,
            Profiling::Kernels => {
                wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
            }
        };
        let present = present & wanted;
        if present.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(present);
        }
        let message = format!(
            "`{name}` has no timestamp queries; open it with `Profiling::Off`, or profile on an adapter that has them"
        );
        Err(Error::Unsupported { what: "profiling".into(), message })
    }

    /// Creates the profiler of a device with the features of [`Profiler::features`]; `None` if there are
    /// none.
    pub(super) fn new(queue: &wgpu::Queue, features: wgpu::Features) -> Option<Self> {
        if features.is_empty() {
            return None;
        }
        let inside = features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
        let place = if inside { QueryPlace::InsidePasses } else { QueryPlace::AroundPasses };
        Some(Self { place, period: f64::from(queue.get_timestamp_period()) })
    }
}

/// The two queries of one dispatch.
pub(super) struct Timer {
    place: QueryPlace,
    queries: wgpu::QuerySet,
    first: u32,
}

impl Timer {
    /// The timestamp writes of the pass around the dispatch, where only whole passes can be measured.
    pub(super) fn around_pass(&self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        (self.place == QueryPlace::AroundPasses).then_some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(self.first),
            end_of_pass_write_index: Some(self.first + 1),
        })
    }

    /// Records the dispatch between its timestamps.
    pub(super) fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, [x, y, z]: [u32; 3]) {
        match self.place {
            QueryPlace::AroundPasses => pass.dispatch_workgroups(x, y, z),
            QueryPlace::InsidePasses => {
                pass.write_timestamp(&self.queries, self.first);
                pass.dispatch_workgroups(x, y, z);
                pass.write_timestamp(&self.queries, self.first + 1);
            }
        }
    }
}

/// What has been measured and not reported; empty where the device is not profiled.
#[derive(Default)]
pub(super) struct Tape {
    /// The query set and kernels of the current submission.
    open: Option<(wgpu::QuerySet, Vec<Cow<'static, str>>)>,
    /// Earlier submissions: the kernels of their dispatches, and the buffer of their timestamps.
    pub(super) submitted: Vec<(Vec<Cow<'static, str>>, wgpu::Buffer)>,
    /// The first reported timestamp.
    origin: Option<u64>,
}

impl Tape {
    /// Whether the query set has no space for another dispatch.
    pub(super) fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|(_, kernels)| kernels.len() >= DISPATCHES_IN_SET)
    }

    /// The queries of the next dispatch, of `kernel`.
    pub(super) fn timer(&mut self, profiler: &Profiler, device: &wgpu::Device, kernel: &Kernel) -> Timer {
        let create = || {
            let descriptor = wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: wgpu::QUERY_SET_MAX_QUERIES,
            };
            (device.create_query_set(&descriptor), Vec::with_capacity(DISPATCHES_IN_SET))
        };
        let (queries, kernels) = self.open.get_or_insert_with(create);
        let first = 2 * kernels.len() as u32;
        kernels.push(kernel.name.clone());
        Timer { place: profiler.place, queries: queries.clone(), first }
    }

    /// Ends the current submission: records the copy of its timestamps, after the last pass.
    pub(super) fn cut(&mut self, device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder) {
        let Some((queries, kernels)) = self.open.take() else { return };
        let count = 2 * kernels.len() as u32;
        let size = u64::from(count) * TIMESTAMP_BYTES;
        let buffer = |usage| {
            let label = Some("timestamps");
            device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
        };
        let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let readable = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &readable, 0, size);
        self.submitted.push((kernels, readable));
    }

    /// The dispatches of one submission from its timestamps.
    pub(super) fn calls(
        &mut self,
        period: f64,
        kernels: Vec<Cow<'static, str>>,
        timestamps: &[u64],
    ) -> Vec<KernelCall> {
        let origin = *self.origin.get_or_insert(timestamps.first().copied().unwrap_or_default());
        // A clock of few bits may wrap around in between: the duration is then zero instead of huge.
        let nanoseconds = |from: u64, to: u64| to.saturating_sub(from) as f64 * period;
        let pairs = kernels.into_iter().zip(timestamps.chunks_exact(2));
        pairs
            .map(|(kernel, pair)| KernelCall {
                kernel: kernel.into_owned(),
                start_nanoseconds: nanoseconds(origin, pair[0]),
                nanoseconds: nanoseconds(pair[0], pair[1]),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_without_timestamps_is_an_error_only_if_profiled() {
        use wgpu::Features as Has;
        let features = |present, profiling| Profiler::features("card", present, profiling);
        for profiling in [Profiling::Kernels, Profiling::Passes] {
            match features(Has::SHADER_F16, profiling) {
                Err(Error::Unsupported { what, message }) => {
                    assert!(
                        what == "profiling" && message.contains("`card` has no timestamp queries"),
                        "{message}"
                    );
                }
                other => panic!("{other:?}"),
            }
            let whole_passes = features(Has::TIMESTAMP_QUERY | Has::SHADER_F16, profiling);
            assert_eq!(whole_passes.expect("timestamps are there"), Has::TIMESTAMP_QUERY);
        }
        assert_eq!(features(Has::all(), Profiling::Off).expect("nothing is asked"), Has::empty());
        let inside = features(Has::all(), Profiling::Kernels).expect("all are there");
        assert_eq!(inside, Has::TIMESTAMP_QUERY | Has::TIMESTAMP_QUERY_INSIDE_PASSES);
        let around = features(Has::all(), Profiling::Passes).expect("all are there");
        assert_eq!(around, Has::TIMESTAMP_QUERY);
    }

    #[test]
    fn dispatches_are_reported_in_nanoseconds_since_the_first() {
        let mut tape = Tape::default();
        let first = tape.calls(2.0, vec!["a".into(), "b".into()], &[100, 103, 110, 120]);
        assert_eq!(first[0], KernelCall { kernel: "a".to_owned(), start_nanoseconds: 0.0, nanoseconds: 6.0 });
        assert_eq!(
            first[1],
            KernelCall { kernel: "b".to_owned(), start_nanoseconds: 20.0, nanoseconds: 20.0 }
        );
        let later = tape.calls(2.0, vec!["c".into()], &[200, 199]);
        assert_eq!(
            later,
            [KernelCall { kernel: "c".to_owned(), start_nanoseconds: 200.0, nanoseconds: 0.0 }]
        );
    }
}
