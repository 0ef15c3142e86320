//! Which blocks there are on this host.

use std::path::Path;

use tidegate_shm::region::{DirError, RegionDir};

/// Names of the files in `dir` that may be blocks, in alphabetical order, at most [`MAX_NAMES`]. What they are, only
/// opening them tells.
///
/// # Errors
/// The directory cannot be read.
pub fn names(dir: &Path) -> Result<Vec<String>, DirError> {
    let entries = RegionDir::open_base(dir)?.list()?;
    let names = entries.filter_map(|entry| entry.ok()?.name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_block_name(name)).take(MAX_NAMES).collect();
    names.sort_unstable();
    Ok(names)
}

/// `tidegate_<channel>_<8 hex digits>` (3.8).
fn is_block_name(name: &str) -> bool {
    let rest = name.strip_prefix("tidegate_");
    rest.and_then(|rest| rest.rsplit_once('_')).is_some_and(|(channel, digits)| {
        !channel.is_empty() && digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Most names that are listed.
pub const MAX_NAMES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_blocks_end_with_eight_digits() {
        assert!(is_block_name("tidegate_sensor_temperature_9f3c21ab"));
        for name in
            ["tidegate-root", "tidegate_9f3c21ab", "tidegate_a_9f3c21a", "tidegate__9f3c21ab", "x_a_9f3c21ab"]
        {
            assert!(!is_block_name(name), "{name}");
        }
    }
}
