//! Untrusted paths, such as those of a tarball or an assignment.

use std::io;
use std::path::{Component, Path, PathBuf};

/// The path `relative` within `folder`.
///
/// # Errors
/// The path is empty or absolute, or has `..` in it.
pub fn inside(folder: &Path, relative: impl AsRef<Path>) -> io::Result<PathBuf> {
    let relative = relative.as_ref();
    let mut path = folder.to_owned();
    for component in relative.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(invalid(format!("the path {} leads out of its folder", relative.display())));
            }
        }
    }
    if path == folder {
        return Err(invalid(format!("the path {:?} names nothing", relative.display())));
    }
    Ok(path)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
