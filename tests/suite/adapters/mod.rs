//! The harness: one trial for each claim on the CPU, and one for each claim and adapter on GPUs.
//!
//! `REFRAIN_TEST_ADAPTERS` names the adapters to test, as parts of their names separated by commas; without it all
//! that are there are tested. Without any adapter a GPU claim shows as ignored, or fails where
//! `REFRAIN_REQUIRE_GPU=1`: it never passes in silence.
//!
//! Here claims are registered; `choice` says on which adapters, `adapter` is what a claim has in hand, and `running` is how
//! its body runs.

mod adapter;
mod choice;
mod running;

use std::process::ExitCode;
use std::sync::{Arc, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use refrain::Device;
use refrain::tuning::RecurrentStrategy;

pub(crate) use self::adapter::Adapter;
use self::adapter::DeviceShare;
use self::choice::{Chosen, choose};
use self::running::{Company, Shared};

/// What a test body returns: `?` turns any error into a failure.
pub(crate) type Outcome = std::result::Result<(), Failed>;

/// Names the adapters to test.
const ADAPTERS_VARIABLE: &str = "REFRAIN_TEST_ADAPTERS";
/// Makes a machine without an adapter a failure.
const REQUIRE_VARIABLE: &str = "REFRAIN_REQUIRE_GPU";
/// Tests at once, unless the command line says otherwise: software adapters use all cores by themselves.
const THREADS: usize = 2;

/// All trials of the binary, as the modules register them.
pub(crate) struct Suite {
    chosen: Chosen,
    required: bool,
    trials: Vec<Trial>,
    shared: Arc<Shared>,
}

/// A test body that needs no GPU.
pub(crate) type OnCpu = fn() -> Outcome;
/// A test body for one adapter.
pub(crate) type OnGpu = fn(&Adapter) -> Outcome;

impl Suite {
    /// An empty suite for the adapters that the environment asks for.
    pub(crate) fn from_environment() -> Self {
        let wishes = std::env::var(ADAPTERS_VARIABLE).ok();
        Self {
            chosen: choose(Device::list(), wishes.as_deref()),
            required: std::env::var(REQUIRE_VARIABLE).is_ok_and(|value| value == "1"),
            trials: Vec::new(),
            shared: Arc::default(),
        }
    }

    /// A claim that needs no GPU.
    pub(crate) fn cpu(&mut self, name: &str, body: OnCpu) {
        self.cpu_if(name, true, body);
    }

    /// As [`Suite::cpu`]; shows as ignored where this machine cannot test it.
    pub(crate) fn cpu_if(&mut self, name: &str, testable: bool, body: OnCpu) {
        let shared = Arc::clone(&self.shared);
        let claim = short(name).to_owned();
        let trial = Trial::test(claim.clone(), move || shared.run("the CPU", &claim, Company::Welcome, body));
        self.trials.push(trial.with_ignored_flag(!testable));
    }

    /// A claim about every adapter.
    pub(crate) fn gpu(&mut self, name: &str, body: OnGpu) {
        self.on_adapters(name, Company::Welcome, |_| true, body);
    }

    /// A test for each strategy of recurrent layers on an adapter. With several adapters, they share the
    /// strategies alternately.
    pub(crate) fn gpu_strategies(&mut self, name: &str, body: OnGpu) {
        let strategies = [
            (RecurrentStrategy::Sequence, "many steps at a time"),
            (RecurrentStrategy::PerStep, "step by step"),
        ];
        for (turn, (recurrent, strategy)) in strategies.into_iter().enumerate() {
            self.gpu_share(&format!("{name}, {strategy}"), turn, recurrent, body);
        }
    }

    /// A test of one strategy on every second adapter from number `turn` on; on all if there is only one.
    pub(crate) fn gpu_share(&mut self, name: &str, turn: usize, recurrent: RecurrentStrategy, body: OnGpu) {
        let adapters = self.chosen.adapters.clone();
        let mut own: Vec<Adapter> = adapters.iter().skip(turn).step_by(2).cloned().collect();
        if adapters.len() == 1 {
            own.clone_from(&adapters);
        }
        let of = own.len();
        for (place, adapter) in own.iter_mut().enumerate() {
            (adapter.recurrent, adapter.turn) = (recurrent, DeviceShare { place, of });
        }
        self.chosen.adapters = own;
        self.gpu(name, body);
        self.chosen.adapters = adapters;
    }

    /// As [`Suite::gpu`]; shows as ignored on adapters that cannot test it.
    pub(crate) fn gpu_if(&mut self, name: &str, testable: fn(&Adapter) -> bool, body: OnGpu) {
        self.on_adapters(name, Company::Welcome, testable, body);
    }

    /// As [`Suite::gpu`], with no other test at the same time: for measurements of the whole process.
    pub(crate) fn gpu_alone(&mut self, name: &str, body: OnGpu) {
        self.on_adapters(name, Company::Alone, |_| true, body);
    }

    fn on_adapters(&mut self, name: &str, company: Company, testable: fn(&Adapter) -> bool, body: OnGpu) {
        for adapter in self.chosen.adapters.clone() {
            let shared = Arc::clone(&self.shared);
            let (label, ignored) = (adapter.label.clone(), !testable(&adapter));
            let claim = short(name).to_owned();
            let run = move || shared.run(&adapter.label, &claim, company, || body(&adapter));
            let trial = Trial::test(format!("{label}::{}", short(name)), run);
            self.trials.push(trial.with_ignored_flag(ignored));
        }
        if self.chosen.adapters.is_empty() {
            let fail =
                || Err(Failed::from("no GPU adapter: install a Vulkan driver, such as Mesa's lavapipe"));
            let trial = Trial::test(format!("no adapter::{}", short(name)), fail);
            self.trials.push(trial.with_ignored_flag(!self.required));
        }
    }

    /// Runs what the command line asks for.
    pub(crate) fn run(mut self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        arguments.test_threads.get_or_insert(THREADS.min(cores));
        let missing = std::mem::take(&mut self.chosen.missing);
        let shared = Arc::clone(&self.shared);
        let claim = "adapters::every_adapter_asked_for_is_there";
        self.trials.push(Trial::test(claim, move || {
            shared.run("the CPU", claim, Company::Welcome, || expect_none_missing(&missing))
        }));
        if arguments.list {
            return libtest_mimic::run(&arguments, self.trials).exit_code();
        }
        for adapter in &self.chosen.adapters {
            println!("{}", adapter.describe());
        }
        if self.chosen.adapters.is_empty() {
            println!("adapter: none; every GPU test {}", if self.required { "fails" } else { "is ignored" });
        }
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        let ran = self.shared.ran.lock().unwrap_or_else(PoisonError::into_inner);
        let places: Vec<String> = ran.iter().map(|(place, count)| format!("{count} on {place}")).collect();
        println!("tests ran: {}", if places.is_empty() { "none".to_owned() } else { places.join(", ") });
        self.shared.print_slowest();
        conclusion.exit_code()
    }
}

fn expect_none_missing(missing: &[String]) -> Outcome {
    if missing.is_empty() {
        return Ok(());
    }
    let there: Vec<String> = Device::list().into_iter().map(|summary| summary.name).collect();
    Err(Failed::from(format!("{ADAPTERS_VARIABLE} asks for {missing:?}, there are {there:?}")))
}

/// A claim's path without the name of this binary.
fn short(name: &str) -> &str {
    name.strip_prefix("suite::").unwrap_or(name)
}

/// Registers claims that need no GPU, by the names of their functions.
macro_rules! on_cpu {
    ($suite:expr, $($claim:ident),+ $(,)?) => {
        $($suite.cpu(concat!(module_path!(), "::", stringify!($claim)), $claim);)+
    };
}

/// As [`on_cpu`], for functions that only assert and return nothing.
macro_rules! plain_on_cpu {
    ($suite:expr, $($claim:ident),+ $(,)?) => {
        $($suite.cpu(concat!(module_path!(), "::", stringify!($claim)), || {
            $claim();
            Ok(())
        });)+
    };
}

/// Registers claims about every adapter, by the names of their functions.
macro_rules! on_gpu {
    ($suite:expr, $($claim:ident),+ $(,)?) => {
        $($suite.gpu(concat!(module_path!(), "::", stringify!($claim)), $claim);)+
    };
}

/// As [`on_gpu`], for each way in which recurrent layers may run.
macro_rules! on_gpu_strategies {
    ($suite:expr, $($claim:ident),+ $(,)?) => {
        $($suite.gpu_strategies(concat!(module_path!(), "::", stringify!($claim)), $claim);)+
    };
}

/// Checks a claim about any device on both CPU backends.
pub(crate) fn on_both_backends(claim: fn(&Device) -> Outcome) -> Outcome {
    [Device::cpu(), Device::reference()].iter().try_for_each(claim)
}

/// Registers claims about any device, functions of one: on the CPU and on every adapter.
macro_rules! on_devices {
    ($suite:expr, $($claim:ident),+ $(,)?) => {
        $($suite.cpu(concat!(module_path!(), "::", stringify!($claim)), || {
            $crate::adapters::on_both_backends($claim)
        });
        $suite.gpu(concat!(module_path!(), "::", stringify!($claim)), |adapter| $claim(&adapter.open()?));)+
    };
}

/// As [`on_devices`], for each strategy of recurrent layers on an adapter.
macro_rules! on_devices_strategies {
    ($suite:expr, $($claim:ident),+ $(,)?) => {
        $($suite.cpu(concat!(module_path!(), "::", stringify!($claim)), || {
            $crate::adapters::on_both_backends($claim)
        });
        $suite.gpu_strategies(concat!(module_path!(), "::", stringify!($claim)), |adapter| {
            $claim(&adapter.open()?)
        });)+
    };
}

pub(crate) use {on_cpu, on_devices, on_devices_strategies, on_gpu, on_gpu_strategies, plain_on_cpu};

pub(crate) fn register(suite: &mut Suite) {
    choice::register(suite);
}
