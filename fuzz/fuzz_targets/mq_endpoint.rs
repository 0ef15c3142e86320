//! Endpoints, to bind and to connect.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_mq::{BindEndpoint, ConnectEndpoint};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Err(error) = text.parse::<BindEndpoint>() {
        assert!(!error.to_string().is_empty());
    }
    if let Ok(ConnectEndpoint::Tcp { target, .. }) = text.parse::<ConnectEndpoint>() {
        assert_ne!(target.port, 0, "nothing can be connected to port 0");
        assert!(text.is_ascii());
    }
});
