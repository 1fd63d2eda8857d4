//! A cache of bind groups by what they bind, so that a steady loop creates none.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;

use super::faults::{refused, scoped};
use super::hasher::Mixer;
use super::kernel::{Compiled, Kernel, MAX_BINDINGS};
use super::pool::{Buffer, Raw};
use super::span::Bound;
use crate::Result;

const MAX_BIND_GROUPS: usize = 8192;
/// The parameters, followed by the storage bindings.
const MAX_PLACES: usize = 1 + MAX_BINDINGS;

/// A part of a buffer: the buffer's number, the offset and the size in bytes.
type BoundRange = (u64, u64, u64);

/// The key of a bind group: a pipeline and what is bound.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BindGroupKey {
    pipeline: usize,
    places: [BoundRange; MAX_PLACES],
}

/// A bind group, with a number that is unique in its cache.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) group: wgpu::BindGroup,
    pub(super) number: u64,
}

/// The bindings requested for a kernel.
pub(super) struct BindGroupRequest<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) compiled: &'a Compiled,
    /// The uniform buffer of the parameters, unless they are immediates.
    pub(super) uniform: Option<&'a Buffer>,
    pub(super) bindings: &'a [Bound<'a>],
}

/// All cached bind groups.
#[derive(Default)]
pub(super) struct BindGroups {
    groups: HashMap<BindGroupKey, Group, BuildHasherDefault<Mixer>>,
    /// The group requested last, which a time loop requests again.
    last: Option<(BindGroupKey, Group)>,
    created: u64,
}

impl BindGroups {
    /// How many groups have been created so far.
    pub(super) fn created(&self) -> u64 {
        self.created
    }

    /// Drops all groups, and their references to buffers.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.last = None;
    }

    /// Drops the groups of a pipeline that is no longer cached.
    pub(super) fn forget_pipeline(&mut self, id: usize) {
        self.groups.retain(|key, _| key.pipeline != id);
        self.last.take_if(|(key, _)| key.pipeline == id);
    }

    /// Returns the group with the requested bindings, and creates it on first use.
    pub(super) fn get(&mut self, device: &wgpu::Device, wanted: &BindGroupRequest<'_>) -> Result<&Group> {
        let key = wanted.key();
        if self.last.as_ref().is_none_or(|(last, _)| *last != key) {
            if self.groups.len() >= MAX_BIND_GROUPS {
                self.clear();
            }
            let group = match self.groups.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let group = scoped(device, || wanted.create(device))
                        .map_err(|error| refused(&wanted.kernel.name, &error))?;
                    self.created += 1;
                    place.insert(Group { group, number: self.created })
                }
            };
            self.last = Some((key, group.clone()));
        }
        let Some((_, group)) = &self.last else { unreachable!("set above") };
        Ok(group)
    }
}

impl BindGroupRequest<'_> {
    /// The buffer at binding 0, if there is one, and the bytes that a dispatch reads of it.
    fn parameters(&self) -> Option<(&Raw, u64)> {
        self.uniform.map(|buffer| (&buffer.raw, self.kernel.parameter_bytes as u64))
    }

    fn key(&self) -> BindGroupKey {
        let mut places = [(u64::MAX, 0, 0); MAX_PLACES];
        if let Some((raw, size)) = self.parameters() {
            places[0] = (raw.id, 0, size);
        }
        // Every binding must be part of the key: otherwise a group could bind other buffers.
        for (place, bound) in (1..).zip(self.bindings) {
            places[place] = (bound.raw.id, bound.offset, bound.size);
        }
        BindGroupKey { pipeline: self.compiled.id, places }
    }

    fn create(&self, device: &wgpu::Device) -> wgpu::BindGroup {
        let entry = |binding, raw: &'_ Raw, offset, size| (binding, raw.buffer().clone(), offset, size);
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
            label: Some(&self.kernel.name),
            layout: &self.compiled.layout,
            entries: &entries,
        })
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
                seen.insert(build.hash_one(BindGroupKey { pipeline: 1, places }) & 0xFFFF_FFFF);
            }
        }
        assert!(seen.len() > 64 * 64 - 16, "{} hashes of {} keys", seen.len(), 64 * 64);
    }
}
