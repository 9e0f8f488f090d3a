//! What a storage must be able to do for models.

use std::io::{self, Write};

/// One model's place in a storage. Names are file names within it.
pub trait ModelStore: std::fmt::Debug + Send + Sync {
    /// Begins to write a file that nobody sees yet; one of that name that was staged before is replaced.
    ///
    /// # Errors
    /// Those of the storage.
    fn stage(&self, name: &str) -> io::Result<Box<dyn StagedFile>>;

    /// Puts a staged file under its name, whole, in place of the one that is there; durable when this returns.
    ///
    /// # Errors
    /// Those of the storage; the old file is then still there.
    fn commit(&self, name: &str) -> io::Result<()>;

    /// Removes what this attempt and earlier ones of the same step staged.
    ///
    /// # Errors
    /// Those of the storage.
    fn clear(&self) -> io::Result<()>;
}

/// A staged file that is being written.
pub trait StagedFile: Write {
    /// All is written: durable when this returns.
    ///
    /// # Errors
    /// Those of the storage.
    fn finish(self: Box<Self>) -> io::Result<()>;
}
