//! Which of a machine's adapters are tested: those that the wishes name, each under a label of its own.

use refrain::AdapterSummary;
use refrain::tuning::RecurrentStrategy;

use super::adapter::{Adapter, DeviceShare};
use super::{Outcome, Suite, on_cpu};
use crate::support::card;

/// The adapters under test, and the wishes that none of them fulfils.
pub(super) struct Chosen {
    pub(super) adapters: Vec<Adapter>,
    pub(super) missing: Vec<String>,
}

/// Those of `found` that `wishes` name, parts of names separated by commas; all without wishes.
pub(super) fn choose(found: Vec<AdapterSummary>, wishes: Option<&str>) -> Chosen {
    let wishes: Vec<String> = wishes
        .unwrap_or_default()
        .split(',')
        .map(|wish| wish.trim().to_lowercase())
        .filter(|wish| !wish.is_empty())
        .collect();
    let fulfils =
        |wish: &String, summary: &AdapterSummary| summary.name.to_lowercase().contains(wish.as_str());
    let missing = wishes.iter().filter(|wish| !found.iter().any(|summary| fulfils(wish, summary)));
    let missing = missing.cloned().collect();
    let mut adapters: Vec<Adapter> = Vec::new();
    for summary in found {
        if !wishes.is_empty() && !wishes.iter().any(|wish| fulfils(wish, &summary)) {
            continue;
        }
        let mut label = summary.name.split(" (").next().unwrap_or_default().trim().to_owned();
        if adapters.iter().any(|adapter| adapter.label == label) {
            label = format!("{label} {}", summary.index);
        }
        let turn = DeviceShare { place: adapters.len(), of: 1 };
        adapters.push(Adapter { summary, label, recurrent: RecurrentStrategy::Auto, turn });
    }
    let of = adapters.len();
    adapters.iter_mut().for_each(|adapter| adapter.turn.of = of);
    Chosen { adapters, missing }
}

fn summary(index: usize, name: &str) -> AdapterSummary {
    AdapterSummary { index, name: name.to_owned(), ..card() }
}

fn requests_select_adapters_and_missing_ones_are_errors() -> Outcome {
    let found =
        || vec![summary(0, "llvmpipe (LLVM 15)"), summary(1, "SwiftShader Device"), summary(2, "Card")];
    let labels = |chosen: &Chosen| -> Vec<String> {
        chosen.adapters.iter().map(|adapter| adapter.label.clone()).collect()
    };
    let chosen = choose(found(), Some("LLVMpipe, swift,cuda"));
    assert_eq!(labels(&chosen), ["llvmpipe", "SwiftShader Device"]);
    assert_eq!(chosen.missing, ["cuda"]);
    let all = choose(found(), None);
    assert_eq!((all.adapters.len(), all.missing.len()), (3, 0));
    let twice = choose(vec![summary(0, "Card (a)"), summary(1, "Card (b)")], Some(""));
    assert_eq!(labels(&twice), ["Card", "Card 1"]);
    for chosen in [chosen, all, twice] {
        for case in 0..9 {
            let takers = chosen.adapters.iter().filter(|adapter| adapter.takes(case)).count();
            assert_eq!(takers, 1, "adapters that take case {case}");
        }
    }
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_cpu!(suite, requests_select_adapters_and_missing_ones_are_errors);
}
