//! What errors say: the cause, the place, and what would be right.

use refrain::{AdapterKind, Device, Error};

use crate::adapters::{Outcome, Suite, on_cpu};

fn a_hardware_gpu_that_is_not_there_is_told_apart_from_a_wrong_name() -> Outcome {
    let listed = Device::list();
    let hardware = listed.iter().any(|found| found.kind != AdapterKind::Software);
    for wanted in ["gpu", "GPU", " gpu "] {
        match Device::named(wanted) {
            Ok(device) => assert!(hardware && device.adapter_kind() != Some(AdapterKind::Software)),
            Err(error @ Error::NoHardware { .. }) => {
                let message = error.to_string();
                assert!(!hardware && message.starts_with("no hardware GPU was found"), "{message}");
                for software in &listed {
                    assert!(message.contains("software GPU"), "{message}");
                    assert!(message.contains(&format!("`{}`", software.name)), "{message}");
                }
                assert!(message.contains("`cpu`") && !message.contains("gpu:"), "{message}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(suite, a_hardware_gpu_that_is_not_there_is_told_apart_from_a_wrong_name);
}
