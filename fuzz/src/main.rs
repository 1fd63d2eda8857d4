//! Runs mutated inputs through every parser of refrain. A parser must not panic, take more than 2 s, or use more than
//! 256 MiB at once.
//!
//! Inputs are numbered: input n of a target depends only on the seed of the run, the target and n, not on the number of
//! threads. An input that causes a fault is saved under `target/fuzz/`. The table counts faults; with any fault the exit
//! code is 1.
//!
//! ```text
//! cargo run -p refrain-fuzz -- [--inputs N] [--seed S] [--target NAME] [--only N] [--write-seeds]
//! ```

mod memory;
mod mutate;
mod seeds;
mod targets;

use std::cell::RefCell;
use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mutate::{Random, mutated};
use seeds::Seed;
use targets::{TARGETS, Target};

#[global_allocator]
static MEMORY: memory::Counting = memory::Counting;

const MOST_TIME: Duration = Duration::from_secs(2);
const MOST_MEMORY: usize = 256 << 20;
/// An input that takes longer is considered endless, and the program exits.
const ENDLESS: Duration = Duration::from_secs(30);
/// The number of inputs that a thread reserves at once.
const SHARE: u64 = 250;

struct Options {
    inputs: u64,
    seed: u64,
    target: Option<String>,
    only: Option<u64>,
    write_seeds: bool,
}

impl Options {
    fn read() -> Result<Self, Box<dyn Error>> {
        let mut options = Self { inputs: 20_000, seed: 1, target: None, only: None, write_seeds: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--inputs" => options.inputs = value()?.parse()?,
                "--seed" => options.seed = value()?.parse()?,
                "--target" => options.target = Some(value()?),
                "--only" => options.only = Some(value()?.parse()?),
                "--write-seeds" => options.write_seeds = true,
                other => {
                    return Err(format!("`{other}` is not an option; see the top of fuzz/src/main.rs").into());
                }
            }
        }
        Ok(options)
    }
}

/// A target with its seeds and results.
struct Campaign {
    target: &'static Target,
    /// The seed of the random numbers.
    seed: u64,
    seeds: Vec<Seed>,
    contents: Vec<Vec<u8>>,
    next: AtomicU64,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    inputs: u64,
    accepted: u64,
    faults: u64,
    memory: usize,
    time: Duration,
}

/// The result of one input.
struct Watched {
    accepted: bool,
    fault: Option<String>,
    memory: usize,
    time: Duration,
}

thread_local! {
    /// Message and location of the last panic of this thread.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the target on the file at `path`.
fn watch(target: &Target, path: &Path) -> Watched {
    let start = Instant::now();
    let (outcome, memory) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| (target.run)(path))));
    let time = start.elapsed();
    let fault = match &outcome {
        Err(_) => Some(PANIC.with_borrow(|message| format!("panicked: {message}"))),
        Ok(_) if memory > MOST_MEMORY => Some(format!("had {} MiB in use", memory >> 20)),
        Ok(_) if time > MOST_TIME => Some(format!("took {:.1} s", time.as_secs_f64())),
        Ok(_) => None,
    };
    Watched { accepted: outcome.unwrap_or(false), fault, memory, time }
}

/// The input file of one thread, in a file system in memory if there is one.
struct InputFile {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl InputFile {
    fn new() -> std::io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }?;
        Ok(Self { path: folder.path().join("input.safetensors"), _folder: folder })
    }
}

impl Campaign {
    fn new(target: &'static Target, seed: u64) -> Result<Self, Box<dyn Error>> {
        let seeds = seeds::load(target.name)?;
        let contents = seeds.iter().map(|seed| seed.content.clone()).collect();
        let (next, found) = (AtomicU64::new(0), Mutex::default());
        Ok(Self { target, seed, seeds, contents, next, found })
    }

    /// Runs the seeds themselves: each must be accepted, or rejected if it is hostile.
    fn run_seeds(&self, place: &InputFile) -> Result<(), Box<dyn Error>> {
        for seed in &self.seeds {
            fs::write(&place.path, &seed.content)?;
            let watched = watch(self.target, &place.path);
            let wrong = (watched.accepted == seed.is_hostile())
                .then(|| format!("was {}", if watched.accepted { "accepted" } else { "refused" }));
            if let Some(fault) = watched.fault.or(wrong) {
                return Err(format!("the seed {} of {} {fault}", seed.name, self.target.name).into());
            }
        }
        Ok(())
    }

    fn input(&self, index: u64) -> Vec<u8> {
        let name =
            self.target.name.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let mut start = Random::new(self.seed ^ name.rotate_left(40) ^ index.rotate_left(20));
        mutated(self.target.format, &self.contents, &mut Random::new(start.next()))
    }

    fn run(&self, index: u64, place: &InputFile, clock: &Clock) -> Result<(), Box<dyn Error>> {
        let input = self.input(index);
        fs::write(&place.path, &input)?;
        clock.begin();
        let mut watched = watch(self.target, &place.path);
        if watched.fault.is_some() && watched.time > MOST_TIME {
            // The machine may have been busy with other processes, so the input is run again.
            clock.begin();
            watched = watch(self.target, &place.path);
        }
        clock.end();
        if let Some(fault) = &watched.fault {
            let folder = Path::new("target/fuzz");
            fs::create_dir_all(folder)?;
            let kept = folder.join(format!("{}-{}-{index}", self.target.name, self.seed));
            fs::write(&kept, &input)?;
            eprintln!(
                "{} {fault}\n    saved to {}; rerun with --target {} --seed {} --only {index}",
                self.target.name,
                kept.display(),
                self.target.name,
                self.seed
            );
        }
        let mut found = self.found.lock().map_err(|_| "a thread panicked")?;
        found.inputs += 1;
        found.accepted += u64::from(watched.accepted);
        found.faults += u64::from(watched.fault.is_some());
        found.memory = found.memory.max(watched.memory);
        found.time = found.time.max(watched.time);
        Ok(())
    }
}

/// The start of a thread's current input, in milliseconds since the start of the run plus one; 0 between inputs.
struct Clock {
    start: Instant,
    began: AtomicU64,
}

impl Clock {
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }

    fn begin(&self) {
        self.began.store(self.now(), Ordering::Relaxed);
    }

    fn end(&self) {
        self.began.store(0, Ordering::Relaxed);
    }

    fn is_endless(&self) -> bool {
        let began = self.began.load(Ordering::Relaxed);
        began != 0 && Duration::from_millis(self.now().saturating_sub(began)) > ENDLESS
    }
}

/// Runs the inputs of one target after the other until all are done.
fn work(campaigns: &[Campaign], inputs: u64, place: &InputFile, clock: &Clock) -> Result<(), Box<dyn Error>> {
    for campaign in campaigns {
        loop {
            let first = campaign.next.fetch_add(SHARE, Ordering::Relaxed);
            if first >= inputs {
                break;
            }
            for index in first..inputs.min(first + SHARE) {
                campaign.run(index, place, clock)?;
            }
        }
    }
    Ok(())
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let chosen =
        TARGETS.iter().filter(|target| options.target.as_ref().is_none_or(|name| name == target.name));
    let campaigns: Vec<Campaign> =
        chosen.map(|target| Campaign::new(target, options.seed)).collect::<Result<_, _>>()?;
    if campaigns.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        return Err(format!("no such target; the targets are {}", names.join(", ")).into());
    }
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let places: Vec<InputFile> = (0..threads).map(|_| InputFile::new()).collect::<Result<_, _>>()?;
    let clocks: Vec<Clock> = (0..threads).map(|_| Clock { start: begun, began: AtomicU64::new(0) }).collect();
    for campaign in &campaigns {
        campaign.run_seeds(&places[0])?;
    }
    if let Some(index) = options.only {
        for campaign in &campaigns {
            campaign.run(index, &places[0], &clocks[0])?;
        }
    } else {
        let (left, failed) = (AtomicUsize::new(threads), Mutex::new(None));
        std::thread::scope(|scope| {
            for (place, clock) in places.iter().zip(&clocks) {
                let (campaigns, left, failed) = (&campaigns, &left, &failed);
                scope.spawn(move || {
                    if let Err(error) = work(campaigns, options.inputs, place, clock)
                        && let Ok(mut failed) = failed.lock()
                    {
                        *failed = Some(error.to_string());
                    }
                    left.fetch_sub(1, Ordering::Release);
                });
            }
            while left.load(Ordering::Acquire) > 0 {
                std::thread::sleep(Duration::from_millis(100));
                if let Some((place, _)) = places.iter().zip(&clocks).find(|(_, clock)| clock.is_endless()) {
                    let kept = Path::new("target/fuzz/endless");
                    fs::create_dir_all("target/fuzz").and_then(|()| fs::copy(&place.path, kept)).ok();
                    eprintln!("an input does not terminate; it is saved to {}", kept.display());
                    std::process::exit(1);
                }
            }
        });
        if let Ok(Some(error)) = failed.into_inner() {
            return Err(error.into());
        }
    }
    println!("seed {}, {threads} threads, {:.0} s", options.seed, begun.elapsed().as_secs_f64());
    println!(
        "{:10} {:>9} {:>9} {:>7} {:>12} {:>12}",
        "target", "inputs", "accepted", "faults", "peak memory", "longest"
    );
    let mut faults = 0;
    for Campaign { target, found, .. } in &campaigns {
        let Found { inputs, accepted, faults: own, memory, time } =
            &*found.lock().map_err(|_| "a thread panicked")?;
        let (memory, time) = (*memory as f64 / f64::from(1 << 20), time.as_secs_f64() * 1e3);
        println!("{:10} {inputs:>9} {accepted:>9} {own:>7} {memory:>8.1} MiB {time:>9.1} ms", target.name);
        faults += own;
    }
    Ok(faults == 0)
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|information| {
        PANIC.with_borrow_mut(|message| *message = information.to_string().replace('\n', " "));
    }));
    let outcome = Options::read().and_then(|options| match options.write_seeds {
        true => seeds::write().map(|()| true),
        false => run(&options),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
