//! Compiles the .proto files without protoc.

use prost::Message as _;

const FILES: [&str; 4] = [
    "sqlflow/v1/sqlflow.proto",
    "sqlflow/agent/v1/agent.proto",
    "sqlflow/agent/v1/channel.proto",
    "published/sqlflow.proto",
];

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=sqlflow");
    println!("cargo:rerun-if-changed=published");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Payload bytes stay slices of the received buffer: no copy between the socket and the log.
        .bytes(".")
        // Agent and server forward rows, and must not decode each value.
        .extern_path(".sqlflow.v1.Rows", "crate::rows::EncodedRows")
        // A client must not allocate for each text.
        .extern_path(".sqlflow.v1.Strings", "crate::strings::Strings")
        // A record's payloads differ much in size, but boxing each would cost an allocation per log line.
        .enum_attribute(".", "#[allow(clippy::large_enum_variant)]")
        .codec_path("crate::bounded_codec::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
