//! The tuning file: JSON with its format, the device it was measured on, and the choices.
//!
//! ```json
//! {
//!   "format": "refrain tuning", "version": 1,
//!   "crate": "0.1.0", "adapter": "...", "backend": "vulkan", "driver": "...",
//!   "products": [{"form": "right_transposed", "m": 1024, "n": 256, "k": 64, "block": null, "tile": "large", "parts": 1}],
//!   "recurrent": [{"gates": 4, "hidden_size": 64, "rows": 16, "strategy": "per_step"}]
//! }
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Form, MatmulTile, MatmulVariant, ProductShape, RecurrentShape, RecurrentStrategy, Tuning};
use crate::gpu::adapters::AdapterSummary;

/// The format name in the file, and the version that this crate reads and writes.
const FORMAT: &str = "refrain tuning";
const VERSION: u32 = 1;

/// The device and software on which choices were measured; they are valid for no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredAdapter {
    #[serde(rename = "crate")]
    release: String,
    adapter: String,
    backend: String,
    driver: String,
}

/// The fields that every version of the file has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: String,
    version: u32,
    #[serde(flatten)]
    origin: StoredAdapter,
    products: Vec<ProductEntry>,
    recurrent: Vec<RecurrentEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProductEntry {
    form: Form,
    m: usize,
    n: usize,
    k: usize,
    block: Option<usize>,
    tile: MatmulTile,
    parts: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecurrentEntry {
    gates: usize,
    hidden_size: usize,
    rows: usize,
    strategy: RecurrentStrategy,
}

impl StoredAdapter {
    pub(super) fn of(adapter: &AdapterSummary) -> Self {
        Self {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            adapter: adapter.name.clone(),
            backend: adapter.backend.clone(),
            driver: adapter.driver.clone(),
        }
    }

    /// A readable name that is unique except for hash collisions; the file's own origin resolves those.
    pub(super) fn file_name(&self) -> String {
        /// The most letters of the adapter's name.
        const LETTERS: usize = 40;
        let plain =
            |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
        let name: String = self.adapter.chars().take(LETTERS).map(plain).collect();
        let words: Vec<&str> = name.split('-').filter(|word| !word.is_empty()).collect();
        let Self { release, adapter, backend, driver } = self;
        let all = [release, adapter, backend, driver].map(String::as_str).join("\n");
        format!("{}-{:016x}.json", words.join("-"), fnv1a(all.as_bytes()))
    }
}

impl fmt::Display for StoredAdapter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, adapter, backend, driver } = self;
        write!(formatter, "refrain {release} on {adapter} ({backend}, driver {driver})")
    }
}

/// The hash FNV-1a of Fowler, Noll & Vo (IETF draft-eastlake-fnv), which is the same on every machine.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Tuning {
    /// The content of a file for these choices.
    pub(crate) fn to_json(&self, adapter: &AdapterSummary) -> String {
        let products = self.products().map(|(shape, variant)| {
            let ProductShape { form, m, n, k, block } = shape;
            ProductEntry { form, m, n, k, block, tile: variant.tile, parts: variant.parts }
        });
        let recurrent = self.recurrent_layers().map(|(shape, strategy)| {
            let RecurrentShape { gates, hidden_size, rows } = shape;
            RecurrentEntry { gates, hidden_size, rows, strategy }
        });
        let file = File {
            format: FORMAT.to_owned(),
            version: VERSION,
            origin: StoredAdapter::of(adapter),
            products: products.collect(),
            recurrent: recurrent.collect(),
        };
        // Numbers and strings can always be serialized.
        serde_json::to_string_pretty(&file).unwrap_or_default()
    }

    /// Parses a file measured on `here`; the error says what is wrong with it.
    pub(super) fn parse(text: &[u8], here: &StoredAdapter) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("is not JSON: {error}"))?;
        let head = Head::deserialize(&value).ok().filter(|head| head.format == FORMAT);
        let Some(head) = head else { return Err("is not a tuning file".to_owned()) };
        if head.version != VERSION {
            return Err(format!("has format version {}, but this version reads {VERSION}", head.version));
        }
        let file = File::deserialize(&value).map_err(|error| format!("is damaged: {error}"))?;
        if file.origin != *here {
            return Err(format!("was measured by {}, but this is {here}", file.origin));
        }
        let mut tuning = Self::new();
        for ProductEntry { form, m, n, k, block, tile, parts } in file.products {
            let shape = ProductShape { form, m, n, k, block };
            if tuning.product(shape).is_some() {
                return Err(format!("has two choices for {shape:?}"));
            }
            tuning.set_product(shape, MatmulVariant { tile, parts }).map_err(|error| error.to_string())?;
        }
        for RecurrentEntry { gates, hidden_size, rows, strategy } in file.recurrent {
            let shape = RecurrentShape { gates, hidden_size, rows };
            if tuning.recurrent(shape).is_some() {
                return Err(format!("has two choices for {shape:?}"));
            }
            tuning.set_recurrent(shape, strategy).map_err(|error| error.to_string())?;
        }
        Ok(tuning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(driver: &str) -> StoredAdapter {
        StoredAdapter {
            release: "0.1.0".into(),
            adapter: "Imaginary (TM) 9000".into(),
            backend: "vulkan".into(),
            driver: driver.into(),
        }
    }

    #[test]
    fn every_origin_has_a_file_of_its_own_with_a_name_for_people() {
        let name = origin("1.0").file_name();
        assert!(name.starts_with("imaginary-tm-9000-") && name.ends_with(".json"), "{name}");
        assert_eq!(name, origin("1.0").file_name());
        let newer = StoredAdapter { release: "0.2.0".into(), ..origin("1.0") };
        let other = StoredAdapter { backend: "dx12".into(), ..origin("1.0") };
        for different in [origin("1.1"), newer, other] {
            assert_ne!(name, different.file_name());
        }
        // The published hash of these letters.
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
