//! Files that are replaced while others write and read them: a reader never finds a broken one.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libtest_mimic::Failed;
use refrain::Device;
use refrain::io::{Checkpoint, Metadata, expect_replaceable, write_atomically};
use refrain::nn::{Linear, Model};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::imports::expect_refused;
use crate::support::Folder;

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn two_writers_of_one_path_never_tear_it() -> Outcome {
    const LOADS: usize = 300;
    const SAVES: usize = 20;
    let folder = Folder::new("two-writers")?;
    let path = folder.path().join("model.safetensors");
    let device = Device::cpu();
    // Two models of different sizes, so that a file of both is neither.
    let models = [3, 300].map(|inputs| {
        let mut model = Model::new(inputs as u64);
        model.add("head", Linear::new(inputs, 40)).map(|_| model)
    });
    let [one, two] = models;
    let (one, two) = (one?, two?);
    Checkpoint::save(&path, &one, &one.initialize(&device)?, &Metadata::new())?;
    let (saves, done) = ([const { AtomicUsize::new(0) }; 2], AtomicBool::new(false));
    let write = |model: &Model, saves: &AtomicUsize| {
        let parameters = model.initialize(&device)?;
        while !done.load(Ordering::Relaxed) {
            Checkpoint::save(&path, model, &parameters, &Metadata::new())?;
            saves.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<(), refrain::Error>(())
    };
    let mut sizes = Vec::new();
    std::thread::scope(|scope| {
        let writers = [(&one, &saves[0]), (&two, &saves[1])];
        let writers = writers.map(|(model, saves)| scope.spawn(|| write(model, saves)));
        let both_wrote = || saves.iter().all(|saves| saves.load(Ordering::Relaxed) >= SAVES);
        let mut load = || {
            while sizes.len() < LOADS || !(both_wrote() || writers.iter().any(|writer| writer.is_finished()))
            {
                sizes.push(Checkpoint::load(&path, &device)?.parameters.count());
            }
            Ok::<(), refrain::Error>(())
        };
        let loaded = load();
        done.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().map_err(|_| Failed::from("a writer panicked".to_owned()))??;
        }
        Ok::<(), Failed>(loaded?)
    })?;
    for size in [4 * 40, 301 * 40] {
        assert!(sizes.contains(&size), "no load found the model of {size} parameters");
    }
    assert_eq!(names(folder.path())?, ["model.safetensors"], "partial files are left behind");
    Ok(())
}

/// What earlier versions wrote first was `.NAME.PID.partial`, opened even if it was there: a link of that name was followed.
#[cfg(unix)]
fn a_link_with_the_name_of_a_partial_file_is_not_followed() -> Outcome {
    let folder = Folder::new("planted")?;
    let (path, victim) = (folder.path().join("model"), folder.path().join("victim"));
    fs::write(&victim, b"untouched")?;
    let planted = folder.path().join(format!(".model.{}.partial", std::process::id()));
    std::os::unix::fs::symlink(&victim, planted)?;
    write_atomically(&path, b"new")?;
    assert_eq!(fs::read(&path)?, b"new");
    assert_eq!(fs::read(&victim)?, b"untouched");
    Ok(())
}

#[cfg(unix)]
fn a_replaced_file_keeps_its_mode_and_a_link_stays_a_link() -> Outcome {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let folder = Folder::new("mode")?;
    let path = folder.path().join("model");
    let mode = |path: &Path| Ok::<u32, std::io::Error>(fs::metadata(path)?.permissions().mode() & 0o777);
    // A new file has the mode that every program's files have here.
    let usual = folder.path().join("usual");
    fs::write(&usual, b"")?;
    write_atomically(&path, b"one")?;
    assert_eq!(mode(&path)?, mode(&usual)?);
    for wanted in [0o600, 0o664, 0o444, 0o755] {
        fs::set_permissions(&path, fs::Permissions::from_mode(wanted))?;
        write_atomically(&path, b"two")?;
        assert_eq!(mode(&path)?, wanted, "{:o} instead of {wanted:o}", mode(&path)?);
    }
    // Only a privileged process can give a file away: then the owner is kept, too.
    if std::os::unix::fs::chown(&path, Some(1234), Some(4321)).is_ok() {
        write_atomically(&path, b"three")?;
        let found = fs::metadata(&path)?;
        assert_eq!((found.uid(), found.gid(), mode(&path)?), (1234, 4321, 0o755));
        // A change of owner clears the bit that runs a program as its owner: the mode comes after it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755))?;
        write_atomically(&path, b"four")?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o7777, 0o4755);
    }

    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    let (target, link) = (elsewhere.join("target"), folder.path().join("link"));
    fs::write(&target, b"old")?;
    symlink("elsewhere/target", &link)?;
    write_atomically(&link, b"new")?;
    assert!(fs::symlink_metadata(&link)?.is_symlink());
    assert_eq!(fs::read(&target)?, b"new");
    assert_eq!(names(&elsewhere)?, ["target"]);
    let dangling = folder.path().join("dangling");
    symlink("nowhere", &dangling)?;
    expect_refused(write_atomically(&dangling, b"new"), &["dangling", "symbolic link"])?;
    expect_refused(expect_replaceable(&dangling, 10), &["dangling", "symbolic link"])
}

fn only_files_are_replaced() -> Outcome {
    let folder = Folder::new("only-files")?;
    expect_refused(write_atomically(folder.path(), b"new"), &["is a folder, not a regular file"])?;
    expect_refused(write_atomically(Path::new("/"), b"new"), &["is a folder"])?;
    expect_refused(write_atomically(Path::new(""), b"new"), &["is not a file name"])?;
    if Path::new("/dev/full").exists() {
        expect_refused(write_atomically(Path::new("/dev/full"), b"new"), &["is a device"])?;
        expect_refused(expect_replaceable(Path::new("/dev/full"), 1), &["is a device"])?;
    }
    expect_replaceable(&folder.path().join("new"), 10_000)?;
    assert!(names(folder.path())?.is_empty(), "what was tried is removed");
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(suite, two_writers_of_one_path_never_tear_it, only_files_are_replaced);
    #[cfg(unix)]
    on_cpu!(
        suite,
        a_link_with_the_name_of_a_partial_file_is_not_followed,
        a_replaced_file_keeps_its_mode_and_a_link_stays_a_link,
    );
}
