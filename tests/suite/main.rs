//! All integration tests in one binary; see `adapters` for how claims become tests on every adapter.

mod adapters;
mod checkpoints;
mod child;
mod custom;
mod directions;
mod equivalence;
mod exhaustion;
mod extremes;
mod files;
mod golden;
mod gradients;
mod hostile;
mod imports;
mod keras;
mod layer_norm;
mod lending;
mod limits;
mod masks;
mod memory;
mod messages;
mod misuse;
mod models;
mod noise;
mod on_chip;
mod options;
mod owners;
mod packed;
mod pairs;
mod peak;
mod products;
mod profile;
mod properties;
mod recurrent;
mod resident;
mod saving;
mod slices;
mod stateful;
mod steps;
mod structure;
mod support;
mod threads;
mod tiers;
mod training;
mod tuning;
mod twins;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = child::asked_for(&[resident::CLAIMS, exhaustion::CLAIMS]) {
        return code;
    }
    let mut suite = adapters::Suite::from_environment();
    adapters::register(&mut suite);
    structure::register(&mut suite);
    gradients::register(&mut suite);
    recurrent::register(&mut suite);
    properties::register(&mut suite);
    packed::register(&mut suite);
    masks::register(&mut suite);
    noise::register(&mut suite);
    stateful::register(&mut suite);
    layer_norm::register(&mut suite);
    options::register(&mut suite);
    pairs::register(&mut suite);
    products::register(&mut suite);
    checkpoints::register(&mut suite);
    threads::register(&mut suite);
    tiers::register(&mut suite);
    slices::register(&mut suite);
    directions::register(&mut suite);
    on_chip::register(&mut suite);
    models::register(&mut suite);
    golden::register(&mut suite);
    files::register(&mut suite);
    hostile::register(&mut suite);
    saving::register(&mut suite);
    imports::register(&mut suite);
    keras::register(&mut suite);
    custom::register(&mut suite);
    messages::register(&mut suite);
    misuse::register(&mut suite);
    owners::register(&mut suite);
    training::register(&mut suite);
    equivalence::register(&mut suite);
    extremes::register(&mut suite);
    tuning::register(&mut suite);
    twins::register(&mut suite);
    limits::register(&mut suite);
    memory::register(&mut suite);
    resident::register(&mut suite);
    exhaustion::register(&mut suite);
    peak::register(&mut suite);
    profile::register(&mut suite);
    suite.run()
}
