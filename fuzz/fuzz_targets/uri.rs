//! Region URIs, fallback URIs and Aeron channels.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::tensor::channel::Channel;
use tidegate::tensor::uri::{FallbackUri, RegionUri};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(uri) = RegionUri::parse(bytes) {
        assert!(uri.path().is_absolute());
        assert_eq!(RegionUri::parse(uri.to_string().as_bytes()), Ok(uri));
    }
    let _ = FallbackUri::parse(bytes);
    if let Some(channel) = std::str::from_utf8(bytes).ok().and_then(|text| Channel::parse(text).ok()) {
        let plain = channel.without_term_length_and_mtu();
        assert!(channel.conflicts_with(&plain).is_none());
    }
});
