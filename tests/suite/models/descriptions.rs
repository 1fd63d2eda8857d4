//! What descriptions and passes say: options without sense and passes without a mode are refused by name, and a
//! configuration comes back as it was.

use refrain::Device;
use refrain::nn::{Cell, LayerConfig, Linear, Model, ModelConfig, Rnn, Sequences};

use super::{BATCH, STEPS, lengths, tagger};
use crate::adapters::{Outcome, Suite, on_cpu};
use crate::misuse::refuses;
use crate::support::random;

fn passes_without_a_mode_are_refused() -> Outcome {
    let device = Device::cpu();
    let mut model = Model::new(1);
    let layer = model.add("rnn", Rnn::new(Cell::Gru, 3, 3).weight_drop(0.5))?;
    let parameters = model.initialize(&device)?;
    let x = random(&device, 88, &[STEPS, BATCH, 3], 1.0)?;
    let zero = layer.zero_state(&device, BATCH)?;
    let choice = ["training(random_key)", "evaluation()"];
    refuses!(Config, layer.forward(&parameters, &x, &zero), all choice);
    let lengths = lengths(&device)?;
    let refused = layer.forward_sequences(&parameters, &x, &zero, Sequences::ragged(&lengths));
    refuses!(Config, refused, all choice);
    let refused = model.forward(&parameters, &x, &model.zero_state(&device, BATCH)?);
    refuses!(Config, refused, all choice);
    layer.forward_sequences(&parameters, &x, &zero, Sequences::whole().evaluation())?;
    layer.infer(&parameters, &x, &zero)?;
    refuses!(Config, layer.initial_state(&parameters, 1), "learned_initial_state", "zero_state");

    let mut flat = Model::new(1);
    flat.add("head", Linear::new(3, 2))?;
    let parameters = flat.initialize(&device)?;
    let none = flat.zero_state(&device, BATCH)?;
    let ragged = flat.infer_sequences(&parameters, &x, &none, Sequences::ragged(&lengths));
    refuses!(Config, ragged, "sequences", "no recurrent layer");
    Ok(())
}

fn configurations_come_back_as_they_were_and_store_no_absent_option() -> Outcome {
    let text = serde_json::to_string(&tagger()?.config())?;
    let config: ModelConfig = serde_json::from_str(&text)?;
    assert_eq!(config, tagger()?.config());
    let again = Model::from_config(&config)?;
    assert_eq!(again.specs(), tagger()?.specs());
    for option in ["dropout", "input_dropout", "weight_drop", "merge", "residual", "learned_initial_state"] {
        assert!(text.contains(&format!("\"{option}\"")), "{option} is missing in {text}");
        let plain = serde_json::to_string(&LayerConfig::Rnn(Rnn::new(Cell::Gru, 3, 4)))?;
        assert!(!plain.contains(option), "{plain}");
    }
    Ok(())
}

fn names_of_layers_are_bounded() -> Outcome {
    for count in [257, 65_536, 9_000_000] {
        let name = "ü".repeat(count);
        let added = Model::new(1).add(&name, Linear::new(1, 1));
        refuses!(Config, added, "layer name", &count.to_string(), "256");
        // A name that is quoted is cut.
        let mut model = Model::new(1);
        model.add("head", Linear::new(1, 1))?;
        let parameters = model.initialize(&Device::cpu())?;
        let message = parameters.view(&name).map_err(|error| error.to_string()).unwrap_err();
        assert!(message.contains("head.weight") && message.chars().count() < 3000, "{}", &message[..100]);
    }
    let mut model = Model::new(1);
    let longest = "ü".repeat(256);
    model.add(&longest, Linear::new(1, 1))?;
    assert!(model.summary().to_string().contains(&longest));
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        passes_without_a_mode_are_refused,
        configurations_come_back_as_they_were_and_store_no_absent_option,
        names_of_layers_are_bounded,
    );
}
