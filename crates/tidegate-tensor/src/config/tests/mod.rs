//! Rules of chapter 24 and the start-up checks of 3.1, on texts as an operator writes them.

mod rules;
mod values;

use std::collections::HashMap;

use super::*;

/// Tables that make a configuration complete; a test adds keys to `[driver]`, which is open at the end.
const BASE: &str = "
[profiles.cam]
header_nslots = 8
payload_pools = [{ pool_id = 1, stride_bytes = 4096 }]
[streams.front]
stream_id = 10000
profile = 'cam'
[driver]
";

fn load(text: &str) -> Result<Loaded, ConfigError> {
    DriverConfig::from_toml_str(text, &|_| None)
}

/// A complete file with more keys in `[driver]`, and whatever tables follow.
fn with(driver: &str) -> Result<DriverConfig, ConfigError> {
    load(&format!("{BASE}{driver}")).map(|loaded| loaded.config)
}

fn with_env(text: &str, variables: &[(&str, &str)]) -> Result<DriverConfig, ConfigError> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let env = |name: &str| variables.get(name).map(|&value| value.to_owned());
    DriverConfig::from_toml_str(&format!("{BASE}{text}"), &env).map(|loaded| loaded.config)
}

/// Key and place of a refused value.
fn refused(driver: &str) -> (String, Origin) {
    match with(driver).unwrap_err() {
        ConfigError::Value { key, origin, .. } | ConfigError::Channel { key, origin, .. } => (key, origin),
        other => panic!("{driver}: {other}"),
    }
}

fn ranges(list: &[(u32, u32)]) -> IdRanges {
    IdRanges::new(list.iter().map(|&(start, end)| IdRange::new(start, end).unwrap()).collect())
}
