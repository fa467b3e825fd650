//! Compiles the .proto files without protoc, and keeps the descriptor set for server reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["chat/v1/chat.proto", "chat/v1/gateway.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("chat.v1.descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".chat.v1.LoggedEvent.payload").compile_fds(descriptors)?;
    Ok(())
}
