//! Models in storages that are real: HDFS by both of its protocols, and S3.

mod credentials;
mod faults;
mod places;
mod published;
