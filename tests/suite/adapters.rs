//! The harness: one trial for each claim on the CPU, and one for each claim and adapter on GPUs.
//!
//! `REFRAIN_TEST_ADAPTERS` names the adapters to test, as parts of their names separated by commas; without it all
//! that are there are tested. Without any adapter a GPU claim shows as ignored, or fails where
//! `REFRAIN_REQUIRE_GPU=1`: it never passes in silence.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use refrain::{
    AdapterKind, AdapterSummary, Device, GpuOptions, Journal, RecurrentTier, Result, TuningSource,
};

use crate::lending::{borrow, lend};

/// What a test body returns: `?` turns any error into a failure.
pub(crate) type Outcome = std::result::Result<(), Failed>;

/// Names the adapters to test.
const ADAPTERS_VARIABLE: &str = "REFRAIN_TEST_ADAPTERS";
/// Makes a machine without an adapter a failure.
const REQUIRE_VARIABLE: &str = "REFRAIN_REQUIRE_GPU";
/// Tests at once, unless the command line says otherwise: software adapters use all cores by themselves.
const THREADS: usize = 2;

/// An adapter under test.
#[derive(Clone, Debug)]
pub(crate) struct Adapter {
    summary: AdapterSummary,
    /// Its name without the driver's details.
    label: String,
    /// How recurrent layers run on it, unless a test says otherwise.
    recurrent: RecurrentTier,
    turn: Turn,
}

/// An adapter's place among those that take turns.
#[derive(Clone, Copy, Debug)]
struct Turn {
    place: usize,
    of: usize,
}

impl Adapter {
    /// What its driver says of it.
    pub(crate) fn summary(&self) -> &AdapterSummary {
        &self.summary
    }

    /// A device that no other test uses at the same time, but that others may have used before: its memory is released, its
    /// peak reset, and its counters are what they are. The same device each time that a test asks for it.
    pub(crate) fn open(&self) -> Result<Device> {
        self.open_with(&GpuOptions::default())
    }

    /// As [`Adapter::open`], with options.
    pub(crate) fn open_with(&self, options: &GpuOptions) -> Result<Device> {
        let options = self.options(options);
        borrow((self.summary.index, format!("{options:?}")), || self.really_open(&options))
    }

    /// A device opened anew, for claims about what a device does first or counts from its beginning, or that leave it
    /// unusable.
    pub(crate) fn open_anew(&self) -> Result<Device> {
        self.open_anew_with(&GpuOptions::default())
    }

    /// As [`Adapter::open_anew`], with options.
    pub(crate) fn open_anew_with(&self, options: &GpuOptions) -> Result<Device> {
        self.really_open(&self.options(options))
    }

    /// Whether it is this adapter's turn at the case of this number. Where there are several adapters, each case is one's.
    pub(crate) fn takes(&self, case: usize) -> bool {
        case % self.turn.of == self.turn.place
    }

    fn really_open(&self, options: &GpuOptions) -> Result<Device> {
        Device::gpu_with(&format!("gpu:{}", self.summary.index), options)
    }

    fn options(&self, options: &GpuOptions) -> GpuOptions {
        // What this machine's owner has measured and stored is no part of any claim.
        let tuning = match &options.tuning {
            TuningSource::Stored => TuningSource::Off,
            given => given.clone(),
        };
        let chosen = !matches!(tuning, TuningSource::Off) || options.journal != Journal::Off;
        let recurrent = match (options.recurrent, self.recurrent) {
            // By the name of what that is here, so that claims about either borrow the same devices.
            (RecurrentTier::Auto, RecurrentTier::Auto)
                if self.summary.kind == AdapterKind::Software && !chosen =>
            {
                RecurrentTier::Sequence
            }
            (RecurrentTier::Auto, own) => own,
            (wanted, _) => wanted,
        };
        GpuOptions { recurrent, tuning, ..options.clone() }
    }

    fn describe(&self) -> String {
        let AdapterSummary { name, kind, backend, driver, .. } = &self.summary;
        format!("adapter: {name}, {kind}, {backend} ({driver})")
    }
}

/// The adapters under test, and the wishes that none of them fulfils.
struct Chosen {
    adapters: Vec<Adapter>,
    missing: Vec<String>,
}

fn choose(found: Vec<AdapterSummary>, wishes: Option<&str>) -> Chosen {
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
        let turn = Turn { place: adapters.len(), of: 1 };
        adapters.push(Adapter { summary, label, recurrent: RecurrentTier::Auto, turn });
    }
    let of = adapters.len();
    adapters.iter_mut().for_each(|adapter| adapter.turn.of = of);
    Chosen { adapters, missing }
}

/// Whether a test may run beside others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    Welcome,
    Alone,
}

/// What all trials share: who ran where, and the lock that keeps others out.
#[derive(Default)]
struct Shared {
    ran: Mutex<BTreeMap<String, usize>>,
    took: Mutex<Vec<(Duration, String)>>,
    door: RwLock<()>,
}

impl Shared {
    fn run(&self, place: &str, claim: &str, company: Company, body: impl FnOnce() -> Outcome) -> Outcome {
        let timed = || {
            let start = Instant::now();
            let outcome = lend(body);
            let entry = (start.elapsed(), format!("{claim} on {place}"));
            self.took.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
            outcome
        };
        let count = |ran: &mut BTreeMap<String, usize>| *ran.entry(place.to_owned()).or_default() += 1;
        count(&mut self.ran.lock().unwrap_or_else(PoisonError::into_inner));
        match company {
            Company::Welcome => {
                let _inside = self.door.read().unwrap_or_else(PoisonError::into_inner);
                timed()
            }
            Company::Alone => {
                let _inside = self.door.write().unwrap_or_else(PoisonError::into_inner);
                timed()
            }
        }
    }

    fn print_slowest(&self) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap_or_else(PoisonError::into_inner));
        took.sort_unstable_by(|a, b| b.cmp(a));
        println!("slowest:");
        for (time, claim) in took.iter().take(SLOWEST) {
            println!("{:8.1} s  {claim}", time.as_secs_f64());
        }
    }
}

/// Tests named at the end as those that took longest.
const SLOWEST: usize = 12;

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

    /// A claim about each way in which recurrent layers may run on an adapter. Where there are several adapters, they take
    /// turns at the ways: what each computes in the other, `twins` compares.
    pub(crate) fn gpu_tiers(&mut self, name: &str, body: OnGpu) {
        let ways =
            [(RecurrentTier::Sequence, "many steps at a time"), (RecurrentTier::Steps, "step by step")];
        for (turn, (recurrent, way)) in ways.into_iter().enumerate() {
            self.gpu_at_turn(&format!("{name}, {way}"), turn, recurrent, body);
        }
    }

    /// A claim about one of two ways, on every second adapter from number `turn` on; on all where there is one.
    pub(crate) fn gpu_at_turn(&mut self, name: &str, turn: usize, recurrent: RecurrentTier, body: OnGpu) {
        let adapters = self.chosen.adapters.clone();
        let mut own: Vec<Adapter> = adapters.iter().skip(turn).step_by(2).cloned().collect();
        if adapters.len() == 1 {
            own.clone_from(&adapters);
        }
        let of = own.len();
        for (place, adapter) in own.iter_mut().enumerate() {
            (adapter.recurrent, adapter.turn) = (recurrent, Turn { place, of });
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
macro_rules! on_gpu_tiers {
    ($suite:expr, $($claim:ident),+ $(,)?) => {
        $($suite.gpu_tiers(concat!(module_path!(), "::", stringify!($claim)), $claim);)+
    };
}

pub(crate) use {on_cpu, on_gpu, on_gpu_tiers, plain_on_cpu};

fn summary(index: usize, name: &str) -> AdapterSummary {
    AdapterSummary {
        index,
        name: name.to_owned(),
        kind: refrain::AdapterKind::Software,
        backend: "vulkan".to_owned(),
        driver: "test".to_owned(),
        max_buffer_bytes: 1,
        max_binding_bytes: 1,
        workgroup_bytes: 1,
        workgroup_invocations: 1,
        subgroup_sizes: (1, 1),
        immediate_bytes: 0,
        features: Vec::new(),
    }
}

fn wishes_choose_adapters_and_missing_ones_are_told() -> Outcome {
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

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(suite, wishes_choose_adapters_and_missing_ones_are_told);
}
