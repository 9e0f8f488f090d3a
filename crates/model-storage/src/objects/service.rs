//! The object stores: which this build supports, and how to reach them. Credentials come from the environment.

use std::io;

use opendal::{Builder, Operator};

use crate::{Scheme, http};

/// Whether this build supports the storage.
pub(crate) fn serves(scheme: Scheme) -> bool {
    match scheme {
        Scheme::S3 => cfg!(feature = "s3"),
        Scheme::Oss => cfg!(feature = "oss"),
        Scheme::Gs => cfg!(feature = "gs"),
        Scheme::Azblob => cfg!(feature = "azblob"),
        Scheme::File | Scheme::Hdfs | Scheme::Webhdfs => false,
    }
}

/// A new operator for a bucket, which reads the credentials again.
pub(super) fn operator(scheme: Scheme, bucket: &str) -> io::Result<Operator> {
    let operator = match scheme {
        #[cfg(feature = "s3")]
        Scheme::S3 => built(s3(bucket))?,
        #[cfg(feature = "oss")]
        Scheme::Oss => {
            built(opendal::services::Oss::default().bucket(bucket).endpoint(&variable("OSS_ENDPOINT")))?
        }
        #[cfg(feature = "gs")]
        Scheme::Gs => built(opendal::services::Gcs::default().bucket(bucket))?,
        #[cfg(feature = "azblob")]
        Scheme::Azblob => built(
            opendal::services::Azblob::default().container(bucket).endpoint(&variable("AZBLOB_ENDPOINT")),
        )?,
        other => return Err(io::Error::other(format!("{other}:// is not an object store"))),
    };
    http::timed(operator)
}

pub(super) fn built(builder: impl Builder) -> io::Result<Operator> {
    Operator::new(builder).map_err(http::io_error)
}

/// With the environment variables of other S3 clients.
#[cfg(feature = "s3")]
fn s3(bucket: &str) -> opendal::services::S3 {
    let builder =
        opendal::services::S3::default().bucket(bucket).region(&region()).checksum_algorithm("crc32c");
    let endpoint = Some(variable("AWS_ENDPOINT_URL_S3"))
        .filter(|it| !it.is_empty())
        .unwrap_or_else(|| variable("AWS_ENDPOINT_URL"));
    if endpoint.is_empty() { builder } else { builder.endpoint(&endpoint) }
}

#[cfg(feature = "s3")]
pub(super) fn region() -> String {
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"].map(variable).into_iter().find(|it| !it.is_empty());
    named.unwrap_or_else(|| "us-east-1".to_owned())
}

/// Empty if it is not set.
#[cfg(any(feature = "s3", feature = "oss", feature = "azblob"))]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
