//! Makes client and server of one service.

use tonic_build::manual::{Builder, Method, Service};

fn main() -> std::io::Result<()> {
    Builder::new().compile(&[service()]);
    Ok(())
}

fn service() -> Service {
    let method = |name: &str, route: &str, kind: &str| {
        let kind = format!("crate::message::{kind}");
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
