//! A model's gzipped tarball, as all who read one go through it. `publish/pack` writes them.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry};

/// What `each` sees of a tarball that is read from `R`.
pub type TarEntry<'a, R> = Entry<'a, MultiGzDecoder<BufReader<R>>>;

/// Shows every entry, in order, and reads on to the end: when this returns without an error the tarball is whole.
///
/// # Errors
/// Those of `each`; it cannot be read, or is cut or spoilt.
pub fn read<R: Read>(
    tarball: R,
    mut each: impl FnMut(&mut TarEntry<'_, R>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut archive = Archive::new(MultiGzDecoder::new(BufReader::with_capacity(64 << 10, tarball)));
    for entry in archive.entries()? {
        each(&mut entry?)?;
    }
    // The checksum stands at the end, after what tar reads.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}
