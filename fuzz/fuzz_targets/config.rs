//! Driver configurations: any text is accepted or refused, and what was accepted survives its own dump.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::tensor::config::DriverConfig;

fuzz_target!(|text: &str| {
    let Ok(loaded) = DriverConfig::from_toml_str(text, &|_| None) else { return };
    let again = DriverConfig::from_toml_str(&loaded.config.to_toml(), &|_| None).expect("own dump");
    assert_eq!(again.config, loaded.config);
});
