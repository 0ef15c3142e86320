//! Makes client and server of one service. Each has messages of its own kind: what is sent is shared bytes, what is changed is
//! owned bytes; on the wire they are the same.

use tonic_build::manual::{Builder, Method, Service};

fn main() -> std::io::Result<()> {
    Builder::new().build_server(false).compile(&[service("crate::message::Shared")]);
    // The file is named after the service; the two must not meet.
    let place = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("server");
    std::fs::create_dir_all(&place)?;
    Builder::new().build_client(false).out_dir(place).compile(&[service("crate::message::Owned")]);
    Ok(())
}

fn service(message: &str) -> Service {
    let method = |name: &str, route: &str, kind: &str| {
        let kind = format!("{message}{kind}");
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(&kind)
            .output_type(&kind)
            .codec_path("tonic_prost::ProstCodec")
            .client_streaming()
            .server_streaming()
            .build()
    };
    Service::builder()
        .name("Flip")
        .package("bench")
        .method(method("batches", "Batches", "Batch"))
        .method(method("records", "Records", "Record"))
        .build()
}
