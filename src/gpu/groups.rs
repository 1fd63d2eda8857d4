//! Bind groups by what they bind, so that a steady loop makes none.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::faults::{refused, scoped};
use super::kernel::{Compiled, Kernel, MAX_BINDINGS};
use super::pool::{Buffer, Raw};
use super::span::Bound;
use crate::Result;

const MAX_BIND_GROUPS: usize = 8192;
/// The parameters, and the storage bindings behind them.
const MAX_PLACES: usize = 1 + MAX_BINDINGS;

/// A part of a buffer: the buffer's number, where the part begins, its bytes.
type Place = (u64, u64, u64);

/// What a bind group binds, for which pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pipeline: usize,
    places: [Place; MAX_PLACES],
}

/// A bind group and the number that tells it from every other one of its cache.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) group: wgpu::BindGroup,
    pub(super) number: u64,
}

/// What a kernel is to be bound to.
pub(super) struct Wanted<'a> {
    pub(super) kernel: &'static Kernel,
    pub(super) compiled: &'a Compiled,
    /// Where parameters are read from, unless they are immediates.
    pub(super) uniform: Option<&'a Buffer>,
    pub(super) bindings: &'a [Bound<'a>],
}

/// All bind groups that have been made and not forgotten.
#[derive(Default)]
pub(super) struct BindGroups {
    groups: HashMap<Key, Group, BuildHasherDefault<Mixer>>,
    /// The one asked for before, which a loop over time asks for again.
    last: Option<(Key, Group)>,
    result: u64,
}

impl BindGroups {
    /// How many were ever made.
    pub(super) fn result(&self) -> u64 {
        self.result
    }

    /// Lets go of all groups, and with them of the buffers they hold.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.last = None;
    }

    /// Lets go of the groups of a pipeline that is kept no longer.
    pub(super) fn forget_pipeline(&mut self, id: usize) {
        self.groups.retain(|key, _| key.pipeline != id);
        self.last.take_if(|(key, _)| key.pipeline == id);
    }

    /// The group that binds what is wanted, made on first use.
    ///
    /// # Errors
    /// What the driver says of it, as [`refused`] tells it.
    pub(super) fn get(&mut self, device: &wgpu::Device, wanted: &Wanted<'_>) -> Result<&Group> {
        let key = wanted.key();
        if self.last.as_ref().is_none_or(|(last, _)| *last != key) {
            if self.groups.len() >= MAX_BIND_GROUPS {
                self.clear();
            }
            let group = match self.groups.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let group = scoped(device, || wanted.create(device))
                        .map_err(|error| refused(wanted.kernel.name, &error))?;
                    self.result += 1;
                    place.insert(Group { group, number: self.result })
                }
            };
            self.last = Some((key, group.clone()));
        }
        let Some((_, group)) = &self.last else { unreachable!("set above") };
        Ok(group)
    }
}

impl Wanted<'_> {
    /// The buffer at binding 0, if there is one, and how much of it a dispatch sees.
    fn parameters(&self) -> Option<(&Raw, u64)> {
        self.uniform.map(|buffer| (&buffer.raw, self.kernel.parameter_bytes as u64))
    }

    fn key(&self) -> Key {
        let mut places = [(u64::MAX, 0, 0); MAX_PLACES];
        if let Some((raw, size)) = self.parameters() {
            places[0] = (raw.id, 0, size);
        }
        // Every binding has its place: a group found by fewer would be one for other buffers.
        for (place, bound) in (1..).zip(self.bindings) {
            places[place] = (bound.raw.id, bound.offset, bound.size);
        }
        Key { pipeline: self.compiled.id, places }
    }

    fn create(&self, device: &wgpu::Device) -> wgpu::BindGroup {
        let entry = |binding, raw: &'_ Raw, offset, size| (binding, raw.buffer.clone(), offset, size);
        let uniform = self.parameters().map(|(raw, size)| entry(0, raw, 0, size));
        let storage = (1..).zip(self.bindings);
        let storage = storage.map(|(place, bound)| entry(place, bound.raw, bound.offset, bound.size));
        let resources: Vec<_> = uniform.into_iter().chain(storage).collect();
        let entries: Vec<_> = resources
            .iter()
            .map(|(binding, buffer, offset, size)| wgpu::BindGroupEntry {
                binding: *binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: *offset,
                    size: wgpu::BufferSize::new(*size),
                }),
            })
            .collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(self.kernel.name),
            layout: &self.compiled.layout,
            entries: &entries,
        })
    }
}

/// A fast hash of keys that nobody chooses to collide: each word is multiplied into the ones before.
#[derive(Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // 2^64 divided by the golden ratio, rounded to an odd number (Knuth, The Art of Computer Programming 3, 6.4).
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        // The upper bits are the mixed ones; tables look at the lower ones too.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::*;

    #[test]
    fn keys_that_differ_in_one_place_rarely_share_a_hash() {
        let build = BuildHasherDefault::<Mixer>::default();
        let mut seen = HashSet::new();
        for buffer in 0..64 {
            for offset in 0..64 {
                let mut places = [(u64::MAX, 0, 0); MAX_PLACES];
                places[3] = (buffer, 256 * offset, 4096);
                seen.insert(build.hash_one(Key { pipeline: 1, places }) & 0xFFFF_FFFF);
            }
        }
        assert!(seen.len() > 64 * 64 - 16, "{} hashes of {} keys", seen.len(), 64 * 64);
    }
}
