//! Mutations of inputs: of bytes, ignoring their meaning, and of JSON, by its structure.

use serde_json::{Map, Value};

/// SplitMix64 (Steele, Lea & Flood 2014), which gives the same numbers on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'v, T>(&mut self, values: &'v [T]) -> &'v T {
        &values[self.below(values.len())]
    }
}

/// The format of an input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A safetensors file: a length, a JSON header, values.
    Tensors,
    Json,
    Bytes,
}

/// Returns one of `seeds` with one to four changes.
pub(crate) fn mutated(format: Format, seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = random.pick(seeds).clone();
    for _ in 0..=random.below(4) {
        let by_structure = format != Format::Bytes && random.percent(75);
        let changed = match format {
            Format::Tensors if by_structure => tensors(&input, random),
            Format::Json if by_structure => json_text(&input, random).map(String::into_bytes),
            _ => None,
        };
        match changed {
            Some(changed) => input = changed,
            None => bytes(&mut input, seeds, random),
        }
    }
    input
}

const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    7,
    255,
    65_536,
    1 << 24,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 62,
    (1 << 62) + 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

const WORDS: [&str; 34] = [
    "",
    "0",
    "-1",
    "true",
    "null",
    "NaN",
    "lstm",
    "gru",
    "rnn",
    "tanh",
    "relu",
    "sigmoid",
    "hard_sigmoid",
    "F32",
    "F64",
    "I64",
    "BF16",
    "weight",
    "bias",
    "linear",
    "embedding",
    "one_hot",
    "layer",
    "vanilla",
    "both",
    "reverse",
    "chunk",
    "window",
    "truncation",
    "hidden_size",
    "units",
    "shape",
    "data_offsets",
    "\u{1b}[31m\u{202e}\u{0}",
];

fn number(random: &mut Random) -> Value {
    match random.below(8) {
        0 => (-(*random.pick(&NUMBERS) as i64).saturating_abs()).into(),
        1 => (*random.pick(&[-0.0, 0.5, -1.5, 1e-300, 1e39, 1e308, -1e308])).into(),
        2..4 => (random.below(40) as u64).into(),
        _ => (*random.pick(&NUMBERS)).into(),
    }
}

fn any_value(random: &mut Random) -> Value {
    match random.below(7) {
        0 => Value::Null,
        1 => random.percent(50).into(),
        2 => Value::Array(Vec::new()),
        3 => Value::Object(Map::new()),
        4 => (*random.pick(&WORDS)).into(),
        5 => vec![number(random); random.below(2000)].into(),
        _ => number(random),
    }
}

/// Changes one value at any depth of `value`.
fn change(value: &mut Value, random: &mut Random) {
    // Usually descends as long as there is something below.
    match value {
        Value::Array(values) if !values.is_empty() && random.percent(80) => {
            let place = random.below(values.len());
            change(&mut values[place], random);
        }
        Value::Object(entries) if !entries.is_empty() && random.percent(90) => {
            let place = random.below(entries.len());
            if let Some((_, inner)) = entries.iter_mut().nth(place) {
                change(inner, random);
            }
        }
        // Files of this crate contain JSON within JSON strings.
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(mut inner) if random.percent(85) => {
                change(&mut inner, random);
                *text = inner.to_string();
            }
            _ => *text = changed_word(text, random),
        },
        Value::Array(values) => array(values, random),
        Value::Object(entries) => object(entries, random),
        Value::Number(_) if random.percent(85) => *value = number(random),
        Value::Bool(switch) if random.percent(70) => *switch = !*switch,
        other => *other = any_value(random),
    }
}

fn changed_word(text: &str, random: &mut Random) -> String {
    match random.below(10) {
        0 => text.repeat(2),
        1 => text.chars().rev().collect(),
        2 => "x".repeat(70_000),
        _ => (*random.pick(&WORDS)).to_owned(),
    }
}

fn array(values: &mut Vec<Value>, random: &mut Random) {
    let place = random.below(values.len());
    match random.below(5) {
        0 if !values.is_empty() => drop(values.remove(place)),
        1 if !values.is_empty() => values.push(values[place].clone()),
        2 if !values.is_empty() => {
            let other = random.below(values.len());
            values.swap(place, other);
        }
        3 => values.clear(),
        _ => values.push(any_value(random)),
    }
}

fn object(entries: &mut Map<String, Value>, random: &mut Random) {
    let key = entries.keys().nth(random.below(entries.len())).cloned().unwrap_or_default();
    match random.below(4) {
        0 => drop(entries.remove(&key)),
        1 => {
            let value = entries.remove(&key).unwrap_or_default();
            entries.insert((*random.pick(&WORDS)).to_owned(), value);
        }
        2 => {
            let value = entries.get(&key).cloned().unwrap_or_default();
            entries.insert(format!("{key}{}", random.below(10)), value);
        }
        _ => drop(entries.insert((*random.pick(&WORDS)).to_owned(), any_value(random))),
    }
}

/// Mutates JSON: changes a value, repeats a key, or nests one value deeply. `None` if `input` is not JSON.
fn json_text(input: &[u8], random: &mut Random) -> Option<String> {
    let mut value: Value = serde_json::from_slice(input).ok()?;
    change(&mut value, random);
    let mut text = value.to_string();
    match random.below(30) {
        0 => nest(&mut text, random),
        1 => {
            let objects: Vec<usize> = text.match_indices('{').map(|(place, _)| place + 1).collect();
            let place = *objects.get(random.below(objects.len()))?;
            let quotes: Vec<usize> =
                text[place..].match_indices('"').take(2).map(|(at, _)| place + at).collect();
            if let [from, to] = quotes[..] {
                let twice = format!("{}:{},", &text[from..=to], number(random));
                text.insert_str(place, &twice);
            }
        }
        _ => {}
    }
    Some(text)
}

/// Inserts a deeply nested value after a colon of the text.
fn nest(text: &mut String, random: &mut Random) {
    let colons: Vec<usize> = text.match_indices(':').map(|(place, _)| place + 1).collect();
    let place = colons.get(random.below(colons.len())).copied().unwrap_or(0);
    let depth = [100, 127, 128, 100_000][random.below(4)];
    let nested = format!("{}{},\"k\":", "[".repeat(depth), "]".repeat(depth));
    text.insert_str(place, &nested);
}

/// Mutates the header of a safetensors file; half of the time offsets and values are adapted to it.
fn tensors(input: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(input.get(..8)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    let (header, data) = (input.get(8..end)?, input.get(end..)?);
    let mut text = json_text(header, random)?;
    let mut data = data.to_vec();
    if random.percent(60)
        && let Some((fitted, size)) = fitted(&text)
    {
        text = fitted;
        data.resize(size, 0);
    }
    Some([&(text.len() as u64).to_le_bytes(), text.as_bytes(), &data].concat())
}

/// The header with offsets computed from its shapes, and the size of all values, if it is small.
fn fitted(text: &str) -> Option<(String, usize)> {
    const MOST_BYTES: usize = 1 << 16;
    let mut header: Map<String, Value> = serde_json::from_str(text).ok()?;
    let mut end = 0usize;
    for (_, info) in header.iter_mut().filter(|(name, _)| *name != "__metadata__") {
        let info = info.as_object_mut()?;
        let width = match info.get("dtype")?.as_str()? {
            "F64" | "I64" => 8,
            "F32" | "I32" => 4,
            "BF16" | "F16" => 2,
            _ => 1,
        };
        let sizes = info.get("shape")?.as_array()?.iter();
        let bytes =
            sizes.map(Value::as_u64).try_fold(width as u64, |product, size| product.checked_mul(size?))?;
        let start = end;
        end = end.checked_add(usize::try_from(bytes).ok()?).filter(|&end| end <= MOST_BYTES)?;
        info.insert("data_offsets".to_owned(), vec![start, end].into());
    }
    Some((Value::Object(header).to_string(), end))
}

/// Changes bytes, ignoring their meaning.
fn bytes(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let place = random.below(input.len());
    let end = (place + 1 + random.below(64)).min(input.len());
    match random.below(8) {
        0 if !input.is_empty() => input[place] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[place] = random.next() as u8,
        2 => drop(input.drain(place.min(end)..end)),
        3 => {
            let copy = input[place.min(end)..end].to_vec();
            input.splice(place..place, copy);
        }
        4 => input.truncate(place),
        5 => {
            let word = random.pick(&NUMBERS).to_le_bytes();
            let at = if random.percent(30) { 0 } else { place };
            let end = (at + word.len()).min(input.len());
            input.splice(at..end, word);
        }
        6 => {
            let other = random.pick(seeds);
            let from = random.below(other.len());
            input.truncate(place);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let inserted: Vec<u8> = (0..random.below(16)).map(|_| random.next() as u8).collect();
            input.splice(place..place, inserted);
        }
    }
}
