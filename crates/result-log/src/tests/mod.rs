//! The log as its users rely on it. Small segments, so that few records fill many.

mod behaviour;
mod compaction;
mod damage;
mod holes;
mod locks;
mod maintenance;
mod model;
mod processes;
mod restored;
mod unreadable;

use std::path::Path;

use bytes::Bytes;
use sqlflow_job::JobId;
use sqlflow_proto::record::{Notice, Output, Record, StoredRecord, gap, record::Payload};

use crate::fixture::*;
use crate::{Entry, LogError, LogOptions, ResultLog, SegmentLog};
