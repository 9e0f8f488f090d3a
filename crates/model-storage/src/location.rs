//! Locations of models: a URI and a name.

use std::fmt;

/// A kind of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A file system.
    File,
    /// HDFS by its own protocol.
    Hdfs,
    /// HDFS over HTTP.
    Webhdfs,
    /// Amazon S3 and compatible stores.
    S3,
    /// Alibaba Cloud Object Storage Service.
    Oss,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Azblob,
}

const SCHEMES: [(&str, Scheme); 7] = [
    ("file", Scheme::File),
    ("hdfs", Scheme::Hdfs),
    ("webhdfs", Scheme::Webhdfs),
    ("s3", Scheme::S3),
    ("oss", Scheme::Oss),
    ("gs", Scheme::Gs),
    ("azblob", Scheme::Azblob),
];

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SCHEMES.iter().find(|(_, scheme)| scheme == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// Location of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLocation {
    /// The kind of storage.
    pub scheme: Scheme,
    /// Host and port of HDFS, which may be empty; bucket of an object store; empty for files.
    pub authority: String,
    /// The model's folder without a trailing slash: `/a/b`.
    pub folder: String,
    /// Last segment of the model's name, which names its files.
    pub last: String,
}

impl ModelLocation {
    /// Root of a model storage. `last` is empty.
    ///
    /// # Errors
    /// A message.
    pub fn root(uri: &str) -> Result<Self, String> {
        Self::parse(uri)
    }

    /// From a URI and the model's name. The path is not percent-decoded, so that every name that the server accepts has
    /// exactly one location.
    ///
    /// # Errors
    /// A message.
    pub fn new(uri: &str, name: &str) -> Result<Self, String> {
        let root = Self::root(uri)?;
        if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(format!("cannot use model name `{name}`: it has an empty, `.` or `..` segment"));
        }
        Ok(Self { last: name.rsplit('/').next().unwrap_or(name).to_owned(), ..root })
    }

    fn parse(uri: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("cannot use {uri}: {why}"));
        let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
        let Some((_, scheme)) = SCHEMES.iter().find(|(name, _)| *name == scheme) else {
            let known = SCHEMES.map(|(name, _)| format!("{name}://")).join(", ");
            return refuse(&format!("a model URI starts with one of {known}"));
        };
        let (authority, folder) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.contains('@') {
            // Not shown: it may hold a password.
            return Err(format!(
                "cannot use a {scheme}:// URI with credentials; set them in the environment"
            ));
        }
        let folder = folder.trim_end_matches('/');
        match scheme {
            Scheme::File if !authority.is_empty() || folder.is_empty() => {
                return refuse("file:// needs an absolute path and no host");
            }
            Scheme::Webhdfs if authority.is_empty() => return refuse("webhdfs:// needs host and port"),
            Scheme::S3 | Scheme::Oss | Scheme::Gs | Scheme::Azblob if authority.is_empty() => {
                return refuse("a bucket must follow ://");
            }
            _ => {}
        }
        if folder.split('/').any(|segment| matches!(segment, "." | "..")) {
            return refuse("it has a `.` or `..` segment");
        }
        let (authority, folder) = (authority.to_owned(), folder.to_owned());
        Ok(Self { scheme: *scheme, authority, folder, last: String::new() })
    }

    /// Name of the file that is the model.
    pub fn tarball(&self) -> String {
        format!("{}.tar.gz", self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_the_last_segment() {
        let location = ModelLocation::new("file:///models/team/m 100%", "team/m 100%").unwrap();
        assert_eq!(
            (location.folder.as_str(), location.tarball().as_str()),
            ("/models/team/m 100%", "m 100%.tar.gz")
        );
    }

    #[test]
    fn every_scheme_is_parsed() {
        for (uri, authority, folder) in [
            ("hdfs://nn:9000/models/m", "nn:9000", "/models/m"),
            ("hdfs:///models/m", "", "/models/m"),
            ("webhdfs://nn:9870/models/m", "nn:9870", "/models/m"),
            ("s3://bucket/a/m/", "bucket", "/a/m"),
            ("gs://bucket", "bucket", ""),
        ] {
            let location = ModelLocation::new(uri, "m").unwrap();
            assert_eq!((location.authority.as_str(), location.folder.as_str()), (authority, folder), "{uri}");
            assert!(uri.starts_with(&format!("{}://", location.scheme)));
        }
    }

    #[test]
    fn names_and_uris_outside_the_folder_are_rejected() {
        for name in ["", ".", "..", "a/../b", "/a", "a//b", "a/"] {
            assert!(ModelLocation::new("file:///models", name).is_err(), "{name}");
        }
        for uri in
            ["ftp://host/m", "/models", "file://host/m", "file://", "s3:///m", "webhdfs:///m", "s3://b/../m"]
        {
            assert!(ModelLocation::new(uri, "m").is_err(), "{uri}");
        }
    }

    #[test]
    fn password_in_a_uri_is_not_shown() {
        let error = ModelLocation::new("s3://key:secret@bucket/m", "m").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
