//! Types generated from the `.proto` files in this folder. The comments there are the documentation.
//!
//! The modules are nested as the protobuf packages are.

#![allow(clippy::allow_attributes, unreachable_pub, unused_qualifications, reason = "generated code")]

pub mod bounded_codec;
pub mod decoded_size;
mod job_status;
pub mod model_visibility;
mod rows;
mod sized_encoder;
mod strings;

/// Metadata with the server's version, in the response of ListJobs.
pub const SERVER_VERSION: &str = "sqlflow-server-version";

/// Everything below package `sqlflow`.
pub mod sqlflow {
    /// The public token API and the shapes of its data.
    pub mod v1 {
        pub use crate::rows::{EncodedRows, Rows};
        pub use crate::strings::Strings;

        tonic::include_proto!("sqlflow.v1");
    }
    /// Records of the result log.
    pub mod record {
        #[allow(missing_docs)]
        pub mod v1 {
            tonic::include_proto!("sqlflow.record.v1");
        }
    }
    /// Agent to server, and submitter to agent.
    pub mod agent {
        #[allow(missing_docs)]
        pub mod v1 {
            tonic::include_proto!("sqlflow.agent.v1");
        }
    }
}

/// Package `proto`: the API of the published clients.
pub mod published {
    tonic::include_proto!("proto");
}

/// The submitter channel (`channel.proto`), as both of its ends know it.
pub mod submitter_channel {
    /// Maximum length of a frame, in bytes.
    pub const MAX_FRAME: usize = 16 << 20;
    /// Variable with the number of the channel's descriptor.
    pub const CHANNEL_FD: &str = "SQLFLOW_CHANNEL_FD";
    /// Variable with the number of the descriptor that a command and its companion share.
    pub const COMPANION_FD: &str = "SQLFLOW_COMPANION_FD";
}

pub use sqlflow::{agent::v1 as agent, record::v1 as record, v1};

/// The descriptors of all packages, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest record that an agent makes, in bytes as encoded: the submitter's channel takes frames of 16 MiB. A longer
/// length in front of a record is damage.
pub const MAX_RECORD_BYTES: usize = 17 << 20;
