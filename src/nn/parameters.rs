//! The parameters of a model: one flat buffer with a named section for each parameter.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::init::Init;
use crate::device::{Device, on_device};
use crate::random::Stream;
use crate::shape::Shape;
use crate::tensor::{Real, Storage, View, ViewMut, reserved};
use crate::{Error, Result};

/// Identifies one [`Model`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelId(u64);

impl ModelId {
    pub(crate) fn new() -> Self {
        Self(next_id())
    }
}

/// Identifies one initialization of a model: its [`Parameters`], and the gradients, optimizers and learned
/// states created from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParametersId(u64);

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The description of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// The full name, such as `rnn.weight_ih_l0`.
    pub name: String,
    /// The shape.
    pub shape: Shape,
    /// The distribution of the initial values.
    pub init: Init,
}

/// The sections of a flat buffer on one device.
pub(crate) struct Layout {
    model: ModelId,
    id: ParametersId,
    sections: Vec<Section>,
    /// The index of each section by its name.
    places: HashMap<String, usize>,
    total: usize,
}

struct Section {
    name: String,
    shape: Shape,
    offset: usize,
}

impl Layout {
    fn new(model: ModelId, specs: &[ParameterSpec], alignment: usize) -> Self {
        let mut total = 0usize;
        let mut sections = Vec::with_capacity(specs.len());
        for spec in specs {
            sections.push(Section { name: spec.name.clone(), shape: spec.shape, offset: total });
            total = (total + spec.shape.elements()).next_multiple_of(alignment);
        }
        // The buffer of a model without parameters is not empty.
        let places = specs.iter().zip(0..).map(|(spec, place)| (spec.name.clone(), place)).collect();
        Self { model, id: ParametersId(next_id()), sections, places, total: total.max(1) }
    }

    /// Elements of the flat buffer, including padding.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// The shape of the whole flat buffer.
    fn flat_shape(&self) -> Shape {
        match Shape::new(&[self.total]) {
            Ok(shape) => shape,
            Err(error) => unreachable!("the model checked its size when layers were added: {error}"),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Result<usize> {
        self.places.get(name).copied().ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            Error::config("parameter", format!("there is no `{name}`; known names: {}", names.join(", ")))
        })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(|section| section.name.as_str())
    }

    pub(crate) fn id(&self) -> ParametersId {
        self.id
    }

    /// Checks that this layout belongs to `model`.
    pub(crate) fn expect_model(&self, what: &str, model: ModelId) -> Result<()> {
        if self.model == model {
            return Ok(());
        }
        Err(Error::ModelMismatch { what: what.to_owned() })
    }

    /// Checks that this is the layout of the parameters `id`, not of another initialization.
    pub(crate) fn expect_id(&self, what: &str, id: ParametersId) -> Result<()> {
        if self.id == id {
            return Ok(());
        }
        Err(Error::ModelMismatch { what: what.to_owned() })
    }
}

/// A flat buffer with the sections of a layout: all parameters of a model, or all of their gradients.
pub(super) struct Flat {
    pub(super) device: Device,
    storage: Storage,
    pub(super) layout: Arc<Layout>,
}

impl Flat {
    pub(super) fn zeros(device: &Device, layout: Arc<Layout>, what: &str) -> Result<Self> {
        let storage = Storage::zeros(device, layout.total(), what)?;
        Ok(Self { device: device.clone(), storage, layout })
    }

    pub(super) fn section(&self, index: usize) -> View<'_> {
        let section = &self.layout.sections[index];
        View::new(&self.device, &self.storage, section.offset, section.shape).named(&section.name)
    }

    pub(super) fn section_mut(&mut self, index: usize) -> ViewMut<'_> {
        let section = &self.layout.sections[index];
        ViewMut::new(&self.device, &mut self.storage, section.offset, section.shape)
    }

    /// All sections with their padding as one vector.
    pub(super) fn whole(&self) -> View<'_> {
        View::new(&self.device, &self.storage, 0, self.layout.flat_shape())
    }

    pub(super) fn whole_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&self.device, &mut self.storage, 0, self.layout.flat_shape())
    }
}

/// Several parameters on the host.
pub(crate) struct Downloaded {
    /// The part of the flat buffer that contains them.
    pub(crate) values: Vec<f32>,
    /// For each parameter its shape, and its range in `values`.
    pub(crate) places: Vec<(Shape, Range<usize>)>,
}

/// All parameters of a [`Model`](super::Model) in one flat buffer on one device, created by
/// [`Model::initialize`](super::Model::initialize).
pub struct Parameters {
    flat: Flat,
    scalars: usize,
}

impl Parameters {
    /// Computes the initial values: parameter p of the model from stream p of its seed.
    pub(super) fn initialize(
        model: ModelId,
        specs: &[ParameterSpec],
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let mut parameters = Self::zeros(model, specs, device)?;
        let mut host = reserved(parameters.layout().total(), "the model's first values")?;
        host.resize(parameters.layout().total(), 0.0);
        for (stream, (spec, section)) in specs.iter().zip(&parameters.layout().sections).enumerate() {
            let stream = Stream::new(seed, stream as u64);
            let values = &mut host[section.offset..section.offset + spec.shape.elements()];
            for (index, value) in values.iter_mut().enumerate() {
                *value = spec.init.sample(&stream, index as u64);
            }
        }
        parameters.write(&host)?;
        Ok(parameters)
    }

    /// Parameters of zero.
    pub(super) fn zeros(model: ModelId, specs: &[ParameterSpec], device: &Device) -> Result<Self> {
        let layout = Layout::new(model, specs, device.section_elements());
        let scalars = specs.iter().map(|spec| spec.shape.elements()).sum();
        let largest = specs.iter().max_by_key(|spec| spec.shape.elements());
        let what = match largest {
            Some(ParameterSpec { name, shape, .. }) => {
                format!("the model's parameters, of which `{name}` {shape} is the largest,")
            }
            None => "the model's parameters".to_owned(),
        };
        Ok(Self { flat: Flat::zeros(device, Arc::new(layout), &what)?, scalars })
    }

    /// Parameters of the same model and layout in a dry run on `device`.
    pub(super) fn dry(&self, device: &Device) -> Result<Self> {
        let flat = Flat::zeros(device, Arc::clone(self.layout()), "the model's parameters")?;
        Ok(Self { flat, scalars: self.scalars })
    }

    /// Overwrites the whole flat buffer, including padding.
    fn write(&mut self, host: &[f64]) -> Result<()> {
        on_device!(self.flat.device,
            F => {
                if let Some(values) = F::values_mut(&mut self.flat.storage) {
                    values.iter_mut().zip(host).for_each(|(value, &host)| *value = F::from_f64(host));
                }
                Ok(())
            },
            context => {
                let mut rounded: Vec<f32> = reserved(host.len(), "the model's parameters")?;
                rounded.extend(host.iter().map(|&value| value as f32));
                match &self.flat.storage {
                    Storage::Gpu(buffer) => context.recorder().upload(buffer, bytemuck::cast_slice(&rounded)),
                    _ => unreachable!("a GPU device stores its parameters on the GPU"),
                }
            },
        )
    }

    /// The device of the parameters.
    pub fn device(&self) -> &Device {
        &self.flat.device
    }

    /// The number of elements of all parameters, without padding.
    pub fn count(&self) -> usize {
        self.scalars
    }

    /// The names of all parameters, in the order in which their layers were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.flat.layout.names()
    }

    /// Returns one parameter by its full name, such as `rnn.weight_ih_l0`.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name; the message lists the known ones.
    pub fn view(&self, name: &str) -> Result<View<'_>> {
        Ok(self.section(self.flat.layout.find(name)?))
    }

    /// Copies several parameters to the host in one transfer. **Waits** for the GPU.
    pub(crate) fn download<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Downloaded> {
        let sections =
            names.into_iter().map(|name| Ok(&self.flat.layout.sections[self.flat.layout.find(name)?]));
        let sections: Vec<&Section> = sections.collect::<Result<_>>()?;
        let range = |section: &Section| section.offset..section.offset + section.shape.elements();
        let Some(start) = sections.iter().map(|section| section.offset).min() else {
            return Ok(Downloaded { values: Vec::new(), places: Vec::new() });
        };
        let end = sections.iter().map(|section| range(section).end).max().unwrap_or(start);
        let values = self.flat().outer(start..end)?.download()?;
        let places = sections.into_iter().map(|section| {
            let Range { start: from, end: to } = range(section);
            (section.shape, from - start..to - start)
        });
        Ok(Downloaded { values, places: places.collect() })
    }

    /// Overwrites one parameter with host values of the shape `dimensions`, row-major. **Waits** for the GPU.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name; [`Error::Shape`] for another shape than the parameter's, or
    /// another number of values; [`Error::NonFinite`] for NaN and infinities.
    ///
    /// ```
    /// use refrain::nn::{Linear, Model};
    /// let mut model = Model::new(1);
    /// model.add("head", Linear::new(2, 3))?;
    /// let mut parameters = model.initialize(&refrain::Device::cpu())?;
    /// parameters.set("head.weight", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// assert!(parameters.set("head.weight", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).is_err());
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn set(&mut self, name: &str, dimensions: &[usize], values: &[f32]) -> Result<()> {
        let mut wide: Vec<f64> = reserved(values.len(), name)?;
        wide.extend(values.iter().copied().map(f64::from));
        self.set_all([(name, dimensions, wide.as_slice())])
    }

    /// Overwrites several parameters at once by (name, shape, values), with one transfer in each direction.
    /// **Waits** for the GPU.
    ///
    /// # Errors
    /// As [`Parameters::set`]; [`Error::NonFinite`] also for values outside the range of the device's floats,
    /// such as 10³⁰⁰ in 32 bits. On an error no parameter is changed.
    pub fn set_all<'v>(
        &mut self,
        values: impl IntoIterator<Item = (&'v str, &'v [usize], &'v [f64])>,
    ) -> Result<()> {
        let mut host = self.flat().download_f64()?;
        let largest = self.device().largest_float();
        for (name, dimensions, values) in values {
            let section = &self.flat.layout.sections[self.flat.layout.find(name)?];
            if section.shape.dimensions() != dimensions {
                return Err(Error::shape(name, section.shape, format!("{dimensions:?}")));
            }
            let expected = section.shape.elements();
            if values.len() != expected {
                let expected = format!("{expected} values for {}", section.shape);
                return Err(Error::shape(name, expected, format!("{} values", values.len())));
            }
            if let Some(place) = values.iter().position(|value| value.is_nan() || value.abs() > largest) {
                return Err(Error::NonFinite {
                    what: format!("`{name}`, value {place} ({:e})", values[place]),
                });
            }
            host[section.offset..section.offset + expected].copy_from_slice(values);
        }
        self.write(&host)
    }

    /// All sections with their padding as one vector.
    pub(crate) fn flat(&self) -> View<'_> {
        self.flat.whole()
    }

    pub(crate) fn flat_mut(&mut self) -> ViewMut<'_> {
        self.flat.whole_mut()
    }

    pub(crate) fn section(&self, index: usize) -> View<'_> {
        self.flat.section(index)
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.flat.layout
    }
}
