//! The digest of a step document, for the data process beside user code: the document is a file of the user who runs that
//! code, which could give the data process other statements.

use sha2::{Digest as _, Sha256};

/// Name of the secret with which the server passes the digest to the data process. Without it the document is not checked,
/// so both sides take the name from here.
pub const STEP_DIGEST: &str = "step_sha256";

/// The digest of this document, in hexadecimal digits.
#[must_use]
pub fn step_digest(document: &[u8]) -> String {
    hex::encode(Sha256::digest(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of FIPS 180-2, as the data process of DuckDB computes it too.
    #[test]
    fn digest_is_sha256_in_hexadecimal_digits() {
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(step_digest(b"abc"), of_abc);
    }
}
