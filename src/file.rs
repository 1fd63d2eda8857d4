//! Reads regular files, and replaces files atomically.
//!
//! A file is replaced by writing a partial file in the same folder and renaming it. The name of a partial file is
//! `.NAME.XXXXXX.partial` with six random characters; its writer creates it (an existing file is never opened) and holds a
//! lock on it. A process that is killed leaves its partial file behind. The next writer of the same name removes it if
//! it has not been modified for [`ABANDONED`] and no process holds the lock.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::{Builder, NamedTempFile};

use crate::{Error, Result};

/// The age of the last modification from which a partial file counts as abandoned.
const ABANDONED: Duration = Duration::from_secs(60 * 60);
/// The extension of partial files.
const SUFFIX: &str = ".partial";
/// Random characters in the name of a partial file.
const RANDOM: usize = 6;
/// The most bytes of a file's name used in the name of its partial file; file names have at most 255 bytes.
const LONGEST_NAME: usize = 200;

/// Opens a regular file and returns its size. Named pipes, devices, sockets and folders are rejected without opening them,
/// because opening them could block.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64)> {
    let open = || {
        expect_regular(&fs::metadata(path)?)?;
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        expect_regular(&metadata)?;
        Ok((file, metadata.len()))
    };
    open().map_err(|error| Error::io(path, error))
}

/// Reads a regular file of at most `most` bytes. Named pipes, devices, sockets and folders are rejected, and so is a larger
/// file, without reading it.
///
/// # Errors
/// [`Error::Io`]; its kind is [`FileTooLarge`](ErrorKind::FileTooLarge) for a larger file.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("text.txt");
/// refrain::io::write_atomically(&path, b"abc")?;
/// assert_eq!(refrain::io::read_file(&path, 3)?, b"abc");
/// assert!(refrain::io::read_file(&path, 2).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_file(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, size) = open_file(path)?;
    let read = || {
        let too_large = |size: u64| {
            io::Error::new(ErrorKind::FileTooLarge, format!("has {size} bytes; at most {most} are read"))
        };
        if size > most {
            return Err(too_large(size));
        }
        let mut content = Vec::new();
        content.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX))?;
        // The file may grow while it is being read.
        file.take(most.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > most { Err(too_large(content.len() as u64)) } else { Ok(content) }
    };
    read().map_err(|error| Error::io(path, error))
}

/// Replaces the content of `path`: writes a file with a random name in the same folder, flushes it to disk, and renames it.
/// After a full disk or a crash the old file is unchanged; concurrent writers replace the whole content one after the other.
///
/// The new file has the mode of the old one and, if the system permits it, its owner and group. If `path` is a symbolic
/// link, the file that it points to is replaced and the link stays. Also removes partial files of the same name that killed
/// processes left behind, once they are an hour old.
///
/// # Errors
/// [`Error::Io`], also if `path` is a folder, a named pipe or a device, or a link to a missing file.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(content))
}

/// Fails unless [`write_atomically`] could replace `path` by a file of `bytes` bytes now: writes a partial file of that size
/// and removes it. Call it before a long run.
///
/// # Errors
/// As [`write_atomically`].
pub fn expect_replaceable(path: &Path, bytes: u64) -> Result<()> {
    let fill = || {
        let mut partial = Partial::create(&Target::of(path)?)?;
        io::copy(&mut io::repeat(0).take(bytes), partial.file.as_file_mut())?;
        partial.file.as_file().sync_all()
    };
    fill().map_err(|error| Error::io(path, error))
}

fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let replace = || {
        let target = Target::of(path)?;
        let mut partial = Partial::create(&target)?;
        write(partial.file.as_file_mut())?;
        partial.file.as_file().sync_all()?;
        // Failing to clean up must not fail this write.
        partial.remove_abandoned(&target).ok();
        partial.persist(&target)
    };
    replace().map_err(|error| Error::io(path, error))
}

/// The file to be replaced.
struct Target {
    path: PathBuf,
    folder: PathBuf,
    /// The prefix of the names of its partial files.
    prefix: String,
    /// The metadata of the old file, if there is one.
    old: Option<Metadata>,
}

impl Target {
    /// Resolves `path`, which may be a symbolic link; the regular file need not exist yet.
    fn of(path: &Path) -> io::Result<Self> {
        let (path, old) = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => (path.to_owned(), None),
            Err(error) => return Err(error),
            Ok(found) if found.is_symlink() => {
                let end = fs::canonicalize(path).map_err(|error| {
                    let message = format!("is a symbolic link to a file that cannot be found ({error})");
                    io::Error::new(error.kind(), message)
                })?;
                let found = fs::metadata(&end)?;
                (end, Some(found))
            }
            Ok(found) => (path.to_owned(), Some(found)),
        };
        old.as_ref().map_or(Ok(()), expect_regular)?;
        let name =
            path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "is not a file name"))?;
        let name = name.to_string_lossy();
        let longest = (0..=LONGEST_NAME.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
        let prefix = format!(".{}.", &name[..longest.unwrap_or(0)]);
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Self { path, folder, prefix, old })
    }

    /// Whether `name` is a partial file of this target: a current name, or `.NAME.PID.partial` of earlier versions.
    fn owns(&self, name: &str) -> bool {
        let middle = name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_suffix(SUFFIX));
        middle.is_some_and(|middle| {
            let is_random = middle.len() == RANDOM && middle.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let is_process =
                (1..=10).contains(&middle.len()) && middle.bytes().all(|byte| byte.is_ascii_digit());
            is_random || is_process
        })
    }
}

/// A partial file; removed on drop unless it has replaced its target.
struct Partial {
    file: NamedTempFile,
}

impl Partial {
    fn create(target: &Target) -> io::Result<Self> {
        let mut builder = Builder::new();
        builder.prefix(&target.prefix).suffix(SUFFIX).rand_bytes(RANDOM);
        #[cfg(unix)]
        if target.old.is_none() {
            use std::os::unix::fs::PermissionsExt;
            // The default mode of new files, reduced by the process' umask; the builder's default is 0600.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(&target.folder)?;
        // Some file systems do not support locks; there the file's age protects it.
        file.as_file().try_lock().ok();
        #[cfg(unix)]
        if let Some(old) = &target.old {
            keep_owner_and_mode(file.as_file(), old)?;
        }
        Ok(Self { file })
    }

    fn persist(self, target: &Target) -> io::Result<()> {
        // On some systems the lock would prevent others from reading the new file until it is closed.
        self.file.as_file().unlock().ok();
        self.file.persist(&target.path)?;
        Ok(())
    }

    /// Removes abandoned partial files of this target.
    fn remove_abandoned(&self, target: &Target) -> io::Result<()> {
        // The clock of the file system, which may be that of another machine.
        let now = self.file.as_file().metadata()?.modified()?;
        for entry in fs::read_dir(&target.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| target.owns(name)) {
                // Files that cannot be examined or removed are left to the next writer.
                remove_if_abandoned(&entry.path(), now).ok();
            }
        }
        Ok(())
    }
}

fn remove_if_abandoned(path: &Path, now: SystemTime) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let age = now.duration_since(found.modified()?).unwrap_or_default();
    if !found.is_file() || age < ABANDONED {
        return Ok(());
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => fs::remove_file(path),
        Err(error) => Err(error.into()),
    }
}

/// Sets the owner and group of `file` to those of `old`, as far as the system permits it, and its mode.
#[cfg(unix)]
fn keep_owner_and_mode(file: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        // Only privileged processes may change the owner; changing only the group is often permitted.
        fchown(file, Some(old.uid()), Some(old.gid())).or_else(|_| fchown(file, None, Some(old.gid()))).ok();
    }
    // After the owner, because changing the owner clears mode bits.
    file.set_permissions(old.permissions())
}

fn expect_regular(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let kind = if found.is_dir() { ErrorKind::IsADirectory } else { ErrorKind::InvalidInput };
    Err(io::Error::new(kind, format!("is {}, not a regular file", describe(found.file_type()))))
}

fn describe(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a named pipe";
        } else if kind.is_socket() {
            return "a socket";
        } else if kind.is_block_device() || kind.is_char_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a folder" } else { "something else" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn aged(path: &Path, age: Duration) -> File {
        let file = File::create(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        file
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_old_file_survives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        write_atomically(&path, b"old").unwrap();
        let refused = replace(&path, |file| {
            file.write_all(b"half of the new cont")?;
            Err(ErrorKind::StorageFull.into())
        });
        assert!(
            matches!(&refused, Err(Error::Io { source, .. }) if source.kind() == ErrorKind::StorageFull),
            "{refused:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["model"], "the partial file is removed");
    }

    #[test]
    fn only_abandoned_partial_files_of_the_same_name_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (old, young) = (2 * ABANDONED, ABANDONED / 2);
        // Left behind by `kill -9`: names of earlier versions and current ones.
        for name in [".model.1234.partial", ".model.aB3xY9.partial"] {
            aged(&folder.path().join(name), old);
        }
        let stay = [
            (".model.12345678901.partial", old),
            (".model.a-3xY9.partial", old),
            (".model.abc.partial", old),
            (".model.notes.txt", old),
            (".model.zzzzzz.partial", young),
            (".other.aB3xY9.partial", old),
            ("model.aB3xY9.partial", old),
        ];
        for (name, age) in stay {
            aged(&folder.path().join(name), age);
        }
        // A writer that was suspended for a long time and continues.
        let live = aged(&folder.path().join(".model.LLLLLL.partial"), old);
        live.lock().unwrap();
        write_atomically(&folder.path().join("model"), b"new").unwrap();
        let mut expected: Vec<&str> = stay.iter().map(|(name, _)| *name).collect();
        expected.extend([".model.LLLLLL.partial", "model"]);
        expected.sort_unstable();
        assert_eq!(names(folder.path()), expected);
        live.unlock().unwrap();
        write_atomically(&folder.path().join("model"), b"new").unwrap();
        assert!(!names(folder.path()).contains(&".model.LLLLLL.partial".to_owned()), "its writer is gone");
    }

    #[test]
    fn a_writer_that_was_suspended_for_long_still_has_its_partial_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let written = replace(&path, |file| {
            file.write_all(b"late")?;
            file.set_modified(SystemTime::now() - 2 * ABANDONED)?;
            write_atomically(&path, b"in between").map_err(io::Error::other)
        });
        assert!(written.is_ok(), "{written:?}");
        assert_eq!(fs::read(&path).unwrap(), b"late");
    }

    #[test]
    fn the_longest_name_that_a_folder_takes_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ü".repeat(127));
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(read_file(&path, 3).unwrap(), b"two");
    }
}
