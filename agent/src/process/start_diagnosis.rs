//! Explains why a program cannot be started, and what to do: the kernel returns only a number.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use nix::errno::Errno;

use super::spawn::NotStarted;
use crate::supervisor::StartFault;

/// Bytes of a `#!` line that the kernel reads.
const HEAD: usize = 256;
/// Maximum length of a loader's name.
const MAX_LOADER: u64 = 4096;

/// Machines by their number in ELF files.
const MACHINES: [(u16, &str); 10] = [
    (3, "x86"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

/// The file of the program, if it exists.
pub(super) fn find(paths: &[PathBuf], working_dir: &Path) -> Option<PathBuf> {
    let is_executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    let mut all = paths.iter().filter(|path| !path.as_os_str().is_empty()).map(|path| working_dir.join(path));
    all.clone().find(is_executable).or_else(|| all.find(|path| path.exists()))
}

/// Explains the `error` of a start of `program`, whose file is `found`. `siblings` is the agent's folder, if it was
/// searched too.
pub(super) fn explain(
    error: io::Error,
    program: &OsStr,
    found: Option<PathBuf>,
    siblings: Option<&Path>,
) -> NotStarted {
    let name = program.display();
    let not = |fault, cause: String| NotStarted { fault, error: anyhow!("cannot start {name}: {cause}") };
    let errno = error.raw_os_error().map(Errno::from_raw);
    match (errno, found) {
        (Some(Errno::ENOENT | Errno::ENOTDIR), Some(file)) => {
            not(StartFault::NotFound, missing(&file).unwrap_or_else(|| error.to_string()))
        }
        (Some(Errno::ENOENT | Errno::ENOTDIR), None) if program.as_encoded_bytes().contains(&b'/') => {
            not(StartFault::NotFound, "no such file".to_owned())
        }
        (Some(Errno::ENOENT), None) if program.is_empty() => {
            not(StartFault::NotFound, "its name is empty".to_owned())
        }
        (Some(Errno::ENOENT | Errno::ENOTDIR), None) => {
            let cause = match siblings {
                Some(folder) => format!(
                    "found neither beside the agent, in {}, nor in any folder of PATH",
                    folder.display()
                ),
                None => "not found in any folder of PATH".to_owned(),
            };
            not(StartFault::NotFound, cause)
        }
        (Some(Errno::EACCES), Some(file)) => not(StartFault::NotExecutable, forbidden(&file)),
        (Some(Errno::ENOEXEC), Some(file)) => not(StartFault::NotExecutable, foreign(&file)),
        (
            Some(
                Errno::EACCES | Errno::ENOEXEC | Errno::EPERM | Errno::E2BIG | Errno::ETXTBSY | Errno::ELOOP,
            ),
            _,
        ) => not(StartFault::NotExecutable, error.to_string()),
        _ => anyhow::Error::new(error).context(format!("cannot start {name}")).into(),
    }
}

/// A warning of a script whose first line has a Windows line end.
pub(super) fn carriage_return(file: &Path) -> Option<String> {
    let script = Script::of(&head(file).ok()?)?;
    script.is_crlf.then(|| {
        format!(
            "the first line of {} ends with a carriage return (Windows line end); {TO_UNIX}",
            file.display()
        )
    })
}

const TO_UNIX: &str = "convert the file, with `sed -i 's/\\r$//'`";

/// Explains a file that exists but whose interpreter or loader does not.
fn missing(file: &Path) -> Option<String> {
    let head = head(file).ok()?;
    if let Some(script) = Script::of(&head) {
        let interpreter = &script.interpreter;
        return Some(if script.is_crlf && !script.has_arguments {
            format!(
                "its first line `#!{interpreter}` ends with a carriage return (Windows line end); {TO_UNIX}"
            )
        } else if Path::new(interpreter).exists() {
            format!(
                "its interpreter {interpreter}, named in its first line, lacks its own interpreter or loader"
            )
        } else {
            format!(
                "its interpreter {interpreter}, named in its first line, does not exist; install it or correct the line"
            )
        });
    }
    let loader = loader(file)?;
    Some(format!(
        "its loader {loader} does not exist: it was built for another C library; build it for this system, or statically"
    ))
}

fn forbidden(file: &Path) -> String {
    let Ok(found) = fs::metadata(file) else { return Errno::EACCES.desc().to_owned() };
    if found.is_dir() {
        return "it is a folder".to_owned();
    }
    if found.permissions().mode() & 0o111 == 0 {
        return "it is not executable; run `chmod +x` on it".to_owned();
    }
    match head(file).ok().and_then(|it| Script::of(&it)) {
        Some(script)
            if Path::new(&script.interpreter).is_dir() || !is_executable(Path::new(&script.interpreter)) =>
        {
            format!("its interpreter {}, named in its first line, is not executable", script.interpreter)
        }
        _ => "permission denied; its owner, its folders or its mount (noexec) do not allow it".to_owned(),
    }
}

fn is_executable(file: &Path) -> bool {
    nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok()
}

/// Explains a file that is not a program for this machine.
fn foreign(file: &Path) -> String {
    let what = match head(file).ok().as_deref().and_then(Script::of) {
        Some(Script { interpreter, .. }) => {
            format!(
                "its interpreter {interpreter}, named in its first line: {}",
                kind(Path::new(&interpreter))
            )
        }
        None => kind(file),
    };
    format!("{} ({what})", Errno::ENOEXEC.desc().to_lowercase())
}

fn kind(file: &Path) -> String {
    let head = head(file).unwrap_or_default();
    let here = std::env::consts::ARCH;
    match head.as_slice() {
        [] => "the file is empty".to_owned(),
        [0x7f, b'E', b'L', b'F', ..] => match machine(&head) {
            Some(machine) if machine != here => {
                format!("it is a program for {machine}, and this machine is {here}; get the one for {here}")
            }
            _ => "it is a damaged program, or one that this kernel cannot run".to_owned(),
        },
        [b'M', b'Z', ..] => "it is a program for Windows".to_owned(),
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => {
            "it is a program for macOS, or compiled Java".to_owned()
        }
        text if !text.contains(&0) => {
            format!(
                "it has no `#!` line that names its interpreter; add one, or start it as `sh {}`",
                file.display()
            )
        }
        _ => "it is no program".to_owned(),
    }
}

fn machine(head: &[u8]) -> Option<String> {
    let bytes = [*head.get(18)?, *head.get(19)?];
    let number = if head[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let name = MACHINES.iter().find(|(it, _)| *it == number).map(|(_, name)| (*name).to_owned());
    Some(name.unwrap_or_else(|| format!("machine number {number}")))
}

struct Script {
    interpreter: String,
    has_arguments: bool,
    is_crlf: bool,
}

impl Script {
    fn of(head: &[u8]) -> Option<Self> {
        let line = head.strip_prefix(b"#!")?.split(|it| *it == b'\n').next()?;
        let is_crlf = line.ends_with(b"\r");
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_ascii_whitespace();
        let interpreter = words.next()?.to_owned();
        Some(Self { interpreter, has_arguments: words.next().is_some(), is_crlf })
    }
}

fn head(file: &Path) -> io::Result<Vec<u8>> {
    // Only of a regular file: reading a pipe would block.
    if !fs::metadata(file)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut head = Vec::new();
    File::open(file)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Loader of an ELF program of this machine.
fn loader(file: &Path) -> Option<String> {
    const LOADER: u64 = 3;
    let file = File::open(file).ok()?;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    let is_64 = header[..5] == [0x7f, b'E', b'L', b'F', 2];
    if !header.starts_with(b"\x7fELF") {
        return None;
    }
    let word = |bytes: &[u8], at: usize, length: usize| {
        let mut word = [0; 8];
        word[..length].copy_from_slice(bytes.get(at..at + length)?);
        Some(u64::from_le_bytes(word))
    };
    let (table, size, count) = if is_64 {
        (word(&header, 0x20, 8)?, word(&header, 0x36, 2)?, word(&header, 0x38, 2)?)
    } else {
        (word(&header, 0x1c, 4)?, word(&header, 0x2a, 2)?, word(&header, 0x2c, 2)?)
    };
    for at in 0..count {
        let mut entry = [0; 56];
        let length = if is_64 { 56 } else { 32 };
        file.read_exact_at(&mut entry[..length], table.checked_add(at * size)?).ok()?;
        if word(&entry, 0, 4)? != LOADER {
            continue;
        }
        let (offset, length) = if is_64 {
            (word(&entry, 8, 8)?, word(&entry, 0x20, 8)?)
        } else {
            (word(&entry, 4, 4)?, word(&entry, 0x10, 4)?)
        };
        let mut name = vec![0; usize::try_from(length.min(MAX_LOADER)).ok()?];
        file.read_exact_at(&mut name, offset).ok()?;
        return Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_is_found_in_a_real_program() {
        let found = loader(Path::new("/bin/sh"));
        assert!(found.as_deref().is_none_or(|it| it.starts_with('/') && it.contains("ld")), "{found:?}");
        assert_eq!(loader(Path::new("/etc/passwd")), None);
    }

    #[test]
    fn damaged_elf_header_does_not_panic() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        let mut bytes = fs::read("/bin/true").unwrap();
        bytes.truncate(4096);
        for at in 0..64 {
            for value in [0, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                fs::write(&file, &damaged).unwrap();
                let _ = (missing(&file), foreign(&file));
            }
        }
        for length in 0..64 {
            fs::write(&file, &bytes[..length]).unwrap();
            let _ = (missing(&file), foreign(&file));
        }
    }
}
