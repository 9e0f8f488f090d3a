//! Frames of the submitter channel, whose encoder in Python is not generated. Python is tested with the same bytes.

use std::fmt::Debug;
use std::path::Path;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Deserialize;
use serde_json::Value;
use sqlflow_proto::agent::{AgentFrame, SubmitterFrame};

#[derive(Deserialize)]
struct Case {
    name: String,
    message: String,
    /// The message as JSON, with the names of the .proto files.
    fields: Value,
    hex: String,
}

fn cases() -> Vec<Case> {
    // At run time: the program may have been compiled in another clone that shares the target folder.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let text = std::fs::read_to_string(Path::new(&folder).join("tests/submitter_channel.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Decodes the bytes and encodes them again: a field that the type does not have would be missing.
fn again<M: Message + Default + Debug>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).unwrap().encode_to_vec()
}

#[test]
fn golden_bytes_have_the_golden_fields() {
    let pool = DescriptorPool::decode(sqlflow_proto::DESCRIPTORS).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true);
    let cases = cases();
    assert!(cases.len() > 20);
    for Case { name, message, fields, hex } in cases {
        let bytes = hex::decode(&hex).unwrap();
        let descriptor = pool.get_message_by_name(&message).unwrap();
        let decoded = DynamicMessage::decode(descriptor.clone(), &*bytes).unwrap();
        let found = decoded.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
        assert_eq!(found, fields, "{name}");
        let expected = DynamicMessage::deserialize(descriptor, &fields).unwrap();
        assert_eq!(hex::encode(expected.encode_to_vec()), hex, "{name}");
        let encoded = match &*message {
            "sqlflow.agent.v1.SubmitterFrame" => again::<SubmitterFrame>(&bytes),
            "sqlflow.agent.v1.AgentFrame" => again::<AgentFrame>(&bytes),
            other => panic!("{name}: {other}"),
        };
        assert_eq!(hex::encode(encoded), hex, "{name}");
    }
}
